"""`offramp status`: what a store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli.options import JsonOption, StoreArgument, StoreOption, option
from offramp.cli.render import emit, say
from offramp.cli.store import archived
from offramp.cli.trials import SortBy, TrialFilter, chosen, show_trials
from offramp.errors import OfframpError
from offramp.terminal import show, table
from offramp.units import counted, size

if TYPE_CHECKING:
    from offramp.store.live import TrialProgress


def status(
    store: StoreArgument = None,
    store_: StoreOption = None,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial, by its id.")] = False,
    strategy: Annotated[
        str | None, option("NAME", "With --trials: only those of this strategy.")
    ] = None,
    seed: Annotated[int | None, option("N", "With --trials: only those of this seed.")] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="With --trials: only those that are not finished.")
    ] = False,
    failed: Annotated[
        bool,
        typer.Option("--failed", help="With --trials: only those with a failed phase, and why."),
    ] = False,
    sort: Annotated[
        SortBy,
        option(
            "ORDER",
            "With --trials: their order. trial, seed or finished; accuracy: of the final exit on test, "
            "the best first; phases: those with the most left to do first.",
        ),
    ] = SortBy.trial,
    json: JsonOption = False,
) -> None:
    """Show what a store holds.

    It counts trials (by strategy, network and data set), nodes (finished phases of training),
    checkpoints that a run can go on from, and bytes. `offramp watch` shows what is trained now.

    \b
    Examples:
      offramp status runs/demo
      offramp status runs/demo --trials --strategy joint --sort accuracy
    """
    from offramp.store.manifest import BITS
    from offramp.store.record import made_with

    archive = archived(store, store_)
    if trials:
        from offramp.store.live import Reader

        wanted = TrialFilter(strategy, seed, unfinished, failed)
        _list(list(Reader(archive).courses()), wanted, sort, json)
        return
    if strategy is not None or seed is not None or unfinished or failed or sort is not SortBy.trial:
        raise OfframpError(
            "--strategy, --seed, --unfinished, --failed and --sort are for a list; add --trials"
        )
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
        f"{counted(len(manifests), 'trial')} finished, {len(plans)} unfinished; "
        f"{counted(len(archive.nodes()), 'node')}, {counted(len(working), 'checkpoint')}; {size(used)}."
    )
    mixed = [f"{name} ({', '.join(made[name])})" for name in BITS if len(made[name]) > 1]
    if mixed:
        typer.echo(f"Warning: trials differ in {'; '.join(mixed)}; their bits may too.")


def _list(courses: Sequence[TrialProgress], wanted: TrialFilter, sort: SortBy, as_json: bool) -> None:
    """Trials, a line each."""
    rows = chosen(courses, wanted, sort)
    if as_json:
        emit({"trials": rows})
    elif not rows:
        typer.echo("No trial matches.")
    else:
        show_trials(rows)
        for row in rows if wanted.failed else ():
            say(f"{row['trial']}: {row['failed']}", indent="  ")
