"""`offramp show`: one trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp import terminal
from offramp.cli import completing, render
from offramp.cli.options import JsonOption, StoreArgument, StoreOption, argument
from offramp.cli.render import emit
from offramp.cli.store import archived
from offramp.cli.trials import SortBy, TrialFilter, chosen, show_trials
from offramp.data_spec import HELD_OUT
from offramp.errors import OfframpError
from offramp.terminal import table
from offramp.units import duration, macs, percent

if TYPE_CHECKING:
    from offramp.store.archive import Archive
    from offramp.store.manifest import Manifest
    from offramp.store.record import PhaseRecord, TrialRecord


def show(
    trial: Annotated[
        str,
        argument(
            "TRIAL", "A trial's id, its beginning or its ending.", autocompletion=completing.trials
        ),
    ],
    store: StoreArgument = None,
    store_: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one trial: its exits, phases and time.

    If several ids have this beginning or ending, it lists them.

    \b
    Examples:
      offramp show joint-branch-digits-cnn-digits-s42
      offramp show joint-branch runs/demo
      offramp show 2aaa974f
    """
    archive = archived(store, store_)
    matches = archive.matching(trial)
    if len(matches) > 1 and not json:
        from offramp.store.archive import several
        from offramp.store.live import Reader

        courses = [c for c in Reader(archive).courses() if c.trial in matches]
        show_trials(chosen(courses, TrialFilter(), SortBy.trial))
        raise OfframpError(f"{several(trial, matches)}; give more of one of these")
    show_trial(archive, archive.find_trial(trial), json)


def show_trial(store: Archive, trial: str, as_json: bool) -> None:
    """trial: its whole id."""
    from offramp.store.record import made_with, read

    manifest = store.read_trial(trial)
    record = read(store, trial, manifest)
    seconds = record.seconds
    if as_json:
        made = made_with(store, [manifest])
        phases = [_times(phase) for phase in record.phases]
        spent = {"phases": phases, "seconds": dict(seconds.__dict__)}
        emit({"trial": trial, **manifest.as_json(), **spent, "made_with": made})
        return
    typer.echo(f"{trial}\n{record.strategy} on {record.model}, {record.data}, seed {record.seed}\n")
    terminal.show(_exits(manifest), "Exits: compute of one image, and accuracy")
    if "auroc" in manifest.metrics["test"].by_name:
        several = len(manifest.classes) > 2
        of = "means over classes" if several else f"of class '{manifest.classes[1]}'"
        terminal.show(_uneven(manifest), "Test, where classes are uneven or two", f"AUROC and F1: {of}.")
    note = (
        "kept: the epoch whose weights were kept. check: validation after epochs. data: waiting for "
        "images in both (- if not measured apart). other: preparation, final evaluation, checkpoints. "
        "offramp why NODE explains a node."
    )
    terminal.show(_phases(store, record), "Phases, and their seconds", note)
    low, high = seconds.written_low, seconds.written_high
    by = manifest.provenance
    torch, device, finished = (one or "unknown" for one in (by.torch, by.device, by.finished))
    between = "" if seconds.measured else f" (estimated: {duration(low)} to {duration(high)})"
    render.say(
        f"Time: {duration(seconds.written)} as written, every phase alone{between}; "
        f"{duration(seconds.executed)} executed; {duration(seconds.marginal)} added to its study.",
        f"Made with torch {torch} on {device}, {finished}.",
    )


def _exits(manifest: Manifest) -> Any:
    from offramp.store.manifest import FLIPPED

    flipped = manifest.metrics["test"].by_name.get(FLIPPED)
    rows = []
    for i, (exit, spent) in enumerate(zip(manifest.exits, manifest.macs, strict=True)):
        share = f"{100 * spent / manifest.backbone_macs:.0f} %"
        accuracies = (percent(manifest.metrics[split].accuracy[i]) for split in HELD_OUT)
        mirrored = () if flipped is None else (percent(flipped[i] or 0),)
        rows.append((str(exit), manifest.places[exit - 1], macs(spent), share, *accuracies, *mirrored))
    more = () if flipped is None else ("test, flipped",)
    return table(["exit", "place"], ["MACs", "of plain", *HELD_OUT, *more], rows)


def _uneven(manifest: Manifest) -> Any:
    from offramp.metrics import METRICS

    test = manifest.metrics["test"].by_name
    titles = {name: m.shown for name, m in METRICS.items() if m.shown and name in test}
    rows = []
    for i, exit in enumerate(manifest.exits):
        values = [test[name][i] for name in titles]
        rows.append((str(exit), *("-" if v is None else percent(v) for v in values)))
    return table(["exit"], list(titles.values()), rows)


def _times(phase: PhaseRecord) -> dict[str, Any]:
    """Seconds by kind, and of each epoch; old records lack the latter."""
    spent = {"seconds": phase.cost.seconds, "epoch_seconds": phase.cost.epoch_seconds}
    return {"name": phase.name, "node": phase.node, **spent}


def _phases(store: Archive, trial: TrialRecord) -> Any:
    listing = table(["phase", "node"], ["epochs", "kept", "train", "check", "data", "other", "all"])
    for phase in trial.phases:
        summary, seconds = store.read_node(phase.node).summary, phase.cost.seconds
        told = [seconds.get(kind) for kind in ("train", "validation", "data")]
        whole = sum(seconds.values())
        listing.add_row(
            phase.name,
            phase.node[:12],
            str(summary.epochs),
            str(summary.selected_epoch),
            *("-" if spent is None else f"{spent:,.1f}" for spent in told),
            f"{whole - sum(spent or 0 for spent in told):,.1f}",
            f"{whole:,.1f}",
        )
    return listing
