"""Settings of a study are searched for by accuracy on validation images; test images are not read.

Optuna proposes settings and gives up on bad ones (ask and tell). The phases of each proposal are trained
into the store, so that what two proposals share is trained once, and no trial is written: a trial holds
answers on test. What was tried is kept in the store's folder, and the same search goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp import usercode
from offramp.errors import OfframpError, UnknownKey, Unwritable
from offramp.hashing import digest
from offramp.store.searches import PLANNED, WHY, WORSE, held_log
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run import events
from offramp.study.run.ledger import Failures, Ledger
from offramp.study.run.run import POLL_SECONDS, RunConfig, run_part
from offramp.study.run.trials import planned
from offramp.study.search.score import Known, score
from offramp.study.search.variants import Best, SearchOptions, Variants
from offramp.study.spec import file as spec
from offramp.study.spec.models import Study

if TYPE_CHECKING:
    import optuna

STARTUP = 5  # proposals before any is given up: of fewer there is no median to speak of


@dataclass(frozen=True)
class Proposed:
    """Settings are tried. number: of the proposal, from 1."""

    number: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """What came of it. value: accuracy on validation, 0 to 1, mean over exits, strategies and seeds;
    None where it was given up.  why: it was given up.  best: the highest value so far, in earlier runs
    of the search too; None without any."""

    number: int
    settings: Mapping[str, Any]
    value: float | None
    why: str = ""
    best: float | None = None


Happening = Proposed | Scored | events.Event


def check_installed() -> None:
    """Raises OfframpError where Optuna is not there."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise OfframpError("a search needs Optuna; pip install 'offramp[search]'") from None


def name_of(study: Study, asked: SearchOptions) -> str:
    """By what the store knows a search: it goes on where study, ranges and strategy are the same, and
    the user's own code that the study names."""
    over = {key: where.text for key, where in asked.over.items()}
    own = {name for name in study.code_names if usercode.file_of(name).is_file()}
    # Without any the name stays what it was before code was in it.
    code = [{name: usercode.read(name).sha256 for name in sorted(own)}] if own else []
    return digest([spec.as_text(study), over, asked.label, asked.prune, asked.seed, *code])[:16]


def search(
    study: Study, variants: Variants, asked: SearchOptions, store: Store, conduct: RunConfig
) -> Generator[Happening, None, Best]:
    """Try settings until there are as many proposals as were asked for; yields what happens.

    study: as it is without them, by which the search is known.  variants: the study with settings.

    Raises OfframpError for a store that is not a folder, while another process is at the same search,
    and if no proposal could be trained.
    """
    import optuna

    name = name_of(study, asked)
    with _kept(store, name) as storage:
        tried = optuna.create_study(
            study_name=name,
            direction="maximize",
            storage=storage,
            load_if_exists=True,
            pruner=optuna.pruners.NopPruner(),
        )
        _take_up(tried)
        first: Plan | None = None
        while len(_done(tried)) < asked.trials:
            number = len(_done(tried)) + 1
            # Of its own for each, so that a search that goes on proposes nothing twice.
            seed = int(digest([asked.seed, len(tried.trials)])[:8], 16)
            tried.sampler = optuna.samplers.TPESampler(seed=seed)
            trial = tried.ask()
            settings = {key: where.proposed(trial, key) for key, where in asked.over.items()}
            yield Proposed(number, settings)
            first = first or variants.plan({}, conduct, None)  # what is wrong with it ends the search
            try:
                plan = variants.plan(settings, conduct, first)
            except (Unwritable, UnknownKey):
                raise
            except OfframpError as error:  # these settings do not go together; others may
                trial.set_user_attr(WHY, str(error))
                tried.tell(trial, state=optuna.trial.TrialState.PRUNED)
                yield Scored(number, settings, None, str(error), _highest(tried))
                continue
            trial.set_user_attr(PLANNED, _planned(plan))
            tried.pruner = _pruner(plan) if asked.prune else optuna.pruners.NopPruner()
            value, why = yield from _tried(plan, store, conduct, trial)
            state = optuna.trial.TrialState.PRUNED if value is None else None
            if why:
                trial.set_user_attr(WHY, why)
            tried.tell(trial, value, state)
            yield Scored(number, settings, value, why, _highest(tried))
        return _best(tried)


