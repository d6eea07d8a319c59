"""Types of the parameters that several jobs share, and how the command line takes them.

A parameter's help is its entry under `Args:` in the docstring; an alias here has the help of those
that mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from offramp import units
from offramp.errors import OfframpError, nearest
from offramp.store.place import Place, place

if TYPE_CHECKING:
    import torch

    from offramp.api.reporter import Reporter
    from offramp.study.run.events import Event

RUNS = Path("runs")


@dataclass(frozen=True)
class CommandOption:
    """How the command line takes a parameter.

    Attributes:
        metavar: Its value in the help, such as `FILE`.
        help: What the help says, where the docstring has no entry for the parameter.
        names: Its names, in place of one made of the parameter's. What is taken by position has one
            too if it is named here.
        by_name: An option, though the function takes it by position.
        parse: Makes a value of a text and the option's name.
        least: The smallest number.
        most: The largest number.
        complete: The values that there are, for shells, which otherwise complete files.
        default: What the help says of the default, where the parameter's own does not tell.
        needed: Whether the command line needs it, though the function has a default.
        python: Whether the function alone takes it, and no command line.
        shows: What a command shows of what its function tells this parameter: training on a log, steps
            as lines, or, where these follow each other fast, steps in a line that moves on a terminal.
    """

    metavar: str = ""
    help: str = ""
    names: tuple[str, ...] = ()
    by_name: bool = False
    parse: Callable[[str, str], Any] | None = None
    least: float | None = None
    most: float | None = None
    complete: Callable[[], Iterable[str]] = tuple
    default: str = ""
    needed: bool = False
    python: bool = False
    shows: Literal["training", "steps", "fast steps"] | None = None


def read_place(text: str, _: str) -> Place:
    """A store that was named on the command line."""
    return place(text)


def quantity(kind: units.Quantity) -> Callable[[str, str], float]:
    """A parser of quantities of a kind."""
    return lambda text, name: units.parse(text, kind, name)


def size(text: str, name: str) -> int:
    """Bytes of a text such as 10MB, which an option called `name` was given."""
    return int(units.parse(text, units.SIZE, name))


def _cache_size(text: str, name: str) -> str:
    return text if text == "auto" else str(int(units.parse(text, units.SIZE, name, also="auto")))


def strategy_names() -> Iterable[str]:
    """All strategies, for shells."""
    from offramp.strategies import STRATEGIES

    return STRATEGIES


def family_names() -> Iterable[str]:
    """All figures and tables, for shells."""
    from offramp.report.figures import FIGURES
    from offramp.report.tables import TABLES

    return [*FIGURES, *TABLES]


def trial_names() -> Iterable[str]:
    """Trials of the store `runs`, for shells; none where there is no store."""
    from offramp.store.archive import Archive

    try:
        return Archive(RUNS).trials()
    except (OfframpError, OSError):
        return ()


def _store(help: str) -> CommandOption:
    """A store, or several, by position or as an option."""
    return CommandOption("STORE", help, ("--store",), parse=read_place)


StorePlace = Annotated["Place | str", _store("The store: a folder, or s3://BUCKET/NAME.")]
ResultsPlace = Annotated["Place | str", _store("A store, or a folder that offramp store pack wrote.")]
ResultsPlaces = Annotated[
    Sequence[Place | str] | Place | str,
    _store("Stores, or folders that offramp store pack wrote. Several count as one."),
]
TrainingStore = Annotated[
    "Place | str",
    CommandOption(
        "STORE",
        "The store, which keeps finished work: a folder, or s3://BUCKET/NAME.",
        by_name=True,
        parse=read_place,
    ),
]
TrialName = Annotated[
    str,
    CommandOption(
        "TRIAL", "A trial's id, its beginning or its ending.", complete=trial_names, needed=True
    ),
]
InPython = Annotated[Any, CommandOption(python=True)]
NetworkPlace = Annotated[str, CommandOption("TRIAL|BUNDLE", complete=trial_names)]
BackboneName = Annotated[
    str,
    CommandOption("NAME", "A network: resnet18, timm/NAME or my.py:make_net.", by_name=True),
]
DataName = Annotated[
    str,
    CommandOption(
        "NAME", "A data set: digits, cifar10, folder:path/to/images or my.py:make_data.", by_name=True
    ),
]
Device = Annotated[
    "torch.device | str | None",
    CommandOption(
        "NAME",
        "Where networks run: cpu, cuda, cuda:1, mps. By default $OFFRAMP_DEVICE, else CUDA, else cpu.",
    ),
]
Settings = Annotated[
    Sequence[str],
    CommandOption(
        "KEY=VALUE",
        "Change a setting for this run: recipe.epochs=3, seeds='[42]'. Repeatable.",
        ("--set",),
    ),
]
DataRoot = Annotated[Path | None, CommandOption("FOLDER")]
TrustCode = Annotated[
    bool | None,
    CommandOption(
        help="Allow or refuse the store's code, such as my.py:make_net. Code that has changed never "
        "runs. By default you are asked.",
        names=("--trust-code/--no-user-code",),
    ),
]
UserCode = Annotated[
    bool,
    CommandOption(
        help="Refuse a study that names code, such as my.py:make_net.",
        names=("/--no-user-code",),
    ),
]
StageTimesFile = Annotated[
    "Path | str | None",
    CommandOption(
        "FILE",
        "Times of the stages on the target device, to count instead of MACs. Make FILE there: python "
        "run.py --measure --out FILE.",
    ),
]
PolicyFile = Annotated[
    Path | None,
    CommandOption("FILE", "A policy file of offramp calibrate. A bundle has its own."),
]
Anyway = Annotated[bool, CommandOption(help="Go on with an unreliable result, and mark it.")]
Force = Annotated[bool, CommandOption(help="Replace an earlier bundle or page.")]
StudyName = Annotated[str | None, CommandOption("NAME", "Use only the trials of this study.")]
FormatNames = Annotated[str, CommandOption("KINDS", names=("--format",))]


def formats_of(text: str, kinds: Sequence[str]) -> tuple[str, ...]:
    """Kinds of file, named with commas, each once, in the order of `kinds`.

    Raises:
        OfframpError: For another one, and where none is named.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in kinds:
            raise OfframpError(f"`formats` has '{word}'{nearest(word, kinds)}")
    if not words:
        raise OfframpError(f"`formats` is empty; write {', '.join(kinds)}, or some of them")
    return tuple(kind for kind in kinds if kind in words)


