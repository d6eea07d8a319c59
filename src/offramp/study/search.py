"""Settings of a study are searched for by accuracy on validation images; test images are not read.

Optuna proposes settings and gives up on bad ones (ask and tell). The phases of each proposal are trained
into the store, so that what two proposals share is trained once, and no trial is written: a trial holds
answers on test. What was tried is kept in the store's folder, and the same search goes on from there.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp import usercode
from offramp.errors import OfframpError, UnknownKey, Unwritable, nearest
from offramp.hashing import digest
from offramp.store.searches import PLANNED, WHY, WORSE, held_log
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, Trial, make_plan
from offramp.study.run import events
from offramp.study.run.ledger import Failures, Ledger
from offramp.study.run.run import POLL_SECONDS, Conduct, run_part
from offramp.study.run.trials import planned
from offramp.study.spec import places, record, yaml_lines
from offramp.study.spec.file import StudyFile
from offramp.study.spec.models import ALL, RECIPE_FIELDS, Study, read_recipe

if TYPE_CHECKING:
    import optuna

STARTUP = 5  # proposals before any is given up: of fewer there is no median to speak of
RANGED = re.compile(r"(log|uniform|int)\(\s*([^,\s]+)\s*,\s*([^,\s]+)\s*\)")
SUCH = "write log(1e-3,1), uniform(0,0.5), int(8,64) or a list such as [sgd,adam]"


@dataclass(frozen=True)
class Space:
    """Where a setting is looked for. text: as it was written.  low, high: bounds, both included, of a
    number that is even in its logarithm (`log`), in itself (`uniform`), or whole (`int`).  choices: in
    their place, of a list."""

    text: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str | int | float | bool | None, ...] = ()

    def proposed(self, trial: optuna.Trial, name: str) -> Any:
        """What Optuna wants tried."""
        if self.kind == "list":
            return trial.suggest_categorical(name, self.choices)
        if self.kind == "int":
            return trial.suggest_int(name, int(self.low), int(self.high))
        return trial.suggest_float(name, self.low, self.high, log=self.kind == "log")


def space(text: str, flag: str) -> Space:
    """What `--over KEY=…` says.

    >>> space("log(1e-3, 1)", "--over")
    Space(text='log(1e-3, 1)', kind='log', low=0.001, high=1.0, choices=())

    Raises OfframpError for anything else, and for bounds that leave nothing between them.
    """
    words = text.strip()
    if found := RANGED.fullmatch(words):
        bounds = [yaml_lines.parse(bound, flag, numbered=False).value for bound in found.groups()[1:]]
        whole = found[1] == "int"
        if all(isinstance(b, int if whole else int | float) for b in bounds):
            low, high = (float(bound) for bound in bounds)
            if low < high and (low > 0 or found[1] != "log"):
                return Space(words, found[1], low, high)
            raise OfframpError(f"{flag}: {words} has nothing between its bounds; {SUCH}")
    elif words.startswith("["):
        choices = yaml_lines.parse(words, flag, numbered=False).value
        if len(choices) > 1 and all(isinstance(c, str | int | float | bool | None) for c in choices):
            return Space(words, "list", choices=tuple(choices))
    raise OfframpError(f"{flag}: '{words}' is no range; {SUCH}")


@dataclass(frozen=True)
class SearchOptions:
    """over: where each setting is looked for, by its key in a study file.  trials: how many proposals,
    those of earlier runs of the same search included.  label: of the one strategy whose settings these
    are; None for all of the study's together.  prune: give up on what is worse than the median.  seed:
    of the proposals."""

    over: Mapping[str, Space]
    trials: int
    label: str | None = None
    prune: bool = True
    seed: int = 42


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


@dataclass(frozen=True)
class Best:
    """The best proposal. tried: how many there are by now, given up ones included."""

    settings: Mapping[str, Any]
    value: float
    tried: int


Step = Proposed | Scored | events.Event


def check_installed() -> None:
    """Raises OfframpError where Optuna is not there."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise OfframpError("a search needs Optuna; pip install 'offramp[search]'") from None


def check_keys(over: Mapping[str, Space], per_strategy: bool) -> None:
    """Raises OfframpError for a setting that no strategy can have of its own, where each is to have."""
    for key in over if per_strategy else ():
        name = key.removeprefix("recipe.")
        if name == key or name not in RECIPE_FIELDS:
            raise OfframpError(
                f"--per strategy: a strategy has no '{key}' of its own{nearest(name, RECIPE_FIELDS)}; "
                "search over recipe.KEY, or leave --per out"
            )


def name_of(study: Study, asked: SearchOptions) -> str:
    """By what the store knows a search: it goes on where study, ranges and strategy are the same, and
    the user's own code that the study names."""
    over = {key: where.text for key, where in asked.over.items()}
    named = (study.data.name, study.backbone.name, *(each.name for each in study.strategies))
    own = {name for name in named if usercode.is_user_code(name) and usercode.file_of(name).is_file()}
    # Without any the name stays what it was before code was in it.
    code = [{name: usercode.read(name).sha256 for name in sorted(own)}] if own else []
    return digest([record.dumps(study), over, asked.label, asked.prune, asked.seed, *code])[:16]


def search(
    study: Study, variants: Variants, asked: SearchOptions, store: Store, conduct: Conduct
) -> Generator[Step, None, Best]:
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


