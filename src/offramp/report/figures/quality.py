"""One number for each exit: accuracy, how good its confidence is, overthinking. On test."""

from __future__ import annotations

from collections.abc import Callable

from offramp.analysis.measures import MEASURES, Measure
from offramp.policy.quality import BINS
from offramp.report.figures.chart import figure, named
from offramp.report.figures.dots import Panel, dots, read_out, spread
from offramp.report.model import Figure
from offramp.report.runs import Runs
from offramp.store.record import TrialRecord

AT_EXIT = ("strategy", "seed", "exit", "value")


def accuracy_by_exit(runs: Runs, measure: Measure = MEASURES["accuracy-test"]) -> list[Figure]:
    """Test accuracy of every exit, or another measure."""
    rows = runs.observations(measure).dropna(subset="exit")
    values = {(s, n, k): v for s, n, k, v in zip(*(rows[c] for c in AT_EXIT), strict=True)}

    def value(trial: TrialRecord, place: int) -> float | None:
        stored = values.get((trial.strategy, trial.seed, trial.exits[place]))
        return None if stored is None else measure.scale * stored

    panels = _panels(runs, value, measure.axis)
    if not panels:
        return []
    caption = (
        f"{measure.title} of each exit when every image leaves there, {runs.where}; {measure.better} is "
        f"better. {spread(panels)}"
    )
    alt = f"Dot plots, one for each exit. {read_out(panels, runs.strategies, False)}"
    chart, name = dots(panels, runs.strategies), named("accuracy-by-exit", measure)
    return figure(runs, name, "answer", f"{measure.title} by exit", caption, alt, chart)


def confidence(runs: Runs) -> list[Figure]:
    """Calibration error, and how well confidence tells right from wrong, by exit."""
    outcomes = runs.evidence.outcomes
    errors = _panels(runs, lambda t, i: _percent(outcomes[t.id].ece[i]), "ECE, %", zero=True)
    tells = _panels(runs, lambda t, i: outcomes[t.id].auroc[i], "AUROC of correctness")
    # Where every answer is right, nothing tells right from wrong.
    panels = [p for error in errors for p in (error, *(t for t in tells if t.title == error.title))]
    caption = (
        f"Left: expected calibration error of the confidence (largest softmax probability, {BINS} bins "
        "of equal width), lower is better. Right: the chance that a right answer is more confident than "
        "a wrong one (AUROC), higher is better and 0.5 is chance. How well thresholds can work depends "
        f"on the right side alone. Test images, {runs.where}. {spread(panels)}"
    )
    title = "Calibration error and discrimination"
    alt = f"Dot plots, a row for each exit. {read_out(panels, runs.strategies)}"
    return figure(runs, "confidence-quality", "more", title, caption, alt, dots(panels, runs.strategies))


def overthinking(runs: Runs) -> list[Figure]:
    """Images that an early exit has right and the last one wrong."""
    several = {t.strategy for t in runs.trials if len(t.exits) > 1}
    if not several:
        return []
    labels = runs.evidence.among(several)
    outcomes = runs.evidence.outcomes
    axis = "right here, wrong last, %"

    def spoiled(trial: TrialRecord, place: int) -> float | None:
        last = place == len(trial.exits) - 1
        return None if last else 100 * outcomes[trial.id].overthought[place]

    whole = runs.by_trial(lambda t: 100 * outcomes[t.id].lost)
    whole = whole[[len(t.exits) > 1 for t in runs.trials]]
    panels = [*_panels(runs, spoiled, axis, zero=True), Panel("any early exit", axis, whole, zero=True)]
    caption = (
        f"Share of test images that an early exit answers right and the last exit wrong, {runs.where}: "
        "what the later layers spoil, and what a perfect choice of exits could win over the last one. "
        f"{spread(panels)}"
    )
    read = read_out(panels, labels, False)
    alt = f"Dot plots, one for each early exit and one for all of them. {read}"
    return figure(runs, "overthinking", "more", "Overthinking", caption, alt, dots(panels, labels))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _panels(
    runs: Runs, value: Callable[[TrialRecord, int], float | None], axis: str, zero: bool = False
) -> list[Panel]:
    """A panel for each exit for which there is any value."""
    last = max((t.exits[-1] for t in runs.trials), default=0)
    return [
        Panel(f"exit {exit}{' (final)' if exit == last else ''}", axis, part, zero)
        for exit, part in runs.by_exit(value).groupby("exit", sort=True)
    ]
