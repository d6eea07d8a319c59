"""`offramp status`: what a store holds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import typer

from offramp.cli.options import RUNS, JsonOption, StoreOption
from offramp.cli.render import counted, emit, show, table
from offramp.cli.store import archived
from offramp.units import size

if TYPE_CHECKING:
    from offramp.store.archive import Archive


def status(store: StoreOption = RUNS, json: JsonOption = False) -> None:
    """Show what a store holds, finished and begun.

    Trials by strategy, network and data; nodes (finished phases), checkpoints to go on from, disk.
    """
    _status(archived(store), json)


BITS = ("torch", "torchvision", "timm", "numpy", "device")  # of these, other versions may change bits


def _status(store: Archive, as_json: bool) -> None:
    from offramp.store import sealed
    from offramp.store.record import made_with

    manifests = [store.read_trial(trial) for trial in store.trials()]
    counts = Counter((m.strategy, m.network.backbone, m.data.label) for m in manifests)
    plans, working = store.begun(), store.names("work")
    used = sealed.size(store.root.resolve())
    made = made_with(store, manifests)
    if as_json:
        emit(
            {
                "store": str(store.root),
                "trials": len(manifests),
                "unfinished": plans,
                "nodes": len(store.nodes()),
                "checkpoints": working,
                "bytes": used,
                "made_with": made,
                "strategies": [
                    {"strategy": strategy, "backbone": backbone, "data": data, "trials": count}
                    for (strategy, backbone, data), count in counts.items()
                ],
            }
        )
        return
    listing = table(["strategy", "backbone", "data"], ["trials"])
    for (strategy, backbone, data), count in counts.items():
        listing.add_row(strategy, backbone, data, str(count))
    if counts:
        show(listing, f"Store {store.root}")
    typer.echo(
        f"{counted(len(manifests), 'trial')} finished, {len(plans)} begun; "
        f"{counted(len(store.nodes()), 'node')}, {counted(len(working), 'checkpoint')}; {size(used)}."
    )
    mixed = [f"{name} ({', '.join(made[name])})" for name in BITS if len(made[name]) > 1]
    if mixed:
        typer.echo(f"Warning: mixed here, so bits may differ: {'; '.join(mixed)}.")
