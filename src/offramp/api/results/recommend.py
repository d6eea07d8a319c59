"""A ranking from evidence, or the paper's guidelines where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from offramp import units
from offramp.analysis.goals import GOALS, known_goal
from offramp.api.answer import answer, missing_notes
from offramp.api.opening import places
from offramp.api.options import RUNS, CommandOption, Macs, ResultsPlaces, StudyName
from offramp.errors import OfframpError
from offramp.paper.guidelines import guidelines as guidelines_for
from offramp.terminal import TextBlocks, TextTable
from offramp.units import macs

if TYPE_CHECKING:
    from offramp.analysis.recommend import Advice, Preference, Ranked

AnyGoal = Annotated[str, CommandOption("NAME", f"What matters most: {', '.join(GOALS)}.")]
Accuracy = Annotated[float | None, CommandOption("SHARE", parse=partial(units.share, usual=0.9))]
NO_RUNS = "No runs back this. It is the advice of the paper (Strategies at a glance, section 8.1)."


@answer
class Recommendation:
    """Which strategy and network fit a goal.

    Attributes:
        preference: What matters to the caller.
        evidence: What the runs say, for each data set; nothing without runs.
        missing: What the results lack.
        reason: Why the paper's guidelines answer instead; None where the runs do.
    """

    preference: Preference
    evidence: Sequence[Advice]
    missing: Sequence[str]
    reason: str | None
    _source: str | None = None  # of the caller's own guidelines

    def as_json(self) -> dict[str, Any]:
        from offramp.analysis.recommend import sure

        parts = [
            {**asdict(a), "measure": a.measure.about, "sure": sure(a) if a.ranking else None}
            for a in self.evidence
        ]
        return {
            "wish": asdict(self.preference),
            "evidence": parts,
            "missing": list(self.missing),
            "guidelines": None if self.reason is None else self._guidelines(),
        }

    def document(self) -> TextBlocks:
        parts = [part for advice in self.evidence for part in _advice(advice)]
        if self.evidence:
            parts += missing_notes(self.missing)
        if self.reason is not None:
            parts += self._guideline_lines(self.reason)
        return parts

    @property
    def _no_runs(self) -> str:
        return NO_RUNS if self._source is None else f"No runs back this. It is {self._source}'s advice."

    def _guidelines(self) -> dict[str, Any]:
        wish = self.preference
        fitting, more = guidelines_for(wish.goal, wish.frozen_backbone, self._source)
        return {"source": self._no_runs, "strategies": [asdict(g) for g in fitting], "more": list(more)}

    def _guideline_lines(self, reason: str) -> list[str]:
        from offramp.report import advice

        wish = self.preference
        fitting, more = guidelines_for(wish.goal, wish.frozen_backbone, self._source)
        lines = [f"{reason} {self._no_runs}", f"\nFor {advice.WORDS[wish.goal]}:"]
        lines += [f"- {' or '.join(g.strategies)}: {g.text} ({g.section})" for g in fitting]
        lines += ["\nBesides:", *(f"- {text}" for text in more)]
        if wish.min_accuracy is not None or wish.max_macs is not None:
            lines.append(
                "\n--min-accuracy and --max-macs need results: run a study, then name its store."
            )
        return lines


def recommend(
    stores: ResultsPlaces | None = None,
    *,
    goal: AnyGoal = "pareto",
    min_accuracy: Accuracy = None,
    max_macs: Macs = None,
    frozen_backbone: bool = False,
    study: StudyName = None,
    guidelines: Annotated[str | None, CommandOption("FILE.py:NAME")] = None,
) -> Recommendation:
    """Recommend a strategy and a network for a goal.

    By default it lists all that nothing beats in accuracy, MACs and training together. With a goal it
    ranks the strategies and networks of a store. It says which differences the runs cannot show, and
    why something is ruled out. Without a store it gives the paper's guidelines, and says so.

    pareto leaves out what another one beats: that one trains for no more MACs, can answer for as few,
    and is significantly more accurate at some number of MACs and less at none.
    accuracy ranks by the mean over exits, on test; with `max_macs`, by the accuracy that these MACs buy.
    latency ranks by the MACs at which a network has `min_accuracy`. By default that is one point below
    the best. Where compute decides, smaller plain networks of the same data and recipe, and cascades of
    two, stand among the strategies. Differences are tested over seeds and test images. Fewer than three
    seeds give no recommendation.

    Args:
        stores: Stores, or folders that offramp store pack wrote. Several count as one. By default runs,
            if it is there.
        goal: What matters most, such as "accuracy" or "latency"; "pareto" weighs nothing.
        min_accuracy: Accuracy to reach, such as 0.9 or 90%.
        max_macs: The MACs that an image may take on average, such as 1.5M.
        frozen_backbone: The backbone's weights must stay as they are.
        study: Use only the trials of this study.
        guidelines: A function that returns your own guidelines, in place of the paper's.

    Raises:
        OfframpError: The goal is unknown, or the store that is named is not there.

    On the command line:
        offramp recommend runs/demo --goal accuracy
        offramp recommend runs/demo runs/control --goal latency
        offramp recommend runs/demo --goal latency --min-accuracy 0.9
        offramp recommend --goal memory --frozen-backbone
    """
    from offramp.analysis import recommend as advising
    from offramp.analysis.recommend import Preference
    from offramp.report import evidence
    from offramp.store.archive import is_store

    if min_accuracy is not None and not 0 < min_accuracy <= 1:
        raise OfframpError(f"`min_accuracy` is {min_accuracy:g}; write a share of 1, such as 0.9")
    preference = Preference(known_goal(goal), min_accuracy, max_macs, frozen_backbone)
    roots = places(RUNS if stores is None else stores)
    why = ""
    if stores is None and not is_store(roots[0]):
        why = f"There is no store at {roots[0]}."
    elif not (results := evidence.open_all(roots, study)).trials:
        why = f"{', '.join(map(str, roots))} holds no finished trial."
    if why:
        return Recommendation(preference, [], [why], why, guidelines)
    advice = advising.recommend(results.facts, preference)
    silent = not any(a.ranking for a in advice) and not all(a.none_left for a in advice)
    reason = "These runs give no answer." if silent else None
    return Recommendation(preference, advice, results.missing, reason, guidelines)


def _advice(advice: Advice) -> list[str | TextTable]:
    from offramp.report.advice import sentence

    measure = advice.measure
    parts: list[str | TextTable] = []
    if advice.ranking:
        unit = "" if measure.name == "macs" else f", {measure.unit.name}"
        title = f"{advice.data}: {measure.title}{unit} ({measure.better} is better)"
        note = "\n".join([advice.withheld or sentence(advice), *advice.notes])
        parts.append(_ranking(advice, title, note))
    else:
        parts.append(f"{advice.data}: no ranking, {advice.untested}.")
    if advice.ruled_out:
        rows = [(out.name, out.why) for out in advice.ruled_out]
        parts.append(TextTable(["not ranked", "why"], rows=rows))
    return parts


def _ranking(advice: Advice, title: str, note: str) -> TextTable:
    """With the interval of the MACs that a target takes, and the accuracy at the compute of the test."""
    measure = advice.measure
    if advice.goal == "pareto":
        offers = []
        for r in advice.ranking:
            least = "" if r.accuracy is None else f"{100 * r.accuracy:.1f}"
            training = "–" if r.training is None else f"{macs(r.training)} MACs"
            offers.append((r.name, _range(r), least, f"{100 * r.mean:.1f}", training))
        head = ["MACs", "% at the fewest", "% at the most", "training"]
        return TextTable(["strategy"], head, offers, f"{advice.data}: what nothing else beats", note)
    more = ["sd"] if advice.at is None else ["95 %", f"% at {macs(advice.at)}"]
    rows = []
    for number, r in enumerate(advice.ranking, start=1):
        cells = [macs(r.mean) if measure.name == "macs" else f"{r.mean * measure.scale:.4g}"]
        if advice.at is None:
            cells += ["" if r.sd is None else f"{r.sd * measure.scale:.2g}"]
        else:
            cells += [_range(r), "" if r.accuracy is None else f"{100 * r.accuracy:.1f}"]
        rows.append((str(number), r.name, *cells, "" if number == 1 else _against(r)))
    return TextTable(["", "strategy"], ["mean", *more, "behind the first"], rows, title, note)


def _range(r: Ranked) -> str:
    """`67.7 M to 83 M`; `from 67.7 M` where the target may be out of reach."""
    if r.low is None:
        return "–"
    return f"from {macs(r.low)}" if r.high is None else f"{macs(r.low)} to {macs(r.high)}"


def _against(r: Ranked) -> str:
    from offramp.analysis.stats.text import p_text

    if r.behind is None or r.p is None:
        return "not tested"
    p = f", p {p_text(r.p)}"
    return f"yes{p}" if r.behind else f"not shown{p}"
