"""Two strategies or two trials, at each exit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer
from offramp.api.options import RUNS, CommandOption, ResultsPlace, read_place
from offramp.store.place import Place, place
from offramp.terminal import TextBlocks, TextTable

if TYPE_CHECKING:
    from offramp.analysis.measures import Measure
    from offramp.analysis.stats.pairwise import Pairs
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
    store: ResultsPlace = RUNS,
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
        store: A store, or a folder that offramp store pack wrote.
        measure: What to compare: accuracy, loss, f1, seconds-written and so on, or file.py:name.

    Raises:
        OfframpError: There is no such strategy, trial or measure, or nothing pairs the two.

    On the command line:
        offramp compare joint two-stage
        offramp compare joint two-stage --measure seconds-written
        offramp compare joint-digits-cnn-digits-s42 joint-digits-cnn-digits-s43
    """
    from offramp.report.compare import compare as compared
    from offramp.report.compare import trials_in

    return ComparisonReport(compared(trials_in(place(store)), a, b, measure))


@answer
class InteractionReport:
    """Whether differences of strategies depend on the setting.

    Attributes:
        pairs: (a - b) in the first setting minus (a - b) in the other, in the measure's stored unit.
        measure: What is compared.
        images: Test images that were drawn as well as seeds; 0 where the two settings answered unlike
            ones.
        noun: What one is called.
    """

    pairs: Pairs
    measure: Measure
    images: int
    noun: str = "image"

    def as_json(self) -> dict[str, Any]:
        from offramp.analysis.stats.text import plain

        return {"measure": self.measure.name, "images": self.images, "pairs": plain(self.pairs)}

    def document(self) -> TextBlocks:
        from offramp.analysis.stats.pairwise import ALPHA, Pair
        from offramp.analysis.stats.text import in_seeds, p_text

        scale, tested = self.measure.scale, [p for p in self.pairs if isinstance(p, Pair)]
        rows = [
            (
                f"{p.a} – {p.b}",
                f"{scale * p.difference:+.2f}",
                f"{scale * p.low:+.2f} to {scale * p.high:+.2f}",
                p_text(p.p),
            )
            for p in sorted(tested, key=lambda p: p.p)
        ]
        changed = sum(p.p < ALPHA for p in tested)
        over = f"seeds and {self.images:,} test {self.noun}s" if self.images else "seeds"
        words = [
            f"Pairs whose difference is shown to depend on the setting: {changed} of {len(tested)} "
            f"(over {over}, Holm, p < {ALPHA:g})."
        ]
        untested = [f"{p.a} – {p.b}: {in_seeds(p.why)}." for p in self.pairs if not isinstance(p, Pair)]
        if untested and not tested:
            return [*untested]
        points = f", in {self.measure.difference_unit}" if self.measure.difference_unit else ""
        more = "by how much the difference is larger than in the other setting"
        title = f"{self.measure.title}, {more}{points}"
        return [
            TextTable(["pair"], ["difference", "95 % interval", "p"], rows, title),
            *words,
            *untested,
        ]


def interaction(
    a: Annotated[str, CommandOption("A")],
    b: Annotated[str, CommandOption("B")],
    store: ResultsPlace = RUNS,
    *,
    against: Annotated[
        Place | str,
        CommandOption("STORE", "The other setting: a store, or packed results.", parse=read_place),
    ],
    measure: Annotated[str, CommandOption("NAME")] = "accuracy-test",
) -> InteractionReport:
    """Test whether the difference of two strategies depends on the setting.

    Two settings are two stores or packs, such as of long and of short training. A strategy may be first
    in one and fifth in the other by luck alone. This tests the difference of the differences, within
    seeds and test images, for A and B, or for every pair, if these are named all.

    Args:
        a: A strategy's label, or all.
        b: Another strategy, or all.
        store: The first setting: a store, or a folder that offramp store pack wrote.
        against: The other setting.
        measure: What to compare: accuracy, loss, f1, seconds-written and so on, or file.py:name.

    Raises:
        OfframpError: A setting has several networks or data sets, or lacks a strategy.

    On the command line:
        offramp compare joint two-stage runs/long --against runs/short
        offramp compare all all runs/long --against runs/short
    """
    from offramp.analysis.measures import MEASURES, find_measure
    from offramp.report import evidence
    from offramp.report.compare import across

    chosen = find_measure(f"{measure}-test" if f"{measure}-test" in MEASURES else measure)
    first = evidence.open(place(store))
    pairs, images = across(first, evidence.open(place(against)), a, b, chosen)
    return InteractionReport(pairs, chosen, images, first.runs[0].noun)
