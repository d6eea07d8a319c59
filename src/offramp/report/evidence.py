"""What a report is made of: the tidy table, a record of every trial, and logits when asked for.

From a store or from packed results (see `pack`), which give the same up to the float16 rounding of
packed logits. What is damaged, unfinished or of another setting is left out, and said in `missing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offramp import units
from offramp.analysis.claims import Claim, Judgment, OnImages, check
from offramp.analysis.claims.parts import Location
from offramp.analysis.measures import (
    OBSERVATION,
    Measure,
    Numbers,
    find_measure,
    numbers,
    observations,
)
from offramp.analysis.recommend import Facts
from offramp.analysis.recommend.goals import PlainFacts, TrialKey, at_compute
from offramp.analysis.tradeoff import AnyAnswers, NetAnswers
from offramp.errors import OfframpError, nearest
from offramp.hashing import digest
from offramp.metrics import ByImage
from offramp.report.claims import published, regimes
from offramp.report.colors import rank
from offramp.report.logits import LogitSummary, other_accuracy, remembered, summarized
from offramp.report.model import slug
from offramp.report.registry import publication
from offramp.report.runs import Runs
from offramp.report.select import (
    NetworkAndData,
    chosen,
    comparable,
    data_key,
    gaps,
    unlike_machines,
)
from offramp.store import pack as packed
from offramp.store.archive import Archive, Damaged, Records, elsewhere, is_store
from offramp.store.manifest import Cost, Manifest, NodeRecord, SeedLog
from offramp.store.place import Place
from offramp.store.record import TrialRecord, read
from offramp.store.table import COLUMNS, tidy
from offramp.units import counted

LONGEST = 120  # letters of a network and data in the name of a file, which may have 255 in all


@dataclass(frozen=True, eq=False)
class Gathered:
    """What was read, before what is compared is chosen of it."""

    records: Records  # where the trials' records and logits are
    trials: Mapping[str, TrialRecord] = field(default_factory=dict)  # by id
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # tidy tables by id of the trial
    missing: tuple[str, ...] = ()  # what could not be read, and what a pack says of itself
    # how seeds were added to studies until pairs were decided, by name
    logs: Mapping[str, SeedLog] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that figures, tables, claims and advice read.

    What is worked out is kept, so equal questions get the same object; nothing else changes.
    """

    table: pd.DataFrame  # the tidy table (`store.table.COLUMNS`) of `trials`
    # by model, data, strategy and seed, strategies in the order of reports
    trials: tuple[TrialRecord, ...]
    missing: tuple[str, ...]  # what is not here and why, a sentence each
    gathered: Gathered = field(repr=False)  # what they were chosen of
    # the same trials trained for other numbers of epochs, one Evidence for each
    budgets: tuple[Evidence, ...] = field(default=(), repr=False)
    # trials of cheaper plain networks, by the model and data set beside which they stand, network by
    # network
    plain: Mapping[NetworkAndData, Sequence[tuple[TrialRecord, ...]]] = field(
        default_factory=dict, repr=False
    )
    _observed: dict[str, Mapping[tuple[str, str], pd.DataFrame]] = field(
        default_factory=dict, repr=False
    )

    def logits(self, trial: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, E, C] (float32, or float16 from a pack) and labels [N] of a trial's split.

        Raises:
            OfframpError (Damaged): When they were harmed since the evidence was read.
        """
        arrays = self.gathered.records.trial_logits(trial)
        return arrays[split], arrays[f"{split}_labels"]

    @cached_property
    def outcomes(self) -> Mapping[str, LogitSummary]:
        """What every trial's test logits come to, by its id. Reads each trial's logits once."""
        every = {t.id: t for t in (*self.trials, *self.plain_trials)}.values()
        return {t.id: summarized(*self.logits(t.id), t.macs, t.manifest.data.test) for t in every}

    def on_images(self, trial: str, of: ByImage) -> np.ndarray:
        """Values of a metric on each test image of a trial, [N, E]."""
        values = self.outcomes[trial].on_images
        if of not in values:  # a user's own
            values[of] = of(*self.logits(trial))
        return values[of]

    @property
    def plain_trials(self) -> Iterator[TrialRecord]:
        """Of plain networks beside `trials`."""
        return (t for networks in self.plain.values() for trials in networks for t in trials)

    @cached_property
    def facts(self) -> Facts:
        """What advice rests on, answers of every trial included."""
        answers: dict[TrialKey, AnyAnswers] = {
            (t.model, t.data, t.strategy, t.seed): self.answers_of(t) for t in self.trials
        }
        controls: dict[tuple[str, str, str], PlainFacts] = {}
        for runs in self.runs:
            for plain in runs.controls.cheaper:
                for t in plain.trials:
                    answers[runs.model, runs.data, plain.label, t.seed] = self.answers_of(t)
            for control in runs.controls.candidates:
                controls[runs.model, runs.data, control.label] = control.facts
                for seed, those in control.answers.items():
                    answers[runs.model, runs.data, control.label, seed] = those
        others = {t.strategy for t in self.trials if not t.heads_only}
        looks = {(r.model, r.data): r.looks for r in self.runs if r.looks is not None}
        return Facts(self.numbers, answers, frozenset(self.strategies) - others, looks, controls)

    def answers_of(self, trial: TrialRecord) -> NetAnswers:
        """On its test images. Its source is of all exits: a policy's answers are of one network only
        where every exit is the same."""
        source = digest(list(trial.manifest.sources.values()))[:16]
        answers = self.outcomes[trial.id].answers
        pictures = trial.manifest.data.provenance.sources.get("test", "")
        return replace(answers, source=source, images=self._images.get(pictures, answers.images))

    @cached_property
    def _images(self) -> Mapping[str, str]:
        """The key of test images by what they were read from: a control may answer the same pictures at
        another size."""
        read = {t.id: t.manifest.data.provenance.sources.get("test") for t in self.trials}
        return {key: self.outcomes[id].answers.images for id, key in read.items() if key}

    @cached_property
    def disagreements(self) -> tuple[str, ...]:
        """Accuracies that are not what logits give, or not the same in table and records, a sentence
        each. Reads each trial's logits once."""
        final = self.table[(self.table["phase"] == "final") & (self.table["metric"] == "accuracy")]
        columns = (final[name].tolist() for name in ("trial", "split", "exit", "value"))
        in_table = {
            (trial, split, exit): value for trial, split, exit, value in zip(*columns, strict=True)
        }
        sentences = []
        for trial in self.trials:
            arrays = self.gathered.records.trial_logits(trial.id)
            for split, metrics in trial.manifest.metrics.items():
                answers = (arrays[split], arrays[f"{split}_labels"]) if split in arrays else None
                for k, (exit, recorded) in enumerate(zip(trial.exits, metrics.accuracy, strict=True)):
                    where = f"at exit {exit} on {split}"
                    if answers is not None and (
                        accuracy := other_accuracy(answers[0][:, k], answers[1], recorded)
                    ):
                        record = f"the record of trial {trial.id} says accuracy {recorded:.4f} {where}"
                        sentences.append(f"{record}, and its logits give {accuracy}")
                    listed = in_table.get((trial.id, split, exit), recorded)
                    if not abs(listed - recorded) <= 1e-6:
                        table = f"the table says accuracy {listed:.4f} of trial {trial.id} {where}"
                        sentences.append(f"{table}, and its record {recorded:.4f}")
        return tuple(sentences)

    @property
    def logs(self) -> Mapping[str, SeedLog]:
        """How seeds were added to the studies that any of `trials` are of, by name."""
        here = self.by_id.keys()
        return {name: log for name, log in self.gathered.logs.items() if not here.isdisjoint(log.trials)}

    @property
    def packed(self) -> tuple[list[str], pd.DataFrame]:
        """Ids and tidy table of all trials that are compared, those of other numbers of epochs too."""
        every = (self, *self.budgets)
        plain = list(dict.fromkeys(t.id for t in self.plain_trials))
        ids = [trial.id for evidence in every for trial in evidence.trials]
        frames = [*(evidence.table for evidence in every), *(self.gathered.frames[id] for id in plain)]
        return [*ids, *plain], pd.concat(frames, ignore_index=True)

    @cached_property
    def by_id(self) -> Mapping[str, TrialRecord]:
        """Trials by their id."""
        return {trial.id: trial for trial in self.trials}

    @cached_property
    def runs(self) -> tuple[Runs, ...]:
        """Every combination of a network and a data set that has trials, sorted."""
        by_name: dict[str, Runs] = {}
        pairs = sorted({(t.model, t.data) for t in self.trials})
        short = {(model, data): slug(model, data.partition(" (")[0]) for model, data in pairs}
        times = Counter(short.values())
        for model, data in pairs:
            whole = short[model, data] if times[short[model, data]] == 1 else slug(model, data)
            plain = name = whole[:LONGEST]
            count = 1
            while name in by_name:  # names may differ only in signs that no file's name has, or later
                count += 1
                name = f"{plain}-{count}"
            by_name[name] = Runs(self, model, data, name)
        return tuple(by_name.values())

    @cached_property
    def strategies(self) -> tuple[str, ...]:
        """Labels of the strategies, in the order in which figures and tables list them."""
        return tuple(sorted({t.strategy for t in self.trials}, key=rank))

    def among(self, labels: Iterable[str]) -> list[str]:
        """Those of `strategies` that are among `labels`, in their order."""
        here = set(labels)
        return [label for label in self.strategies if label in here]

    @cached_property
    def numbers(self) -> Numbers:
        """The tidy table, taken apart."""
        return numbers(self.table)

    def with_metrics(self, measures: Iterable[Measure]) -> Numbers:
        """The tidy table, taken apart, with what these measures need of logits and the table lacks: a
        metric may be younger than a trial, or a user's own."""
        metrics = {(m.metric.name, m.metric.split): m.metric.metric for m in measures if m.metric}
        final = self.numbers.final
        frames = [final]
        for (name, split), metric in metrics.items():
            recorded = final[(final["metric"] == name) & (final["split"] == split)]["trial"].unique()
            for trial in self.trials:
                arrays = {} if trial.id in recorded else self.gathered.records.trial_logits(trial.id)
                if split in arrays:  # a pack has none of validation
                    values = remembered(metric, arrays[split], arrays[f"{split}_labels"])
                    columns = {
                        "exit": list(trial.exits),
                        "value": values,
                        "metric": name,
                        "split": split,
                    }
                    source = list(trial.manifest.sources.values())
                    frames.append(pd.DataFrame(columns | {"trial": trial.id, "source": source}))
        return self.numbers if len(frames) == 1 else replace(self.numbers, final=pd.concat(frames))

    def observed(self, measure: Measure) -> Mapping[tuple[str, str], pd.DataFrame]:
        """All values of a measure (columns `measures.OBSERVATION`), by model and data set."""
        if measure.name not in self._observed:
            rows = observations(self.with_metrics([measure]), measure)
            groups = rows.groupby(["model", "data"], sort=True)
            self._observed[measure.name] = {(str(m), str(d)): part for (m, d), part in groups}
        return self._observed[measure.name]

    @cached_property
    def judgments(self) -> Mapping[str, Judgment]:
        """What the evidence says of the publication's claims, by id."""
        return {judgment.claim.id: judgment for judgment in self.judge(published())}

    def judge(self, claims: Sequence[Claim]) -> list[Judgment]:
        """What the evidence says of claims."""
        measures = [find_measure(name) for name in sorted({claim.measure for claim in claims})]
        images = {measure.name: self._on_images(measure) for measure in measures if measure.on_images}
        levels = {at: self._at_compute(at) for at in {claim.at for claim in claims} if at is not None}
        table, of_trials = self.with_metrics(measures), regimes(self.trials)
        plain = {c.label for runs in self.runs for c in runs.controls.cheaper}
        families = publication().families
        return check(claims, table, of_trials, images, families, levels=levels, plain=plain)

    def _at_compute(self, at: str) -> tuple[pd.DataFrame, OnImages]:
        """Test accuracy at the compute that a claim names, of strategies, plain networks and cascades:
        observations, and the same on each test image. None where nothing here has that name."""
        frames, by_place = [pd.DataFrame(columns=list(OBSERVATION))], dict[Location, dict[int, Any]]()
        for runs in self.runs:
            macs = {c.label: float(c.macs) for c in runs.controls.networks}.get(at)
            macs = macs or _macs_of(at, runs.trials[0].manifest.backbone_macs)
            if macs is None:
                continue
            names = {(runs.model, s): s for s in runs.strategies}
            names |= runs.controls.named("network", "mixture", "cascade")
            frame, images = at_compute(self.facts.of(runs.data, names), macs, names)
            frames.append(frame.assign(data=runs.data, exit=None))
            for (name, seed), values in (images or {}).items():
                place = Location(runs.model, runs.data, name, None)
                by_place.setdefault(place, {})[int(seed)] = values
        return pd.concat([f for f in frames if len(f)] or frames[:1]), by_place

    def _on_images(self, measure: Measure) -> OnImages:
        by_place: dict[Location, dict[int, np.ndarray]] = {}
        for runs in self.runs:
            for exit in (None, *runs.exits) if measure.per_exit else (None,):
                for (strategy, seed), values in (runs.images(measure, exit) or {}).items():
                    place = Location(runs.model, runs.data, strategy, exit)
                    by_place.setdefault(place, {})[int(seed)] = values
        return by_place


