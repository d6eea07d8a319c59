"""Commands that look into a store, and tidy it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from offramp.cli.render import counted, emit, show, table
from offramp.errors import OfframpError
from offramp.files import replacing
from offramp.store import sealed
from offramp.store.archive import Archive
from offramp.store.summary import data_label, made_with, tidy, trial_seconds
from offramp.units import duration, macs, size

if TYPE_CHECKING:
    from offramp.store.store import Store

BITS = ("torch", "torchvision", "timm", "numpy", "device")  # of these, other versions may change bits

UNEVEN = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "auroc": "AUROC", "f1": "F1"}


def archived(root: Path) -> Archive:
    """A store that is there already, to be read: quicker, since that takes no torch.

    Raises OfframpError where there is none.
    """
    archive = Archive(root)
    if not archive.version.exists():
        raise OfframpError(f"there is no store at {root}; name one with --store, or run a study first")
    return archive


def opened(root: Path) -> Store:
    """A store that is there already. Raises OfframpError where there is none."""
    from offramp.store.store import Store

    return Store(archived(root).root)


def status(store: Archive, as_json: bool) -> None:
    manifests = [store.read_trial(trial) for trial in store.trials()]
    counts = Counter((m["strategy"], m["network"]["backbone"], data_label(m)) for m in manifests)
    plans, working = store.begun(), store.names("work")
    used = sealed.size(store.root.resolve())
    made = made_with(store, manifests)
    if as_json:
        emit(
            {
                "store": str(store.root),
                "trials": len(manifests),
                "unfinished": plans,
                "nodes": len(store.nodes()),
                "checkpoints": working,
                "bytes": used,
                "made_with": made,
                "strategies": [
                    {"strategy": strategy, "backbone": backbone, "data": data, "trials": count}
                    for (strategy, backbone, data), count in counts.items()
                ],
            }
        )
        return
    listing = table(["strategy", "backbone", "data"], ["trials"])
    for (strategy, backbone, data), count in counts.items():
        listing.add_row(strategy, backbone, data, str(count))
    if counts:
        show(listing, f"Store {store.root}")
    typer.echo(
        f"{counted(len(manifests), 'trial')} finished, {len(plans)} begun; "
        f"{counted(len(store.nodes()), 'node')}, {counted(len(working), 'checkpoint')}; {size(used)}."
    )
    mixed = [f"{name} ({', '.join(made[name])})" for name in BITS if len(made[name]) > 1]
    if mixed:
        typer.echo(f"Warning: mixed here, so bits may differ: {'; '.join(mixed)}.")


def show_trial(store: Archive, prefix: str, as_json: bool) -> None:
    trial = store.find_trial(prefix)
    manifest = store.read_trial(trial)
    seconds = trial_seconds(store, manifest)
    if as_json:
        made = made_with(store, [manifest])
        phases = [{**phase, **_times(store.node_cost(phase["node"]))} for phase in manifest["phases"]]
        spent = {"phases": phases, "seconds": dict(seconds.__dict__)}
        emit({"trial": trial, **manifest, **spent, "made_with": made})
        return
    typer.echo(
        f"{trial}\n{manifest['strategy']} on {manifest['network']['backbone']}, "
        f"{data_label(manifest)}, seed {manifest['seed']}\n"
    )
    show(_exits(manifest), "Exits: compute of one image, and accuracy")
    if "auroc" in manifest["metrics"]["test"]:
        several = len(manifest["classes"]) > 2
        of = "means over classes" if several else f"of class '{manifest['classes'][1]}'"
        show(_uneven(manifest), "Test, where classes are uneven or two", f"AUROC and F1: {of}.")
    note = (
        "kept: the epoch whose weights were kept. check: validation of the epochs. data: waiting for "
        "images in both (- where it was not told apart). other: preparation, closing evaluation, "
        "checkpoints. offramp why NODE explains a node."
    )
    show(_phases(store, manifest), "Phases, and their seconds", note)
    made, sign = manifest["provenance"], "" if seconds.measured else "~"
    typer.echo(
        f"Time: {sign}{duration(seconds.written)} as written, {duration(seconds.executed)} executed, "
        f"{duration(seconds.marginal)} added to its study.\n"
        f"Made with torch {made['torch']} on {made['device']}, {made['finished']}."
    )


def _exits(manifest: dict[str, Any]) -> Any:
    splits = ("validation", "calibration", "test")
    listing = table(["exit", "place"], ["MACs", "of plain", *splits])
    for i, exit in enumerate(manifest["exits"]):
        spent = manifest["macs"][i]
        listing.add_row(
            str(exit),
            manifest["places"][exit - 1],
            macs(spent),
            f"{100 * spent / manifest['backbone_macs']:.0f} %",
            *(f"{100 * manifest['metrics'][split]['accuracy'][i]:.1f} %" for split in splits),
        )
    return listing


def _uneven(manifest: dict[str, Any]) -> Any:
    listing = table(["exit"], list(UNEVEN.values()))
    test = manifest["metrics"]["test"]
    for i, exit in enumerate(manifest["exits"]):
        values = [test[name][i] for name in UNEVEN]
        listing.add_row(str(exit), *("-" if v is None else f"{100 * v:.1f} %" for v in values))
    return listing


def _times(cost: dict[str, Any]) -> dict[str, Any]:
    """Seconds by kind, and of each epoch, which old records do not have."""
    return {"seconds": cost["seconds"], "epoch_seconds": cost.get("epoch_seconds")}


def _phases(store: Archive, manifest: dict[str, Any]) -> Any:
    listing = table(["phase", "node"], ["epochs", "kept", "train", "check", "data", "other", "all"])
    for phase in manifest["phases"]:
        record, seconds = store.read_node(phase["node"]), store.node_cost(phase["node"])["seconds"]
        told = [seconds.get(kind) for kind in ("train", "validation", "data")]
        whole = sum(seconds.values())
        listing.add_row(
            phase["name"],
            phase["node"][:12],
            str(record.summary["epochs"]),
            str(record.summary["selected_epoch"]),
            *("-" if spent is None else f"{spent:,.1f}" for spent in told),
            f"{whole - sum(spent or 0 for spent in told):,.1f}",
            f"{whole:,.1f}",
        )
    return listing


def gc(store: Store, dry_run: bool, abandon: bool, as_json: bool) -> None:
    unneeded = store.unneeded(abandon)
    freed = sum(count for _, count in unneeded)
    if not dry_run:
        freed = store.collect(dry_run=False, abandon=abandon)
    if as_json:
        paths = [str(path) for path, _ in unneeded]
        emit({"paths": paths, "bytes": freed, "removed": not dry_run})
        return
    listed = [(path, count) for path, count in unneeded if path.suffix != ".lock"]
    for path, count in listed:
        typer.echo(f"{path}  {size(count)}")
    if len(unneeded) > len(listed):
        typer.echo(f"{counted(len(unneeded) - len(listed), 'lock file')} that nobody holds")
    typer.echo(f"{'Would free' if dry_run else 'Freed'} {size(freed)}.")


def export_table(store: Archive, out: Path, as_json: bool) -> None:
    if out.suffix not in (".parquet", ".csv"):
        raise OfframpError(f"--out is {out}; end it in .parquet or .csv, which is the format")
    if not out.parent.is_dir():
        raise OfframpError(f"there is no folder {out.parent} for --out; make it first")
    trials = store.trials()
    frame = tidy(store, trials)
    try:
        with replacing(out) as temporary:
            if out.suffix == ".csv":
                frame.to_csv(temporary, index=False)
            else:
                frame.to_parquet(temporary, index=False)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OfframpError(f"{out} cannot be written ({reason}); choose another --out") from None
    if as_json:
        emit({"out": str(out), "rows": len(frame), "trials": len(trials)})
        return
    typer.echo(f"{counted(len(frame), 'row')} of {counted(len(trials), 'trial')} written to {out}")
