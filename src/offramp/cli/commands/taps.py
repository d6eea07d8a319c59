"""`offramp taps`: the places of a network where an exit can go."""

from __future__ import annotations

import re
from typing import Annotated

from offramp.cli.options import JsonOption, argument, option
from offramp.cli.render import alike, emit
from offramp.errors import OfframpError
from offramp.terminal import show, table
from offramp.units import macs, percent

LARGEST = 4096


def taps(
    model: Annotated[str, argument("MODEL", "A network: resnet18, timm/NAME or my.py:make_net.")],
    input_: Annotated[
        str, option("CxHxW", "An image's channels, height and width.", "--input")
    ] = "3x32x32",
    classes: Annotated[int, option("N", "Number of classes.", min=2, max=100_000)] = 10,
    stem: Annotated[
        str | None, option("NAME", "The first layers: imagenet or small, if the network has both.")
    ] = None,
    exits: Annotated[
        str | None, option("N|PLACES", "Exits to try: 2, or a,b, or 25%,50%, or [[a, b], [c]].")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the places of a network where an exit can go.

    Each has its shape and its share of the MACs. A star marks the default places, or those of --exits.

    \b
    Examples:
      offramp taps resnet18 --input 3x32x32
      offramp taps my.py:make_net --exits 25%,50%
    """
    from offramp.nets import list_places
    from offramp.study.plan.plan import net_spec
    from offramp.study.spec import file as spec

    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})", input_)
    if found is None:
        raise OfframpError(f"--input is '{input_}'; write channels x height x width, as 3x32x32")
    shape = (int(found[1]), int(found[2]), int(found[3]))
    if max(shape) > LARGEST:
        raise OfframpError(f"--input is '{input_}'; give at most {LARGEST} channels and pixels a side")
    asked = {"strategies": ["baseline"], "data": "given", "backbone": {"name": model}}
    asked |= {} if stem is None else {"backbone": {"name": model, "stem": stem}}
    asked |= {} if exits is None else {"exits": {"taps": spec.exits(exits)}}
    study = spec.parse(
        asked, "offramp taps", flags={key: f"--{key}" for key in ("exits",) if key in asked}
    )
    places, why = list_places(net_spec(study, shape), shape, classes)
    if json:
        about = [{key: getattr(p, key) for key in ("name", "shape", "macs", "share")} for p in places]
        emit([{**one, "default": one["name"] in why, "why": why.get(one["name"])} for one in about])
        return
    listing = table(["", "place"], ["shape", "MACs", "share"])
    for place in places:
        size = "x".join(str(n) for n in place.shape)
        mark = "*" if place.name in why else ""
        listing.add_row(mark, place.name, size, macs(place.macs), percent(place.share))
    kind = "a default place" if exits is None else "a place of --exits"
    note = (
        f"* {kind}. MACs and share: of one image, from the input to the place.\n"
        + "".join(f"  {', '.join(names)}: {reason}\n" for reason, names in alike(why).items())
        + "In a study: exits: [PLACE, PLACE], or shares, exits: [25%, 50%], or exits: 2 to spread them."
    )
    title = f"{model}, input {input_}: places for exits"
    show(listing, title if places else f"{title}: none", note if places else "")
