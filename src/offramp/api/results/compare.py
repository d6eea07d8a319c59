"""Two strategies or two trials, at each exit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer
from offramp.api.opening import archived
from offramp.api.options import RUNS, CommandOption, StorePlace
from offramp.terminal import TextBlocks, TextTable

if TYPE_CHECKING:
    from offramp.report.compare import PairComparison


@answer
class ComparisonReport:
    """How much one side differs from the other, at each exit. comparison: the numbers."""

    comparison: PairComparison

    def as_json(self) -> dict[str, Any]:
        return self.comparison.as_json()

    def document(self) -> TextBlocks:
        comparison = self.comparison
        measure, unit, exits = comparison.measure, comparison.paired_by, comparison.exits
        rows = []
        for exit, d in exits.items():
            interval = "–"
            if d.low is not None and d.high is not None:
                interval = f"{measure.scale * d.low:+.2f} to {measure.scale * d.high:+.2f}"
            label = "all" if exit is None else str(exit)
            rows.append((label, f"{measure.scale * d.mean:+.2f}", interval, str(d.pairs)))
        alone = any(d.low is None for d in exits.values())
        points = f", in {measure.difference_unit}" if measure.difference_unit else ""
        sides = f"{comparison.a} minus {comparison.b}"
        return [
            TextTable(
                ["exit"],
                ["difference", "95 % interval", f"{unit}s"],
                rows,
                f"{measure.title}, {sides}{points}, paired by {unit}",
                "One seed allows no interval; run more seeds, or compare two trials." if alone else "",
            )
        ]


def compare(
    a: Annotated[str, CommandOption("A")],
    b: Annotated[str, CommandOption("B")],
    store: StorePlace = RUNS,
    *,
    measure: Annotated[str, CommandOption("NAME")] = "accuracy-test",
) -> ComparisonReport:
    """Compare two strategies, two trials, or groups of any table.

    How much more accurate is A than B on test images? It shows the difference with a 95 % interval
    (Student's t). Two strategies are paired seed by seed: the interval says how much depends on the
    seed. Two trials are paired image by image: the interval says how much depends on the test images.

    Args:
        a: A strategy's label, or a trial's id. With --value, a .csv or .parquet file.
        b: Another strategy, or another trial.
        store: The store: a folder, or s3://BUCKET/NAME.
        measure: What to compare: accuracy, loss, f1, seconds-written and so on, or file.py:name.

    Raises:
        OfframpError: There is no such strategy, trial or measure, or nothing pairs the two.

    On the command line:
        offramp compare joint two-stage
        offramp compare joint two-stage --measure seconds-written
        offramp compare joint-digits-cnn-digits-s42 joint-digits-cnn-digits-s43
    """
    from offramp.report.compare import compare as compared

    return ComparisonReport(compared(archived(store), a, b, measure))
