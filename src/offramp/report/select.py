"""Which trials are compared: of each model and data set one setting, one trial a strategy and seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from offramp.hashing import differing, digest
from offramp.store.manifest import Manifest
from offramp.store.record import PhaseRecord, TrialRecord, cut_at
from offramp.units import counted

OWN_OF_CONTROLS = ("network", "cut", "execution", "share")
OF_SIZE = ("images", "input_shape")  # in what the same pictures at another size differ, beside that
NetworkAndData = tuple[str, str]
WHERE = ("root", "url", "sha256", "split_file")  # of `DataSpec`: no image is another by these
NAMES = ("title",)  # of `DataSpec`, likewise, whatever the splits are


@dataclass(frozen=True)
class Selection:
    """Ids of the trials to compare; of others that differ from them in nothing but how many epochs they
    were trained for, setting by setting; a sentence on each group that is left out; and cheaper plain
    networks beside the compared ones of a model and data set, network by network."""

    compared: list[str]
    budgets: list[list[str]]
    notes: list[str]
    controls: dict[NetworkAndData, list[list[str]]]


def chosen(manifests: Mapping[str, Manifest]) -> Selection:
    """Which trials are compared.

    Trials of one model and data set are comparable where network, images, recipe, numerics and way of
    execution are the same: a setting. The one with most trials is compared, one with early exits before
    others, of two with as many the one that ran plain, else the one that trained longer, else the one
    that finished last. Plain networks alone, of fewer MACs or cut off at an exit, on the same images by
    the same recipe but for its epochs, are its controls.

    Args:
        manifests: By trial.
    """
    groups: dict[NetworkAndData, dict[str, list[str]]] = {}
    for trial in sorted(manifests):
        settings = groups.setdefault(_pair(manifests[trial]), {})
        settings.setdefault(_setting(manifests[trial]), []).append(trial)
    compared: list[str] = []
    budgets: list[list[str]] = []
    notes: list[str] = []
    liked = partial(_preference, manifests)
    ranked = {
        pair: sorted(settings.values(), key=liked, reverse=True)
        for pair, settings in sorted(groups.items())
    }
    hosts = {pair: first[0] for pair, (first, *_) in ranked.items() if _early(manifests, first)}
    controls: dict[NetworkAndData, list[list[str]]] = {}
    used: set[str] = set()
    for pair, of_host in hosts.items():
        beside = [group for other in ranked if other[1] == pair[1] for group in ranked[other]]
        plain = [group for group in beside if _is_control(manifests, group, of_host)]
        # Of one network trained in several ways the last one.
        by_network = {_network(manifests[trials[0]]): trials for trials in sorted(plain, key=liked)}
        for trials in by_network.values():
            controls.setdefault(pair, []).append(_unique(manifests, trials)[0])
            used |= set(trials)
    for pair, (first, *others) in ranked.items():
        where = f"of {pair[0]} on {pair[1]}"
        for trials in others:
            if used.issuperset(trials):
                notes += _repeats(_unique(manifests, trials)[1], where)
                continue
            manifest, reference = manifests[trials[0]], manifests[first[0]]
            are = "is" if len(trials) == 1 else "are"
            if _setting(manifest, manifest.recipe.epochs) == _setting(reference, manifest.recipe.epochs):
                budgets.append(_unique(manifests, trials)[0])
                continue
            here = {manifests[t].study for t in trials}
            of = ", ".join(sorted(name for name in here if name is not None))
            difference = _apart(manifest, reference) + (f"; study {of}" if of else "")
            how = f"name a study to see {'it' if are == 'is' else 'them'}"
            if None in here:  # `train` and `fit` name none
                how = "`offramp compare` takes two trials"
            notes.append(
                f"{counted(len(trials), 'trial')} {where} of another setting "
                f"({difference}) {are} left out: "
                f"{how}"
            )
        unique, repeated = _unique(manifests, first)
        compared += [] if used.issuperset(first) else unique
        notes += _repeats(repeated, where)
    return Selection(compared, budgets, notes, controls)


def _repeats(repeated: Sequence[str], where: str) -> list[str]:
    """A sentence on trials that newer ones stand for, if there are any."""
    if not repeated:
        return []
    plural = len(repeated) > 1
    repeat, have, are = ("repeat", "have", "are") if plural else ("repeats", "has", "is")
    return [
        f"{counted(len(repeated), 'trial')} {where} {repeat} a newer one of the same strategy, or "
        f"{have} other options than it, and {are} left out: {', '.join(repeated)}"
    ]


def _early(manifests: Mapping[str, Manifest], trials: Sequence[str]) -> bool:
    """Whether any of them has early exits."""
    return any(len(manifests[trial].exits) > 1 for trial in trials)


def _is_control(manifests: Mapping[str, Manifest], trials: Sequence[str], host: str) -> bool:
    """Whether a setting is of plain networks to compare the host's with: cheaper ones, and those that
    end in an early exit's head in place of the last layers, which may cost less."""
    if _early(manifests, trials):
        return False
    manifest, reference = manifests[trials[0]], manifests[host]
    pictures = [each.data.provenance.sources for each in (manifest, reference)]
    size = OF_SIZE if pictures[0] and pictures[0] == pictures[1] else ()
    same = [
        {name: facts for name, facts in _facts(each, 0).items() if name not in (*OWN_OF_CONTROLS, *size)}
        for each in (manifest, reference)
    ]
    for facts in same if size else ():
        facts["data"] = {k: v for k, v in facts["data"].items() if k not in ("size", "resize")}
    whole = reference.backbone_macs
    small = max(manifest.macs) < whole or bool(cut_at(manifest) and manifest.backbone_macs <= whole)
    return small and same[0] == same[1]


