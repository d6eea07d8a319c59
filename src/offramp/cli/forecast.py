"""What a run would take, in words: the phases and the totals of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from offramp.cli.render import alike, say
from offramp.terminal import show, table
from offramp.units import counted, duration, macs, percent, size

if TYPE_CHECKING:
    from offramp.data.dataset import Data
    from offramp.study.plan.forecast import Forecast, Forecasts, OnMachines, Totals
    from offramp.study.plan.workers import Workers


def show_forecast(
    found: Forecast,
    speed: float | None = None,
    workers: Workers | None = None,
    cluster: OnMachines | None = None,
) -> None:
    """The phases and the totals of a plan. speed: of another device, in MACs a second."""
    exits = {f"{place.name} at {percent(place.share)}": place.why for place in found.places}
    if exits:
        said = "; ".join(f"{', '.join(names)} ({why})" for why, names in alike(exits).items())
        say(f"Early exits, by share of the MACs: {said}.")
    seeds = sorted({node.seed for node in found.nodes})
    rows = []
    for node in (node for node in found.nodes if node.seed == seeds[0]):
        key, users = node.key[:8] + " ✓" * node.in_store, dict.fromkeys(node.strategies)
        rows.append((key, node.phase, node.loss, ", ".join(users), macs(node.macs)))
    more = "; the other seeds are alike" if seeds[1:] else ""
    listing = table(["node", "phase", "loss", "for"], ["MACs"], rows)
    show(listing, f"What seed {seeds[0]} takes{more}")
    typer.echo(said_of(found.totals, speed, found.macs_per_second))
    if workers is not None:
        more = " The time above is that of one." if workers.count > 1 else ""
        say(f"Workers: {workers.count} ({workers.reason}).{more}")
    if cluster is not None:
        show_machines(cluster)
    for line in found.provisional:
        typer.echo(f"Provisional, keys too: {line}.")


def said_of_data(data: Data) -> str:
    """How many images each split has, or how many texts."""
    from offramp.inputs import is_text  # it brings torch

    kind = "texts" if is_text(data.shape) else "images"
    what = f"{kind} {'×'.join(map(str, data.shape))}"
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    return f"Data: {data.name}, {len(data.classes)} classes, {what}: {counts}."


def show_machines(found: OnMachines) -> None:
    """How long it takes on how many machines."""
    rows = found.by_machines
    priced = rows[0].price is not None
    listing = table(["machines"], ["time", "times as fast", *(["price"] if priced else [])])
    for row in rows:
        price = [] if row.price is None else [f"{row.price:,.2f}"]
        listing.add_row(str(row.machines), duration(row.seconds), f"{row.faster:.1f}", *price)
    more = f", {found.at_once} phases at once on each" if found.at_once > 1 else ""
    show(listing, f"On machines like this one{more}")
    say(
        f"Longest chain: {duration(found.shortest)} ({', '.join(found.chain)}). No number of machines "
        "takes less: each of its phases begins from the one before."
    )


def as_json(found: Forecast | Forecasts, speed: float | None) -> dict[str, Any]:
    """With what is left on a device of that speed, where one is given."""
    told = found.as_json()
    if speed is not None:
        there = {"given_macs_per_second": speed, "seconds_at_given": found.totals.macs_to_run / speed}
        told["totals"] |= there
    return told


def said_of(totals: Totals, speed: float | None, here: float | None = None) -> str:
    """The totals of a plan, or of several. speed: of another device, in MACs a second.
    here: of this machine; several plans differ in it."""
    whole, written, left = map(macs, (totals.macs, totals.macs_written, totals.macs_to_run))
    once = 100 * totals.macs_shared / totals.macs_written
    saved = f"\n({once:.0f} % with shared phases; the cache of frozen layers saves the rest)"
    saved = saved if totals.macs < totals.macs_written else ""
    work = f"{left}MACs, about {duration(totals.seconds)} here"
    if here is not None:
        work += f", at {macs(here)}MAC/s"
    if speed is not None:
        work += f";\nat a steady {macs(speed)}MAC/s {duration(totals.macs_to_run / speed)}"
    on_disk, live = totals.cache_disk_bytes, totals.cache_live_bytes
    disk = f"; caches up to {size(on_disk)} at a time" if on_disk else ""
    computed = (
        f";\n{size(live)} of frozen values are not cached, but computed each batch" if live else ""
    )
    return (
        f"{counted(totals.trials, 'trial')} of {counted(totals.phases, 'phase')} in all: "
        f"{counted(totals.nodes, 'node')}, {totals.nodes_in_store} of them in the store (✓).\n"
        f"Work: {whole}MACs, {100 * totals.share_of_written:.0f} % of the {written}MACs of every "
        f"phase run alone{saved}.\n"
        f"Left: {work if totals.macs_to_run else 'nothing'}.\n"
        f"Disk: {size(totals.disk_bytes)} in the store{disk}.\n"
        f"Memory: about {size(totals.memory_bytes)} a process, "
        f"{size(totals.cache_memory_bytes)} of it caches{computed}.\n"
        "Nothing was started."
    )