def _macs_of(text: str, plain: int) -> float | None:
    """MACs, or a share of a plain network's, of a text; None of another."""
    share = units.read(text, units.PERCENT)
    return units.read(text, units.MACS) if share is None else share * plain / 100


def open(path: Place, study: str | None = None) -> Evidence:
    """The evidence in a store, in a folder that `store pack` wrote, or in a folder of such folders.
    study: only trials that a study of that name made.

    Raises:
        OfframpError: Where `path` is none of these, and where there is no such study.
    """
    if isinstance(path, Path) and packed.is_pack(path):
        return from_pack(path, study)
    if not is_store(path):
        packs = sorted(filter(packed.is_pack, path.glob("*"))) if isinstance(path, Path) else []
        if packs:
            return open_all(packs, study)
        raise OfframpError(f"there is neither a store nor packed results at {path}; {elsewhere(path)}")
    return from_store(path, study)


def open_all(paths: Sequence[Place], study: str | None = None) -> Evidence:
    """The evidence in stores and packs together; a trial that several have counts once, from the first.
    study: only trials that a study of that name made; each place has to have some.

    Raises:
        OfframpError: As `open` does.
    """
    parts = [open(path, study) for path in dict.fromkeys(paths)]
    return parts[0] if len(parts) == 1 else join(parts)


