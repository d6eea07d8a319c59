"""`offramp run`: a study, a list of studies, or a study that is to fit a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from offramp.cli import options
from offramp.cli.decisions import said_of_look, said_of_power, show_decisions
from offramp.cli.forecast import at_speed, said_of, show_forecast, show_machines
from offramp.cli.options import argument, flag, option
from offramp.cli.progress import Progress, reading_shown, watch
from offramp.cli.render import emit, folded, say
from offramp.cli.store import announce
from offramp.errors import OfframpError, Unwritable
from offramp.process import exit_code
from offramp.report import summary
from offramp.store.place import Place
from offramp.terminal import show, table
from offramp.units import counted, duration, macs

if TYPE_CHECKING:
    import torch

    from offramp.analysis.stats.sample import Floats
    from offramp.analysis.stats.sequential import Decision
    from offramp.report.power import SeedsNeeded
    from offramp.study.plan.plan import Plan
    from offramp.study.plan.schedule import Spans
    from offramp.study.plan.workers import Workers
    from offramp.study.run.cluster import Cluster
    from offramp.study.run.run import Conduct
    from offramp.study.spec.file import Member
    from offramp.study.spec.models import Study

NEW = 256  # records of an object store that no index has yet, for which a run writes it anew at its end


def run(
    study: Annotated[Path, argument("STUDY", "A study file, such as studies/demo.yaml.")],
    store: options.TrainingStoreOption = options.RUNS,
    data_root: options.DataRootOption = None,
    set_: options.SetOption = None,
    execution: options.ExecutionOption = None,
    dry_run: options.DryOption = False,
    workers: options.WorkersOption = "auto",
    on: options.OnOption = "local",
    price_per_hour: options.PriceOption = None,
    device: options.DeviceOption = None,
    budget: options.BudgetOption = None,
    speed: Annotated[
        str | None,
        option(
            "SPEED",
            "With --dry-run: also the time on a device of this speed, such as 14TFLOPS or 7TMACs.",
        ),
    ] = None,
    until_decided: Annotated[
        bool,
        flag(
            "--until-decided",
            "Add seeds until each pair of strategies differs, is alike, or the seeds are spent.",
        ),
    ] = False,
    max_seeds: Annotated[
        int | None, option("N", "With --until-decided: seeds in all.  [default: 20]", min=3)
    ] = None,
    difference: Annotated[
        float | None,
        option(
            "POINTS",
            "With --until-decided: strategies that differ by less, in points of test accuracy, are "
            "alike.  [default: 0.5]",
        ),
    ] = None,
    power: Annotated[
        float | None,
        option(
            "POINTS",
            "With --dry-run: how many seeds it takes to show a difference of so many points, as the "
            "trials in the store vary.",
        ),
    ] = None,
    cache_memory: options.CacheMemoryOption = None,
    cache_disk: options.CacheDiskOption = None,
    no_user_code: options.NoUserCodeOption = False,
    anyway: options.AnywayOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Run a study: train what is missing, then show the results.

    A study trains each of its strategies with each of its seeds. One of these is a trial. A trial is a
    sequence of phases. A phase that several trials share is trained once, and what the store holds is
    not trained again. So interrupt a run whenever you like (Ctrl-C): the same command goes on.

    A file may also list studies. They run one after another into one store, and the data root then
    holds a folder for each data set, by name.

    With --until-decided, seeds are added after the study's own (three at least), for the strategies that
    are still in question. How often and on what it looks is fixed before the first look and kept in the
    store, so that reports know what p must pay for.

    A dry run shows the work, what is shared and the time, and starts nothing. It needs neither data nor
    weights: for the public data sets it goes by known counts.

    Exit codes: 0; 1 if a trial failed (the others go on); 2 for a mistake in the study or the
    command; 130 if interrupted, 143 by SIGTERM (Slurm, Kubernetes), 129 if the terminal is closed.

    \b
    Examples:
      offramp run studies/demo.yaml --dry-run
      offramp run studies/demo.yaml --set recipe.epochs=3 --set seeds='[42]'
      offramp run studies/demo.yaml --store runs/demo --workers 2
      offramp run studies/demo.yaml --budget 1min
      offramp run studies/demo.yaml --until-decided --max-seeds 12
      offramp run studies/demo.yaml --dry-run --power 0.5
      offramp run studies/paper/all.yaml --dry-run --speed 14TFLOPS
      offramp run studies/paper/all.yaml --dry-run --on ray --price-per-hour 2.5
      offramp run studies/demo.yaml --on ray://head:10001 --store /shared/runs
      offramp run studies/paper/all.yaml --set scale=small --data-root data
    """
    from offramp import units

    _leave_word_to_first()
    given = None if speed is None else units.parse(speed, units.SPEED, "--speed")
    how = How(
        store,
        dry_run,
        processes(workers),
        json,
        quiet,
        given,
        user_code=not no_user_code,
        place=device,
        anyway=anyway,
        power=_share(power, "--power"),
        until=Until(max_seeds, _share(difference, "--difference")) if until_decided else None,
        on=place(on),
        price=price_per_hour,
    )
    if how.on is not None and how.workers is not None:
        raise OfframpError("--workers is for one machine; a cluster has the cores that Ray was given")
    if price_per_hour is not None and (how.on is None or not dry_run):
        raise OfframpError("--price-per-hour is for the forecast of a cluster; add --dry-run --on ray")
    if (max_seeds, difference) != (None, None) and not until_decided:
        raise OfframpError("--max-seeds and --difference are for --until-decided; add it")
    _start(study, settings(set_, execution, cache_memory, cache_disk), data_root, budget, how)


