"""What a run came to: accuracy at each exit, accuracy against compute, time; for people and programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.api.answer import answer
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted

if TYPE_CHECKING:
    import pandas as pd

    from offramp.api.chart import Chart
    from offramp.api.train.decide import SeedDecision
    from offramp.store.record import Seconds
    from offramp.store.store import Store
    from offramp.store.table import Spread, StrategyResult
    from offramp.study.plan.workers import Workers

COMPUTE_NOTE = """\
≥ t: an image leaves at the first exit whose confidence is at least t.
written: each phase in full, as the paper runs it (~: estimated, MACs that did
not run taking half to twice as long as those that did).
run: all that the trial reads. added: what no strategy above it reads."""


@answer
class Results:
    """What `run` returns; shown as tables of accuracy and compute.

    Attributes:
        store: Keeps the trials.
        trials: Their ids; `offramp.load` gives the network of one.
        lines: One for each strategy, over its seeds, as in the table.
        failed: Reasons, by the key of the phase that failed; everything else went on.
        studies: The results of each file by its path, if a file lists several. The other fields are of
            all files, in the order of the list.
        seeds: How many seeds the study has.
        failures: Trials that failed, with the reason, in the types of JSON.
        interrupted: What cut the run short; None where nothing did.
        workers: Processes that trained.
        unreliable: Why the results are not to be trusted.
        decided: How seeds were added; None where they were not.
        closing: What was done, a sentence.
        parts: The results of each study that ran, with its file; none of a single one.

    Example:
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
    seeds: int = 0
    failures: Sequence[Mapping[str, Any]] = ()
    interrupted: KeyboardInterrupt | None = None
    workers: Workers | None = None
    unreliable: Sequence[str] = ()
    decided: SeedDecision | None = None
    closing: str = ""
    parts: Sequence[tuple[Path, Results]] = ()
    _parts_shown: bool = False  # as they were finished

    @property
    def exit_code(self) -> int:
        """Of a command: 1 if a trial failed, 130 and so on if it was interrupted."""
        from offramp.process import exit_code

        if self.interrupted is not None:
            return exit_code(self.interrupted)
        return int(bool(self.failures))

    def as_json(self) -> dict[str, Any]:
        if self.parts:
            return {"studies": [{"study": str(path), **part.as_json()} for path, part in self.parts]}
        decided = self.decided
        return {
            "store": str(self.store.root),
            "trials": list(self.trials),
            "results": _lines_json(self.lines),
            "failed": list(self.failures),
            "interrupted": self.interrupted is not None,
            "unreliable": list(self.unreliable),
            "workers": None if self.workers is None else asdict(self.workers),
            **({} if decided is None else {"seeds": {"name": decided.name, **decided.log.as_json()}}),
        }

    def document(self) -> TextBlocks:
        if self.parts:
            parts = [] if self._parts_shown else [part for _, part in self.parts]
            blocks = [block for part in parts for block in part.document()]
            same = len({path for path, _ in self.parts}) == 1
            return [*blocks, *(self._tables() if same else [])]
        blocks = self._tables()
        if self.decided is not None and self.decided.decisions:
            blocks += self.decided.document()
        nothing = f"no trial is finished; {counted(len(self.failed), 'phase')} failed"
        return [*blocks, *([self.closing] if self.closing else [] if blocks else [nothing])]

    def _tables(self) -> list[str | TextTable]:
        seeds = self.seeds or len({seed for line in self.lines for seed in line.seeds})
        return [*result_tables(self.lines, seeds)] if self.lines else []

    def table(self) -> pd.DataFrame:
        """Every number, one a row.

        Columns: trial, strategy, model, data, seed, phase, exit, split, epoch, metric, value; source, a
        hash of the weights; measured, whether a cost may be compared with others.

        Example:
            >>> table = results.table()
            >>> test = table[(table["split"] == "test") & (table["metric"] == "accuracy")]
            >>> test.groupby(["strategy", "exit"])["value"].mean().index.tolist()
            [('baseline', 4), ('two-stage', 1), ('two-stage', 2), ('two-stage', 3), ('two-stage', 4)]
        """
        from offramp.store.table import tidy

        return tidy(self.store, self.trials)

    def figure(self, name: str) -> Chart:
        """A chart by name, such as `accuracy-compute`; `offramp report --figures --list` has the names.

        Raises:
            OfframpError: The name is unknown or stands for several charts (the message lists them), or
                the results lack the numbers for the chart.

        Example:
            >>> results.figure("accuracy-compute").name
            'accuracy-compute-digits-cnn-digits'
        """
        from offramp.api.chart import chart

        return chart(self.store, self.trials, name)


