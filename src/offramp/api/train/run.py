"""A study, a list of studies, or one trial: train what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Unpack

from offramp.api.opening import name_code
from offramp.api.options import (
    RUNS,
    CommandOption,
    Time,
    TrainingOptions,
    TrainingStore,
    Watcher,
)
from offramp.api.reporter import Reporter, reporter_for
from offramp.api.train.request import (
    StudyRequest,
    TrainingSite,
    cluster_address,
    joined_site,
    requested,
    worker_count,
)
from offramp.api.train.results import Results
from offramp.errors import OfframpError, Unwritable

if TYPE_CHECKING:
    from offramp.analysis.stats.sample import Floats
    from offramp.analysis.stats.sequential import Decision
    from offramp.api.run_state import RunState
    from offramp.store.store import Store
    from offramp.store.table import StrategyResult
    from offramp.study.plan.plan import Plan
    from offramp.study.plan.workers import Workers
    from offramp.study.spec.models import Study

NEW = 256  # records of an object store that no index has yet, for which a run writes it anew at its end
StudySource = Annotated["str | Path | Mapping[str, Any] | Study | None", CommandOption("STUDY")]
WorkerCount = Annotated[
    "int | Literal['auto'] | None", CommandOption("N", parse=worker_count, default="auto")
]


def points(text: str, name: str) -> float:
    """Points of accuracy as a share of 1. Raises OfframpError outside 0 to 100."""
    try:
        share = float(text) / 100
    except ValueError:
        share = -1
    if not 0 < share < 1:
        raise OfframpError(f"{name} is {text}; write points of accuracy, such as 0.5")
    return share


def run(
    study: StudySource = None,
    store: TrainingStore = RUNS,
    *,
    workers: WorkerCount = None,
    on: Annotated[str, CommandOption("PLACE")] = "local",
    budget: Time = None,
    until_decided: bool = False,
    max_seeds: Annotated[int | None, CommandOption("N", least=3)] = None,
    difference: Annotated[float | None, CommandOption("POINTS", parse=points)] = None,
    anyway: bool = False,
    watch: Watcher = None,
    **training: Unpack[TrainingOptions],
) -> Results:
    """Run a study, or one trial: train what is missing, then show the results.

    A study trains each of its strategies with each of its seeds. Such a pair is a trial, a sequence of
    phases. A phase that several trials share is trained once, and finished work in the store is not
    trained again. You may interrupt a run at any time (Ctrl-C): the same command goes on.

    A file may also list studies. They run one after another into one store. The data root then holds a
    folder for each data set, by name. Without a study, `strategy`, `backbone` and `data` name one trial.

    `until_decided` adds seeds after the study's own (three at least), for the strategies that are still
    in question. The number of looks at the results is fixed before the first look and kept in the store,
    so that reports adjust p for it.

    If standard error is not a terminal, a log is written there: a line when a phase begins and when it
    is finished, and every ten seconds an epoch's loss and accuracy by exit, with the time left.

    Exit codes: 0; 1 if a trial failed (the others go on); 2 for a mistake in the study or the
    command; 130 if interrupted, 143 by SIGTERM (Slurm, Kubernetes), 129 if the terminal is closed.

    Args:
        study: A study file. For a first one: offramp recipes demo > demo.yaml
        store: The store, which keeps finished work: a folder, or s3://BUCKET/NAME.
        workers: Processes that train at the same time. auto: as many as the cores, the free memory and
            the study allow.
        on: Where to train. local: this machine. ray: the Ray cluster at $RAY_ADDRESS, else one started
            here. ray://HOST:PORT: that cluster.
        budget: Cut epochs and images until training here fits this time, such as 2h or 90min.
        until_decided: Add seeds until every pair of strategies differs or is alike, up to `max_seeds`.
        max_seeds: With `until_decided`: the most seeds. 20 by default.
        difference: With `until_decided`: strategies that differ by less, in points of test accuracy,
            are alike. 0.5 by default.
        anyway: With `budget`: train even if the time is too short, and mark the results.
        watch: Called with every event of the training; `print` shows them, a line each. By default a
            terminal and a notebook show progress, and elsewhere the logger `offramp` has it. False:
            silence.
        training: What is trained and how.

    Returns:
        The results. Failures are in `failed`; everything else goes on.

    Raises:
        OfframpError: The input cannot work.

    In Python, `study` may be a file, a mapping as in a file, or a `Study`; in a mapping a strategy may
    be a function (see `fit`), and the recipe a `Recipe`. `difference` is a share of 1. `workers` is 1 by
    default: to start several, Python reads the calling script again, so the script needs
    `if __name__ == "__main__":`. What the command shows as notes are warnings (`OfframpWarning`).

    On the command line:
        offramp recipes demo > demo.yaml
        offramp run demo.yaml --set recipe.epochs=3 --set seeds='[42]'
        offramp run demo.yaml --store runs/demo --workers 2
        offramp run demo.yaml --log-file demo.log
        offramp run demo.yaml --budget 1min
        offramp run demo.yaml --until-decided --max-seeds 12
        offramp run demo.yaml --on ray://head:10001 --store /shared/runs
        offramp run --strategy joint --backbone digits-cnn --data digits
        offramp run --strategy two-stage --backbone resnet18 --data cifar10 \\
          --data-root data/cifar10 --set exits='[layer1, layer2]'

    Example:
        >>> study = {
        ...     "seeds": [42],
        ...     "strategies": ["baseline", "two-stage"],
        ...     "backbone": "digits-cnn",
        ...     "data": {"name": "digits", "train_images": 400},
        ...     "recipe": {"epochs": 2, "optimizer": "adam", "learning_rate": 1e-3},
        ... }
        >>> results = offramp.run(study, store="runs/demo")
        >>> len(results.trials)
        2
    """
    reporter = reporter_for(watch)
    if workers not in (None, "auto") and (not isinstance(workers, int) or workers < 1):
        raise OfframpError(f"workers must be at least 1, or 'auto'; got {workers!r}")
    address = cluster_address(on, workers)
    if (max_seeds, difference) != (None, None) and not until_decided:
        raise OfframpError("`max_seeds` and `difference` are for `until_decided`; add it")
    if budget is not None and until_decided:
        raise OfframpError("`budget` makes a study smaller, `until_decided` larger; leave one out")
    request = requested(study, training, address is not None)
    name_code(request.studies, training.get("user_code", True), reporter)
    if not (until_decided and request.of_one_study):
        request.check_alone(budget=budget, until_decided=until_decided)
    if workers is None and not isinstance(watch, Reporter):
        workers = 1
    count = workers if isinstance(workers, int) else None
    with joined_site(store, training.get("device"), count, address) as site:
        if len(request.members) > 1 and not until_decided:
            return _run_list(request, site, reporter)
        plan, unreliable, fits = planned(request, site, budget, anyway, reporter)
        remark(plan, reporter)
        if until_decided:
            seeds = [seed for study in request.studies for seed in study.seeds]
            results = _run_until_decided(plan, seeds, site, max_seeds, difference, reporter)
        else:
            results = _run_one(plan, site, reporter)
    results = replace(results, unreliable=unreliable)
    if results.interrupted is not None:
        say_interrupted(reporter, fits)
    return results


def planned(
    request: StudyRequest,
    site: TrainingSite,
    budget: float | None,
    anyway: bool,
    reporter: Reporter,
    provisional: bool = False,
) -> tuple[Plan, tuple[str, ...], tuple[str, ...] | None]:
    """The plan of one study, why it is unreliable, and the settings that a budget came to.

    provisional: as of `make_plan`.
    """
    from offramp.api.train.budget import shrunk
    from offramp.study.plan.plan import make_plan

    study = request.studies[0]
    with reporter.reading():
        plan = make_plan(study, site.device, provisional=provisional)
    if budget is None:
        return plan, (), None
    if not request.files:
        raise OfframpError("a budget changes the settings of a study file; name one")
    fits, weak = shrunk(plan, budget, site.device, reporter, anyway or provisional)
    with reporter.reading():
        smaller = request.files[0].study(fits).parts[0]
        return make_plan(smaller, site.device, provisional=provisional), weak, fits


def remark(plan: Plan, reporter: Reporter) -> None:
    """Tell what to know before the start."""
    if plan.weights is not None:
        reporter.say(plan.weights)
    for note in plan.notes:
        reporter.note(note)


def say_interrupted(reporter: Reporter, fits: Sequence[str] | None = None) -> None:
    """How to go on. fits: the settings that a budget came to."""
    again = "again"
    if fits is not None:  # measured again, a budget would come to others, and all would be trained anew
        flags = " ".join(f"--set {setting}" for setting in fits)
        again = f"with {flags} instead of --budget" if flags else "without --budget"
    line = f"Interrupted. Run the same command {again} to go on; finished work stays."
    reporter.say(line, must=True)


@contextmanager
def interruptible(reporter: Reporter, fits: Sequence[str] | None = None) -> Iterator[None]:
    """Whoever interrupts it is told how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say_interrupted(reporter, fits)
        raise