def _complete(tried: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    import optuna

    return tried.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def _highest(tried: optuna.Study) -> float | None:
    return max((trial.value or 0.0 for trial in _complete(tried)), default=None)


def _best(tried: optuna.Study) -> Best:
    complete = _complete(tried)
    if not complete:
        raise OfframpError(
            f"none of {len(tried.trials)} proposals could be trained to the end; look at the reasons, "
            "and name other ranges with --over"
        )
    best = max(complete, key=lambda trial: (trial.value or 0.0, -trial.number))
    return Best(best.params, best.value or 0.0, len(_done(tried)))


def _planned(plan: Plan) -> dict[str, Any]:
    """What trackers are told of a proposal: its trials as one, each phase once."""
    labels = ", ".join(dict.fromkeys(trial.label for trial in plan.trials))
    seeds = {trial.seed for trial in plan.trials}
    about, titles = planned(plan, plan.trials[0]), dict[str, str]()
    for trial in plan.trials:
        of = f"{trial.label} s{trial.seed}/" if len(plan.trials) > 1 else ""
        for node in trial.resolved.nodes:
            titles.setdefault(node.key, f"{of}{node.name}")
    return {
        **about,
        "nodes": list(titles),
        "phases": [{"name": title, "node": key} for key, title in titles.items()],
        "strategy": labels,
        "options": about["options"] if labels == plan.trials[0].label else {},
        "seed": plan.trials[0].seed if len(seeds) == 1 else None,
    }


def _tried(
    plan: Plan, store: Store, conduct: RunConfig, trial: optuna.Trial
) -> Generator[Happening, None, tuple[float | None, str]]:
    """Train the phases of a plan; the score, or None and why it was given up."""
    known, why = Known(plan), ""
    with closing(_trained(plan, store, conduct)) as happening:
        for event in happening:
            yield event
            if isinstance(event, events.Failed):
                why = event.reason
            elif known.see(event, store):
                trial.report(known.mean, known.step)
                why = WORSE if isinstance(event, events.Epoch) and trial.should_prune() else ""
            if why:
                break
    if why:
        _forget(plan, store)
        return None, why
    return score(plan, store), ""


def _trained(plan: Plan, store: Store, conduct: RunConfig) -> Generator[events.Event, None, None]:
    """Every phase of a plan, each after what it needs, and no trial. What is there is checked, every
    byte; what is damaged is named and made anew."""
    known = Ledger(plan, store, Failures(Path()))  # of what failed it is not asked
    done = known.done
    while left := [node for node in plan.nodes.values() if node.key not in done]:
        for node in left:
            if store.has_node(node.key, whole=False):
                yield from known.check(node.key)
        ready = [n.key for n in left if n.key not in done and done.issuperset(n.needs)]
        if not ready:
            continue
        waits = False
        with closing(run_part(plan, store, conduct, ready, ())) as part:
            for event in part:
                yield event
                waits = waits or isinstance(event, events.Waiting)
                if isinstance(event, events.Finished | events.Reused):
                    done.add(event.key)
        if waits:
            time.sleep(POLL_SECONDS)


def _forget(plan: Plan, store: Store) -> None:
    """Checkpoints of a proposal that was given up."""
    for key in plan.nodes:
        held = store.try_lock(key)
        if held is not None:
            with held:
                store.drop_checkpoint(key)


def _pruner(plan: Plan) -> optuna.pruners.BasePruner:
    """Gives up what is worse than the median of others at the same epoch, after a quarter of all."""
    import optuna

    epochs = sum(node.recipe.epochs for node in plan.nodes.values())
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=epochs // 4)


def _done(tried: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    import optuna

    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return tried.get_trials(deepcopy=False, states=states)


def _take_up(tried: optuna.Study) -> None:
    """What an interrupted search was at is proposed again, and goes on from its checkpoints."""
    import optuna

    for trial in tried.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        tried.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            tried.enqueue_trial(trial.params)


@contextmanager
def _kept(store: Store, name: str) -> Iterator[optuna.storages.BaseStorage]:
    """Where a search is kept, which this process then holds alone."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    with held_log(store, name) as path:
        optuna.logging.set_verbosity(logging.WARNING)
        yield optuna.storages.JournalStorage(JournalFileBackend(str(path)))