def open_finished(paths: Sequence[Place], study: str | None = None) -> Evidence:
    """As `open_all`. Raises OfframpError where no trial is finished, too."""
    evidence = open_all(paths, study)
    if not evidence.trials:
        raise OfframpError(f"{', '.join(map(str, paths))} holds no finished trial; run a study first")
    return evidence


def join(parts: Sequence[Evidence]) -> Evidence:
    """Several as one. What is compared is chosen anew of all that was read, and so is what is
    missing."""
    owners: dict[str, Gathered] = {}
    for part in parts:
        for id in part.gathered.trials:
            owners.setdefault(id, part.gathered)
    trials = {id: owner.trials[id] for id, owner in owners.items()}
    frames = {id: owner.frames[id] for id, owner in owners.items()}
    places = {id: owner.records for id, owner in owners.items()}
    records = CombinedRecords(places, {p.node: places[id] for id, t in trials.items() for p in t.phases})
    own = tuple(note for part in parts for note in _own(part.gathered.missing, part))
    logs = {name: log for part in parts for name, log in part.gathered.logs.items()}
    return gather(Gathered(records, trials, frames, own, logs))


def of_strategies(evidence: Evidence, labels: Collection[str]) -> Evidence:
    """The trials of these strategies alone. Raises OfframpError for one that has none."""
    for label in labels:
        if label not in evidence.strategies:
            hint = nearest(label, evidence.strategies)
            raise OfframpError(f"there is no trial of a strategy '{label}'{hint}")
    compared = (t for part in (evidence, *evidence.budgets) for t in part.trials)
    some = {t.id: t for t in (*compared, *evidence.plain_trials) if t.strategy in labels}
    # Seeds were added to some strategies as to all of them, so p of some pays for the looks too.
    return gather(replace(evidence.gathered, trials=some, missing=_own(evidence.missing, evidence)))