def _network(manifest: Manifest) -> str:
    """A plain network, by its parts."""
    return digest([manifest.network.as_json(), cut_at(manifest), manifest.input_shape])


def gaps(trials: Sequence[TrialRecord]) -> list[str]:
    """A sentence on each strategy that lacks seeds which others of its model and data set have, or that
    another pair has."""
    notes = []
    strategies = dict.fromkeys(t.strategy for t in trials)
    for pair in sorted({(t.model, t.data) for t in trials}):
        here = [t for t in trials if (t.model, t.data) == pair]
        seeds = sorted({t.seed for t in here})
        for strategy in strategies:
            have = {t.seed for t in here if t.strategy == strategy}
            lacking = [str(seed) for seed in seeds if seed not in have]
            if not have:
                notes.append(f"{strategy} has no trial of {pair[0]} on {pair[1]}")
            elif lacking:
                noun = "seed" if len(lacking) == 1 else "seeds"
                notes.append(f"{strategy} of {pair[0]} on {pair[1]} lacks {noun} {', '.join(lacking)}")
    return notes


def _pair(manifest: Manifest) -> tuple[str, str]:
    return manifest.network.backbone, manifest.data.name


def _apart(a: Manifest, b: Manifest) -> str:
    """The first things in which two settings differ, by name: `recipe.learning_rate`."""
    names = list(differing(_facts(a), _facts(b), lists=False))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _setting(manifest: Manifest, epochs: int | None = None) -> str:
    """epochs: as if it had trained for so many; None for as many as it did."""
    return digest(_facts(manifest, epochs))


def _facts(manifest: Manifest, epochs: int | None = None) -> dict[str, Any]:
    facts = manifest.as_json()
    facts["recipe"]["epochs"] = manifest.recipe.epochs if epochs is None else epochs
    spec = manifest.data.spec or {}
    own_splits = spec.get("split_seed") == "trial"
    apart = ("name", "provenance", "spec", *(manifest.data.splits if own_splits else ()))
    data = {k: v for k, v in facts["data"].items() if k not in apart}
    # Digests of the splits say which images these are, wherever they lay; without them the place does.
    data_spec = {k: v for k, v in spec.items() if k not in NAMES and (own_splits or k not in WHERE)}
    same = {k: facts[k] for k in ("network", "recipe", "numerics", "classes", "input_shape")}
    way = {"execution": manifest.execution.mode, "share": manifest.execution.share}
    way |= {"cut": cut_at(manifest)}
    return {**same, "data": data_spec, "images": data, **way}