def _leave_word_to_first() -> None:
    """Of the processes that torchrun starts, the first one tells how it goes; mistakes are all others'
    too."""
    if os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("RANK") != "0":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _share(points: float | None, flag: str) -> float | None:
    """Points of accuracy as a share of 1. Raises OfframpError for none or more than there are."""
    if points is not None and not 0 < points < 100:
        raise OfframpError(f"{flag} is {points:g}; write points of accuracy, such as 0.5")
    return None if points is None else points / 100


def settings(
    given: list[str] | None,
    execution: options.Execution | None,
    cache_memory: str | None,
    cache_disk: str | None,
) -> list[str]:
    from offramp import units

    settings = [*(given or []), *([f"execution.mode={execution.value}"] if execution else [])]
    for name, text in (("cache_memory", cache_memory), ("cache_disk", cache_disk)):
        if text is not None:
            flag = f"--{name.replace('_', '-')}"
            if text != "auto":
                text = str(int(units.parse(text, units.SIZE, flag, also="auto")))
            settings.append(f"execution.{name}={text}")
    return settings


@dataclass(frozen=True)
class Until:
    """How long seeds are added. seeds: in all.  difference: in accuracy, 0 to 1. None: as it is by
    default, or was."""

    seeds: int | None
    difference: float | None


@dataclass(frozen=True)
class How:
    """How a run is asked for. on: a cluster's address, `ray`, or None for this machine alone.  cluster:
    it, once it is joined.  price: of one of its machines an hour.  workers: None for as many as suit.
    speed: of another device, in MACs a second, for the forecast.  here: of this one, where it was
    measured already.  user_code: whether a study may name code of its own.  place: the device's name, as
    `offramp.device.chosen` takes it.  anyway: train for a time that is too short too.  unreliable: that
    it was.  power: a difference in accuracy, 0 to 1, that a dry run counts seeds for.  until: where
    seeds are to be added."""

    root: Place
    dry_run: bool = False
    workers: int | None = None
    as_json: bool = False
    quiet: bool = False
    speed: float | None = None
    here: float | None = None
    user_code: bool = True
    place: str | None = None
    anyway: bool = False
    unreliable: tuple[str, ...] = ()
    power: float | None = None
    until: Until | None = None
    on: str | None = None
    cluster: Cluster | None = None
    price: float | None = None

    @property
    def device(self) -> torch.device:
        import torch

        from offramp import device as devices

        if self.cluster is not None:  # whose devices need not be here
            return torch.device(self.place or self.cluster.device)
        return devices.chosen(self.place)

    @property
    def silent(self) -> bool:
        return self.as_json or self.quiet