def _own(notes: Iterable[str], evidence: Evidence) -> tuple[str, ...]:
    """Those that do not follow from the trials that are compared."""
    compared = (t for part in (evidence, *evidence.budgets) for t in part.trials)
    every = {t.id: t.manifest for t in (*compared, *evidence.plain_trials)}
    follows = {*gaps(evidence.trials), *unlike_machines(evidence.trials), *chosen(every).notes}
    return tuple(note for note in notes if note not in follows)


def from_store(path: Place, study: str | None = None, trials: Collection[str] | None = None) -> Evidence:
    """The evidence in a store; of `trials` alone, where they are named.

    Raises:
        OfframpError: As `Archive` does.
    """
    archive = Archive(path)
    ids = archive.trials() if trials is None else sorted(trials)
    records: dict[str, TrialRecord] = {}
    frames: dict[str, pd.DataFrame] = {}
    begun = sorted(set(archive.begun()) - set(archive.trials())) if trials is None else []
    missing = [f"trial {trial} is not finished" for trial in begun]
    for trial in ids:
        try:
            archive.verify_trial(trial)  # before its numbers are believed
            record = read(archive, trial, archive.read_trial(trial))
            frames[trial] = tidy(archive, [trial])
            records[trial] = record
        except Damaged as error:
            where = str(error.path).removeprefix(f"{path}/")
            missing.append(f"trial {trial} is left out: {where} {error.reason}")
    logs: dict[str, SeedLog] = {}
    try:
        logs = archive.seed_logs()
    except Damaged as error:
        missing.append(f"how seeds were added is not known, and p is not adjusted: {error}")
    return gather(Gathered(archive, records, frames, tuple(missing), logs), study)


