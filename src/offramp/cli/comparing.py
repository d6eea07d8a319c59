"""Commands that set one thing of a store against another: trials, strategies, nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from offramp.analysis.paired import Difference, paired
from offramp.cli.render import console, emit, show, table
from offramp.errors import OfframpError, nearest
from offramp.hashing import canonical
from offramp.store.archive import Archive


def compare(store: Archive, a: str, b: str, as_json: bool) -> None:
    trials = {trial: store.read_trial(trial) for trial in store.trials()}
    labels = {manifest["strategy"] for manifest in trials.values()}
    unit = "seed" if labels & {a, b} else "image"
    if unit == "seed":
        for label in (a, b):
            if label not in labels:
                hint = nearest(label, labels)
                raise OfframpError(f"'{label}' is no strategy of {store.root}{hint}")
        found = _by_seed(store, trials, a, b)
    else:
        found = _by_image(store, store.find_trial(a), store.find_trial(b))
    if as_json:
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


def _by_seed(
    store: Archive, trials: Mapping[str, dict[str, Any]], a: str, b: str
) -> dict[int, Difference]:
    """Strategies, paired by trunk, data and seed; their exits by place, numbered as in `a`."""
    sides = {label: _by_setting(store, trials, label) for label in (a, b)}
    both = sorted(sides[a].keys() & sides[b].keys())
    if not both:
        raise OfframpError(
            f"'{a}' and '{b}' have no seed in common on one network and data set; run both in one study"
        )
    pairs = [(_accuracy_at(sides[a][k]), _accuracy_at(sides[b][k])) for k in both]
    shared = set.intersection(*(set(found) for pair in pairs for found in pair))
    first = sides[a][both[0]]["places"]
    return {
        exit: paired([one[place] for one, _ in pairs], [other[place] for _, other in pairs])
        for exit, place in enumerate(first, start=1)
        if place in shared
    }


def _by_setting(
    store: Archive, trials: Mapping[str, dict[str, Any]], label: str
) -> dict[str, dict[str, Any]]:
    """The manifests of a strategy by what pairs them: trunk, data and seed, whichever study ran them.

    Raises OfframpError where two trials stand for the same.
    """
    names: dict[str, str] = {}
    for trial, manifest in trials.items():
        if manifest["strategy"] != label:
            continue
        trunk = store.read_node(manifest["phases"][0]["node"]).reads["network"]
        data = [manifest["data"][split] for split in ("train", "validation", "calibration", "test")]
        setting = canonical([trunk, data, manifest["seed"]])
        if setting in names:
            raise OfframpError(
                f"'{label}' has two trials for one network, data set and seed, {names[setting]} and "
                f"{trial}; compare trial ids instead"
            )
        names[setting] = trial
    return {setting: trials[trial] for setting, trial in names.items()}


def _accuracy_at(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Test accuracy by place."""
    places = [manifest["places"][exit - 1] for exit in manifest["exits"]]
    return dict(zip(places, manifest["metrics"]["test"]["accuracy"], strict=True))


def _by_image(store: Archive, a: str, b: str) -> dict[int, Difference]:
    """Trials, paired by test image."""
    one, other = store.read_trial(a), store.read_trial(b)
    if one["data"]["test"] != other["data"]["test"]:
        raise OfframpError(f"{a} and {b} have different test images; compare trials on one data set")
    right = []
    for trial, manifest in ((a, one), (b, other)):
        arrays = store.trial_logits(trial)
        hits = arrays["test"].argmax(2) == arrays["test_labels"][:, None]
        right.append(dict(zip(manifest["exits"], hits.T.astype(float), strict=True)))
    return {k: paired(right[0][k], right[1][k]) for k in right[0] if k in right[1]}


def why(store: Archive, prefix: str, study: Path | None, overrides: list[str], as_json: bool) -> None:
    there = {key: store.read_node(key) for key in store.nodes()}
    planned = _planned(study, overrides)
    key = _one({*there, *planned}, prefix)
    reads = there[key].reads if key in there else planned[key]
    changes = {k: _changes(reads, record.reads) for k, record in there.items() if k != key}
    near = min(changes, key=lambda k: (len(changes[k]), k), default=None)
    if as_json:
        differences = {} if near is None else changes[near]
        answer = {"key": key, "in_store": key in there, "reads": reads, "nearest": near}
        emit({**answer, "differences": differences})
        return
    if key in there:
        labels = there[key].labels
        users = ", ".join(dict.fromkeys(labels["strategies"]))
        typer.echo(f"{key}\nin the store: phase '{labels['phase']}', trained for {users}")
    else:
        typer.echo(f"{key}\nnot in the store: it would be trained")
    typer.echo("\nIts key is made of:")
    text = yaml.safe_dump(
        _readable(reads), sort_keys=False, allow_unicode=True, width=48, default_flow_style=None
    )
    console().print("".join(f"  {line}\n" for line in text.splitlines()), end="", soft_wrap=True)
    if near is not None:
        phase = there[near].labels["phase"]
        typer.echo(f"\nNearest other node: {near[:12]} (phase '{phase}'). This one differs in:")
        for name, (mine, theirs) in changes[near].items():
            typer.echo(f"  {name}: {_readable(mine)} here, {_readable(theirs)} there")


def _planned(study: Path | None, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """What the nodes of a study, or of a list of studies, would read, by key."""
    if study is None:
        return {}
    from offramp.study.plan.collection import members, plans

    made = plans([member.study for member in members(study, overrides)])
    return {key: node.reads for plan in made for key, node in plan.nodes.items()}


def _one(keys: set[str], prefix: str) -> str:
    """The key that begins with `prefix`."""
    found = sorted(key for key in keys if key.startswith(prefix))
    if len(found) != 1:
        what = f"{len(found)} nodes begin with" if found else "no node begins with"
        some = ", ".join(key[: len(prefix) + 4] for key in found[:5])
        hint = f"give more of one of {some}" if found else "offramp show TRIAL lists a trial's nodes"
        raise OfframpError(f"{what} '{prefix}'; {hint}")
    return found[0]


def _readable(value: Any) -> Any:
    """For people: hashes cut to 12 digits, the names of types left out."""
    if isinstance(value, dict):
        return {key: _readable(child) for key, child in value.items() if key != "type"}
    if isinstance(value, list):
        return [_readable(child) for child in value]
    return value[:12] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else value


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings and lists by dotted name."""
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, list) and value:
        items = list(enumerate(value))
    else:
        return {prefix: value}
    return {k: v for key, child in items for k, v in _flat(child, f"{prefix}.{key}".strip(".")).items()}


def _changes(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    mine, theirs = _flat(one), _flat(other)
    names = [*mine, *(name for name in theirs if name not in mine)]
    absent = "nothing"
    return {
        name: (mine.get(name, absent), theirs.get(name, absent))
        for name in names
        if mine.get(name, absent) != theirs.get(name, absent)
    }
