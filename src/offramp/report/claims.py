"""Claims files (the publication's, or a user's), and verdicts as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from offramp import usercode
from offramp.analysis.claims import VERDICTS, Claim, Claims, Judgment, Regime
from offramp.analysis.claims.judge import RULE, detectable, difference, name, why
from offramp.errors import OfframpError
from offramp.report.model import Column, Table
from offramp.report.registry import publication
from offramp.store.manifest import Manifest
from offramp.store.record import TrialRecord
from offramp.study.spec.places import validated
from offramp.study.spec.yaml_lines import parse, text_of
from offramp.units import noun


@cache
def published(anywhere: bool = False) -> Sequence[Claim]:
    """What the publication found; nothing where there is none. anywhere: as `Claims.bound` says."""
    path = publication().claims
    return () if path is None else parse_claims(path.read_text(encoding="utf-8"), path.name, anywhere)


def read(source: Path | str, anywhere: bool = False) -> Sequence[Claim]:
    """The claims of a file, or of a function. source: a YAML file, which runs no code; or
    `path/file.py:name`, a function without arguments that returns what such a file says, in the types of
    YAML. Its measures may be code too. anywhere: as `Claims.bound` says.

    Raises:
        OfframpError: For the first mistake, as `<file>:<line>: ...`.
    """
    name = str(source)
    if usercode.is_user_code(name):
        with usercode.running(name):
            text = yaml.safe_dump(usercode.load(name, "claims").function())
        return parse_claims(text, name, anywhere)
    text = text_of(Path(source), "no such claims file; docs/claims.md shows one")
    claims = parse_claims(text, name, anywhere)
    for claim in claims:
        if usercode.is_user_code(claim.measure):
            raise OfframpError(
                f"{name}: {claim.id} is measured by code, {claim.measure}, and a claims file runs none; "
                "write the claims as a function, file.py:name"
            )
    return claims


def parse_claims(text: str, source: str, anywhere: bool = False) -> Sequence[Claim]:
    """The claims of a file's text. source: its name, for messages."""
    document = parse(text, source)
    return validated(Claims.model_validate, document.value, document.places(source)).bound(anywhere)


def regimes(trials: Iterable[TrialRecord]) -> dict[tuple[str, str], Regime]:
    """What the trials of each model and data were made of; those of one pair are alike in it."""
    return {(trial.model, trial.data): _regime(trial.manifest) for trial in trials}


def _regime(manifest: Manifest) -> Regime:
    images, kind = manifest.data.provenance.images, noun(manifest.input_shape)
    channels, *_, size = manifest.input_shape if kind == "image" else (0, 0)
    return Regime(
        named=manifest.classes,
        train=images.get("train"),
        test=images.get("test"),
        size=size,
        channels=channels,
        epochs=manifest.recipe.epochs,
        weights="pretrained" if manifest.pretrained else "random",
        noun=kind,
        images=manifest.data.test,
        source=manifest.data.name,
    )


UNTESTED = "not testable here"
NAMED = 3  # claims of one reason why they cannot be tested
EMPTY = {"section": "", "means": "", "difference": "", "found": "", "d": math.nan, "p": math.nan}
COLUMNS = (
    Column("claim", "Claim"),
    Column("section", "Section"),
    Column("verdict", "Verdict"),
    Column("means", "As claimed"),
    Column("decides", "What decides"),
    Column("difference", "Difference"),
    Column("d", "d", "number", 2),
    Column("found", "Found from"),
    Column("p", "p", "p", 3),
)


def claims_table(outcomes: Sequence[Judgment]) -> Table:
    """A row a claim, by the id of the claim; then one for each reason why others are not testable, by
    the id of the first of them."""
    tested = [outcome for outcome in outcomes if outcome.verdict != UNTESTED]
    by_reason: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.verdict == UNTESTED:
            by_reason.setdefault(why(outcome), []).append(outcome.claim.id)
    rows = {outcome.claim.id: _row(outcome) for outcome in tested}
    for reason, ids in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        rest = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
        claim = f"{', '.join(ids[:NAMED])}{rest}"
        rows[ids[0]] = {"claim": claim, "verdict": UNTESTED, "decides": reason} | EMPTY
    columns = COLUMNS if tested else [c for c in COLUMNS if c.key in ("claim", "decides")]
    frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=[c.key for c in columns])
    title, caption = "Findings, tested against these runs", f"{count(outcomes)} {RULE}"
    if by_reason:
        caption += f" What is {UNTESTED} is below, by the reason; `offramp claims` has its words."
    return Table("claims", "more", title, caption, frame, columns, notes=_notes(tested))


def count(outcomes: Sequence[Judgment]) -> str:
    """`66 claims: 1 supported, 3 contradicted, ...`"""
    counts = {verdict: sum(o.verdict == verdict for o in outcomes) for verdict in VERDICTS}
    parts = [f"{number} {verdict}" for verdict, number in counts.items() if number]
    claims = "1 claim" if len(outcomes) == 1 else f"{len(outcomes)} claims"
    return f"{claims}: {', '.join(parts)}."


def _row(outcome: Judgment) -> dict[str, object]:
    decisive = outcome.decisive
    reason = why(outcome)
    comparison = "" if decisive is None else name(decisive.part)
    return {
        "claim": outcome.claim.text,
        "section": outcome.claim.section,
        "verdict": outcome.verdict,
        "means": f"{outcome.holding} of {outcome.compared}" if outcome.compared else "",
        "decides": "; ".join(text for text in (reason, comparison) if text),
        "difference": "" if decisive is None else difference(outcome, decisive),
        "d": float("nan") if decisive is None else decisive.d,
        "found": "" if decisive is None else detectable(outcome, decisive),
        "p": float("nan") if outcome.p is None else outcome.p,
    }


def _notes(outcomes: Sequence[Judgment]) -> list[str]:
    """Claims that cannot be true together, each pair once."""
    ids = [outcome.claim.id for outcome in outcomes]
    pairs = {
        frozenset((o.claim.id, second)): (o.claim.id, second)
        for o in outcomes
        for second in o.claim.contradicts
        if second in ids
    }
    notes = [
        f"{first} and {second} contradict each other in the source." for first, second in pairs.values()
    ]
    return [*notes, *(f"{o.claim.id}: {o.claim.note}" for o in outcomes if o.claim.note)]
