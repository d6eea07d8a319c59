"""`offramp recommend`: a ranking from evidence, or the paper's guidelines where there is none."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.analysis.goals import GOALS, known_goal
from offramp.cli import options
from offramp.cli.options import flag, option
from offramp.cli.render import emit, folded, notes, say
from offramp.errors import OfframpError
from offramp.store.place import Place
from offramp.terminal import show, table
from offramp.units import macs

if TYPE_CHECKING:
    from offramp.analysis.recommend import Advice, Preference, Ranked


def recommend(
    store: options.ResultsArgument = None,
    store_: options.StoreOption = None,
    goal: Annotated[str, option("NAME", f"What matters most: {', '.join(GOALS)}.")] = "balanced",
    min_accuracy: options.MinAccuracyOption = None,
    max_macs: Annotated[
        str | None, option("MACS", "The MACs that an image may take on average, such as 1.5M.")
    ] = None,
    frozen_backbone: Annotated[
        bool, flag("--frozen-backbone", "The backbone's weights must stay as they are.")
    ] = False,
    study: options.StudyOption = None,
    json: options.JsonOption = False,
) -> None:
    """Recommend a strategy and a network for a goal.

    It ranks the strategies and networks of a store. It says which differences the runs cannot show, and
    why something is ruled out. Without a store it gives the paper's guidelines, and says so.

    \b
    Examples:
      offramp recommend runs/demo --goal accuracy
      offramp recommend runs/demo --goal latency --min-accuracy 0.9
      offramp recommend --goal memory --frozen-backbone

    accuracy ranks by the mean over exits, on test; with --max-macs, by the accuracy that these MACs buy.
    latency ranks by the MACs at which a network has --min-accuracy. By default that is one point below
    the best. balanced ranks by the distance from the best, on average over the other goals.
    Differences are tested over seeds and test images. Fewer than three seeds give no recommendation.
    """
    from offramp import units
    from offramp.analysis.recommend import Preference

    reached = None if min_accuracy is None else units.share(min_accuracy, "--min-accuracy", 0.9)
    if reached is not None and not 0 < reached <= 1:
        raise OfframpError(f"--min-accuracy is {min_accuracy}; write a share of 1, such as 0.9")
    budget = None if max_macs is None else units.parse(max_macs, units.MACS, "--max-macs")
    asked = Preference(known_goal(goal), reached, budget, frozen_backbone)
    given = store is not None or store_ is not None
    recommend_from(options.named(store, store_), given, asked, study, json)


NO_RUNS = "No runs back this. It is the advice of the paper (Strategies at a glance, section 8.1)."


def recommend_from(
    where: Place, given: bool, asked: Preference, study: str | None, as_json: bool
) -> None:
    """given: whether `where` was named; if not, and nothing is there, the guidelines answer."""
    from offramp.analysis import recommend as advising
    from offramp.analysis.recommend import sure
    from offramp.report import evidence
    from offramp.store.archive import is_store

    if not given and not is_store(where):
        _guidelines(asked, f"There is no store at {where}.", as_json)
        return
    found = evidence.open(where, study)
    if not found.trials:
        _guidelines(asked, f"{where} holds no finished trial.", as_json)
        return
    answers = advising.recommend(found.facts, asked)
    silent = not any(a.ranking for a in answers) and not all(a.none_left for a in answers)
    if as_json:
        known = [sure(a) if a.ranking else None for a in answers]
        parts = [
            {**asdict(a), "measure": a.measure.about, "sure": said}
            for a, said in zip(answers, known, strict=True)
        ]
        answer = {"wish": asdict(asked), "evidence": parts, "missing": list(found.missing)}
        emit({**answer, "guidelines": _plain(asked) if silent else None})
        return
    for one in answers:
        _advice(one)
    notes(found.missing)
    if silent:
        _guidelines(asked, "These runs give no answer.", as_json)


def _plain(asked: Preference) -> dict[str, Any]:
    from offramp.paper.guidelines import guidelines

    found, more = guidelines(asked.goal, asked.frozen_backbone)
    return {"source": NO_RUNS, "strategies": [asdict(g) for g in found], "more": list(more)}


def _guidelines(asked: Preference, why: str, as_json: bool) -> None:
    from offramp.paper.guidelines import guidelines
    from offramp.report import advice

    if as_json:
        nothing: dict[str, Any] = {"wish": asdict(asked), "evidence": [], "missing": [why]}
        emit({**nothing, "guidelines": _plain(asked)})
        return
    found, more = guidelines(asked.goal, asked.frozen_backbone)
    say(f"{why} {NO_RUNS}")
    typer.echo(f"\nFor {advice.WORDS[asked.goal]}:")
    for g in found:
        say(f"- {' or '.join(g.strategies)}: {g.text} ({g.section})", indent="  ")
    typer.echo("\nBesides:")
    for text in more:
        say(f"- {text}", indent="  ")
    if asked.min_accuracy is not None or asked.max_macs is not None:
        typer.echo()
        say("--min-accuracy and --max-macs need results: run a study, then name its store.")


def _advice(one: Advice) -> None:
    from offramp.report.advice import sentence

    measure = one.measure
    if one.ranking:
        unit = "" if measure.name == "macs" else f", {measure.unit.name}"
        title = f"{one.data}: {measure.title}{unit} ({measure.better} is better)"
        words = [one.withheld or sentence(one), *one.notes]
        show(_ranking(one), title, "\n".join(line for text in words for line in folded(text)))
    else:
        typer.echo(f"{one.data}: no ranking, {one.untested}.\n")
    if one.ruled_out:
        show(table(["not ranked", "why"], rows=[(out.name, out.why) for out in one.ruled_out]))


def _ranking(one: Advice) -> Any:
    """With the interval of the MACs that a target takes, and the accuracy at the compute of the test."""
    measure = one.measure
    more = ["sd"] if one.at is None else ["95 %", f"% at {macs(one.at)}"]
    listing = table(["", "strategy"], ["mean", *more, "behind the first"])
    for place, r in enumerate(one.ranking, start=1):
        cells = [macs(r.mean) if measure.name == "macs" else f"{r.mean * measure.scale:.4g}"]
        if one.at is None:
            cells += ["" if r.sd is None else f"{r.sd * measure.scale:.2g}"]
        else:
            cells += [_range(r), "" if r.accuracy is None else f"{100 * r.accuracy:.1f}"]
        listing.add_row(str(place), r.name, *cells, "" if place == 1 else _against(r))
    return listing


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