Speed = Annotated[float | None, CommandOption("SPEED", parse=quantity(units.SPEED))]
Macs = Annotated[float | None, CommandOption("MACS", parse=quantity(units.MACS))]
Time = Annotated[float | None, CommandOption("TIME", parse=quantity(units.TIME))]
CacheSize = Annotated[str | None, CommandOption("SIZE", parse=_cache_size)]
Watcher = Annotated[
    "Callable[[Event], None] | Reporter | Literal[False] | None", CommandOption(shows="training")
]
StepWatcher = Annotated["Callable[[str], object] | None", CommandOption(shows="steps")]
FastStepWatcher = Annotated["Callable[[str], object] | None", CommandOption(shows="fast steps")]


def check_names(options: Mapping[str, Any], group: type) -> None:
    """Refuse settings that a group does not have, which Python lets pass as further keywords.

    Raises:
        OfframpError: There is one.
    """
    names = group.__annotations__
    for name in options:
        if name not in names:
            raise OfframpError(f"unknown option '{name}'{nearest(name, names)}")


def pause(least: float) -> Any:
    """A parser of the time between two looks."""
    return partial(units.seconds, least=least)


class TrainingOptions(TypedDict, total=False):
    """What is trained and how, besides a study file.

    Attributes:
        strategy: Without a study: train this strategy, by name or as my_file.py:my_strategy.
        backbone: With a strategy: a network, such as resnet18, timm/NAME or my.py:make_net.
        data: With a strategy: a data set, such as digits, cifar10, folder:path/to/images or
            my.py:make_data.
        seed: With a strategy: the seed of weights, order and dropout. 42 by default.
        settings: Settings of the study to change, such as "recipe.epochs=3".
        data_root: The folder of the data set's files. By default the study's data.root, else the data
            set's folder in $OFFRAMP_DATA.
        execution: derived: share phases and cache frozen layers; results stay the same. plain: each
            phase alone, as in the paper. By default what the study says, else derived.
        cache_memory: Memory for the cache of frozen layers, over all workers: 4GB, 0 or auto. By default
            what the study says, else auto: cache and training together at most 60 % of free memory.
        cache_disk: Disk for the part of this cache that memory cannot hold: 4GB, 0 or auto. By default
            what the study says, else auto: half of the free disk.
        device: Where networks run: cpu, cuda, cuda:1, mps. By default $OFFRAMP_DEVICE, else CUDA, else
            cpu.
        user_code: Whether a study may name code, such as my.py:make_net.
    """

    strategy: Annotated[str | None, CommandOption("NAME", complete=strategy_names)]
    backbone: Annotated[str | None, CommandOption("NAME")]
    data: Annotated[str | None, CommandOption("NAME")]
    seed: Annotated[int | None, CommandOption("N", least=0)]
    settings: Settings
    data_root: DataRoot
    execution: Literal["derived", "plain"] | None
    cache_memory: CacheSize
    cache_disk: CacheSize
    device: Device
    user_code: UserCode
