"""`offramp compare`: two strategies or two trials, at each exit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from offramp.cli.options import JsonOption, StoreArgument, StoreOption, argument
from offramp.cli.render import emit
from offramp.cli.store import archived
from offramp.errors import OfframpError, nearest
from offramp.terminal import show, table

if TYPE_CHECKING:
    from offramp.policy.paired import Difference
    from offramp.store.archive import Archive
    from offramp.store.manifest import Manifest


def compare(
    a: Annotated[str, argument("A", "A strategy's label, or a trial's id.")],
    b: Annotated[str, argument("B", "Another strategy, or another trial.")],
    store: StoreArgument = None,
    store_: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Compare two strategies, or two trials, at each exit.

    How much more accurate is A than B on test images? It shows the difference with a 95 % interval
    (Student's t). Two strategies are paired seed by seed: the interval says how much depends on the
    seed. Two trials are paired image by image: the interval says how much depends on the test images.

    \b
    Examples:
      offramp compare joint two-stage
      offramp compare joint-digits-cnn-digits-s42 joint-digits-cnn-digits-s43
    """
    archive = archived(store, store_)
    trials = {trial: archive.read_trial(trial) for trial in archive.trials()}
    labels = {manifest.strategy for manifest in trials.values()}
    unit = "seed" if labels & {a, b} else "image"
    if unit == "seed":
        for label in (a, b):
            if label not in labels:
                hint = nearest(label, labels)
                raise OfframpError(f"no strategy '{label}' in {archive.root}{hint}")
        found = _by_seed(archive, trials, a, b)
    else:
        found = _by_image(archive, archive.find_trial(a), archive.find_trial(b))
    if not found:
        raise OfframpError(f"'{a}' and '{b}' have no exit in common; compare two trials of one network")
    if json:
        rows = [{"exit": exit, **difference.__dict__} for exit, difference in found.items()]
        emit({"a": a, "b": b, "paired_by": unit, "exits": rows})
        return
    listing = table(["exit"], ["difference", "95 % interval", f"{unit}s"])
    for exit, d in found.items():
        interval = "–"
        if d.low is not None and d.high is not None:
            interval = f"{100 * d.low:+.2f} to {100 * d.high:+.2f}"
        listing.add_row(str(exit), f"{100 * d.mean:+.2f}", interval, str(d.pairs))
    alone = any(d.low is None for d in found.values())
    note = "One seed allows no interval; run more seeds, or compare two trials." if alone else ""
    show(listing, f"Test accuracy, {a} minus {b}, in points, paired by {unit}", note)


def _by_seed(store: Archive, trials: Mapping[str, Manifest], a: str, b: str) -> dict[int, Difference]:
    """Strategies, paired by trunk, data and seed; their exits by place, numbered as in `a`."""
    from offramp.policy.paired import paired

    sides = {label: _by_setting(store, trials, label) for label in (a, b)}
    both = sorted(sides[a].keys() & sides[b].keys())
    if not both:
        raise OfframpError(
            f"'{a}' and '{b}' have no seed in common on one network and data set; run both in one study"
        )
    pairs = [(_accuracy_at(sides[a][k]), _accuracy_at(sides[b][k])) for k in both]
    shared = set.intersection(*(set(found) for pair in pairs for found in pair))
    first = sides[a][both[0]].places
    return {
        exit: paired([one[place] for one, _ in pairs], [other[place] for _, other in pairs])
        for exit, place in enumerate(first, start=1)
        if place in shared
    }


def _by_setting(store: Archive, trials: Mapping[str, Manifest], label: str) -> dict[str, Manifest]:
    """The manifests of a strategy by what pairs them: trunk, data and seed, whichever study ran them.

    Raises OfframpError where two trials stand for the same.
    """
    from offramp.hashing import canonical

    names: dict[str, str] = {}
    for trial, manifest in trials.items():
        if manifest.strategy != label:
            continue
        trunk = store.read_node(manifest.keys[0]).phase.network
        setting = canonical([trunk, manifest.data.splits, manifest.seed])
        if setting in names:
            raise OfframpError(
                f"'{label}' has two trials for one network, data set and seed, {names[setting]} and "
                f"{trial}; compare trial ids instead"
            )
        names[setting] = trial
    return {setting: trials[trial] for setting, trial in names.items()}


def _accuracy_at(manifest: Manifest) -> dict[str, float]:
    """Test accuracy by place."""
    places = [manifest.places[exit - 1] for exit in manifest.exits]
    return dict(zip(places, manifest.metrics["test"].accuracy, strict=True))


def _by_image(store: Archive, a: str, b: str) -> dict[int, Difference]:
    """Trials, paired by test image."""
    from offramp.policy.paired import paired

    one, other = store.read_trial(a), store.read_trial(b)
    if one.data.test != other.data.test:
        raise OfframpError(f"{a} and {b} have different test images; compare trials on one data set")
    right = []
    for trial, manifest in ((a, one), (b, other)):
        arrays = store.trial_logits(trial)
        hits = arrays["test"].argmax(2) == arrays["test_labels"][:, None]
        right.append(dict(zip(manifest.exits, hits.T.astype(float), strict=True)))
    return {k: paired(right[0][k], right[1][k]) for k in right[0] if k in right[1]}
