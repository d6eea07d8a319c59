"""Settings of a study that are best on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from offramp.api.answer import answer
from offramp.api.opening import name_code
from offramp.api.options import (
    RUNS,
    CommandOption,
    DataRoot,
    Device,
    Settings,
    UserCode,
    Watcher,
    read_place,
)
from offramp.api.reporter import reporter_for
from offramp.api.train.recipes import study_yaml
from offramp.api.train.request import run_config
from offramp.api.train.run import interruptible
from offramp.errors import OfframpError
from offramp.files import check_replaceable, write_whole
from offramp.store.place import Place, place
from offramp.terminal import TextBlocks

if TYPE_CHECKING:
    from offramp.study.variants import Best

SearchStore = Annotated[
    "Place | str", CommandOption("FOLDER", "The store: a folder.", by_name=True, parse=read_place)
]
HEAD = "# Settings were found by `offramp search`, on validation images: see `search` below.\n"


@answer
class SearchResults:
    """What a search came to.

    Attributes:
        study: The file of the best study.
        best: The best settings: of each strategy by its label, or of all together, by None.
    """

    study: Path
    best: Mapping[str | None, Best]

    def as_json(self) -> dict[str, Any]:
        best = {
            label or "all": {
                "settings": dict(each.settings),
                "validation": each.value,
                "tried": each.tried,
            }
            for label, each in self.best.items()
        }
        return {"study": str(self.study), "found": best}

    def document(self) -> TextBlocks:
        lines = []
        for label, each in self.best.items():
            name = "" if label is None else f"{label}: "
            settings = setting_words(each.settings)
            value = f"validation {100 * each.value:.2f} %, best of {each.tried}"
            lines.append(f"{name}{settings}; {value}")
        return [*lines, f"Written to {self.study}; offramp run {self.study} trains and tests it."]


def search(
    study: Annotated[Path, CommandOption("STUDY")],
    store: SearchStore = RUNS,
    *,
    over: Annotated[Sequence[str], CommandOption("KEY=RANGE")] = (),
    trials: Annotated[int, CommandOption("N", least=1)] = 20,
    per: Literal["strategy"] | None = None,
    out: Path | None = None,
    prune: bool = True,
    seed: Annotated[int, CommandOption("N", least=0)] = 42,
    data_root: DataRoot = None,
    settings: Settings = (),
    device: Device = None,
    user_code: UserCode = True,
    watch: Watcher = None,
) -> SearchResults:
    """Search for a study's best settings by validation accuracy.

    The score is the mean accuracy on validation images, over exits, strategies and seeds. Test images
    are not read. Phases are kept in the store: a phase of two proposals is trained once, and
    `offramp run` of the best study trains only what is missing. You may interrupt it at any time: the
    same command goes on. Optuna makes the proposals (pip install 'offramp[search]').

    The study that it writes says how its settings were found, and so do reports. With --per strategy,
    each strategy is compared at its own best.

    Args:
        study: A study file.
        store: The store, which keeps finished work: a folder.
        over: A setting and its range: recipe.learning_rate=log(1e-3,1), uniform(0,0.5), int(8,64), or a
            list such as [sgd,adam]. Repeatable.
        trials: Number of proposals to try, with those of earlier runs of this search. Where all ranges
            are lists, and this is enough, each combination is tried once.
        per: Search for each strategy alone, with `trials` for each.
        out: Where to write the best study. By default STUDY-found.yaml.
        prune: Give up on a proposal that is worse than the median, or train each to the end.
        seed: The seed of the search, not of the study.
        data_root: The folder of the data set's files. By default the study's data.root, else the data
            set's folder in $OFFRAMP_DATA.
        settings: Settings of the study to change.
        device: Where networks run.
        user_code: Whether the study may name code.
        watch: Called with every event of the training; as for `run`, progress is shown by default, and
            False is silence.

    Raises:
        OfframpError: The study or a range cannot be read, or no proposal could be trained.

    On the command line:
        offramp search demo.yaml --over 'recipe.learning_rate=log(1e-4,0.1)'
        offramp search demo.yaml --over 'recipe.batch_size=[32,64]' \\
          --per strategy
        offramp run demo-found.yaml
    """
    from offramp import device as devices
    from offramp.store.store import Store
    from offramp.study.search import check_installed
    from offramp.study.search import search as searched
    from offramp.study.spec.file import study_files
    from offramp.study.variants import SearchOptions, Variants, check_keys, written

    if not over:
        raise OfframpError("name a setting with `over`, such as 'recipe.learning_rate=log(1e-3,1)'")
    spaces = ranges(over)
    files = study_files(study, (*settings, "search=null"), data_root)
    if len(files) > 1:
        raise OfframpError(f"a search is of one study, and {study} lists {len(files)}; name one")
    whole, *more = files[0].study(["controls=[]"]).by_split
    if more:
        raise OfframpError(
            f"a search is of one study, and each seed of {study} draws its own splits; set "
            "data.split_seed=0, or a single seed"
        )
    check_keys(spaces, per is not None)
    check_installed()
    target = out or Path(f"{study.stem}-found.yaml")
    if out is None and target.exists() and not target.read_bytes().startswith(HEAD.encode()):
        raise OfframpError(f"{target} is there already; move it, or name another file with `out`")
    check_replaceable(target)  # before hours of training
    labels = [s.label for s in whole.strategies] if per is not None else [None]
    for label in labels:
        Variants(files[0], label).check(spaces)
    requests = {label: SearchOptions(spaces, trials, label, prune, seed) for label in labels}
    reporter = reporter_for(watch)
    config, source = run_config(devices.chosen(device)), Store(place(store))
    name_code([whole], user_code, reporter)
    best: dict[str | None, Best] = {}
    with interruptible(reporter):
        for label, request in requests.items():
            variants = Variants(files[0], label)
            happenings = searched(whole, variants, request, source, config)
            best[label] = reporter.search(request, happenings)
    text = HEAD + study_yaml(written(files[0], next(iter(requests.values())), best))
    write_whole(target, text)
    return SearchResults(target, best)


def ranges(over: Sequence[str]) -> dict[str, Any]:
    """The ranges that `over` gives. Raises OfframpError for text that is not KEY=RANGE."""
    from offramp.study.variants import space

    spaces = {}
    for text in over:
        key, equals, rest = text.partition("=")
        if not equals or not key.strip():
            raise OfframpError(
                f"`over` {text}: write a setting and a range, recipe.learning_rate=log(1e-3,1)"
            )
        spaces[key.strip()] = space(rest, f"--over {key.strip()}")
    return spaces


def setting_words(settings: Mapping[str, Any]) -> str:
    """`recipe.learning_rate=0.0123`"""
    return ", ".join(
        f"{key}={setting:.4g}" if isinstance(setting, float) else f"{key}={setting}"
        for key, setting in settings.items()
    )
