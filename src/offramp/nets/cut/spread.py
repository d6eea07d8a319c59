"""Where exits go when a number of them, or a share of the MACs, is asked for and not a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from offramp import units
from offramp.errors import OfframpError
from offramp.nets.cut.places import ExitPlace
from offramp.parts import Chain, Taps

if TYPE_CHECKING:
    from typing_extensions import TypeIs

EXITS = 3
"""Early exits where nobody says how many: as many as the paper's networks have."""

LATEST = 0.95  # share of the MACs beyond which leaving spares nothing
APART = 0.5  # least distance of two exits, in steps; a step is 1 / (exits + 1) of the MACs
FAR = 0.75  # steps from its target beyond which a place is not chosen
NEAR = 0.4  # steps from its target within which a place is near enough
CLOSE = 0.05  # the same where a share is named, as a share of all MACs
ASKED = "as asked"

Reasons = dict[str, str]
"""Places in the order they run, and why an exit is at each."""


def is_chain(taps: Taps) -> TypeIs[Chain]:
    """Whether the submodules of each segment are listed."""
    return isinstance(taps, tuple) and bool(taps) and not isinstance(taps[0], str)


def share_named(tap: object) -> float | None:
    """0.25 of `25%`; None for what is no share, or one of 100 % and more."""
    percent = units.read(tap, units.PERCENT) if isinstance(tap, str) else None
    return percent / 100 if percent is not None and percent < 100 else None


def choose(places: Sequence[ExitPlace], taps: Sequence[str] | int | None) -> Reasons:
    """The places that `taps` means: names or shares, how many, or as many as make sense (None).

    Raises:
        OfframpError: Where there are not enough, or one is named twice.
    """
    if taps is None:
        return sensible(places)
    if isinstance(taps, int):
        return spread(places, taps)
    reasons: Reasons = {}
    for tap in taps:
        share = share_named(tap)
        name = tap if share is None else _nearest(places, share, tap).name
        if name in reasons:
            raise OfframpError(
                f"exits: {tap} is the same place as one before it, '{name}'; name it once"
            )
        reasons[name] = ASKED if share is None else f"nearest to {tap} of the MACs"
    return reasons


def sensible(places: Sequence[ExitPlace]) -> Reasons:
    """At most EXITS places, fewer where they would be too near to each other or far from their share.

    Raises:
        OfframpError: Where there is none at all.
    """
    for exits in range(EXITS, 1, -1):
        if reasons := _spread(_useful(places), exits, APART, strict=True):
            return reasons
    return spread(places, 1)


def spread(places: Sequence[ExitPlace], exits: int) -> Reasons:
    """`exits` of the `places`, near 1/(exits + 1), 2/(exits + 1), … of the MACs.

    Looks among modules near the root first (whole stages and blocks rather than what is inside
    them) and goes deeper until every share is met within NEAR of a step. Exits are APART steps from
    each other, none is near the end or behind the pooling of the map, unless there are too few places
    for that. Of places with equal MACs it takes the last: behind the normalization and activation of a
    convolution.

    Raises:
        OfframpError: When there are fewer places than exits.
    """
    if exits < 0:
        raise OfframpError(f"{exits} exits cannot be attached; use 0 or more")
    useful, count = _useful(places), len(_last_of_equal(places))
    for among, apart in ((useful, APART), (useful, 0.0), (places, 0.0)) if exits <= count else ():
        reasons = _spread(among, exits, apart)
        if reasons is not None:
            return reasons
    few = f"{count} place{'' if count == 1 else 's'}" if count else "no place"
    raise OfframpError(
        f"the network has {few} for exits, and {exits} are asked for; attach fewer, or name the taps"
    )


def _useful(places: Sequence[ExitPlace]) -> list[ExitPlace]:
    """Places from which leaving spares something, with a map to read where the network has any."""
    early = [place for place in places if 0 < place.share <= LATEST]
    return [place for place in early if not place.pooled] or early


def _spread(
    places: Sequence[ExitPlace], exits: int, apart: float, strict: bool = False
) -> Reasons | None:
    """`spread` at a least distance of `apart` steps; strict: and none FAR from its target."""
    step = 1 / (exits + 1)
    targets = [k * step for k in range(1, exits + 1)]
    best: tuple[float, Reasons] | None = None
    for level in _levels(places):
        fit = _fit(level, targets, apart * step)
        worst = max((abs(p.share - t) for p, t in zip(fit, targets, strict=False)), default=0.0)
        if len(fit) < exits or (strict and worst > FAR * step):
            continue
        if best is None or worst < best[0]:
            best = worst, {p.name: _why(level, p, t) for p, t in zip(fit, targets, strict=True)}
        if worst <= NEAR * step:
            break
    return best[1] if best else None if exits else {}


def _why(level: Sequence[ExitPlace], place: ExitPlace, target: float) -> str:
    nearer = min(abs(p.share - target) for p in level) < abs(place.share - target)
    aim = f"{100 * target:.0f}% of the MACs"
    return f"near {aim}, apart from the other exits" if nearer else f"nearest to {aim}"


def _nearest(places: Sequence[ExitPlace], target: float, name: str) -> ExitPlace:
    """The place nearest to a share, among those nearest to the root that are CLOSE to it."""
    best: ExitPlace | None = None
    for level in _levels(places):
        near = min(level, key=lambda place: abs(place.share - target))
        if best is None or abs(near.share - target) < abs(best.share - target):
            best = near
        if abs(best.share - target) <= CLOSE:
            break
    if best is None:
        raise OfframpError(f"exits: there is no place at {name}: the network has no place for an exit")
    return best


def _levels(places: Sequence[ExitPlace]) -> Iterator[list[ExitPlace]]:
    """The places down to each depth of the tree of modules."""
    for depth in sorted({place.name.count(".") for place in places}):
        yield _last_of_equal([place for place in places if place.name.count(".") <= depth])


def _last_of_equal(places: Sequence[ExitPlace]) -> list[ExitPlace]:
    return list({place.macs: place for place in places}.values())


def _fit(places: Sequence[ExitPlace], targets: Sequence[float], apart: float) -> list[ExitPlace]:
    """A place for each target, in order, `apart` from each other in share and as near to their targets
    as can be, all told; none at all where there are too few."""
    # By the last place of a choice: how far off the choice is, and the places in it.
    choices: dict[int, tuple[float, tuple[int, ...]]] = {-1: (0.0, ())}
    for target in targets:
        longer = {}
        for i, place in enumerate(places):
            before = [
                choice
                for j, choice in choices.items()
                if j < i and (j < 0 or place.share - places[j].share >= apart)
            ]
            if before:
                off, path = min(before)
                longer[i] = (off + abs(place.share - target), (*path, i))
        choices = longer
    return [places[i] for i in min(choices.values())[1]] if choices else []