def result_tables(lines: Sequence[StrategyResult], seeds: int) -> tuple[TextTable, TextTable]:
    """Accuracy at each exit; accuracy against compute, with the times. seeds: of the study."""
    return _exits(lines, seeds), _compute(lines)


def _exits(lines: Sequence[StrategyResult], seeds: int) -> TextTable:
    exits = sorted({k for line in lines for k in line.accuracy})
    columns = (*(f"exit {k}" for k in exits[:-1]), "final")
    rows = {
        line.strategy: tuple(percent(line.accuracy[k]) if k in line.accuracy else "–" for k in exits)
        for line in lines
    }
    over = f"{seeds} seeds"
    if any(len(line.seeds) != seeds for line in lines):  # interrupted, or some seeds failed
        columns, over = (*columns, "seeds"), "seeds"
        rows = {line.strategy: (*rows[line.strategy], str(len(line.seeds))) for line in lines}
    spread = f" (mean ± sd over {over})" if seeds > 1 else ""
    title = f"Test accuracy at each exit, %{spread}"
    return TextTable(["strategy"], columns, [(name, *cells) for name, cells in rows.items()], title)


def _compute(lines: Sequence[StrategyResult]) -> TextTable:
    thresholds = sorted({t for line in lines for t in line.thresholds})
    columns = (*(f"≥ {threshold:g}" for threshold in thresholds), "written", "run", "added")
    rows = []
    for line in lines:
        points = [line.thresholds[threshold] for threshold in thresholds]
        cells = (f"{100 * a.mean:.1f} @ {100 * c.mean:.0f}" for a, c in points)
        rows.append((line.strategy, *cells, *_times(line.seconds)))
    title = "Test accuracy % @ compute, % of the plain network's MACs; time a trial"
    return TextTable(["strategy"], columns, rows, title, COMPUTE_NOTE)


def _times(spent: Seconds) -> list[str]:
    written = _short(spent.written) if spent.measured else f"~{_range(spent)}"
    return [written, _short(spent.executed), _short(spent.marginal)]


def _range(spent: Seconds) -> str:
    """`10–19s`; one number where both ends print alike."""
    low, high = spent.written_low, spent.written_high
    unit, size = ("s", 1) if high < 99.95 else ("m", 60) if high < 5970 else ("h", 3600)
    digits = 1 if unit == "h" or high < 9.95 else 0
    ends = f"{low / size:.{digits}f}", f"{high / size:.{digits}f}"
    return _short(high) if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}{unit}"


def percent(value: Spread) -> str:
    """`97.3 ±0.4`, in percent; without the deviation where there is one seed."""
    text = f"{100 * value.mean:.1f}"
    return text if math.isnan(value.sd) else f"{text} ±{100 * value.sd:.1f}"


def _short(seconds: float) -> str:
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m" if seconds < 5970 else f"{seconds / 3600:.1f}h"


def _lines_json(lines: Sequence[StrategyResult]) -> list[dict[str, Any]]:
    """The same numbers for programs; a deviation of one value is not a number."""
    return [
        {
            "strategy": line.strategy,
            "seeds": list(line.seeds),
            "accuracy": {str(k): v._asdict() for k, v in line.accuracy.items()},
            "thresholds": [
                {"threshold": t, "accuracy": a._asdict(), "compute": c._asdict()}
                for t, (a, c) in line.thresholds.items()
            ],
            "seconds": dict(line.seconds.__dict__),
        }
        for line in lines
    ]