def processes(text: str) -> int | None:
    """What `--workers` says: a number; None of `auto`. Raises OfframpError for anything else."""
    if text == "auto":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise OfframpError(f"--workers must be auto or a number from 1 on; got '{text}'")
    return int(text)


def place(text: str) -> str | None:
    """What `--on` says: a cluster, or None of `local`. Raises OfframpError for anything else."""
    if text == "local":
        return None
    if text != "ray" and not re.fullmatch(r"ray://[^\s/]+:[0-9]{1,5}", text):
        raise OfframpError(f"--on must be local, ray or ray://HOST:PORT; got '{text}'")
    return text


@contextmanager
def reached(how: How) -> Iterator[How]:
    """With the cluster that was asked for, where one was and anything is to run."""
    if how.on is None or how.dry_run:
        yield how
        return
    from offramp.study.run.cluster import joined

    with joined(how.on) as cluster:
        yield replace(how, cluster=cluster)


def start(study: Study, how: How) -> None:
    """Plan and run a study; exits with 1 when something failed, 130, 143 or 129 when interrupted."""
    from offramp.study.plan.plan import make_plan

    with reading_shown(not how.silent):
        plan = make_plan(study, how.device, provisional=how.dry_run)
    go(plan, how)


def go(plan: Plan, how: How) -> None:
    """As `start`, with the plan at hand."""
    from offramp.store.store import Store
    from offramp.study.plan.forecast import forecast, on_machines

    if not how.silent:
        remark(plan)
    if how.dry_run:
        found = forecast(plan, Store(how.root), how.device, how.here)
        if how.on is None:
            found["workers"] = asdict(staff(plan, how))
        else:
            speed = how.speed or found["totals"]["macs_per_second"]
            found["cluster"] = on_machines([(_spans(plan, how), speed)], how.price)
        needed = None if how.power is None else _power(plan, how.root, how.power)
        found |= {} if needed is None else {"power": asdict(needed)}
        show_forecast(found, how.as_json, how.speed)
        if needed is not None and not how.as_json:
            say(said_of_power(needed))
        return
    outcome = trained(plan, how) if how.until is None else _decided(plan, how, how.until)
    if how.as_json:
        emit(outcome.found)
    close(outcome)


def _spans(plan: Plan, how: How) -> Spans:
    """What is left of a plan on many machines, in MACs."""
    from offramp.store.store import Store
    from offramp.study.plan.forecast import MACHINES
    from offramp.study.plan.schedule import Schedule, spans

    store = Store(how.root)
    there = [] if plan.provisional else [key for key in plan.nodes if store.has_node(key)]
    return spans(Schedule(plan, frozenset(there)), MACHINES)


def _power(plan: Plan, root: Place, difference: float) -> SeedsNeeded:
    """How many seeds the study takes to show a difference, as what the store holds varies."""
    from offramp.report import evidence
    from offramp.report.power import SeedsNeeded, seeds_needed
    from offramp.store.archive import is_store

    if not is_store(root):
        return SeedsNeeded(difference, 0, why=f"there is no store at {root}; run three seeds first")
    data, augment = plan.data.name, plan.data.augment
    label = data if augment is None else f"{data} ({augment})"
    strategies = {s.label for s in plan.study.strategies}
    found = evidence.from_store(root)
    return seeds_needed(found, plan.study.backbone.name, label, strategies, difference)


def remark(plan: Plan) -> None:
    """What there is to know before it starts, on standard error."""
    from offramp.data.load import notes

    told = [f"Note: {line}." for line in plan.remarks]
    if plan.net.initial is not None:
        told.append(f"Weights '{plan.study.backbone.weights}': {plan.net.initial}.")
    told += [f"{plan.data.name}: {note}" for note in notes(plan.data.provenance)]
    for line in told:
        typer.echo("\n".join(folded(line)), err=True)


@dataclass(frozen=True)
class Outcome:
    """found: as JSON.  failed: whether something did.  interrupted: by what it was cut short."""

    found: dict[str, Any]
    failed: bool
    interrupted: KeyboardInterrupt | None