def _run_one(plan: Plan, site: TrainingSite, reporter: Reporter) -> Results:
    from offramp.store.store import Store

    store = Store(site.store)
    workers = site.staff(plan)
    if site.workers != 1:
        reporter.say(f"Workers: {workers.count} ({workers.reason}).")
    state = _train(plan, site, store, workers, reporter)
    results = _results(store, [state], len(plan.study.seeds), workers, reporter)
    return replace(results, closing=state.closing(str(site.store)))


def _train(
    plan: Plan, site: TrainingSite, store: Store, workers: Workers, reporter: Reporter
) -> RunState:
    state = reporter.train(plan, site.events(plan, store, workers))
    if state.interrupted is None:
        with suppress(Unwritable):  # what was to be done is done
            store.index(least=NEW)
    return state


def _results(
    store: Store,
    states: Sequence[RunState],
    seeds: int,
    workers: Workers,
    reporter: Reporter,
) -> Results:
    """What runs of one study came to, one after another."""
    from offramp.store.table import by_strategy

    trials = [trial for state in states for trial in state.finished()]
    failures = [failure for state in states for failure in state.failures()]
    for failure in failures:
        about = f"{failure['strategy']}, seed {failure['seed']}"
        reporter.fail(f"failed: {about}: {failure['reason']}")
    return Results(
        store,
        tuple(trials),
        tuple(by_strategy(store, trials)),
        {key: reason for state in states for key, reason in state.failed.items()},
        seeds=seeds,
        failures=failures,
        interrupted=states[-1].interrupted,
        workers=workers,
    )


