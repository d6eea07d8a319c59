"""A list of studies, one after another into one store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from offramp.cli.forecast import as_json, said_of, show_machines
from offramp.cli.progress.log import Log
from offramp.cli.progress.reading import reading_shown
from offramp.cli.render import emit
from offramp.cli.training.run_options import RunOptions, staff
from offramp.cli.training.study import Outcome, close, remark, spans_left, trained
from offramp.report import summary
from offramp.terminal import show, table
from offramp.units import duration, macs

if TYPE_CHECKING:
    from offramp.study.plan.forecast import Forecast
    from offramp.study.plan.plan import Plan
    from offramp.study.plan.schedule import Spans
    from offramp.study.plan.workers import Workers
    from offramp.study.spec.file import Member


def start_all(path: Path, asked: Sequence[Member], how: RunOptions) -> None:
    """One study after another; what fails in one does not stop the next."""
    from offramp.store.results import by_strategy
    from offramp.store.store import Store
    from offramp.study.plan.plan import check_data, plans

    if how.dry_run:
        _show_all(path, asked, how)
        return
    check_data([member.study for member in asked])
    outcomes: list[tuple[Member, Outcome]] = []
    made = _shown(plans([m.study for m in asked], how.device), how.log)
    with Store(how.root).more_to_come():
        for number, (member, plan) in enumerate(zip(asked, made, strict=True), start=1):
            own = member.study.data.split_seed == "trial"
            part = f"seed {member.study.seeds[0]}, " if own else ""
            how.log.say(f"{member.path}, {part}study {number} of {len(asked)}")
            remark(plan, how.log)
            outcomes.append((member, trained(plan, how)))
            if outcomes[-1][1].interrupted:
                break
    if how.as_json:
        emit({"studies": [{"study": str(m.path), **o.found} for m, o in outcomes]})
    if len({m.path for m, _ in outcomes}) == 1 < len(outcomes) and not how.as_json:
        ids = [trial for _, o in outcomes for trial in o.found["trials"]]
        summary.show_results(summary.printed(by_strategy(Store(how.root), ids), len(outcomes)))
    failed = list(dict.fromkeys(m.path for m, o in outcomes if o.failed))
    if failed and not how.as_json:
        how.log.say(f"failed in part: {', '.join(map(str, failed))}", must=True)
    close(Outcome({}, bool(failed), outcomes[-1][1].interrupted), how.log)


def _shown(made: Iterator[Plan], log: Log) -> Iterator[Plan]:
    """The plans, with how far the reading of their data is while each is made."""
    while True:
        with reading_shown(log):
            plan = next(made, None)
        if plan is None:
            return
        yield plan


def _show_all(path: Path, asked: Sequence[Member], how: RunOptions) -> None:
    from offramp.store.store import Store
    from offramp.study.plan.forecast import on_machines, together
    from offramp.study.plan.plan import plans

    device = how.device
    planned = plans([member.study for member in asked], device, provisional=True)
    workers: list[Workers] = []
    spans: list[Spans] = []

    def named() -> Iterator[tuple[str, Plan]]:  # one at a time: networks need not all stay in memory
        for member, plan in zip(asked, planned, strict=True):
            if how.on is None:
                workers.append(staff(plan, how))
            else:
                spans.append(spans_left(plan, how))
            own = member.study.data.split_seed == "trial"
            yield f"{member.path.stem}, seed {member.study.seeds[0]}" if own else member.path.stem, plan

    found = together(named(), Store(how.root), device)
    cluster = None
    if how.on is not None:
        speeds = [how.speed or one.macs_per_second for _, one in found.studies]
        cluster = on_machines(list(zip(spans, speeds, strict=True)), how.price)
    if how.as_json:
        told = as_json(found, how.speed)
        for one, its in zip(told["studies"], workers, strict=how.on is None):
            one["workers"] = asdict(its)
        emit(told if cluster is None else told | {"cluster": cluster.as_json()})
        return
    given = how.speed is not None
    listing = table(["study"], ["nodes", "MACs", "of unshared", "here", *(["there"] if given else [])])
    for name, study in found.studies:
        totals = study.totals
        row = [str(totals.nodes), macs(totals.macs)]
        row += [f"{100 * totals.share_of_written:.0f} %", duration(totals.seconds)]
        if how.speed is not None:
            row.append(duration(totals.macs_to_run / how.speed))
        listing.add_row(name, *row)
    note = "of unshared: MACs against those of all phases, with nothing shared or cached."
    if given:
        note += "\nthere: at the speed of --speed."
    show(listing, f"{path}: {len(asked)} studies", note)
    typer.echo(said_of(found.totals, how.speed))
    if cluster is None:
        least, most = min(w.count for w in workers), max(w.count for w in workers)
        typer.echo(f"Workers: {least if least == most else f'{least} to {most}'} (why is in --json).")
    else:
        show_machines(cluster)
    _provisional([study for _, study in found.studies])


def _provisional(studies: Sequence[Forecast]) -> None:
    """What is not here, each thing once."""
    for line in dict.fromkeys(line for one in studies for line in one.remarks):
        typer.echo(f"Note: {line}.")
    lacking = dict.fromkeys(line for one in studies for line in one.provisional)
    if lacking:
        typer.echo("Provisional, keys too, since not all is here:")
    for line in lacking:
        typer.echo(f"  {line}")
