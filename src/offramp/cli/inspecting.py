"""Commands that look into a store."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import typer

from offramp.analysis.paired import Difference, paired
from offramp.cli.render import bytes_, console, duration, macs, table
from offramp.errors import OfframpError, nearest
from offramp.files import replacing
from offramp.hashing import canonical
from offramp.study.store import Store
from offramp.study.summary import tidy, trial_seconds


def status(store: Store, as_json: bool) -> None:
    trials = {t: store.read_trial(t) for t in store.trials()}
    counts = Counter(
        (m["strategy"], m["network"]["backbone"], m["data"]["name"]) for m in trials.values()
    )
    size = sum(f.stat().st_size for f in store.root.rglob("*") if f.is_file())
    working = sorted(p.name for p in (store.root / "work").glob("*") if p.is_dir())
    versions = sorted({f"{m['provenance']['torch']}" for m in trials.values()})
    if as_json:
        answer = {
            "store": str(store.root),
            "trials": len(trials),
            "nodes": len(store.nodes()),
            "checkpoints": working,
            "bytes": size,
            "torch": versions,
            "strategies": [
                {"strategy": s, "backbone": b, "data": d, "trials": n} for (s, b, d), n in counts.items()
            ],
        }
        typer.echo(jsonlib.dumps(answer, indent=2))
        return
    listing = table(f"Store {store.root}")
    for title in ("strategy", "backbone", "data", "trials"):
        listing.add_column(title, justify="right" if title == "trials" else "left")
    for (strategy, backbone, data), count in counts.items():
        listing.add_row(strategy, backbone, data, str(count))
    console().print(listing)
    typer.echo(
        f"{len(trials)} trials, {len(store.nodes())} nodes, {len(working)} with a checkpoint "
        f"to go on from, {bytes_(size)}"
    )
    if len(versions) > 1:
        typer.echo(f"Warning: trials come from several torch versions ({', '.join(versions)}).")


def show(store: Store, prefix: str, as_json: bool) -> None:
    trial = store.find_trial(prefix)
    manifest = store.read_trial(trial)
    seconds = trial_seconds(store, manifest)
    if as_json:
        answer = {"trial": trial, **manifest, "seconds": dict(seconds.__dict__)}
        typer.echo(jsonlib.dumps(answer, indent=2))
        return
    screen = console()
    typer.echo(
        f"{trial}\n{manifest['strategy']} on {manifest['network']['backbone']}, "
        f"{manifest['data']['name']}, seed {manifest['seed']}"
    )
    exits = table()
    for title in ("exit", "place", "MACs", "of plain", "validation", "calibration", "test"):
        exits.add_column(title, justify="left" if title in ("exit", "place") else "right")
    for i, exit in enumerate(manifest["exits"]):
        spent = manifest["macs"][i]
        accuracies = [
            f"{100 * manifest['metrics'][split]['accuracy'][i]:.1f} %"
            for split in ("validation", "calibration", "test")
        ]
        share = f"{100 * spent / manifest['backbone_macs']:.0f} %"
        exits.add_row(str(exit), manifest["places"][exit - 1], macs(spent), share, *accuracies)
    screen.print(exits)
    phases = table()
    for title in ("phase", "node", "epochs", "kept", "time"):
        phases.add_column(title, justify="right" if title in ("epochs", "kept", "time") else "left")
    for phase in manifest["phases"]:
        record, cost = store.read_node(phase["node"]), store.node_cost(phase["node"])
        phases.add_row(
            phase["name"],
            phase["node"][:12],
            str(record.summary["epochs"]),
            str(record.summary["selected_epoch"]),
            duration(sum(cost["seconds"].values())),
        )
    screen.print(phases)
    sign = "" if seconds.measured else "~"
    typer.echo(
        f"Time: as written {sign}{duration(seconds.written)}, executed "
        f"{duration(seconds.executed)}, added to its study {duration(seconds.marginal)}"
    )
    made = manifest["provenance"]
    typer.echo(f"Made with torch {made['torch']} on {made['device']}, {made['finished']}")


def compare(store: Store, a: str, b: str, as_json: bool) -> None:
    trials = {t: store.read_trial(t) for t in store.trials()}
    labels = {m["strategy"] for m in trials.values()}
    if a in labels and b in labels:
        found, unit = _by_seed(trials, a, b), "seeds"
    else:
        found, unit = _by_image(store, store.find_trial(a), store.find_trial(b)), "images"
    if as_json:
        answer = [{"exit": exit, **d.__dict__} for exit, d in found.items()]
        typer.echo(jsonlib.dumps(answer, indent=2))
        return
    listing = table(f"Test accuracy, {a} minus {b}, in points, paired by {unit}")
    for title in ("exit", "difference", "95 % interval", unit):
        listing.add_column(title, justify="left" if title == "exit" else "right")
    for exit, d in found.items():
        interval = (
            "needs two or more"
            if d.low is None or d.high is None
            else f"{100 * d.low:+.2f} to {100 * d.high:+.2f}"
        )
        listing.add_row(str(exit), f"{100 * d.mean:+.2f}", interval, str(d.pairs))
    console().print(listing)


def _by_seed(trials: dict[str, dict[str, Any]], a: str, b: str) -> dict[int, Difference]:
    """Strategies, paired by backbone, data and seed."""
    sides: dict[str, dict[str, dict[int, float]]] = {a: {}, b: {}}
    for manifest in trials.values():
        if manifest["strategy"] in sides:
            test = manifest["metrics"]["test"]["accuracy"]
            setting = (manifest["network"], manifest["data"], manifest["recipe"], manifest["seed"])
            sides[manifest["strategy"]][canonical([*setting])] = dict(
                zip(manifest["exits"], test, strict=True)
            )
    both = sorted(sides[a].keys() & sides[b].keys())
    if not both:
        raise OfframpError(f"'{a}' and '{b}' have no trial with the same network, data and seed")
    exits = set.intersection(*(sides[s][k].keys() & sides[s][k].keys() for s in (a, b) for k in both))
    return {
        exit: paired([sides[a][k][exit] for k in both], [sides[b][k][exit] for k in both])
        for exit in sorted(exits)
    }


def _by_image(store: Store, a: str, b: str) -> dict[int, Difference]:
    """Trials, paired by test image."""
    one, other = store.read_trial(a), store.read_trial(b)
    if one["data"]["test"] != other["data"]["test"]:
        raise OfframpError(f"{a} and {b} have different test images; compare trials on one data set")
    right = {}
    for trial, manifest in ((a, one), (b, other)):
        arrays = store.trial_logits(trial)
        hits = arrays["test"].argmax(2) == arrays["test_labels"][:, None]
        right[trial] = dict(zip(manifest["exits"], hits.T.astype(float), strict=True))
    exits = [k for k in one["exits"] if k in other["exits"]]
    return {k: paired(right[a][k], right[b][k]) for k in exits}


def why(store: Store, prefix: str, study: Path | None, overrides: list[str], as_json: bool) -> None:
    keys = {key: store.root / "nodes" / key for key in store.nodes()}
    planned: dict[str, dict[str, Any]] = {}
    if study is not None:
        from offramp.study import spec
        from offramp.study.plan import make_plan

        plan = make_plan(spec.read(study, overrides))
        planned = {key: node.reads for key, node in plan.nodes.items()}
    found = sorted(k for k in {*keys, *planned} if k.startswith(prefix))
    if len(found) != 1:
        what = f"{len(found)} nodes begin with" if found else "no node begins with"
        hint = "; give more of the key" if found else "; offramp show TRIAL lists a trial's nodes"
        raise OfframpError(f"{what} '{prefix}'{hint}")
    key = found[0]
    there = key in keys
    reads = store.read_node(key).reads if there else planned[key]
    others = {k: store.read_node(k) for k in keys if k != key}
    changes = {k: _changes(reads, record.reads) for k, record in others.items()}
    near = min(changes, key=lambda k: (len(changes[k]), k), default=None)
    if as_json:
        answer = {
            "key": key,
            "in_store": there,
            "reads": reads,
            "nearest": near,
            "differences": {} if near is None else changes[near],
        }
        typer.echo(jsonlib.dumps(answer, indent=2))
        return
    typer.echo(f"{key}\n{'in the store' if there else 'not in the store: it would be trained'}")
    if there:
        labels = store.read_node(key).labels
        typer.echo(f"phase '{labels['phase']}', read by {', '.join(labels['strategies'])}")
    typer.echo("\nIts key is made of:")
    for name, value in _flat(reads).items():
        typer.echo(f"  {name} = {value}")
    if near is not None:
        phase = others[near].labels["phase"]
        typer.echo(f"\nNearest other node: {near[:12]} (phase '{phase}'). This one differs in:")
        for name, (mine, theirs) in changes[near].items():
            typer.echo(f"  {name}: {mine} here, {theirs} there")


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


def gc(store: Store, dry_run: bool, as_json: bool) -> None:
    unneeded = store.unneeded()
    freed = sum(size for _, size in unneeded) if dry_run else store.collect(dry_run=False)
    if as_json:
        paths = [str(path) for path, _ in unneeded]
        typer.echo(jsonlib.dumps({"paths": paths, "bytes": freed, "removed": not dry_run}, indent=2))
        return
    for path, size in unneeded:
        typer.echo(f"{path}  {bytes_(size)}")
    typer.echo(f"{'would free' if dry_run else 'freed'} {bytes_(freed)}")


def export_table(store: Store, out: Path) -> None:
    if out.suffix not in (".parquet", ".csv"):
        raise OfframpError(f"--out is {out}{nearest(out.suffix, ['.parquet', '.csv'])}")
    frame = tidy(store, store.trials())
    with replacing(out) as temporary:
        if out.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_parquet(temporary, index=False)
    typer.echo(f"{len(frame)} rows of {len(np.unique(frame['trial']))} trials written to {out}")
