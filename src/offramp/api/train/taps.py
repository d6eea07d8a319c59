"""The places of a network where an exit can go."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer
from offramp.api.options import CommandOption
from offramp.api.train.forecast import by_reason
from offramp.errors import OfframpError
from offramp.terminal import TextBlocks, TextTable
from offramp.units import macs, percent

if TYPE_CHECKING:
    from offramp.nets.cut.places import ExitPlace

LARGEST = 4096
SHAPE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})")


@answer
class TapList:
    """Places of a network for exits.

    Attributes:
        places: All of them, from the input on.
        chosen: Why a place is a default one, or one of those that were named, by its name.
        title: What network, and what input.
        named: Whether places were named.
    """

    places: Sequence[ExitPlace]
    chosen: Mapping[str, str]
    title: str
    named: bool

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {
                **{key: getattr(place, key) for key in ("name", "shape", "macs", "share")},
                "default": place.name in self.chosen,
                "why": self.chosen.get(place.name),
            }
            for place in self.places
        ]

    def document(self) -> TextBlocks:
        rows = [
            (
                "*" if place.name in self.chosen else "",
                place.name,
                "x".join(map(str, place.shape)),
                macs(place.macs),
                percent(place.share),
            )
            for place in self.places
        ]
        kind = "a place of --exits" if self.named else "a default place"
        reasons = "".join(
            f"  {', '.join(names)}: {reason}\n" for reason, names in by_reason(self.chosen).items()
        )
        note = (
            f"* {kind}. MACs and share: of one image, from the input to the place.\n{reasons}"
            "In a study: exits: [PLACE, PLACE], or shares, exits: [25%, 50%], or exits: 2 to spread "
            "them."
        )
        title = f"{self.title}: places for exits{'' if rows else ': none'}"
        return [TextTable(["", "place"], ["shape", "MACs", "share"], rows, title, note if rows else "")]


def taps(
    model: Annotated[str, CommandOption("MODEL")],
    *,
    input: Annotated[str, CommandOption("CxHxW")] = "3x32x32",
    classes: Annotated[int, CommandOption("N", least=2, most=100_000)] = 10,
    stem: Annotated[str | None, CommandOption("NAME")] = None,
    exits: Annotated[str | None, CommandOption("N|PLACES")] = None,
) -> TapList:
    """List the places of a network where an exit can go.

    Each has its shape and its share of the MACs. A star marks the default places, or those of `exits`.

    Args:
        model: A network: resnet18, timm/NAME or my.py:make_net.
        input: An image's channels, height and width.
        classes: Number of classes.
        stem: The first layers: imagenet or small, if the network has both.
        exits: Exits to try: 2, or a,b, or 25%,50%, or [[a, b], [c]].

    Raises:
        OfframpError: There is no such network, or it cannot take such an input.

    On the command line:
        offramp taps resnet18 --input 3x32x32
        offramp taps my.py:make_net --exits 25%,50%
    """
    from offramp.nets import list_places
    from offramp.study.plan.plan import net_spec
    from offramp.study.spec import file as spec

    sides = SHAPE.fullmatch(input)
    if sides is None:
        raise OfframpError(f"`input` is '{input}'; write channels x height x width, as 3x32x32")
    shape = (int(sides[1]), int(sides[2]), int(sides[3]))
    if max(shape) > LARGEST:
        raise OfframpError(f"`input` is '{input}'; give at most {LARGEST} channels and pixels a side")
    backbone = {"name": model} if stem is None else {"name": model, "stem": stem}
    study: dict[str, Any] = {"strategies": ["baseline"], "data": "given", "backbone": backbone}
    study |= {} if exits is None else {"exits": {"taps": spec.exits(exits)}}
    flags = {key: f"--{key}" for key in ("exits",) if key in study}
    parsed = spec.parse(study, "offramp taps", flags=flags)
    places, chosen = list_places(net_spec(parsed, shape), shape, classes)
    return TapList(places, chosen, f"{model}, input {input}", exits is not None)
