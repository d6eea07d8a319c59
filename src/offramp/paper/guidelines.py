"""What the paper advises (sections 7, 8 and 8.1), in our words, as guidelines.yaml says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from offramp import usercode
from offramp.analysis.goals import Goal
from offramp.errors import OfframpError

ForOrAgainst = Literal["for", "against"]
SIDES: tuple[ForOrAgainst, ...] = get_args(ForOrAgainst)


@dataclass(frozen=True)
class Guideline:
    """What to take for some goals."""

    goals: tuple[Goal, ...]
    strategies: tuple[str, ...]  # the ones to take, the first one first
    heads_only: bool  # whether they leave a given backbone as it is
    text: str
    section: str  # of the paper


@dataclass(frozen=True)
class Remark:
    """A remark on a strategy (section 8.1, Table 9)."""

    strategy: str
    side: ForOrAgainst
    text: str
    # ids in claims.yaml that say the same, or the reverse where the paper contradicts itself
    claims: tuple[str, ...]


FROZEN = (
    "Our own rule, not the paper's: where the backbone's weights must stay, only strategies that train "
    "heads alone after the plain network are listed. Take two-stage or distillation with the option "
    "backbone: kept; without it they train the backbone first."
)
GOALS_ARE_OURS = "Which guideline stands by which goal is our own reading of the paper."


def guidelines(
    goal: Goal, frozen_backbone: bool = False, source: str | None = None
) -> tuple[tuple[Guideline, ...], tuple[str, ...]]:
    """The guidelines for a goal, and what else to say: on networks, on what to avoid. source:
    `path/file.py:name`, a function without arguments that returns what guidelines.yaml says, in the
    types of YAML; None for the paper's.

    Raises:
        OfframpError: Where a user's own guidelines cannot be read.
    """
    document = _read() if source is None else _own(source)
    try:
        entries = [_guideline(entry) for entry in document["guidelines"]]
        if frozen_backbone:
            entries = [*(g for g in entries if g.heads_only), _guideline(document["fixed"])]
        network = {"accuracy": ["strong"], "pareto": ["lean", "strong"]}.get(goal, ["lean"])
        more = [document["architectures"][kind] for kind in network if "architectures" in document]
        avoid = document.get("avoid", ())
    except (LookupError, TypeError, AttributeError) as error:
        raise OfframpError(
            f"{source} gives no guidelines: {error!r}; docs/claims.md shows some"
        ) from None
    ours = [GOALS_ARE_OURS] if source is None else []
    fixed = [FROZEN] if frozen_backbone and source is None else []
    return tuple(g for g in entries if goal in g.goals), (*fixed, *more, *avoid, *ours)


def _own(source: str) -> Mapping[str, Any]:
    """Guidelines of a user's own."""
    function = usercode.load(source, "guidelines").function
    with usercode.running(source):
        document: Mapping[str, Any] = function()
    return document


def remarks() -> tuple[Remark, ...]:
    """All advice by strategy, in the order of the file."""
    return tuple(
        Remark(strategy, side, entry[side], tuple(entry.get("claims", ())))
        for strategy, entries in _read()["advice"].items()
        for entry in entries
        for side in SIDES
        if side in entry
    )


def characteristics() -> dict[str, tuple[str, ...]]:
    """Table 8: of each strategy its words for time, resources, convergence, accuracy, generalization,
    overfitting and the severity of that."""
    return {strategy: tuple(words) for strategy, words in _read()["characteristics"].items()}


def _guideline(entry: Mapping[str, Any]) -> Guideline:
    goals, strategies = tuple(entry["goals"]), tuple(entry["strategies"])
    return Guideline(goals, strategies, entry["heads_only"], entry["text"], entry["section"])


@cache
def _read() -> Mapping[str, Any]:
    import yaml  # late: commands list the goals without it

    text = resources.files("offramp.paper").joinpath("guidelines.yaml").read_text(encoding="utf-8")
    document: Mapping[str, Any] = yaml.safe_load(text)
    return document
