"""A study, from Python."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from offramp import device as devices
from offramp.api.chart import Chart, chart
from offramp.api.notes import warn, words
from offramp.errors import OfframpError
from offramp.report import summary
from offramp.store.results import StrategyResult, by_strategy
from offramp.store.store import Store
from offramp.store.table import tidy
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan, check_data, plans
from offramp.study.plan.workers import suited
from offramp.study.run.events import Event, watched
from offramp.study.run.processes import run_pooled
from offramp.study.run.run import RunConfig
from offramp.study.spec import file as spec
from offramp.study.spec.file import Member, members
from offramp.study.spec.models import Study
from offramp.units import counted


@dataclass(frozen=True, repr=False)
class Results:
    """What `run` returns; shown as the table that `offramp run` prints.

    trials: their ids in `store`; `offramp.load` gives the network of one.
    lines: one for each strategy, over its seeds, as in the table.
    failed: reasons, by the key of the phase that failed; everything else went on.
    studies: the results of each file by its path, if a file lists several. The other fields are of all
        files, in the order of the list.

    >>> results
    Test accuracy at each exit, %
    strategy   exit 1  exit 2  exit 3  final
    ...
    >>> results.trials[0]
    'baseline-digits-cnn-digits-s42-...'
    >>> [line.strategy for line in results.lines], dict(results.failed)
    (['baseline', 'two-stage'], {})
    """

    store: Store
    trials: tuple[str, ...]
    lines: tuple[StrategyResult, ...]
    failed: Mapping[str, str]
    studies: Mapping[str, Results] = field(default_factory=dict)

    def __repr__(self) -> str:
        text = io.StringIO()
        summary.show_results(self._printed, text)
        return text.getvalue().rstrip() or self._nothing

    def _repr_html_(self) -> str:
        return summary.html(self._printed) or f"<p>{self._nothing}</p>"

    @property
    def _nothing(self) -> str:
        return f"no trial is finished; {counted(len(self.failed), 'phase')} failed"

    @property
    def _printed(self) -> tuple[summary.Printed, ...]:
        each = self.studies.values() or (self,)
        return tuple(
            table
            for one in each
            if one.lines
            for table in summary.printed(one.lines, len({s for line in one.lines for s in line.seeds}))
        )

    def table(self) -> pd.DataFrame:
        """Every number, one a row. Columns: trial, strategy, model, data, seed, phase, exit, split,
        epoch, metric, value; source, a hash of the weights; measured, whether a cost may be compared
        with others.

        >>> table = results.table()
        >>> test = table[(table["split"] == "test") & (table["metric"] == "accuracy")]
        >>> test.groupby(["strategy", "exit"])["value"].mean().index.tolist()
        [('baseline', 4), ('two-stage', 1), ('two-stage', 2), ('two-stage', 3), ('two-stage', 4)]
        """
        return tidy(self.store, self.trials)

    def figure(self, name: str) -> Chart:
        """A chart by name, such as `accuracy-compute`; `offramp figures --list` has the names.

        Raises OfframpError for an unknown name, for one that stands for several charts (the message
        lists them), and if the results lack the numbers for the chart.

        >>> results.figure("accuracy-compute").name
        'accuracy-compute-digits-cnn-digits'
        """
        return chart(self.store, self.trials, name)


def run(
    study: str | Path | Mapping[str, Any] | Study,
    store: str | Path = "runs",
    *,
    workers: int | Literal["auto"] = 1,
    watch: Callable[[Event], None] | None = None,
) -> Results:
    """Run a study like `offramp run`. Finished work in the store is not trained again.

    study: a file's path, a mapping as in a file, or a `Study`. Studies that a file lists run one after
        another. In a mapping a strategy may be a function (see `fit`), and the recipe a `Recipe`.
    store: the folder that keeps the work, or an address such as "s3://bucket/runs".
    workers: processes, or "auto": as many as suit this machine and the study. To start several, Python
        reads the calling script again, so the script needs `if __name__ == "__main__":`.
    watch: is given every event; `print` shows them, a line each.

    Warns (`OfframpWarning`) of what the command prints as notes, about the images and about choices
    that differ from the study. Failures are in `failed`; everything else goes on. Raises OfframpError
    for input that cannot work.

    >>> study = {
    ...     "seeds": [42],
    ...     "strategies": ["baseline", "two-stage"],
    ...     "backbone": "digits-cnn",
    ...     "data": {"name": "digits", "train_images": 400},
    ...     "recipe": {"epochs": 2, "optimizer": "adam", "learning_rate": 1e-3},
    ... }
    >>> results = offramp.run(study, store="runs/demo")
    >>> len(results.trials)
    2
    """
    if workers != "auto" and (not isinstance(workers, int) or workers < 1):
        raise OfframpError(f"workers must be at least 1, or 'auto'; got {workers!r}")
    if isinstance(study, (str, Path)):
        asked = members(Path(study))
    else:
        given = study if isinstance(study, Study) else spec.parse(study)
        asked = tuple(Member(Path(), one) for one in given.by_split)
    if len(asked) > 1:
        check_data([member.study for member in asked])
    kept = Store(store)
    made = plans([member.study for member in asked])
    found = []
    for plan in made:
        warn(plan.notes)
        found.append(_run(plan, kept, workers, watch))
    by_file: dict[str, list[Results]] = {}
    for member, one in zip(asked, found, strict=True):
        by_file.setdefault(str(member.path), []).append(one)
    studies = {file: _together(kept, its) for file, its in by_file.items()}
    if len(studies) == 1:
        return studies.popitem()[1]
    lines = tuple(line for one in studies.values() for line in one.lines)
    return replace(_together(kept, found), lines=lines, studies=studies)


def _together(store: Store, found: Sequence[Results]) -> Results:
    """The results of a study that ran in several parts."""
    trials = tuple(dict.fromkeys(trial for one in found for trial in one.trials))
    failed = {key: reason for one in found for key, reason in one.failed.items()}
    return Results(store, trials, tuple(by_strategy(store, trials)), failed)


def _run(
    plan: Plan, store: Store, workers: int | Literal["auto"], watch: Callable[[Event], None] | None
) -> Results:
    device = devices.chosen()
    count = suited(plan, store, device).count if workers == "auto" else workers
    conduct = RunConfig(device, cache_folder(), workers=count)
    failed = watched(run_pooled(plan, store, conduct), watch, words(plan), go_on=True)
    done = tuple(t.id for t in plan.trials if store.has_trial(t.id))
    return Results(store, done, tuple(by_strategy(store, done)), failed)
