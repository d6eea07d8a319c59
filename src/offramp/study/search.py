"""Settings of a study are searched for by accuracy on validation images; test images are not read.

Optuna proposes settings and gives up on bad ones (ask and tell). The phases of each proposal are trained
into the store, so that what two proposals share is trained once, and no trial is written: a trial holds
answers on test. The log of proposals is in the store's folder, and the same search goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from offramp import usercode
from offramp.errors import OfframpError, UnknownKey, Unwritable
from offramp.hashing import digest
from offramp.store.searches import held_log
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, Trial
from offramp.study.run import events
from offramp.study.run.run import RunConfig, run
from offramp.study.spec import file as spec
from offramp.study.spec.models import Study
from offramp.study.variants import Best, SearchOptions, Variants

if TYPE_CHECKING:
    import optuna

WORSE = "worse than the median at this point"
STARTUP = 5  # proposals before any is given up: of fewer there is no median to speak of


@dataclass(frozen=True)
class Proposed:
    """Settings are tried. number: of the proposal, from 1."""

    number: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """What came of a proposal."""

    number: int  # of the proposal, from 1
    settings: Mapping[str, Any]  # its settings
    # accuracy on validation, 0 to 1, mean over exits, strategies and seeds; None where it was given up
    value: float | None
    why: str = ""  # why it was given up
    # the highest value so far, in earlier runs of the search too; None without any
    best: float | None = None


SearchEvent = Proposed | Scored | events.Event


def check_installed() -> None:
    """Raises OfframpError where Optuna is not there."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise OfframpError("a search needs Optuna; pip install 'offramp[search]'") from None


def name_of(study: Study, options: SearchOptions) -> str:
    """By what the store knows a search: it goes on where study, ranges and strategy are the same, and
    the user's own code that the study names."""
    over = {key: where.text for key, where in options.over.items()}
    own = {name for name in study.code_names if usercode.file_of(name).is_file()}
    # Without any the name stays what it was before code was in it.
    code = [{name: usercode.read(name).sha256 for name in sorted(own)}] if own else []
    what = [options.label, options.prune, options.seed]
    return digest([spec.as_text(study), over, *what, *code])[:16]


def search(
    study: Study, variants: Variants, options: SearchOptions, store: Store, config: RunConfig
) -> Generator[SearchEvent, None, Best]:
    """Try settings until there are as many proposals as `options` says.

    Args:
        study: As it is without settings, by which the search is known.
        variants: The study with settings.
        options: What is varied, and how often.
        store: A folder.
        config: How proposals are trained.

    Yields:
        Proposals, what happens while they train, and what came of them.

    Returns:
        The best one.

    Raises:
        OfframpError: For a store that is not a folder, while another process is at the same search, for
            an option that backbone or data do not have, and if no proposal could be trained.
    """
    import optuna

    name = name_of(study, options)
    with _logged(store, name) as storage:
        log = optuna.create_study(
            study_name=name,
            direction="maximize",
            storage=storage,
            load_if_exists=True,
            pruner=optuna.pruners.NopPruner(),
        )
        _enqueue_interrupted(log)
        first: Plan | None = None
        grid = options.grid
        while (number := len(_settled(log)) + 1) <= options.trials:
            # Of its own for each, so that a search that goes on proposes nothing twice.
            seed = int(digest([options.seed, len(log.trials)])[:8], 16)
            log.sampler = optuna.samplers.TPESampler(seed=seed)
            if grid and not _enqueue_untried(log, grid):
                break
            proposal = log.ask()
            settings = {key: where.proposed(proposal, key) for key, where in options.over.items()}
            yield Proposed(number, settings)
            first = first or variants.plan({}, config, None)  # what is wrong with it ends the search
            value, why = None, ""
            try:
                plan = variants.plan(settings, config, first)
            except (UnknownKey, Unwritable):  # no other settings would do either
                raise
            except OfframpError as error:  # these settings do not go together; others may
                why = str(error)
            if not why:
                log.pruner = _pruner(plan) if options.prune else optuna.pruners.NopPruner()
                value, why = yield from _tried(plan, store, config, proposal)
            log.tell(proposal, value, optuna.trial.TrialState.PRUNED if value is None else None)
            best = _best(log)
            yield Scored(number, settings, value, why, None if best is None else best.value)
        if (best := _best(log)) is None:
            raise OfframpError(
                f"none of {len(log.trials)} proposals could be trained to the end; look at the reasons, "
                "and name other ranges with --over"
            )
        return best