def trained(plan: Plan, how: How) -> Outcome:
    """Run a plan, show its results unless they are for programs."""
    workers = staff(plan, how)
    if not how.silent:
        typer.echo("\n".join(folded(f"Workers: {workers.count} ({workers.reason}).")), err=True)
    progress = Progress(plan, shown=not how.silent)
    interrupted = _work(plan, how, workers, progress)
    made = [trial.id for trial in plan.trials if trial.id in progress.trials]
    outcome = _results(how, made, progress.failures(), interrupted, workers, len(plan.study.seeds))
    if not how.as_json:
        typer.echo(progress.closing(str(how.root)))
    return outcome


def _work(plan: Plan, how: How, workers: Workers, progress: Progress) -> KeyboardInterrupt | None:
    """Run a plan; by what it was interrupted."""
    from offramp.store.store import Store
    from offramp.study.run.pool import run_pooled

    store = Store(how.root)
    try:
        if how.cluster is None:
            watch(run_pooled(plan, store, conduct(how.device, workers.count)), progress)
        else:
            from offramp.study.run.driver import run_on_cluster

            watch(run_on_cluster(plan, store, how.cluster), progress)
    except KeyboardInterrupt as error:
        return error
    with suppress(Unwritable):  # what was to be done is done
        store.index(least=NEW)
    return None


def _decided(plan: Plan, how: How, until: Until) -> Outcome:
    """As `trained`, with seeds that are added and looked at until nothing is left to decide."""
    from offramp.store.store import Store
    from offramp.study import decide

    store = Store(how.root)
    name, log = decide.begin(store, plan, until.seeds, until.difference)
    compared, wanted = decide.compared(plan), tuple(s.label for s in plan.study.strategies)
    known: dict[tuple[str, int], Floats] = {}
    decisions: tuple[Decision, ...] = ()
    made: list[str] = []
    failures: list[dict[str, Any]] = []
    before: int = 0
    interrupted: KeyboardInterrupt | None = None
    for count in decide.looks(log).counts:
        more = decide.part(plan, log.seeds[before:count], wanted)
        progress = Progress(more, shown=not how.silent)
        workers = staff(more, how)
        interrupted = _work(more, how, workers, progress)
        made += [trial.id for trial in more.trials if trial.id in progress.trials]
        failures += progress.failures()
        if interrupted or failures:
            break
        known |= decide.right(store, more)
        decisions, before = decide.look(log, known, compared), count
        log = decide.noted(log, count, decisions)
        store.write_seed_log(name, log)
        wanted = decide.questioned(decisions)
        if not how.silent:
            typer.echo(said_of_look(count, decisions), err=True)
        if not wanted:
            break
    outcome = _results(how, made, failures, interrupted, workers, before)
    outcome.found["seeds"] = {"name": name, **log.as_json()}
    if decisions and not how.as_json:
        show_decisions(decisions, log, before)
    return outcome


def _results(
    how: How,
    made: Sequence[str],
    failures: Sequence[dict[str, Any]],
    interrupted: KeyboardInterrupt | None,
    workers: Workers,
    seeds: int,
) -> Outcome:
    """What came of a run, shown unless it is for programs. made: ids of the trials that are there."""
    from offramp.store.results import by_strategy
    from offramp.store.store import Store

    results = by_strategy(Store(how.root), made)
    if not how.as_json:
        if results:
            summary.show_results(summary.printed(results, seeds))
        for failure in failures:
            about = f"{failure['strategy']}, seed {failure['seed']}"
            typer.echo(f"failed: {about}: {failure['reason']}", err=True)
    found = {
        "store": str(how.root),
        "trials": made,
        "results": summary.as_json(results),
        "failed": failures,
        "interrupted": interrupted is not None,
        "unreliable": how.unreliable,
        "workers": asdict(workers),
    }
    return Outcome(found, bool(failures), interrupted)


def close(outcome: Outcome) -> None:
    """The exit code that says how it went."""
    if outcome.interrupted is not None:
        say_interrupted(outcome.interrupted)
    if outcome.failed:
        raise typer.Exit(1)


