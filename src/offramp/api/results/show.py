"""One trial, or one node of training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from offramp.api.answer import answer
from offramp.api.opening import archived, code_line
from offramp.api.options import RUNS, CommandOption, Settings, StorePlace, UserCode, trial_names
from offramp.data_spec import HELD_OUT
from offramp.errors import OfframpError
from offramp.hashing import differing
from offramp.terminal import TextBlocks, TextTable, Verbatim
from offramp.units import duration, macs, percent

if TYPE_CHECKING:
    from offramp.store.archive import Archive
    from offramp.store.manifest import Manifest, NodeRecord
    from offramp.store.record import PhaseRecord, TrialRecord


@answer
class TrialReport:
    """One trial: its exits, phases and time.

    Attributes:
        trial: Its id.
        manifest: All that its record holds.
        record: What each of its phases took.
        made_with: Versions of libraries and devices by name.
    """

    trial: str
    manifest: Manifest
    record: TrialRecord
    made_with: Mapping[str, Sequence[str]]
    _store: Archive

    def as_json(self) -> dict[str, Any]:
        return {
            "trial": self.trial,
            **self.manifest.as_json(),
            "phases": [_times(phase) for phase in self.record.phases],
            "seconds": dict(self.record.seconds.__dict__),
            "made_with": self.made_with,
        }

    def document(self) -> TextBlocks:
        record, manifest = self.record, self.manifest
        made_by = manifest.provenance
        torch, device, finished = (
            fact or "unknown" for fact in (made_by.torch, made_by.device, made_by.finished)
        )
        return [
            f"{self.trial}\n{record.strategy} on {record.model}, {record.data}, seed {record.seed}",
            _exits(manifest),
            *_uneven(manifest),
            *self._training(),
            f"Made with torch {torch} on {device}, {finished}.",
        ]

    def _training(self) -> list[str | TextTable]:
        """What it took, where it was trained here."""
        if self.manifest.adopted:
            return ["Trained elsewhere, and adopted with its weights."]
        seconds = self.record.seconds
        low, high = duration(seconds.written_low), duration(seconds.written_high)
        between = "" if seconds.measured else f" (estimated: {low} to {high})"
        return [
            _phases(self._store, self.record),
            f"Time: {duration(seconds.written)} as written, every phase alone{between}; "
            f"{duration(seconds.executed)} executed; {duration(seconds.marginal)} added to its study.",
        ]


@answer
class NodeExplanation:
    """One node, a phase of training with one seed, and what its key is made of.

    Attributes:
        key: The hash of all that the phase reads.
        record: Its record; None where it is only planned.
        reads: What the phase reads.
        nearest: The key of the most similar other node of the store; None where there is none.
        phase: The name of that node's phase.
        differences: What differs: here, and there.
    """

    key: str
    record: NodeRecord | None
    reads: Mapping[str, Any]
    nearest: str | None
    phase: str
    differences: Mapping[str, tuple[Any, Any]]

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "in_store": self.record is not None,
            "reads": self.reads,
            "nearest": self.nearest,
            "differences": self.differences,
        }

    def document(self) -> TextBlocks:
        import yaml

        place = "not in the store: it would be trained"
        if self.record is not None:
            labels = self.record.labels
            users = ", ".join(dict.fromkeys(labels.strategies))
            place = f"in the store: phase '{labels.phase}', trained for {users}"
        text = yaml.safe_dump(
            _readable(self.reads),
            sort_keys=False,
            allow_unicode=True,
            width=48,
            default_flow_style=None,
        )
        lines = "".join(f"  {line}\n" for line in text.splitlines())
        parts = [f"{self.key}\n{place}\n\nIts key is made of:", Verbatim(lines)]
        if self.nearest is not None:
            parts.append(
                f"\nNearest other node: {self.nearest[:12]} (phase '{self.phase}'). This one differs in:"
            )
            for name, (mine, theirs) in self.differences.items():
                parts.append(f"  {name}: {_readable(mine)} here, {_readable(theirs)} there")
        return parts


def show(
    name: Annotated[str, CommandOption("TRIAL|NODE", complete=trial_names)],
    store: StorePlace = RUNS,
    *,
    study: Annotated[Path | None, CommandOption("FILE")] = None,
    settings: Settings = (),
    user_code: UserCode = True,
) -> TrialReport | NodeExplanation:
    """Explain one trial, or one node and why it was not reused.

    Of a trial it shows exits, phases and time.

    A node is one phase of training with one seed. Its key is the hash of all that the phase reads. So
    two keys differ only if the phases read different things. This shows the differences to the nearest
    node of the store. A trial's phases and a dry run list keys.

    Args:
        name: A trial's id, its beginning or its ending; or a node's key, or its beginning.
        store: The store: a folder, or s3://BUCKET/NAME.
        study: A study that would train the node again, to see why.
        settings: Settings of that study to change.
        user_code: Whether that study may name code.

    Raises:
        OfframpError: No trial and no node, or several, have this name.

    On the command line:
        offramp show joint-branch-digits-cnn-digits-s42
        offramp show joint-branch-digits-cnn-digits-s42 runs/demo
        offramp show 2aaa974f
        offramp show 9ca0b60b --study demo.yaml --set recipe.epochs=3
    """
    from offramp.store.archive import matching

    archive = archived(store)
    if study is not None or not matching(archive.trials(), name):
        planned = _planned(study, settings, user_code)
        nodes = sorted(key for key in {*archive.nodes(), *planned} if key.startswith(name))
        if nodes or study is not None:
            return _node(archive, name, nodes, planned)
    return _trial(archive, name)


def _trial(archive: Archive, name: str) -> TrialReport:
    from offramp.store.record import made_with, read

    trial = archive.find_trial(name)
    manifest = archive.read_trial(trial)
    record = read(archive, trial, manifest)
    return TrialReport(trial, manifest, record, made_with(archive, [manifest]), archive)


def _node(
    archive: Archive, name: str, matches: Sequence[str], planned: Mapping[str, Any]
) -> NodeExplanation:
    if len(matches) != 1:
        what = f"{len(matches)} nodes begin with" if matches else "no node begins with"
        some = ", ".join(key[: len(name) + 4] for key in matches[:5])
        hint = f"give more of one of {some}" if matches else "offramp show TRIAL lists a trial's nodes"
        raise OfframpError(f"{what} '{name}'; {hint}")
    records = {key: archive.read_node(key) for key in archive.nodes()}
    (key,) = matches
    reads = records[key].reads if key in records else planned[key]
    changes = {
        other: differing(reads, record.reads) for other, record in records.items() if other != key
    }
    near = min(changes, key=lambda other: (len(changes[other]), other), default=None)
    return NodeExplanation(
        key,
        records.get(key),
        reads,
        near,
        "" if near is None else records[near].labels.phase,
        {} if near is None else changes[near],
    )


def _planned(study: Path | None, settings: Sequence[str], user_code: bool) -> dict[str, Any]:
    """What the nodes of a study, or of a list of studies, would read, by key."""
    if study is None:
        return {}
    from offramp.study.plan.plan import plans
    from offramp.study.spec.file import members

    studies = [member.study for member in members(study, settings)]
    if line := code_line(studies, user_code):
        click.echo(line, err=True)
    return {key: node.reads for plan in plans(studies) for key, node in plan.nodes.items()}


def _readable(value: Any) -> Any:
    """For people: hashes cut to 12 digits, the names of types left out."""
    if isinstance(value, Mapping):
        return {key: _readable(child) for key, child in value.items() if key != "type"}
    if isinstance(value, list):
        return [_readable(child) for child in value]
    return value[:12] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else value


def _exits(manifest: Manifest) -> TextTable:
    from offramp.store.manifest import FLIPPED

    flipped = manifest.metrics["test"].by_name.get(FLIPPED)
    rows = []
    for i, (exit, spent) in enumerate(zip(manifest.exits, manifest.macs, strict=True)):
        share = f"{100 * spent / manifest.backbone_macs:.0f} %"
        accuracies = (percent(manifest.metrics[split].accuracy[i]) for split in HELD_OUT)
        mirrored = () if flipped is None else (percent(flipped[i] or 0),)
        rows.append((str(exit), manifest.places[exit - 1], macs(spent), share, *accuracies, *mirrored))
    more = () if flipped is None else ("test, flipped",)
    return TextTable(
        ["exit", "place"],
        ["MACs", "of plain", *HELD_OUT, *more],
        rows,
        "Exits: compute of one image, and accuracy",
    )


def _uneven(manifest: Manifest) -> list[TextTable]:
    """Metrics of classes that are uneven, or two; nothing for others."""
    from offramp.metrics import METRICS

    test = manifest.metrics["test"].by_name
    if "auroc" not in test:
        return []
    titles = {name: m.heading for name, m in METRICS.items() if m.heading and name in test}
    rows = []
    for i, exit in enumerate(manifest.exits):
        values = [test[name][i] for name in titles]
        rows.append((str(exit), *("-" if v is None else percent(v) for v in values)))
    classes = manifest.classes
    subject = "means over classes" if len(classes) > 2 else f"of class '{classes[1]}'"
    title = "Test, where classes are uneven or two"
    if "hamming_loss" in test:
        title = "Test, of several labels an image: accuracy is of images all of whose labels are right"
        subject = "means over labels; micro: of all labels of all images together"
    return [TextTable(["exit"], list(titles.values()), rows, title, f"AUROC and F1: {subject}.")]


def _times(phase: PhaseRecord) -> dict[str, Any]:
    """Seconds by kind, and of each epoch; old records lack the latter."""
    spent = {"seconds": phase.cost.seconds, "epoch_seconds": phase.cost.epoch_seconds}
    return {"name": phase.name, "node": phase.node, **spent}


def _phases(store: Archive, trial: TrialRecord) -> TextTable:
    rows = []
    for phase in trial.phases:
        summary, seconds = store.read_node(phase.node).summary, phase.cost.seconds
        kinds = [seconds.get(kind) for kind in ("train", "validation", "data")]
        whole = sum(seconds.values())
        rows.append(
            (
                phase.name,
                phase.node[:12],
                str(summary.epochs),
                str(summary.selected_epoch),
                *("-" if spent is None else f"{spent:,.1f}" for spent in kinds),
                f"{whole - sum(spent or 0 for spent in kinds):,.1f}",
                f"{whole:,.1f}",
            )
        )
    return TextTable(
        ["phase", "node"],
        ["epochs", "kept", "train", "check", "data", "other", "all"],
        rows,
        "Phases, and their seconds",
        "kept: the epoch whose weights were kept. check: validation after epochs. data: waiting for "
        "images in both (- if not measured apart). other: preparation, final evaluation, checkpoints. "
        "offramp show NODE explains a node.",
    )
