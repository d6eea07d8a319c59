"""Where exits go when a number of them, or a share of the MACs, is given and not a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from offramp import units
from offramp.errors import OfframpError
from offramp.nets.cut.places import Tap
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


def chained(taps: Taps) -> TypeIs[Chain]:
    """Whether the submodules of each segment are listed."""
    return isinstance(taps, tuple) and bool(taps) and not isinstance(taps[0], str)


def share(name: object) -> float | None:
    """0.25 of `25%`; None for what is no share, or one of 100 % and more."""
    percent = units.read(name, units.PERCENT) if isinstance(name, str) else None
    return percent / 100 if percent is not None and percent < 100 else None


def chosen(places: Sequence[Tap], taps: Sequence[str] | int | None) -> Reasons:
    """The places that are asked for: by name or share, by number, or as many as make sense (None).

    Raises OfframpError where there are not enough.
    """
    if taps is None:
        return sensible(places)
    if isinstance(taps, int):
        return spread(places, taps)
    found: Reasons = {}
    for tap in taps:
        wanted = share(tap)
        name = tap if wanted is None else _nearest(places, wanted, tap).name
        if name in found:
            raise OfframpError(
                f"exits: {tap} is the same place as one before it, '{name}'; name it once"
            )
        found[name] = ASKED if wanted is None else f"nearest to {tap} of the MACs"
    return found


def sensible(places: Sequence[Tap]) -> Reasons:
    """At most EXITS places, fewer where they would be too near to each other or far from their share.

    Raises OfframpError where there is none at all.
    """
    for exits in range(EXITS, 1, -1):
        if found := _spread(_useful(places), exits, APART, strict=True):
            return found
    return spread(places, 1)


def spread(places: Sequence[Tap], exits: int) -> Reasons:
    """`exits` of the `places`, near 1/(exits + 1), 2/(exits + 1), … of the MACs.

    Looks among modules near the root first (whole stages and blocks rather than what is inside
    them) and goes deeper until every share is met within NEAR of a step. Exits are APART steps from
    each other, none is near the end or behind the pooling of the map, unless there are too few places
    for that. Of places with equal MACs it takes the last: behind the normalization and activation of a
    convolution.

    Raises OfframpError when there are fewer places than exits.
    """
    if exits < 0:
        raise OfframpError(f"{exits} exits cannot be attached; use 0 or more")
    useful = _useful(places)
    for among, apart in ((useful, APART), (useful, 0.0), (places, 0.0)):
        found = _spread(among, exits, apart)
        if found is not None:
            return found
    there = len(_last_of_equal(places))
    few = f"{there} place{'' if there == 1 else 's'}" if there else "no place"
    raise OfframpError(
        f"the network has {few} for exits, and {exits} are asked for; attach fewer, or name the taps"
    )


def _useful(places: Sequence[Tap]) -> list[Tap]:
    """Places from which leaving spares something, with a map to read where the network has any."""
    early = [place for place in places if 0 < place.share <= LATEST]
    return [place for place in early if not place.pooled] or early


def _spread(places: Sequence[Tap], exits: int, apart: float, strict: bool = False) -> Reasons | None:
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


def _why(level: Sequence[Tap], place: Tap, target: float) -> str:
    nearer = min(abs(p.share - target) for p in level) < abs(place.share - target)
    aim = f"{100 * target:.0f}% of the MACs"
    return f"near {aim}, apart from the other exits" if nearer else f"nearest to {aim}"


def _nearest(places: Sequence[Tap], target: float, name: str) -> Tap:
    """The place nearest to a share, among those nearest to the root that are CLOSE to it."""
    best: Tap | None = None
    for level in _levels(places):
        near = min(level, key=lambda place: abs(place.share - target))
        if best is None or abs(near.share - target) < abs(best.share - target):
            best = near
        if abs(best.share - target) <= CLOSE:
            break
    if best is None:
        raise OfframpError(f"exits: there is no place at {name}: the network has no place for an exit")
    return best


def _levels(places: Sequence[Tap]) -> Iterator[list[Tap]]:
    """The places down to each depth of the tree of modules."""
    for depth in sorted({place.name.count(".") for place in places}):
        yield _last_of_equal([place for place in places if place.name.count(".") <= depth])


def _last_of_equal(places: Sequence[Tap]) -> list[Tap]:
    return list({place.macs: place for place in places}.values())


def _fit(places: Sequence[Tap], targets: Sequence[float], apart: float) -> list[Tap]:
    """A place for each target, in order, `apart` from each other in share and as near to their targets
    as can be, all told; none at all where there are too few."""
    ways: dict[int, tuple[float, tuple[int, ...]]] = {-1: (0.0, ())}
    for target in targets:
        further = {}
        for i, place in enumerate(places):
            before = [
                way
                for j, way in ways.items()
                if j < i and (j < 0 or place.share - places[j].share >= apart)
            ]
            if before:
                off, path = min(before)
                further[i] = (off + abs(place.share - target), (*path, i))
        ways = further
    return [places[i] for i in min(ways.values())[1]] if ways else []