def from_pack(path: Path, study: str | None = None) -> Evidence:
    """The evidence in a folder that `store pack` wrote. Raises OfframpError where it is damaged."""
    pack = packed.read(path)
    trials = {trial: read(pack, trial, pack.read_trial(trial)) for trial in pack.trials()}
    rows = ((str(trial), part) for trial, part in pack.table.groupby("trial", sort=False))
    frames = {trial: _as_recorded(part, trials[trial]) for trial, part in rows if trial in trials}
    document = pack.document
    return gather(Gathered(pack, trials, frames, document.missing, document.seed_logs), study)


def _as_recorded(rows: pd.DataFrame, trial: TrialRecord) -> pd.DataFrame:
    """The rows of a trial with the names of its record: an earlier offramp packed tables with whole
    paths of code, of which records have the last part."""
    names = {"strategy": trial.strategy, "model": trial.model, "data": trial.data}
    other = {column: name for column, name in names.items() if (rows[column] != name).any()}
    return rows.assign(**other) if other else rows


def gather(gathered: Gathered, study: str | None = None) -> Evidence:
    """The evidence in what was read; of the trials of one study, if that is named."""
    if study is not None:
        names = sorted(
            {name for t in gathered.trials.values() if (name := t.manifest.study) is not None}
        )
        of = {id: t for id, t in gathered.trials.items() if t.manifest.study == study}
        gathered = replace(
            gathered, trials=of, missing=(*gathered.missing, *_of_others(gathered, study))
        )
        if not gathered.trials:
            these = f"choose among: {', '.join(names)}" if names else "none here has one; leave it out"
            raise OfframpError(f"no trial was made by a study '{study}'; {these}")
    gathered = _titled(_with_sources(gathered))
    selected = chosen({id: t.manifest for id, t in gathered.trials.items()})

    def evidence_of(ids: Collection[str]) -> Evidence:
        ordered = sorted((gathered.trials[id] for id in ids), key=_order)
        parts = [gathered.frames[t.id] for t in ordered] or [pd.DataFrame(columns=list(COLUMNS))]
        trials, table = comparable(ordered, pd.concat(parts, ignore_index=True))
        return Evidence(table, trials, (), gathered)

    whole = evidence_of(selected.compared)
    unlike = unlike_machines(whole.trials)
    notes = tuple(dict.fromkeys([*gathered.missing, *selected.notes, *gaps(whole.trials), *unlike]))
    plain = {
        pair: [tuple(sorted((gathered.trials[id] for id in ids), key=_order)) for ids in networks]
        for pair, networks in selected.controls.items()
    }
    budgets = tuple(map(evidence_of, selected.budgets))
    return replace(whole, missing=notes, budgets=budgets, plain=plain)


