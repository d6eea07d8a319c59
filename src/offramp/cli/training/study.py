"""One study: its forecast, its training, with added seeds where asked, and its results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from offramp.cli.decisions import said_of_look, said_of_power, show_decisions
from offramp.cli.forecast import as_json, said_of_data, show_forecast
from offramp.cli.progress.display import Progress, watch
from offramp.cli.progress.log import Log
from offramp.cli.progress.reading import reading_shown
from offramp.cli.render import emit, say
from offramp.cli.training.run_options import RunOptions, SeedBudget, conduct, staff
from offramp.errors import Unwritable
from offramp.process import exit_code
from offramp.report import summary
from offramp.store.place import Place

if TYPE_CHECKING:
    from offramp.analysis.stats.sample import Floats
    from offramp.analysis.stats.sequential import Decision
    from offramp.report.power import SeedsNeeded
    from offramp.study.plan.plan import Plan
    from offramp.study.plan.schedule import Spans
    from offramp.study.plan.workers import Workers
    from offramp.study.spec.models import Study


NEW = 256  # records of an object store that no index has yet, for which a run writes it anew at its end


def start(study: Study, how: RunOptions) -> None:
    """Plan and run a study; exits with 1 when something failed, 130, 143 or 129 when interrupted."""
    from offramp.study.plan.plan import make_plan

    with reading_shown(how.log):
        plan = make_plan(study, how.device, provisional=how.dry_run)
    go(plan, how)


def go(plan: Plan, how: RunOptions) -> None:
    """As `start`, with the plan at hand."""
    remark(plan, how.log)
    if how.dry_run:
        _foresee(plan, how)
        return
    outcome = trained(plan, how) if how.until is None else _decided(plan, how, how.until)
    if how.as_json:
        emit(outcome.found)
    close(outcome, how.log, how.fits)


def _foresee(plan: Plan, how: RunOptions) -> None:
    from offramp.store.store import Store
    from offramp.study.plan.forecast import forecast, on_machines

    found = forecast(plan, Store(how.root), how.device, how.here)
    workers = staff(plan, how) if how.on is None else None
    speed = how.speed or found.macs_per_second
    cluster = on_machines([(spans_left(plan, how), speed)], how.price) if how.on is not None else None
    needed = None if how.power is None else _power(plan, how.root, how.power)
    if how.as_json:
        there = {"workers": workers, "power": needed}
        told = {name: asdict(one) for name, one in there.items() if one is not None}
        told |= {} if cluster is None else {"cluster": cluster.as_json()}
        emit(as_json(found, how.speed) | told)
        return
    say(said_of_data(plan.data))
    show_forecast(found, how.speed, workers, cluster)
    if needed is not None:
        say(said_of_power(needed))


def remark(plan: Plan, log: Log) -> None:
    """Log what to know before the start."""
    if plan.weights is not None:
        log.say(plan.weights)
    for note in plan.notes:
        log.say(f"Note: {note}")


@dataclass(frozen=True)
class Outcome:
    """found: as JSON.  failed: whether something did.  interrupted: what cut it short."""

    found: dict[str, Any]
    failed: bool
    interrupted: KeyboardInterrupt | None


def trained(plan: Plan, how: RunOptions) -> Outcome:
    """Run a plan, show its results unless they are for programs."""
    workers = staff(plan, how)
    how.log.say(f"Workers: {workers.count} ({workers.reason}).")
    progress = Progress(plan, how.log)
    interrupted = _work(plan, how, workers, progress)
    state = progress.state
    made = [trial.id for trial in plan.trials if trial.id in state.trials]
    outcome = _results(how, made, state.failures(), interrupted, workers, len(plan.study.seeds))
    if not how.as_json:
        typer.echo(state.closing(str(how.root)))
    return outcome


def _work(plan: Plan, how: RunOptions, workers: Workers, progress: Progress) -> KeyboardInterrupt | None:
    """Run a plan. Returns what interrupted it."""
    from offramp.store.store import Store
    from offramp.study.run.processes import run_pooled

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


def _decided(plan: Plan, how: RunOptions, until: SeedBudget) -> Outcome:
    """As `trained`, with seeds that are added and looked at until nothing is left to decide."""
    from offramp.api import decide
    from offramp.store.store import Store

    store = Store(how.root)
    name, log = decide.begin(store, plan, until.seeds, until.difference)
    compared, wanted = decide.compared(plan), tuple(s.label for s in plan.study.strategies)
    known: dict[tuple[str, int], Floats] = {}
    decisions: tuple[Decision, ...] = ()
    made: list[str] = []
    failures: list[dict[str, Any]] = []
    before: int = 0
    interrupted: KeyboardInterrupt | None = None
    with store.more_to_come():
        for count in decide.looks(log).counts:
            more = decide.part(plan, log.seeds[before:count], wanted)
            progress = Progress(more, how.log)
            workers = staff(more, how)
            interrupted = _work(more, how, workers, progress)
            made += [trial.id for trial in more.trials if trial.id in progress.state.trials]
            failures += progress.state.failures()
            if interrupted or failures:
                break
            known |= decide.right(store, more)
            decisions, before = decide.look(log, known, compared), count
            log = decide.noted(log, count, decisions)
            store.write_seed_log(name, log)
            wanted = decide.questioned(decisions)
            how.log.say(said_of_look(count, decisions))
            if not wanted:
                break
    outcome = _results(how, made, failures, interrupted, workers, before)
    outcome.found["seeds"] = {"name": name, **log.as_json()}
    if decisions and not how.as_json:
        show_decisions(decisions, log, before)
    return outcome


def _results(
    how: RunOptions,
    made: Sequence[str],
    failures: Sequence[dict[str, Any]],
    interrupted: KeyboardInterrupt | None,
    workers: Workers,
    seeds: int,
) -> Outcome:
    """The results of a run, shown unless they are for programs. made: ids of its finished trials."""
    from offramp.store.results import by_strategy
    from offramp.store.store import Store

    results = by_strategy(Store(how.root), made)
    if not how.as_json:
        if results:
            summary.show_results(summary.printed(results, seeds))
        for failure in failures:
            about = f"{failure['strategy']}, seed {failure['seed']}"
            how.log.say(f"failed: {about}: {failure['reason']}", must=True)
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


def close(outcome: Outcome, log: Log, fits: Sequence[str] | None = None) -> None:
    """End with the exit code that fits the outcome. fits: see `RunOptions`."""
    if outcome.interrupted is not None:
        say_interrupted(outcome.interrupted, log, fits)
    if outcome.failed:
        raise typer.Exit(1)


def say_interrupted(error: KeyboardInterrupt, log: Log, fits: Sequence[str] | None = None) -> NoReturn:
    """How to go on, and the exit code. fits: see `RunOptions`."""
    again = "again"
    if fits is not None:  # measured again, a budget would come to others, and all would be trained anew
        flags = " ".join(f"--set {setting}" for setting in fits)
        again = f"with {flags} instead of --budget" if flags else "without --budget"
    log.say(f"Interrupted. Run the same command {again} to go on; finished work stays.", must=True)
    raise typer.Exit(exit_code(error)) from None


def spans_left(plan: Plan, how: RunOptions) -> Spans:
    """What is left of a plan on many machines, in MACs."""
    from offramp.store.store import Store
    from offramp.study.plan.forecast import MACHINES
    from offramp.study.plan.schedule import Schedule, spans
    from offramp.study.plan.workers import on_a_machine

    store = Store(how.root)
    there = [] if plan.provisional else [key for key in plan.nodes if store.has_node(key)]
    at_once = on_a_machine(plan, how.device)
    return spans(Schedule(plan, frozenset(there)), MACHINES, at_once)


def _power(plan: Plan, root: Place, difference: float) -> SeedsNeeded:
    """How many seeds the study takes to show a difference, as what the store holds varies."""
    from offramp.report import evidence
    from offramp.report.power import SeedsNeeded, seeds_needed
    from offramp.store.archive import is_store
    from offramp.store.manifest import data_label

    if not is_store(root):
        return SeedsNeeded(difference, 0, why=f"there is no store at {root}; run three seeds first")
    label = data_label(plan.data.name, plan.data.augment)
    strategies = {s.label for s in plan.study.strategies}
    found = evidence.from_store(root)
    return seeds_needed(found, plan.study.backbone.name, label, strategies, difference)
