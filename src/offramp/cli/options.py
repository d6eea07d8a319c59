"""The arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.cli.progress.log import Format
from offramp.errors import OfframpError
from offramp.store.place import Place, place


def argument(metavar: str, help: str, **more: Any) -> Any:
    """What a command takes by position."""
    return typer.Argument(metavar=metavar, help=help, **more)


def option(metavar: str, help: str, *names: str, **more: Any) -> Any:
    """What a command takes by name: the parameter's, unless `names` are given."""
    return typer.Option(*names, metavar=metavar, help=help, **more)


def flag(name: str, help: str) -> Any:
    """An option without a value: on where it is given."""
    return typer.Option(name, help=help)


class Execution(StrEnum):
    derived = "derived"
    plain = "plain"


RUNS = Path("runs")
StoreArgument = Annotated[
    Place | None,
    argument("STORE", "The store: a folder, or s3://BUCKET/NAME.  [default: runs]", parser=place),
]
StoreOption = Annotated[
    Place | None,
    option("STORE", "The store, if no argument names it.  [default: runs]", "--store", parser=place),
]
ResultsArgument = Annotated[
    Place | None,
    argument("STORE", "A store, or a folder that offramp pack wrote.  [default: runs]", parser=place),
]
SeveralArgument = Annotated[
    list[Place] | None,
    argument(
        "STORE",
        "Stores, or folders that offramp pack wrote. Several count as one.  [default: runs]",
        parser=place,
    ),
]
TrainingStoreOption = Annotated[
    Place,
    option(
        "STORE",
        "The store, which keeps finished work: a folder, or s3://BUCKET/NAME.",
        "--store",
        parser=place,
    ),
]
DeviceOption = Annotated[
    str | None,
    option(
        "NAME",
        "Where networks run: cpu, cuda, cuda:1. By default $OFFRAMP_DEVICE, else a GPU if there is one.",
        "--device",
    ),
]
SetOption = Annotated[
    list[str] | None,
    option(
        "KEY=VALUE", "Change a setting for this run: recipe.epochs=3, seeds='[42]'. Repeatable.", "--set"
    ),
]
DataRootOption = Annotated[
    Path | None,
    option(
        "FOLDER",
        "The folder of the data set's files. By default the study's data.root, else the data set's "
        "folder in $OFFRAMP_DATA.",
        "--data-root",
    ),
]
DryOption = Annotated[
    bool, flag("--dry-run", "Show the work, the shared part of it, and the time. Start nothing.")
]
WorkersOption = Annotated[
    str,
    option(
        "N",
        "Processes that train at the same time. auto: as many as the cores, the free memory and "
        "the study allow.",
    ),
]
OnOption = Annotated[
    str,
    option(
        "PLACE",
        "Where to train. local: this machine. ray: the Ray cluster at $RAY_ADDRESS, else one started "
        "here. ray://HOST:PORT: that cluster.",
        "--on",
    ),
]
PriceOption = Annotated[
    float | None,
    option(
        "PRICE",
        "With --dry-run --on ray: price of a machine per hour, to show the price of the study.",
        min=0,
    ),
]
ExecutionOption = Annotated[
    Execution | None,
    option(
        "derived|plain",
        "derived: share phases and cache frozen layers; results stay the same. plain: each phase "
        "alone, as in the paper. By default what the study says, else derived.",
    ),
]
CacheMemoryOption = Annotated[
    str | None,
    option(
        "SIZE",
        "Memory for the cache of frozen layers, over all workers: 4GB, 0 or auto. By default what the "
        "study says, else auto: cache and training together at most 60 % of free memory.",
    ),
]
CacheDiskOption = Annotated[
    str | None,
    option(
        "SIZE",
        "Disk for the part of this cache that memory cannot hold: 4GB, 0 or auto. By default what the "
        "study says, else auto: half of the free disk.",
    ),
]
TrustOption = Annotated[
    bool | None,
    typer.Option(
        "--trust-code/--no-user-code",
        help="Allow or refuse the store's code, such as my.py:make_net. Code that has changed never "
        "runs. By default you are asked.",
        show_default=False,
    ),
]
NoUserCodeOption = Annotated[
    bool, flag("--no-user-code", "Refuse a study that names code, such as my.py:make_net.")
]
BudgetOption = Annotated[
    str | None,
    option("TIME", "Cut epochs and images until training here fits this time, such as 2h or 90min."),
]
StageTimesOption = Annotated[
    Path | None,
    option(
        "FILE",
        "Times of the stages on the target device, to count instead of MACs. Make FILE there: python "
        "run.py --measure --out FILE.",
        "--stage-times",
    ),
]
Int8Option = Annotated[
    bool,
    flag("--int8", "Quantize the stages to 8 bits, and choose thresholds again for their answers."),
]
Int8LossOption = Annotated[
    str | None,
    option(
        "SHARE",
        "Accuracy to give up for --int8: 0.01 or 1% is one point.  [default: 0.01]",
        "--int8-loss",
    ),
]
WebOption = Annotated[
    Path | None,
    option(
        "FOLDER", "Also write a web page that classifies images in the browser: a new folder.", "--web"
    ),
]
RuntimeOption = Annotated[
    Path | None,
    option(
        "FOLDER",
        "With --web: the npm package that the page needs. By default node_modules/onnxruntime-web, "
        "here or in a folder above.",
        "--onnxruntime-web",
    ),
]
AccuracyLossOption = Annotated[
    str | None,
    option(
        "SHARE",
        "Accuracy to give up against the final exit: 0.01 or 1% is one point.",
        "--max-accuracy-loss",
    ),
]
MinAccuracyOption = Annotated[
    str | None, option("SHARE", "Accuracy to reach, such as 0.9 or 90%.", "--min-accuracy")
]
MeanMacsOption = Annotated[
    str | None,
    option("MACS", "MACs an image on average: 1.5M, or 40% of the plain network's.", "--max-mean-macs"),
]
RiskOption = Annotated[
    str | None,
    option(
        "SHARE",
        "With a guarantee: share of images that only the full network gets right.",
        "--risk",
    ),
]
P95Option = Annotated[
    str | None,
    option(
        "TIME",
        "Time within which 95 of 100 images are answered, by --stage-times, such as 5ms.",
        "--max-p95-latency",
    ),
]
AnywayOption = Annotated[bool, flag("--anyway", "Go on with an unreliable result, and mark it.")]
JsonOption = Annotated[bool, flag("--json", "Answer in JSON, for programs.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="In logs, a line for every epoch.")]
LogFileOption = Annotated[Path | None, option("FILE", "Append the log to this file too.", "--log-file")]
LogFormatOption = Annotated[
    Format | None,
    option(
        "text|json",
        "Format of the log. json: one object a line, on a terminal too.",
        "--log-format",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the results.")]
RootOption = Annotated[
    Path | None,
    option(
        "FOLDER",
        "The folder of the data set's files. By default the data set's folder in $OFFRAMP_DATA.",
        "--data-root",
    ),
]
PolicyOption = Annotated[
    Path | None, option("FILE", "A policy file of offramp calibrate. A bundle has its own.")
]
OnlyOption = Annotated[
    list[str] | None, option("NAME", "Make only this one; --list names all. Repeatable.")
]
StudyOption = Annotated[str | None, option("NAME", "Use only the trials of this study.")]


def named(*given: Place | None) -> Place:
    """The store that was named, as an argument or with --store; `runs` without either.

    Raises OfframpError where the two differ.
    """
    found = dict.fromkeys(path for path in given if path is not None)
    if len(found) > 1:
        raise OfframpError(f"two stores are named, {' and '.join(map(str, found))}; leave one out")
    return next(iter(found), RUNS)


def several(sources: list[Place] | None, store: Place | None) -> list[Place]:
    """The places that were named, as arguments or with --store; `runs` without either.

    Raises OfframpError for a --store that is not among several.
    """
    if sources and store not in (None, *sources):
        raise OfframpError(f"--store {store} is not among the stores before it; name all as arguments")
    return sources or [named(store)]


def check_bundle_options(policy: Path | None, device: str | None) -> None:
    """Raises OfframpError for options that a bundle does not take."""
    if policy is not None:
        raise OfframpError("a bundle carries its policy; leave --policy out")
    if device not in (None, "cpu"):
        raise OfframpError("a bundle runs on the CPU; leave --device out")