def _settled(log: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Proposals that are complete, or were given up, which have no value."""
    import optuna

    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return log.get_trials(deepcopy=False, states=states)


def _best(log: optuna.Study) -> Best | None:
    """The first of those with the highest value; None where none was trained to the end."""
    try:
        best = log.best_trial
    except ValueError:
        return None
    return Best(best.params, best.value or 0.0, len(_settled(log)))


def _enqueue_interrupted(log: optuna.Study) -> None:
    """Propose again what an interrupted search was at; it goes on from its checkpoints."""
    import optuna

    for proposal in log.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        log.tell(proposal.number, state=optuna.trial.TrialState.FAIL)
        if proposal.params:
            log.enqueue_trial(proposal.params)


def _enqueue_untried(log: optuna.Study, grid: Sequence[Mapping[str, Any]]) -> bool:
    """Whether anything of a grid is left, of which the first is proposed next."""
    import optuna

    tried = [trial.params for trial in _settled(log)]
    untried = [settings for settings in grid if settings not in tried]
    if untried and not log.get_trials(states=(optuna.trial.TrialState.WAITING,)):
        log.enqueue_trial(dict(untried[0]))
    return bool(untried)


@contextmanager
def _logged(store: Store, name: str) -> Iterator[optuna.storages.BaseStorage]:
    """Where the log of a search is, which this process then has to itself."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    with held_log(store, name) as path:
        optuna.logging.set_verbosity(logging.WARNING)
        yield optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _pruner(plan: Plan) -> optuna.pruners.BasePruner:
    """Gives up what is worse than the median of others at the same epoch, after a quarter of all."""
    import optuna

    epochs = sum(node.recipe.epochs for node in plan.nodes.values())
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=epochs // 4)


def _tried(
    plan: Plan, store: Store, config: RunConfig, proposal: optuna.Trial
) -> Generator[SearchEvent, None, tuple[float | None, str]]:
    """Train the phases of a plan; the score, or None and why it was given up."""
    accuracy, why = ValidationAccuracy(plan), ""
    with closing(run(plan, store, config, with_trials=False)) as happening:
        for event in happening:
            yield event
            if isinstance(event, events.Failed):
                why = event.reason
            elif accuracy.see(event, store):
                proposal.report(accuracy.mean, accuracy.step)
                why = WORSE if isinstance(event, events.Epoch) and proposal.should_prune() else ""
            if why:
                break
    if why:
        _drop_checkpoints(plan, store)
        return None, why
    return score(plan, store), ""


def _drop_checkpoints(plan: Plan, store: Store) -> None:
    """Those of a proposal that was given up."""
    for key in plan.nodes:
        lock = store.try_lock(key)
        if lock is not None:
            with lock:
                store.drop_checkpoint(key)


def score(plan: Plan, store: Store) -> float:
    """Accuracy on validation of a plan whose phases are finished: mean over exits, then over trials."""
    accuracy = {key: _selected(plan, store, key) for key in plan.nodes}
    means = []
    for trial in plan.trials:
        last = _answering(trial)
        means.append(sum(accuracy[key][k] for k, key in last.items()) / len(last))
    return sum(means) / len(means)


@dataclass
class ValidationAccuracy:
    """The accuracy on validation of a plan while it trains, as far as events tell."""

    plan: Plan  # what trains
    step: int = 0  # epochs so far, of all phases; equal for proposals that stand at the same point
    _by_exit: dict[tuple[str, int], float] = field(default_factory=dict)
    _exits: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._exits = {t.id: tuple(_answering(t)) for t in self.plan.trials}

    @property
    def mean(self) -> float:
        """Over exits, then trials; an exit without a number yet counts as wrong, so that more is never
        less."""
        means = [
            sum(self._by_exit.get((trial, k), 0.0) for k in exits) / len(exits)
            for trial, exits in self._exits.items()
        ]
        return sum(means) / len(means)

    def see(self, event: events.Event, store: Store) -> bool:
        """Take in an event; whether `step` has moved with it, and there is a number for it."""
        match event:
            case events.Epoch(report):
                self.step += 1
                self._take(report.key, report.validation_accuracy)
            case events.GroupStarted(keys, epoch):
                self.step += epoch * len(keys)
                return False
            case events.Finished(key):
                self._take(key, _selected(self.plan, store, key))
                return False
            case events.Reused(key):
                self.step += store.read_node(key).summary.epochs
                self._take(key, _selected(self.plan, store, key))
            case _:
                return False
        return True

    def _take(self, key: str, accuracy: Mapping[int, float]) -> None:
        for trial in self.plan.trials:
            if key in trial.keys:
                self._by_exit |= {(trial.id, k): value for k, value in accuracy.items()}


def _answering(trial: Trial) -> Mapping[int, str]:
    """For each exit that a trial trains, the key of the last phase that does."""
    return {k: node.key for node in trial.resolved.nodes for k in node.exits}


def _selected(plan: Plan, store: Store, key: str) -> dict[int, float]:
    """Accuracy on validation of a finished phase, by exit, with the weights that it hands on."""
    epoch, history = store.read_node(key).summary.selected_epoch, store.node_history(key)
    rows = history[
        (history["split"] == "validation")
        & (history["metric"] == "accuracy")
        & (history["epoch"] == epoch)
    ]
    number = {place: k for k, place in enumerate(plan.net.places, start=1)}
    return {number[e]: float(v) for e, v in zip(rows["exit"], rows["value"], strict=True)}
