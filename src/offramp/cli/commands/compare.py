"""`offramp compare`: two strategies or two trials, at each exit."""

from __future__ import annotations

from typing import Annotated

from offramp.cli.options import JsonOption, StoreArgument, StoreOption, argument, option
from offramp.cli.render import emit
from offramp.cli.store import archived
from offramp.terminal import show, table


def compare(
    a: Annotated[str, argument("A", "A strategy's label, or a trial's id.")],
    b: Annotated[str, argument("B", "Another strategy, or another trial.")],
    store: StoreArgument = None,
    store_: StoreOption = None,
    measure: Annotated[
        str, option("NAME", "What to compare: accuracy, loss, f1, seconds-written …, or file.py:name.")
    ] = "accuracy-test",
    json: JsonOption = False,
) -> None:
    """Compare two strategies, or two trials, at each exit.

    How much more accurate is A than B on test images? It shows the difference with a 95 % interval
    (Student's t). Two strategies are paired seed by seed: the interval says how much depends on the
    seed. Two trials are paired image by image: the interval says how much depends on the test images.

    \b
    Examples:
      offramp compare joint two-stage
      offramp compare joint two-stage --measure seconds-written
      offramp compare joint-digits-cnn-digits-s42 joint-digits-cnn-digits-s43
    """
    from offramp.report.compare import compare as compared

    found = compared(archived(store, store_), a, b, measure)
    if json:
        emit(found.as_json())
        return
    scale = found.measure.scale
    listing = table(["exit"], ["difference", "95 % interval", f"{found.paired_by}s"])
    for exit, d in found.exits.items():
        interval = "–"
        if d.low is not None and d.high is not None:
            interval = f"{scale * d.low:+.2f} to {scale * d.high:+.2f}"
        listing.add_row(
            "all" if exit is None else str(exit), f"{scale * d.mean:+.2f}", interval, str(d.pairs)
        )
    alone = any(d.low is None for d in found.exits.values())
    note = "One seed allows no interval; run more seeds, or compare two trials." if alone else ""
    unit = f", in {found.measure.difference_unit}" if found.measure.difference_unit else ""
    title = f"{found.measure.title}, {a} minus {b}{unit}, paired by {found.paired_by}"
    show(listing, title, note)