def _run_until_decided(
    plan: Plan,
    seeds: Sequence[int],
    site: TrainingSite,
    most: int | None,
    difference: float | None,
    reporter: Reporter,
) -> Results:
    """Add seeds, and look at the results, until nothing is left to decide."""
    from offramp.api.train import decide
    from offramp.store.store import Store

    store = Store(site.store)
    compared, strategies = decide.compared(plan), tuple(s.label for s in plan.study.strategies)
    own: tuple[Plan, ...] = ()  # whose data are read
    if plan.study.data.split_seed == "trial":
        with reporter.reading():
            own = (plan, *decide.parts(plan, seeds[1:], strategies))
    name, log = decide.begin(store, plan, most, difference, own[1:])
    right: dict[tuple[str, int], Floats] = {}
    decisions: tuple[Decision, ...] = ()
    states: list[RunState] = []
    before, images = 0, {plan.data.test.digest}
    with store.more_to_come():
        for count in decide.looks(log).counts:
            read = () if before else own
            more = decide.parts(plan, log.seeds[before + len(read) : count], strategies)
            for part in chain(read, more):
                workers = site.staff(part)
                states.append(_train(part, site, store, workers, reporter))
                if states[-1].interrupted or states[-1].failed:
                    break
                right |= decide.right(store, part)
                images.add(part.data.test.digest)
            if states[-1].interrupted or states[-1].failed:
                break
            decisions, before = decide.look(log, right, compared, len(images) == 1), count
            log = decide.noted(log, count, decisions)
            store.write_seed_log(name, log)
            strategies = decide.questioned(decisions)
            reporter.say(decide.look_line(count, decisions))
            if not strategies:
                break
    results = _results(store, states, before, workers, reporter)
    return replace(results, decided=decide.SeedDecision(name, log, decisions, before))


def _run_list(request: StudyRequest, site: TrainingSite, reporter: Reporter) -> Results:
    """One study after another; what fails in one does not stop the next."""
    from offramp.store.store import Store
    from offramp.study.plan.plan import plans
    from offramp.study.spec.models import part_names

    store = Store(site.store)
    parts: list[tuple[Path, Results]] = []
    plan_each = plans(request.studies, site.device)
    is_shown = False
    with store.more_to_come():
        for number, member in enumerate(request.members, start=1):
            with reporter.reading():
                plan = next(plan_each)
            own = "".join(f"{words}, " for words in part_names(plan.study))
            reporter.say(f"{member.path}, {own}study {number} of {len(request.members)}")
            remark(plan, reporter)
            parts.append((member.path, _run_one(plan, site, reporter)))
            del plan  # its images leave before those of the next study are read
            is_shown = reporter.show(parts[-1][1].document())
            if parts[-1][1].interrupted:
                break
    if failed := list(dict.fromkeys(str(path) for path, part in parts if part.failures)):
        reporter.fail(f"failed in part: {', '.join(failed)}")
    by_file: dict[str, list[Results]] = {}
    for path, part in parts:
        by_file.setdefault(str(path), []).append(part)
    merged = {file: _merged(store, results) for file, results in by_file.items()}
    results = next(iter(merged.values()))
    if len(merged) > 1:  # of several networks or data, which have no line in common
        lines = tuple(line for each in merged.values() for line in each.lines)
        results = replace(_merged(store, [part for _, part in parts], lines), studies=merged)
    else:
        seeds = {seed for study in request.studies for seed in study.seeds}
        results = replace(results, seeds=len(seeds))
    if results.interrupted is not None:
        say_interrupted(reporter)
    return replace(results, parts=parts, _parts_shown=is_shown)


def _merged(
    store: Store, results: Sequence[Results], lines: tuple[StrategyResult, ...] | None = None
) -> Results:
    """The results of a study that ran in several parts. lines: of its strategies, where known."""
    from offramp.store.table import by_strategy

    trials = tuple(dict.fromkeys(trial for each in results for trial in each.trials))
    return Results(
        store,
        trials,
        tuple(by_strategy(store, trials)) if lines is None else lines,
        {key: reason for each in results for key, reason in each.failed.items()},
        failures=[failure for each in results for failure in each.failures],
        interrupted=results[-1].interrupted,
    )
