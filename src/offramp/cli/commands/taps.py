"""`offramp taps`: the places of a network where an exit can go."""

from __future__ import annotations

import re
from typing import Annotated

from offramp.cli.options import JsonOption, argument, option
from offramp.cli.render import emit
from offramp.errors import OfframpError
from offramp.terminal import show, table
from offramp.units import macs

LARGEST = 4096


def taps(
    model: Annotated[str, argument("MODEL", "A network: resnet18, timm/NAME or my.py:make_net.")],
    input_: Annotated[str, option("CxHxW", "Channels x height x width.", "--input")] = "3x32x32",
    classes: Annotated[int, option("N", "Number of classes.", min=2, max=100_000)] = 10,
    stem: Annotated[
        str | None, option("NAME", "The first layers: imagenet or small, where there is a choice.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the places of a network where an exit can go.

    Each with its shape and its share of the MACs. A star marks the default places.

    \b
    Example:
      offramp taps resnet18 --input 3x32x32
    """
    from offramp.nets import NetSpec, list_places

    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})", input_)
    if found is None:
        raise OfframpError(f"--input is '{input_}'; write channels x height x width, as 3x32x32")
    shape = (int(found[1]), int(found[2]), int(found[3]))
    if max(shape) > LARGEST:
        raise OfframpError(f"--input is '{input_}'; give at most {LARGEST} channels and pixels a side")
    spec = NetSpec(model, options=() if stem is None else (("stem", stem),))
    places, chosen = list_places(spec, shape, classes)
    if json:
        about = [{key: getattr(p, key) for key in ("name", "shape", "macs", "share")} for p in places]
        emit([{**one, "default": one["name"] in chosen} for one in about])
        return
    listing = table(["", "place"], ["shape", "MACs", "share"])
    for place in places:
        size = "x".join(str(n) for n in place.shape)
        mark = "*" if place.name in chosen else ""
        listing.add_row(mark, place.name, size, macs(place.macs), f"{100 * place.share:.1f} %")
    note = (
        "* a default tap. MACs and share: of one image, from the input to the place.\n"
        "In a study: exits: [PLACE, PLACE], or exits: 2 to spread them by share."
    )
    show(listing, f"{model}, input {input_}: places for exits", note)