def say_interrupted(error: KeyboardInterrupt) -> NoReturn:
    """How to go on, and the exit code."""
    typer.echo("Interrupted. Run the same command again to go on; what is finished stays.", err=True)
    raise typer.Exit(exit_code(error)) from None


def conduct(device: torch.device, workers: int) -> Conduct:
    """How work is done on this machine."""
    from offramp.study.plan.limits import cache_folder
    from offramp.study.run.run import Conduct

    return Conduct(device=device, cache_folder=cache_folder(), workers=workers)


def staff(plan: Plan, how: How) -> Workers:
    """The workers of a run: as many as were asked for, else as many as suit."""
    from offramp.store.store import Store
    from offramp.study.plan.workers import asked, suited

    if how.cluster is not None:
        from offramp.study.plan.workers import Workers
        from offramp.study.run.driver import needs_of

        room = how.cluster.room(needs_of(plan))
        here = ", started here" if how.cluster.own else ""
        return Workers(room.tasks, f"on Ray{here}: {counted(room.machines, 'machine')} by now")
    if how.workers is not None:
        return asked(plan, how.workers)
    return suited(plan, Store(how.root), how.device)


def _start(
    path: Path, settings: Sequence[str], data_root: Path | None, budget: str | None, how: How
) -> None:
    """Plan and run what a file asks for; exits as `start`."""
    from offramp.study.spec.file import members

    for name, given in (("--speed", how.speed), ("--power", how.power)):
        if given is not None and not how.dry_run:
            raise OfframpError(f"{name} is for a forecast; add --dry-run")
    if how.until is not None and how.dry_run:
        raise OfframpError(
            "--until-decided goes by results, which a dry run has none of; leave one out, or ask "
            "--dry-run --power 0.5 how many seeds it takes"
        )
    asked = members(path, settings, data_root)
    announce([member.study for member in asked], how.user_code)
    for name, one in (("--budget", budget), ("--until-decided", how.until), ("--power", how.power)):
        if len(asked) > 1 and one is not None:
            raise OfframpError(
                f"{name} is for one study, and {path} stands for {len(asked)}; run one of them"
            )
    if budget is not None and how.until is not None:
        raise OfframpError("--budget makes a study smaller, --until-decided larger; leave one out")
    with reached(how) as how:
        if len(asked) > 1:
            _start_all(path, asked, how)
        else:
            _start_one(path, settings, data_root, budget, asked[0].study, how)


def _start_one(
    path: Path,
    settings: Sequence[str],
    data_root: Path | None,
    budget: str | None,
    study: Study,
    how: How,
) -> None:
    """Of one study, made smaller where it is to fit a time."""
    from offramp import units
    from offramp.study.plan.forecast import measured
    from offramp.study.plan.plan import make_plan
    from offramp.study.spec.file import members

    if budget is not None:
        seconds = units.parse(budget, units.TIME, "--budget")
        with reading_shown(not how.silent):
            plan = make_plan(study, how.device, provisional=how.dry_run)
        how = replace(how, here=measured(plan, how.device))
        chosen, weak = fitting(plan, seconds, budget, how)
        how = replace(how, unreliable=weak)
        study = members(path, [*settings, *chosen], data_root)[0].study
    start(study, how)