def data_key(manifest: Manifest) -> str:
    """Equal for trials of the same data and splits, whatever these are called."""
    facts = _facts(manifest)
    return digest([manifest.data.name, facts["data"], facts["images"]])


def _preference(manifests: Mapping[str, Manifest], trials: Sequence[str]) -> tuple[Any, ...]:
    first = manifests[trials[0]]
    plain, epochs = first.execution.mode == "plain", first.recipe.epochs
    return (
        _early(manifests, trials),
        len(trials),
        plain,
        epochs,
        max(_finished(manifests[t]) for t in trials),
        trials[0],
    )


def _unique(manifests: Mapping[str, Manifest], trials: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of each strategy the trials with the options of its newest one, of these the newest of each seed;
    and the others."""
    options: dict[str, Any] = {}
    newest: dict[tuple[str, int], str] = {}
    for trial in sorted(trials, key=lambda t: (_finished(manifests[t]), t), reverse=True):
        manifest = manifests[trial]
        if options.setdefault(manifest.strategy, manifest.options) == manifest.options:
            newest.setdefault((manifest.strategy, manifest.seed), trial)
    newest_ids = set(newest.values())
    return sorted(newest_ids), [t for t in sorted(trials) if t not in newest_ids]


def _finished(manifest: Manifest) -> str:
    return manifest.provenance.finished or ""


def comparable(
    trials: Sequence[TrialRecord], table: pd.DataFrame
) -> tuple[tuple[TrialRecord, ...], pd.DataFrame]:
    """Trials and their tidy table, where the costs of a network on a data set count as measured only if
    one kind of machine trained all of its phases."""
    unlike = _unlike(trials)
    if not unlike:
        return tuple(trials), table
    marked = tuple(_estimated(t) if (t.model, t.data) in unlike else t for t in trials)
    ids = {t.id for t in trials if (t.model, t.data) in unlike}
    costs = table["trial"].isin(ids) & (table["phase"] != "final") & table["epoch"].isna()
    return marked, table.assign(measured=table["measured"].mask(costs, False).astype(bool))


def unlike_machines(trials: Iterable[TrialRecord]) -> list[str]:
    """A sentence for each network and data set whose times are not compared."""
    return [
        f"times of {model} on {data} are estimates and are not compared: its phases ran on unlike "
        f"machines ({'; '.join(sorted(kinds))})"
        for (model, data), kinds in sorted(_unlike(list(trials)).items())
    ]


def ran(trials: Iterable[TrialRecord]) -> list[str]:
    """What ran where, a line a machine; nothing where no record names one."""
    phases = {phase.node: phase for trial in trials for phase in trial.phases}
    counts = Counter(map(_machine, phases.values()))
    return [f"{name}: {counted(n, 'phase')}" for name, n in sorted(counts.items()) if name]


def _machine(phase: PhaseRecord) -> str:
    name = phase.provenance.machine
    return f"{name} ({phase.kind})" if name else ""


def _unlike(trials: Sequence[TrialRecord]) -> dict[NetworkAndData, set[str]]:
    """Kinds of machines, where there are several."""
    kinds: dict[NetworkAndData, set[str]] = {}
    for trial in trials:
        kinds.setdefault((trial.model, trial.data), set()).update(p.kind for p in trial.phases)
    return {pair: several for pair, several in kinds.items() if len(several) > 1}


def _estimated(trial: TrialRecord) -> TrialRecord:
    def phase(record: PhaseRecord) -> PhaseRecord:
        return replace(record, cost=record.cost.model_copy(update={"comparable": False}))

    return replace(trial, phases=tuple(map(phase, trial.phases)))
