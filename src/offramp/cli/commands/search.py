"""`offramp search`: settings of a study that are best on validation."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli import options
from offramp.cli.options import argument, flag, option
from offramp.cli.progress.log import Log, LogOptions, opened
from offramp.cli.progress.proposals import Proposals, words
from offramp.cli.progress.reading import moving, reading_shown
from offramp.cli.render import emit, study_file
from offramp.cli.store import code_named
from offramp.cli.training.run_options import conduct, settings
from offramp.cli.training.study import say_interrupted
from offramp.errors import OfframpError
from offramp.files import replacing, writing
from offramp.store.place import Place, place

if TYPE_CHECKING:
    from offramp.store.store import Store
    from offramp.study.run.run import RunConfig
    from offramp.study.spec.models import Study
    from offramp.study.variants import Best, SearchOptions, Variants


HEAD = "# Settings were found by `offramp search`, on validation images: see `search` below.\n"


class Per(StrEnum):
    strategy = "strategy"


def search(
    study: Annotated[Path, argument("STUDY", "A study file.")],
    over: Annotated[
        list[str] | None,
        option(
            "KEY=RANGE",
            "A setting and its range: recipe.learning_rate=log(1e-3,1), "
            "uniform(0,0.5), int(8,64), or a list such as [sgd,adam]. Repeatable.",
        ),
    ] = None,
    trials: Annotated[
        int, option("N", "Number of proposals to try, with those of earlier runs of this search.", min=1)
    ] = 20,
    per: Annotated[
        Per | None, option("strategy", "Search for each strategy alone, with --trials for each.")
    ] = None,
    out: Annotated[
        Path | None, option("FILE", "Where to write the best study.  [default: STUDY-found.yaml]")
    ] = None,
    no_prune: Annotated[
        bool, flag("--no-prune", "Train every proposal to the end, even if worse than the median.")
    ] = False,
    seed: Annotated[int, option("N", "The seed of the search, not of the study.", min=0)] = 42,
    store: Annotated[
        Place,
        option("FOLDER", "The store, which keeps finished work: a folder.", "--store", parser=place),
    ] = options.RUNS,
    data_root: options.DataRootOption = None,
    set_: options.SetOption = None,
    device: options.DeviceOption = None,
    no_user_code: options.NoUserCodeOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    log_file: options.LogFileOption = None,
    log_format: options.LogFormatOption = None,
) -> None:
    """Search for a study's best settings by validation accuracy.

    The score is the mean accuracy on validation images, over exits, strategies and seeds. Test images
    are not read. Phases are kept in the store: a phase of two proposals is trained once, and
    `offramp run` of the best study trains only what is missing. You may interrupt it at any time: the
    same command goes on. Optuna makes the proposals (pip install 'offramp[search]').

    The study that it writes says how its settings were found, and so do reports. With --per strategy,
    each strategy is compared at its own best.

    \b
    Examples:
      offramp search demo.yaml --over 'recipe.learning_rate=log(1e-4,0.1)'
      offramp search demo.yaml --over 'recipe.batch_size=[32,64]' \\
        --per strategy
      offramp run demo-found.yaml
    """
    from offramp import device as devices
    from offramp.store.store import Store
    from offramp.study.search import check_installed
    from offramp.study.spec.file import studies, study_files
    from offramp.study.variants import SearchOptions, Variants, check_keys, written

    if not over:
        raise OfframpError("name a setting with --over, such as 'recipe.learning_rate=log(1e-3,1)'")
    where = ranges(over)
    overrides = (*settings(set_, None, None, None), "search=null")
    files = study_files(study, overrides, data_root)
    asked = studies(files)
    if len(asked) > 1:
        raise OfframpError(f"a search is of one study, and {study} stands for {len(asked)}; name one")
    check_keys(where, per is not None)
    check_installed()
    target = out or Path(f"{study.stem}-found.yaml")
    if out is None and target.exists() and not target.read_bytes().startswith(HEAD.encode()):
        raise OfframpError(f"{target} is there already; move it, or name another file with --out")
    whole, kept = asked[0].study, Store(store)
    work = conduct(devices.chosen(device), 1)
    labels = [s.label for s in whole.strategies] if per is not None else [None]
    wishes = {label: SearchOptions(where, trials, label, not no_prune, seed) for label in labels}
    found: dict[str | None, Best] = {}
    with opened(LogOptions(log_file, log_format, verbose, quiet), json) as log:
        named = code_named([whole], not no_user_code)
        if named is not None:
            log.say(named, must=True)
        for label, wish in wishes.items():
            variants = Variants(files[0], label)
            found[label] = _searched(whole, variants, wish, kept, work, log)
        _write(written(files[0], next(iter(wishes.values())), found), target)
    if json:
        emit({"study": str(target), "found": {k or "all": _as_json(f) for k, f in found.items()}})
        return
    for label, best in found.items():
        name = "" if label is None else f"{label}: "
        typer.echo(
            f"{name}{words(best.settings)}; validation {100 * best.value:.2f} %, best of {best.tried}"
        )
    typer.echo(f"Written to {target}; offramp run {target} trains and tests it.")


def ranges(over: list[str]) -> dict[str, Any]:
    """The ranges that `--over` gives. Raises OfframpError for text that is not KEY=RANGE."""
    from offramp.study.variants import space

    found = {}
    for text in over:
        key, equals, rest = text.partition("=")
        if not equals or not key.strip():
            raise OfframpError(
                f"--over {text}: write a setting and a range, recipe.learning_rate=log(1e-3,1)"
            )
        found[key.strip()] = space(rest, f"--over {key.strip()}")
    return found


def _searched(
    study: Study, variants: Variants, asked: SearchOptions, store: Store, work: RunConfig, log: Log
) -> Best:
    """Search, and say how it goes."""
    from offramp.process import terminable
    from offramp.study.search import search

    shown = Proposals(asked, log)
    running = search(study, variants, asked, store, work)
    try:
        with terminable(), moving("preparing", log) as status, reading_shown(log, status):
            while True:
                shown.see(next(running), status)
    except StopIteration as end:
        found: Best = end.value
        return found
    except KeyboardInterrupt as error:
        say_interrupted(error, log)
    finally:
        running.close()


def _as_json(found: Best) -> dict[str, Any]:
    return {"settings": dict(found.settings), "validation": found.value, "tried": found.tried}


def _write(said: dict[str, Any], target: Path) -> None:
    with writing(target), replacing(target) as temporary:
        temporary.write_text(HEAD + study_file(said), encoding="utf-8")
