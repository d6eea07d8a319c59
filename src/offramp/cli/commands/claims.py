"""`offramp claims`: findings, tested against a store."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli.options import JsonOption, ResultsArgument, StoreOption, StudyOption, named, option
from offramp.cli.render import emit, notes, say
from offramp.errors import OfframpError, nearest
from offramp.terminal import console, show, table

if TYPE_CHECKING:
    from offramp.analysis.claims import Judgment


def claims(
    store: ResultsArgument = None,
    store_: StoreOption = None,
    file: Annotated[
        Path | None, option("FILE", "Test your own claims instead of the paper's.", "--claims")
    ] = None,
    study: StudyOption = None,
    only: Annotated[str | None, option("ID", "Show one claim, with all of its comparisons.")] = None,
    anywhere: Annotated[
        bool,
        typer.Option(
            "--anywhere",
            help="Test general findings on any runs. This is no verdict on the paper, whose runs had "
            "other data and longer training.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Test the paper's findings, or your own, against a store.

    Do these runs show what the paper says? Each claim is supported, contradicted, not significant,
    identical by construction, or not testable here. The last says what is missing. A finding is tested
    on runs like the paper's; --anywhere tests it on any runs. p is adjusted over all claims of the file.

    \b
    Examples:
      offramp claims runs/demo
      offramp claims runs/demo --only branch-wise-lowest-final-accuracy
      offramp claims runs/demo --claims mine.yaml

    docs/claims.md says how claims are tested, and how to write your own.
    """
    from offramp.analysis.claims.judge import RULE, plain
    from offramp.analysis.stats.pairwise import ALPHA
    from offramp.report import evidence
    from offramp.report.claims import count, published, read

    asked = published(anywhere) if file is None else read(file, anywhere)
    ids = [claim.id for claim in asked]
    if only is not None and only not in ids:
        raise OfframpError(f"there is no claim '{only}'{nearest(only, ids)}")
    found = evidence.open(named(store, store_), study)
    judged = found.judge(asked)
    outcomes = [o for o in judged if only in (None, o.claim.id)]
    if json:
        judged_as = {"alpha": ALPHA, "anywhere": anywhere}
        emit({**judged_as, "claims": [plain(o) for o in outcomes], "missing": list(found.missing)})
        return
    if only is not None:
        _one(outcomes[0])
        return
    _tested([o for o in outcomes if o.verdict != "not testable here"])
    _untested([o for o in outcomes if o.verdict == "not testable here"])
    say(count(outcomes))
    if anywhere:
        say("These are statements on these runs alone, no verdicts on the paper.")
    notes(found.missing)
    say(RULE, "offramp claims ... --only ID shows every comparison of a claim.")


QUESTIONS = {
    "rq1": "RQ1: convergence, accuracy, generalization",
    "rq2": "RQ2: cost and stability of training",
    "rq3": "RQ3: hybrids",
    "more": "Beyond the research questions",
}


def _tested(outcomes: Sequence[Judgment]) -> None:
    from offramp.analysis.claims.judge import difference, effect
    from offramp.analysis.stats.text import p_text

    for question, title in QUESTIONS.items():
        rows = [o for o in outcomes if o.claim.question == question]
        if not rows:
            continue
        listing = table(["claim", "verdict"], ["as claimed", "difference", "d", "p"])
        for o in rows:
            numbers = ["", ""]
            if o.decisive is not None:
                numbers = [difference(o, o.decisive), effect(o.decisive)]
            share = f"{o.holding} of {o.compared}" if o.compared else ""
            p = "" if o.p is None else p_text(o.p)
            listing.add_row(_folded(o.claim.id), _short(o), share, *numbers, p)
        show(listing, title)


def _folded(id: str) -> str:
    """An id on lines of its own, cut at hyphens, where the screen is narrow."""
    room = max(console().width - 58, 16)
    return "\n".join(textwrap.wrap(id, room))


def _short(outcome: Judgment) -> str:
    return "identical" if outcome.verdict == "identical by construction" else outcome.verdict


def _untested(outcomes: Sequence[Judgment]) -> None:
    if not outcomes:
        return
    by_reason: dict[str, list[str]] = {}
    for o in outcomes:
        by_reason.setdefault(o.missing[0], []).append(o.claim.id)
    rows = [(reason, ", ".join(ids)) for reason, ids in by_reason.items()]
    show(table(["missing here", "so these cannot be tested"], rows=rows), "Not testable here")


def _one(o: Judgment) -> None:
    from offramp.analysis.claims.judge import name, why
    from offramp.analysis.stats.text import p_text

    say(f"{o.claim.id} (section {o.claim.section})", o.claim.text)
    if o.claim.note:
        say(o.claim.note)
    if o.claim.contradicts:
        say(f"Contradicted by the source itself: {', '.join(o.claim.contradicts)}.")
    typer.echo()
    if o.parts:
        _comparisons(o)
    for part in o.identical:
        say(f"Identical by construction: {name(part)}.")
    for lack in o.missing:
        say(f"Missing: {lack}.")
    p = "" if o.p is None else f"; p = {p_text(o.p)}, adjusted over the whole file"
    reason = why(o)
    say(f"Verdict: {o.verdict}{f' ({reason})' if reason else ''}{p}.")


def _comparisons(o: Judgment) -> None:
    from offramp.analysis.claims.judge import claimed, effect, name
    from offramp.analysis.measures import find_measure
    from offramp.analysis.stats.text import p_text

    measure = find_measure(o.claim.measure)
    several = len({(t.part.left[0].model, t.part.left[0].data) for t in o.parts}) > 1
    listing = table(["comparison"], ["left", "right", "difference", "d", "p for", "against"])
    for tested in o.parts:
        means = (f"{mean * measure.scale:.4g}" for mean in (tested.left, tested.right))
        ps = (p_text(tested.p_for), p_text(tested.p_against))
        change = f"{tested.difference * measure.scale:+.3g}"
        listing.add_row(name(tested.part, several), *means, change, effect(tested), *ps)
    seeds = " or ".join(map(str, sorted({tested.seeds for tested in o.parts})))
    note = f"Means over {seeds} seeds; p for the claim alone and against it alone, not adjusted."
    show(listing, f"{measure.title} ({measure.unit.name}), claimed {claimed(o.claim)}", note)
