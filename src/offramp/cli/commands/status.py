"""`offramp status`: what a store holds."""

from __future__ import annotations

from collections import Counter

import typer

from offramp.cli.options import JsonOption, StoreArgument, StoreOption
from offramp.cli.render import emit
from offramp.cli.store import archived
from offramp.terminal import show, table
from offramp.units import counted, size

BITS = ("torch", "torchvision", "timm", "numpy", "device")  # of these, other versions may change bits


def status(store: StoreArgument = None, store_: StoreOption = None, json: JsonOption = False) -> None:
    """Show what a store holds.

    Its trials by strategy, network and data set. Its nodes, which are finished phases of training. The
    checkpoints that a run can go on from. The space on disk.

    \b
    Example:
      offramp status runs/demo
    """
    from offramp.store.record import made_with

    archive = archived(store, store_)
    manifests = [archive.read_trial(trial) for trial in archive.trials()]
    counts = Counter((m.strategy, m.network.backbone, m.data.label) for m in manifests)
    plans, working = archive.begun(), archive.checkpoints()
    used = archive.size()
    made = made_with(archive, manifests)
    if json:
        about = {"store": str(archive.root), "trials": len(manifests), "unfinished": plans}
        held = {"nodes": len(archive.nodes()), "checkpoints": working, "bytes": used, "made_with": made}
        strategies = [
            {"strategy": strategy, "backbone": backbone, "data": data, "trials": count}
            for (strategy, backbone, data), count in counts.items()
        ]
        emit({**about, **held, "strategies": strategies})
        return
    if counts:
        rows = [(*names, str(count)) for names, count in counts.items()]
        show(table(["strategy", "backbone", "data"], ["trials"], rows), f"Store {archive.root}")
    typer.echo(
        f"{counted(len(manifests), 'trial')} finished, {len(plans)} begun; "
        f"{counted(len(archive.nodes()), 'node')}, {counted(len(working), 'checkpoint')}; {size(used)}."
    )
    mixed = [f"{name} ({', '.join(made[name])})" for name in BITS if len(made[name]) > 1]
    if mixed:
        typer.echo(f"Warning: mixed here, so bits may differ: {'; '.join(mixed)}.")
