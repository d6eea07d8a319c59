"""`offramp run` with a file: a study, a list of studies, a study that is to fit a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer

from offramp import device as devices
from offramp import units
from offramp.cli import running
from offramp.cli.busy import reading_shown
from offramp.cli.render import emit, show, table
from offramp.cli.running import How, Outcome
from offramp.errors import OfframpError
from offramp.store.store import Store
from offramp.study.plan.budget import choose
from offramp.study.plan.collection import Member, check_data, members, plans
from offramp.study.plan.forecast import measured, together
from offramp.study.plan.plan import Plan, make_plan
from offramp.units import duration, macs


def start(
    path: Path, settings: Sequence[str], data_root: Path | None, budget: str | None, how: How
) -> None:
    """Plan and run what a file asks for; exits as `running.start`."""
    if how.speed is not None and not how.dry_run:
        raise OfframpError("--speed is for a forecast; add --dry-run")
    asked = members(path, settings, data_root)
    running.check_code([member.study for member in asked], how)
    if len(asked) > 1 and budget is not None:
        raise OfframpError(f"--budget is for one study, and {path} lists {len(asked)}; run one of them")
    if len(asked) > 1:
        _start_all(path, asked, how)
        return
    if budget is not None:
        seconds = units.parse(budget, units.TIME, "--budget")
        with reading_shown(not how.silent):
            plan = make_plan(asked[0].study, provisional=how.dry_run)
        how = replace(how, here=measured(plan, devices.chosen()))
        asked = members(path, [*settings, *_fitting(plan, seconds, budget, how)], data_root)
    running.start(asked[0].study, how)


def _fitting(plan: Plan, seconds: float, words: str, how: How) -> tuple[str, ...]:
    """Settings with which the study fits, and on standard error what they are."""
    speed = how.here or measured(plan, devices.chosen())
    chosen = choose(plan, seconds * speed)
    about = f"about {duration(chosen.macs / speed)} here, at {macs(speed)}MAC/s"
    if chosen.settings:
        flags = " ".join(f"--set {setting}" for setting in chosen.settings)
        typer.echo(f"--budget {words}: the same as {flags}; {about}.", err=True)
    else:
        typer.echo(f"--budget {words}: all of it fits; {about}.", err=True)
    return chosen.settings


def _start_all(path: Path, asked: Sequence[Member], how: How) -> None:
    """One study after another; what fails in one does not stop the next."""
    if how.dry_run:
        _show_all(path, asked, how)
        return
    check_data([member.study for member in asked])
    outcomes: list[tuple[Member, Outcome]] = []
    for number, (member, plan) in enumerate(
        zip(asked, _shown(plans([m.study for m in asked]), not how.silent), strict=True), start=1
    ):
        if not how.silent:
            typer.echo(f"\n{member.path}, study {number} of {len(asked)}", err=True)
            running.remark(plan)
        outcomes.append((member, running.trained(plan, how)))
        if outcomes[-1][1].interrupted:
            break
    if how.as_json:
        emit({"studies": [{"study": str(m.path), **o.found} for m, o in outcomes]})
    failed = [m.path for m, o in outcomes if o.failed]
    if failed and not how.as_json:
        typer.echo(f"failed in part: {', '.join(map(str, failed))}", err=True)
    running.close(Outcome({}, bool(failed), outcomes[-1][1].interrupted))


def _shown(made: Iterator[Plan], shown: bool) -> Iterator[Plan]:
    """The plans, with how far the reading of their data is while each is made."""
    while True:
        with reading_shown(shown):
            plan = next(made, None)
        if plan is None:
            return
        yield plan


def _show_all(path: Path, asked: Sequence[Member], how: How) -> None:
    device = devices.chosen()
    planned = plans([member.study for member in asked], device, provisional=True)
    staff = []

    def named() -> Iterator[tuple[str, Plan]]:  # one at a time: networks need not all stay in memory
        for member, plan in zip(asked, planned, strict=True):
            staff.append(asdict(running.staff(plan, how)))
            yield member.path.stem, plan

    found = together(named(), Store(how.root), device)
    for one, workers in zip(found["studies"], staff, strict=True):
        one["workers"] = workers
    found["totals"] |= running.at_speed(found["totals"], how.speed)
    if how.as_json:
        emit(found)
        return
    given = how.speed is not None
    listing = table(["study"], ["nodes", "MACs", "of alone", "here", *(["there"] if given else [])])
    for one in found["studies"]:
        totals = one["totals"]
        row = [str(totals["nodes"]), macs(totals["macs"])]
        row += [f"{100 * totals['share_of_written']:.0f} %", duration(totals["seconds"])]
        if how.speed is not None:
            row.append(duration(totals["macs_to_run"] / how.speed))
        listing.add_row(one["study"], *row)
    note = "of alone: share of the work of every phase run alone."
    if given:
        note += "\nthere: at the given speed."
    show(listing, f"{path}: {len(asked)} studies", note)
    typer.echo(running.said_of(found["totals"]))
    least, most = min(w["count"] for w in staff), max(w["count"] for w in staff)
    typer.echo(f"Workers: {least if least == most else f'{least} to {most}'} (why is in --json).")
    _provisional(found["studies"])


def _provisional(studies: Sequence[dict[str, Any]]) -> None:
    """What is not here, each thing once."""
    for line in dict.fromkeys(line for one in studies for line in one["remarks"]):
        typer.echo(f"Note: {line}.")
    lacking = dict.fromkeys(line for one in studies for line in one["provisional"])
    if lacking:
        typer.echo("Provisional, keys too, since not all is here:")
    for line in lacking:
        typer.echo(f"  {line}")
