"""Two strategies, or two trials, compared at each exit by any measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from offramp.analysis.measures import (
    MEASURES,
    Measure,
    MetricOnSplit,
    find_measure,
    numbers,
    observations,
)
from offramp.analysis.stats.pairwise import ALPHA, Pairs, paired_differences
from offramp.analysis.stats.sample import Group
from offramp.errors import OfframpError, nearest
from offramp.hashing import canonical
from offramp.policy.quality import Difference, paired
from offramp.report import evidence
from offramp.report.evidence import Evidence
from offramp.report.logits import remembered
from offramp.report.runs import Runs
from offramp.store.archive import Archive, Records, find_trial, is_store
from offramp.store.manifest import Manifest
from offramp.store.place import Place
from offramp.store.table import tidy

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class PairComparison:
    """How much larger a measure of `a` is than that of `b`."""

    a: str  # a strategy's label, or a trial's id
    b: str  # another one
    measure: Measure  # what is compared
    # what pairs the values: seeds of strategies, test images of trials
    paired_by: Literal["seed", "image"]
    # the differences by exit, numbered as in `a`; by None of a measure of whole trials
    exits: Mapping[int | None, Difference]

    def as_json(self) -> dict[str, Any]:
        """In types of JSON, values as stored."""
        rows = [{"exit": exit, **difference.__dict__} for exit, difference in self.exits.items()]
        about = {"a": self.a, "b": self.b, "measure": self.measure.name, "paired_by": self.paired_by}
        return {**about, "exits": rows}


@dataclass(frozen=True, eq=False)
class Trials:
    """What is compared, of a store or of packs."""

    place: Place  # where they are
    manifests: Mapping[str, Manifest]  # by id
    records: Records  # what else can be read of them
    table: Callable[[str], pd.DataFrame]  # the tidy table of a trial


def trials_in(path: Place) -> Trials:
    """All trials of a store, of a folder that `store pack` wrote, or of a folder of such folders.

    Raises:
        OfframpError: There is none of these.
    """
    if is_store(path):  # of which no more is read than the question takes
        archive = Archive(path)
        manifests = {trial: archive.read_trial(trial) for trial in archive.trials()}
        return Trials(path, manifests, archive, lambda trial: tidy(archive, [trial]))
    packs = evidence.open(path).gathered
    manifests = {trial: record.manifest for trial, record in packs.trials.items()}
    return Trials(path, manifests, packs.records, packs.frames.__getitem__)


def compare(trials: Trials, a: str, b: str, measure: str = "accuracy-test") -> PairComparison:
    """Compare two strategies seed by seed, or two trials image by image.

    Args:
        trials: Among which both are.
        a: A strategy's label, or a trial's id, its beginning or its ending.
        b: Another one of the same kind.
        measure: A name of MEASURES, that of a metric for its measure on test (`f1`), or
            `path/file.py:name`.

    Raises:
        OfframpError: Where they have nothing in common, and for trials by a measure that is not of
            images.
    """
    chosen = find_measure(f"{measure}-test" if f"{measure}-test" in MEASURES else measure)
    labels = {manifest.strategy for manifest in trials.manifests.values()}
    differences: Mapping[int | None, Difference]
    paired_by: Literal["seed", "image"]
    if labels & {a, b}:
        for label in (a, b):
            if label not in labels:
                hint = nearest(label, labels)
                raise OfframpError(f"no strategy '{label}' in {trials.place}{hint}")
        paired_by, differences = "seed", _by_seed(trials, a, b, chosen)
    else:
        first, second = (find_trial(sorted(trials.manifests), part, trials.place) for part in (a, b))
        paired_by, differences = "image", _by_image(trials, first, second, chosen)
    if not differences:
        raise OfframpError(f"'{a}' and '{b}' have no exit in common; compare two trials of one network")
    return PairComparison(a, b, chosen, paired_by, differences)


def _by_seed(trials: Trials, a: str, b: str, measure: Measure) -> dict[int | None, Difference]:
    """Strategies, paired by trunk, data and seed; their exits by place, numbered as in `a`."""
    sides = {label: _by_setting(trials, label) for label in (a, b)}
    both = sorted(sides[a].keys() & sides[b].keys())
    if not both:
        raise OfframpError(
            f"'{a}' and '{b}' have no seed in common on one network and data set; run both in one study"
        )
    values = {label: [_by_place(trials, sides[label][k], measure) for k in both] for label in (a, b)}
    shared = set.intersection(*(set(places) for side in values.values() for places in side))
    first = trials.manifests[sides[a][both[0]]].places
    numbered: dict[str | None, int | None] = {None: None, **{p: k for k, p in enumerate(first, start=1)}}
    return {
        exit: paired([side[place] for side in values[a]], [side[place] for side in values[b]])
        for place, exit in numbered.items()
        if place in shared
    }


def _by_setting(trials: Trials, label: str) -> dict[str, str]:
    """Trials of a strategy by what pairs them: trunk, data and seed, whichever study ran them."""
    ids: dict[str, str] = {}
    for trial, manifest in trials.manifests.items():
        if manifest.strategy != label:
            continue
        trunk = trials.records.read_node(manifest.keys[0]).phase.network
        setting = canonical([trunk, manifest.data.splits, manifest.seed])
        if setting in ids:
            or_pack = "" if is_store(trials.place) else ", or name one pack alone"
            raise OfframpError(
                f"'{label}' has two trials for one network, data set and seed, {ids[setting]} and "
                f"{trial}; compare trial ids instead{or_pack}"
            )
        ids[setting] = trial
    return ids


def _by_place(trials: Trials, trial: str, measure: Measure) -> dict[str | None, float]:
    """A measure of a trial by the place of each exit; by None of a measure of whole trials."""
    manifest = trials.manifests[trial]
    places = {exit: manifest.places[exit - 1] for exit in manifest.exits}
    metric = measure.metric
    # What the manifest has is read from there: the tidy table would read every epoch for it.
    if metric is not None and metric.split in manifest.metrics:
        values: Sequence[float | None] | None = manifest.metrics[metric.split].by_name.get(metric.name)
        if values is None:
            arrays = trials.records.trial_logits(trial)
            logits, labels = arrays[metric.split], arrays[f"{metric.split}_labels"]
            _check_labels(metric, labels)
            values = remembered(metric.metric, logits, labels)
        pairs = zip(places.values(), values, strict=True) if measure.per_exit else [(None, values[-1])]
        return {place: value for place, value in pairs if value is not None}
    rows = observations(numbers(trials.table(trial)), measure)
    rows = rows[rows["exit"].notna() == measure.per_exit]
    _check_measured(rows, measure)
    exits = rows["exit"].astype("Int64").fillna(0).tolist()
    return {places.get(int(k)): float(v) for k, v in zip(exits, rows["value"], strict=True)}


def _check_measured(rows: pd.DataFrame, measure: Measure) -> None:
    """Raises OfframpError for a time that was estimated, of which an interval would say nothing."""
    if not rows["measured"].all():
        raise OfframpError(
            f"{measure.name} is an estimate in some of these runs, and estimates are not tested; run "
            "with --execution plain to measure it"
        )


def _check_labels(metric: MetricOnSplit, labels: np.ndarray) -> None:
    """Raises OfframpError for a metric that is not of such labels."""
    if not metric.metric.suits(labels):
        of = {"one": "one class", "several": "several labels"}[metric.metric.labels]
        raise OfframpError(f"{metric.name} is of {of} an image, and these trials are not; name another")


def _by_image(trials: Trials, a: str, b: str, measure: Measure) -> dict[int | None, Difference]:
    """Trials, paired by test image; their exits numbered as in `a`."""
    metric, on_images = measure.metric, measure.on_images
    if metric is None or on_images is None or not measure.per_exit:
        raise OfframpError(
            f"{measure.name} is no mean over test images, by which two trials are compared; compare two "
            "strategies"
        )
    first, second = trials.manifests[a], trials.manifests[b]
    if first.data.test != second.data.test:
        raise OfframpError(f"{a} and {b} have different test images; compare trials on one data set")
    trunks = [(each.network.backbone, each.network.options) for each in (first, second)]
    values = []
    for trial, manifest in ((a, first), (b, second)):
        arrays = trials.records.trial_logits(trial)
        _check_labels(metric, arrays["test_labels"])
        by_image = on_images(arrays["test"], arrays["test_labels"])
        # Exits of one trunk are compared by place: another study may number them otherwise.
        places = [manifest.places[k - 1] if trunks[0] == trunks[1] else k for k in manifest.exits]
        values.append(dict(zip(places, by_image.T, strict=True)))
    numbered = zip(first.exits, values[0].items(), strict=True)
    return {k: paired(own, values[1][at]) for k, (at, own) in numbered if at in values[1]}


ALL = "all"


def across(setting: Evidence, against: Evidence, a: str, b: str, measure: Measure) -> tuple[Pairs, int]:
    """How much the difference of two strategies differs between two settings, over seeds, and over test
    images where both settings answered the same ones; p and intervals for all pairs together. setting,
    against: of one network on one data set each; a: a label, or ALL for every pair.

    Returns:
        The pairs: (a - b) in `setting` minus (a - b) in `against`; and how many test images, 0 where
        they are no part.

    Raises:
        OfframpError: Where a side has several networks or data sets, or not these strategies, and for
            estimates.
    """
    first, second = _single(setting), _single(against)
    settings = [first.values(measure), second.values(measure)]
    for values_of_trials in settings:
        _check_measured(values_of_trials, measure)
    values = [
        {(str(s), str(x)): v for s, x, v in rows[["strategy", "seed", "value"]].itertuples(index=False)}
        for rows in settings
    ]
    both = sorted(values[0].keys() & values[1].keys())
    labels = sorted({label for label, _ in both})
    for label in {a, b} - {ALL}:
        if label not in labels:
            raise OfframpError(f"'{label}' has no seed in both settings{nearest(label, labels)}")
    on_images, others = first.images(measure), second.images(measure)
    same = {t.manifest.data.test for runs in (first, second) for t in runs.trials}
    rows = {}
    if on_images is not None and others is not None and len(same) == 1:
        rows = {key: on_images[key] - others[key] for key in both}
    groups = []
    for label in labels if ALL in (a, b) else (a, b):
        mine = [k for k in both if k[0] == label]
        changes, seeds = (values[0][k] - values[1][k] for k in mine), (seed for _, seed in mine)
        images = tuple(rows[k] for k in mine if rows)
        groups.append(Group((label,), tuple(changes), tuple(seeds), images=images))
    return paired_differences(groups, ALPHA), len(next(iter(rows.values()), ()))


def _single(evidence: Evidence) -> Runs:
    if len(evidence.runs) != 1:
        names = ", ".join(runs.where for runs in evidence.runs) or "no finished trial"
        raise OfframpError(f"a setting is one network on one data set; here is {names}")
    return evidence.runs[0]