@dataclass(frozen=True)
class Variants:
    """The study with settings. file: as it was read.  label: of the strategy that has the settings for
    its own, and is alone then."""

    file: StudyFile
    label: str | None = None

    def study(self, settings: Mapping[str, Any]) -> Study:
        given = [] if self.label is not None else [_setting(k, v) for k, v in settings.items()]
        (study,) = self.file.study(given).by_split
        if self.label is None:
            return study
        own = {key.removeprefix("recipe."): value for key, value in settings.items()}
        return only(study, self.label, own)

    def plan(self, settings: Mapping[str, Any], conduct: Conduct, first: Plan | None) -> Plan:
        """first: one without them, whose data are not read again where they are the same."""
        study = self.study(settings)
        known = first is not None and _reads(study) == _reads(first.study)
        return make_plan(study, conduct.device, data=first.data if first and known else None)


def _reads(study: Study) -> object:
    return study.drawn_data, study.augment, study.execution.loader


def _setting(key: str, value: Any) -> str:
    """As `--set` takes it."""
    return f"{key}={json.dumps(value)}"


def only(study: Study, label: str, settings: Mapping[str, Any]) -> Study:
    """One strategy of a study, with settings of the recipe for all of its phases. What the study says
    of single phases stays. Raises OfframpError for a value that a study file may not have."""
    (own,) = (s for s in study.strategies if s.label == label)
    # Read as a file is: 0 and 0.0 are one weight decay and must be one key.
    where: places.Places = {(name,): f"strategy {label}" for name in settings}
    made = places.validated(read_recipe, settings, where)
    phases = with_all(own.phases, {name: getattr(made, name) for name in settings})
    return study.model_copy(update={"strategies": (own.model_copy(update={"phases": phases}),)})


def with_all(
    phases: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Overrides by phase, with some for all phases that those of single ones win over."""
    return {
        "*": {**phases.get("*", {}), **settings},
        **{k: dict(v) for k, v in phases.items() if k != "*"},
    }


def written(
    file: StudyFile,
    asked: Mapping[str | None, SearchOptions],
    found: Mapping[str | None, Best],
) -> dict[str, Any]:
    """The study file with what was found, in the types of JSON. asked, found: by the strategy whose
    settings they are; of None for all together."""
    together = found[None].settings if None in found else {}
    said = file.rewritten([_setting(k, v) for k, v in together.items()])
    for entry in said["strategies"]:
        label = entry.get("as", entry["name"])
        if label in found:
            own = {k.removeprefix("recipe."): v for k, v in found[label].settings.items()}
            entry["phases"] = with_all(entry.get("phases", {}), own)
    some = next(iter(asked.values()))
    named = {"name": f"{said['name']}-found"} if said.get("name") else {}  # reports tell the two apart
    return {
        **said,
        **named,
        "search": {
            "over": {key: where.text for key, where in some.over.items()},
            "trials": max(best.tried for best in found.values()),  # earlier runs may have tried more
            "per": None if None in found else "strategy",
            "found": {label or ALL: dict(best.settings) for label, best in found.items()},
            "validation": {label or ALL: best.value for label, best in found.items()},
        },
    }


# Training a proposal


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
    plan: Plan, store: Store, conduct: Conduct, trial: optuna.Trial
) -> Generator[Step, None, tuple[float | None, str]]:
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


def score(plan: Plan, store: Store) -> float:
    """Accuracy on validation of a plan whose phases are there: mean over exits, then over trials."""
    found = {key: selected(plan, store, key) for key in plan.nodes}
    means = []
    for trial in plan.trials:
        last = answering(trial)
        means.append(sum(found[key][k] for k, key in last.items()) / len(last))
    return sum(means) / len(means)


def _trained(plan: Plan, store: Store, conduct: Conduct) -> Generator[events.Event, None, None]:
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


@dataclass
class Known:
    """What is known of a plan's accuracy on validation. step: epochs so far, of all phases; equal for
    proposals that stand at the same point."""

    plan: Plan
    step: int = 0
    _by_exit: dict[tuple[str, int], float] = field(default_factory=dict)
    _exits: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._exits = {t.id: tuple(answering(t)) for t in self.plan.trials}

    @property
    def mean(self) -> float:
        """Over exits, then trials; an exit that nothing is known of counts as wrong, so that more is
        never less."""
        means = [
            sum(self._by_exit.get((trial, k), 0.0) for k in exits) / len(exits)
            for trial, exits in self._exits.items()
        ]
        return sum(means) / len(means)

    def see(self, event: events.Event, store: Store) -> bool:
        """Take in an event; whether `step` has moved with it, and something is known there."""
        match event:
            case events.Epoch(report):
                self.step += 1
                self._take(report.key, report.validation_accuracy)
            case events.Began(keys, epoch):
                self.step += epoch * len(keys)
                return False
            case events.Finished(key):
                self._take(key, selected(self.plan, store, key))
                return False
            case events.Reused(key):
                self.step += store.read_node(key).summary.epochs
                self._take(key, selected(self.plan, store, key))
            case _:
                return False
        return True

    def _take(self, key: str, accuracy: Mapping[int, float]) -> None:
        for trial in self.plan.trials:
            if key in trial.keys:
                self._by_exit |= {(trial.id, k): value for k, value in accuracy.items()}


def answering(trial: Trial) -> Mapping[int, str]:
    """For each exit that a trial trains, the key of the last phase that does."""
    return {k: node.key for node in trial.resolved.nodes for k in node.exits}


def selected(plan: Plan, store: Store, key: str) -> dict[int, float]:
    """Accuracy on validation of a finished phase, by exit, with the weights that it hands on."""
    epoch, history = store.read_node(key).summary.selected_epoch, store.node_history(key)
    rows = history[
        (history["split"] == "validation")
        & (history["metric"] == "accuracy")
        & (history["epoch"] == epoch)
    ]
    number = {place: k for k, place in enumerate(plan.net.places, start=1)}
    return {number[e]: float(v) for e, v in zip(rows["exit"], rows["value"], strict=True)}


# What Optuna keeps and does


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
