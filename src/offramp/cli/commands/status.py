"""`offramp status`: what a store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli.options import JsonOption, StoreArgument, StoreOption, option
from offramp.cli.render import emit
from offramp.cli.store import archived
from offramp.errors import OfframpError, nearest
from offramp.terminal import show, table
from offramp.units import counted, size

if TYPE_CHECKING:
    from offramp.store.live import Course


class Column(StrEnum):
    trial = "trial"
    seed = "seed"
    accuracy = "accuracy"
    finished = "finished"


BITS = ("torch", "torchvision", "timm", "numpy", "device")  # of these, other versions may change bits


def status(
    store: StoreArgument = None,
    store_: StoreOption = None,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial, by its id.")] = False,
    strategy: Annotated[str | None, option("NAME", "With --trials, only those of a strategy.")] = None,
    seed: Annotated[int | None, option("N", "With --trials, only those of a seed.")] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="With --trials, only those that are not finished.")
    ] = False,
    sort: Annotated[
        Column, typer.Option(help="With --trials, their order. accuracy: of the final exit on test.")
    ] = Column.trial,
    json: JsonOption = False,
) -> None:
    """Show what a store holds.

    Its trials by strategy, network and data set. Its nodes, which are finished phases of training. The
    checkpoints that a run can go on from. The space on disk. `offramp watch` shows what is trained now.

    \b
    Examples:
      offramp status runs/demo
      offramp status runs/demo --trials --strategy joint --sort accuracy
    """
    from offramp.store.record import made_with

    archive = archived(store, store_)
    if trials:
        from offramp.store.live import Reader

        _list(list(Reader(archive).courses()), strategy, seed, unfinished, sort, json)
        return
    if strategy is not None or seed is not None or unfinished or sort is not Column.trial:
        raise OfframpError("this is of the list of trials; add --trials")
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


def _list(
    courses: Sequence[Course],
    strategy: str | None,
    seed: int | None,
    unfinished: bool,
    sort: Column,
    as_json: bool,
) -> None:
    """Trials, a line each."""
    known = sorted({c.strategy for c in courses if c.strategy is not None})
    if strategy is not None and known and strategy not in known:
        raise OfframpError(f"no finished trial is of '{strategy}'{nearest(strategy, known)}")
    rows = [
        c.as_json()
        for c in courses
        if (strategy is None or c.strategy == strategy)
        and (seed is None or c.seed == seed)
        and not (unfinished and c.manifest is not None)
    ]
    by: Mapping[Column, Callable[[dict[str, Any]], Any]] = {
        Column.trial: lambda row: row["trial"],
        Column.seed: lambda row: (row["seed"] or 0, row["trial"]),
        Column.accuracy: lambda row: -(row["accuracy"][-1] if row["accuracy"] else -1),
        Column.finished: lambda row: row["finished"] or "~",
    }
    rows.sort(key=by[sort])
    if as_json:
        emit({"trials": rows})
        return
    if not rows:
        typer.echo("no such trial")
        return
    listing = table(["trial", "finished"], ["seed", "phases", "test, %"])
    for row in rows:
        accuracies = " ".join(f"{100 * value:.1f}" for value in row["accuracy"]) or "-"
        phases = f"{row['phases_finished']}/{row['phases']}"
        when = (row["finished"] or "-").partition("+")[0].replace("T", " ")
        listing.add_row(row["trial"], when, str(row["seed"]), phases, accuracies)
    show(listing, "", "test: accuracy of each exit, the final one last.")