def _titled(gathered: Gathered) -> Gathered:
    """The trials of each setting by the newest title of its data, where any has one: a study may be
    given one after its first trials."""
    titles: dict[str, str] = {}
    newest = sorted(gathered.trials.values(), key=lambda t: t.manifest.provenance.finished or "")
    titles |= {data_key(t.manifest): name for t in newest if (name := t.manifest.data.title)}
    trials, frames = dict(gathered.trials), dict(gathered.frames)
    for id, trial in trials.items() if titles else ():
        title, data = titles.get(data_key(trial.manifest)), trial.manifest.data
        if title not in (None, data.title):
            manifest = trial.manifest.model_copy(update={"data": data.titled(title)})
            trials[id] = replace(trial, manifest=manifest)
            frames[id] = _as_recorded(frames[id], trials[id])
    return replace(gathered, trials=trials, frames=frames)


def _with_sources(gathered: Gathered) -> Gathered:
    """The trials, with what their images were read from where trials of the same images tell it: records
    of an earlier offramp lack it."""
    read: dict[str, str] = {}
    for trial in gathered.trials.values():
        data = trial.manifest.data
        read |= {data.splits[split]: source for split, source in data.provenance.sources.items()}
    trials = dict(gathered.trials)
    for id, trial in trials.items():
        data = trial.manifest.data
        if read.keys() >= set(data.splits.values()) and not data.provenance.sources:
            sources = {split: read[images] for split, images in data.splits.items()}
            provenance = data.provenance.model_copy(update={"sources": sources})
            data = data.model_copy(update={"provenance": provenance})
            trials[id] = replace(trial, manifest=trial.manifest.model_copy(update={"data": data}))
    return replace(gathered, trials=trials)


def _of_others(gathered: Gathered, study: str) -> list[str]:
    """What one study's trials cannot be compared with: strategies on the same network and data of which
    other studies have all trials, as where this study found them in the store."""
    own = {(t.model, t.data, t.strategy) for t in gathered.trials.values() if t.manifest.study == study}
    places = {(model, data) for model, data, _ in own}
    others = Counter(
        (t.strategy, str(t.manifest.study))
        for t in gathered.trials.values()
        if (t.model, t.data) in places and (t.model, t.data, t.strategy) not in own
    )
    return [
        f"{counted(number, 'trial')} of {strategy} that study {other} made: leave --study out to compare"
        for (strategy, other), number in sorted(others.items())
    ]


def _order(trial: TrialRecord) -> tuple[Any, ...]:
    return trial.model, trial.data, rank(trial.strategy), trial.seed, trial.id


@dataclass(frozen=True, eq=False)
class CombinedRecords:
    """Records of several places. trials, nodes: where each is."""

    trials: Mapping[str, Records]
    nodes: Mapping[str, Records]

    def read_trial(self, trial: str) -> Manifest:
        return self.trials[trial].read_trial(trial)

    def trial_logits(self, trial: str) -> dict[str, np.ndarray]:
        return self.trials[trial].trial_logits(trial)

    def read_node(self, key: str) -> NodeRecord:
        return self.nodes[key].read_node(key)

    def node_cost(self, key: str) -> Cost:
        return self.nodes[key].node_cost(key)