def fitting(plan: Plan, seconds: float, words: str, how: How) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Settings with which the study fits, on standard error what they are, and why the time is too
    short, where it is."""
    from offramp.policy.useful import check
    from offramp.study.plan.budget import choose
    from offramp.study.plan.forecast import measured

    speed = how.here or measured(plan, how.device)
    chosen = choose(plan, seconds * speed)
    about = f"about {duration(chosen.macs / speed)} here, at {macs(speed)}MAC/s"
    flags = " ".join(f"--set {setting}" for setting in chosen.settings)
    means = f"the same as {flags}" if flags else "all of it fits"
    typer.echo(f"--budget {words}: {means}; {about}.", err=True)
    weak = _short(plan, seconds * speed, speed, words)
    if weak and not how.dry_run:
        check(weak, how.anyway)
    for reason in weak:
        typer.echo(f"Unreliable: {reason}.", err=True)
    return chosen.settings, weak


def _short(plan: Plan, budget: float, speed: float, words: str) -> tuple[str, ...]:
    """Why a budget, in MACs, is too short to learn, and what would do; nothing where it is not. speed:
    MACs a second."""
    from offramp.study.plan.budget import too_short

    found = too_short(plan, budget)
    if found is None:
        return ()
    said, needed = found
    return (
        f"--budget {words} is too short: it leaves {said}; about {duration(needed / speed)} would do, "
        "or fewer strategies or seeds",
    )


def _start_all(path: Path, asked: Sequence[Member], how: How) -> None:
    """One study after another; what fails in one does not stop the next."""
    from offramp.store.results import by_strategy
    from offramp.store.store import Store
    from offramp.study.plan.plan import check_data, plans

    if how.dry_run:
        _show_all(path, asked, how)
        return
    check_data([member.study for member in asked])
    outcomes: list[tuple[Member, Outcome]] = []
    for number, (member, plan) in enumerate(
        zip(asked, _shown(plans([m.study for m in asked], how.device), not how.silent), strict=True),
        start=1,
    ):
        if not how.silent:
            own = member.study.data.split_seed == "trial"
            part = f"seed {member.study.seeds[0]}, " if own else ""
            typer.echo(f"\n{member.path}, {part}study {number} of {len(asked)}", err=True)
            remark(plan)
        outcomes.append((member, trained(plan, how)))
        if outcomes[-1][1].interrupted:
            break
    if how.as_json:
        emit({"studies": [{"study": str(m.path), **o.found} for m, o in outcomes]})
    if len({m.path for m, _ in outcomes}) == 1 < len(outcomes) and not how.as_json:
        made = [trial for _, o in outcomes for trial in o.found["trials"]]
        summary.show_results(summary.printed(by_strategy(Store(how.root), made), len(outcomes)))
    failed = list(dict.fromkeys(m.path for m, o in outcomes if o.failed))
    if failed and not how.as_json:
        typer.echo(f"failed in part: {', '.join(map(str, failed))}", err=True)
    close(Outcome({}, bool(failed), outcomes[-1][1].interrupted))


def _shown(made: Iterator[Plan], shown: bool) -> Iterator[Plan]:
    """The plans, with how far the reading of their data is while each is made."""
    while True:
        with reading_shown(shown):
            plan = next(made, None)
        if plan is None:
            return
        yield plan


def _show_all(path: Path, asked: Sequence[Member], how: How) -> None:
    from offramp.store.store import Store
    from offramp.study.plan.forecast import on_machines, together
    from offramp.study.plan.plan import plans

    device = how.device
    planned = plans([member.study for member in asked], device, provisional=True)
    workers: list[dict[str, Any]] = []
    spans: list[Spans] = []

    def named() -> Iterator[tuple[str, Plan]]:  # one at a time: networks need not all stay in memory
        for member, plan in zip(asked, planned, strict=True):
            if how.on is None:
                workers.append(asdict(staff(plan, how)))
            else:
                spans.append(_spans(plan, how))
            own = member.study.data.split_seed == "trial"
            yield f"{member.path.stem}, seed {member.study.seeds[0]}" if own else member.path.stem, plan

    found = together(named(), Store(how.root), device)
    for one, its in zip(found["studies"], workers, strict=how.on is None):
        one["workers"] = its
    if how.on is not None:
        speeds = [how.speed or one["totals"]["macs_per_second"] for one in found["studies"]]
        found["cluster"] = on_machines(list(zip(spans, speeds, strict=True)), how.price)
    found["totals"] |= at_speed(found["totals"], how.speed)
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
    typer.echo(said_of(found["totals"]))
    if how.on is None:
        least, most = min(w["count"] for w in workers), max(w["count"] for w in workers)
        typer.echo(f"Workers: {least if least == most else f'{least} to {most}'} (why is in --json).")
    else:
        show_machines(found["cluster"])
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
