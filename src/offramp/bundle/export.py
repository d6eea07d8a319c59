"""From a trial and its policy to a bundle that runs without PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from offramp.bundle import expected, graphs, int8, parity
from offramp.bundle import folder as bundle
from offramp.bundle.card import Card, RuntimeRow, card, markdown
from offramp.bundle.parity import Likeness, Parity
from offramp.bundle.runtime import Bundle
from offramp.bundle.runtimes import RUNTIMES, check_runtimes, total_bytes, write_stage
from offramp.bundle.trial_images import Shown, SplitImages, for_check, for_int8
from offramp.errors import OfframpError
from offramp.nets import ExitNetwork
from offramp.nets.network import inside
from offramp.policy import policy, useful
from offramp.policy.calibration import Calibration, Chosen
from offramp.policy.evaluate import evaluate
from offramp.policy.policy import Policy
from offramp.policy.scoring import usual
from offramp.policy.stage_times import unlike
from offramp.preprocessing import Preprocessing
from offramp.store.manifest import GeometryRecord, Manifest
from offramp.store.store import Store
from offramp.study import trained as trials
from offramp.study.beside import Beside
from offramp.study.run.trials import load_network
from offramp.study.trained import Trained

LEFT_OUT = "left out, as was asked for"
IN_PYTHON = "use offramp.predictor in Python"
INT8_LOSS = 0.01
ROUNDING = 1e-9  # of a share of images


def int8_share(int8: bool | float) -> float | None:
    """The share of accuracy that int8 may cost: what is given, INT8_LOSS for True, None for False.
    Raises OfframpError for what is no share."""
    share = None if int8 is False else INT8_LOSS if int8 is True else float(int8)
    if share is not None and not 0 <= share <= 1:
        raise OfframpError(f"int8 is {share}; give a share of accuracy from 0 to 1, or True")
    return share


@dataclass(frozen=True)
class ExportOptions:
    """What to write and what to check."""

    # the folder of the data set's files, for the check, where the trial's is gone
    root: str | None = None
    check: bool = True  # compare with PyTorch
    measure: bool = True  # time the stages
    force: bool = False  # replace a bundle that is there
    # see `offramp.study.run.trials.blank_network`; of the data's code too, for the check
    trust_code: bool = False
    anyway: bool = False  # write what is unreliable, marked as such
    doubts: tuple[str, ...] = ()  # what else speaks against it
    int8: float | None = None  # quantize the stages, and the share of accuracy that this may cost
    every_exit: bool = False  # a stage for each exit, whether any image leaves there or not
    runtimes: tuple[str, ...] = ()  # what else than onnxruntime shall run it, of `RUNTIMES`
    beside: Beside | None = None  # what the card says of a smaller plain network


@dataclass(frozen=True)
class Pictures:
    """What a bundle is checked on, where it is at hand. splits: those that are held out, for int8."""

    compared: Shown | None = None
    splits: Mapping[str, SplitImages] | None = None


@dataclass(frozen=True)
class Exported:
    """A bundle that was written.

    Attributes:
        folder: Of the bundle.
        card: In types of JSON.

    Example:
        >>> exported = fitted.export("exported", policy, check=False, measure=False)
        >>> exported.folder.name
        'exported'
    """

    folder: Path
    card: dict[str, Any] = field(repr=False)  # pages


@dataclass(frozen=True)
class _Parts:
    """What a bundle is built from. trained: with the logits of its stages, which int8 changes."""

    net: ExitNetwork
    rule: Policy
    trained: Trained
    manifest: Manifest
    doubts: tuple[str, ...]
    precision: str = "float32"
    every_exit: bool = False

    @property
    def numbers(self) -> tuple[int, ...]:
        """The exits that have a stage."""
        exits = self.rule.exits
        return exits if self.every_exit else tuple(exits[i] for i in self.rule.active)

    @property
    def stages(self) -> tuple[graphs.StageGraph, ...]:
        return graphs.layout(inside(self.net).trunk_of, self.numbers)

    def files(self, folder: Path) -> list[Path]:
        """The graphs of the stages in a folder."""
        return [folder / stage.file for stage in self.stages]


def export(
    store: Store, prefix: str, rule: Policy | None, out: Path, options: ExportOptions
) -> Generator[str, None, Exported]:
    """Write the bundle of a trial, whole or not at all.

    Args:
        store: Has the trial.
        prefix: Its id, or the beginning or ending of it.
        rule: None lets nothing leave early.
        out: The bundle's folder.
        options: What to write and what to check.

    Yields:
        What it does, in words.

    Raises:
        OfframpError: The policy is of another trial, the place is not free, the network cannot be a
            graph, the bundle answers differently from PyTorch, or the policy is unreliable.
    """
    graphs.check_exporter()
    bundle.check_place(out, options.force)
    yield "reading the trial"
    trained = trials.read(store, prefix, options.trust_code)
    net = load_network(store, trained.id, torch.device("cpu"), trust_code=options.trust_code)
    rule = rule or nothing_leaves(trained)
    return (yield from of_network(net, rule, trained, store.read_trial(trained.id), out, options))


def nothing_leaves(trained: Trained) -> Policy:
    shares = (*[0.0] * (len(trained.exits) - 1), 1.0)
    origin = Calibration(
        trained.id,
        trained.hash,
        len(trained.classes),
        chosen=Chosen(leaving=shares),
        statement="Nothing leaves early: the bundle is there to be measured."
        if trained.exits[1:]
        else "A plain network: every image runs all of it.",
    )
    return Policy(
        usual(trained.several),
        trained.exits,
        (None,) * len(trained.exits),
        None,
        origin,
        trained.costs.carry,
    )


def of_network(
    net: ExitNetwork,
    rule: Policy,
    trained: Trained,
    manifest: Manifest,
    out: Path,
    options: ExportOptions,
    pictures: Pictures | None = None,
) -> Generator[str, None, Exported]:
    """Write the bundle of a network at hand, as `export` does. net: in eval mode, on the CPU; pictures:
    None reads those of the trial's data, where they can be read."""
    pictures = pictures or Pictures()
    options = replace(options, runtimes=tuple(dict.fromkeys(options.runtimes)))
    graphs.check_exporter()
    check_runtimes(options.runtimes, int8=options.int8 is not None)
    bundle.check_place(out, options.force)
    policy.check_fits(rule, trained.id, trained.hash, trained.exits)
    try:
        preprocessing(manifest)
    except ValueError as error:
        raise OfframpError(f"a bundle answers pictures: {error}; train on gray or RGB images") from None
    policy.check_carry(rule, inside(net).carry, net.exits)
    doubts = (*options.doubts, *_doubts(rule, trained, options))
    useful.check(doubts, options.anyway)
    parts = _Parts(net, rule, trained, manifest, doubts, every_exit=options.every_exit)
    with bundle.writing(out, options.force) as folder:
        if options.int8 is None:
            about = yield from _float32(folder, parts, options, pictures.compared)
        else:
            about = yield from _int8(folder, parts, options, pictures.splits)
        about = replace(about, beside=options.beside)
        bundle.write_json(folder / "card.json", about.as_json())
        (folder / "card.md").write_text(markdown(about.as_json()), encoding="utf-8")
        bundle.seal(folder)
    return Exported(out, about.as_json())


def _doubts(rule: Policy, trained: Trained, options: ExportOptions) -> tuple[str, ...]:
    """A bundle that is there to be measured saves nothing, and need not."""
    rows = trained.calibration
    if options.every_exit:
        return useful.chance(rows, rule.exits)
    return (*trained.doubts, *useful.doubts(rule, rows), *_other_times(rule, options))


def _other_times(rule: Policy, options: ExportOptions) -> tuple[str, ...]:
    chosen = rule.calibration.chosen
    record = None if chosen is None else chosen.stages
    if record is None or "precision" not in record:
        return ()
    return unlike(record["precision"], str(record.get("device")), options.int8 is not None)


def _float32(
    folder: Path, parts: _Parts, options: ExportOptions, compared: Shown | None
) -> Generator[str, None, Card]:
    """All but the card's files; returns the card."""
    for at, traced in enumerate(graphs.export(parts.net, parts.stages, folder), start=1):
        yield f"stage {at} of {len(parts.stages)}: up to exit {traced.stage.exit}"
        write_stage(options.runtimes, traced, folder)
    about = _rest(folder, parts, options.runtimes)
    if options.check:
        yield "comparing with PyTorch"
        compared = compared or for_check(parts.manifest, options.root, options.trust_code)
        check = parity.compare(bundle.opened(folder, pictures=False), parts.net, parts.rule, compared)
        about = replace(about, check=check)
    if options.measure:
        yield "measuring the stages"
    about = about.with_latency(_times(folder, options))

    def compare(other: Bundle) -> Parity:
        assert compared is not None
        return parity.compare(other, parts.net, parts.rule, compared)

    return (yield from _in_runtimes(folder, parts, about, options, compare))


def _in_runtimes(
    folder: Path,
    parts: _Parts,
    about: Card,
    options: ExportOptions,
    compare: Callable[[Bundle], Parity | Likeness],
) -> Generator[str, None, Card]:
    """The card with a row for each runtime, where there are any beside onnxruntime. compare: a bundle
    with what it shall answer."""
    rows = [RuntimeRow.of("onnxruntime", total_bytes(parts.files(folder)), about.check, about.latency)]
    for name in options.runtimes:
        yield f"trying {RUNTIMES[name].title}"
        with bundle.refusing():
            alike = compare(Bundle(folder, runtime=name)) if options.check else None
        times = bundle.measured(folder, name) if options.measure else None
        suffix = RUNTIMES[name].suffix
        size = total_bytes(file.with_suffix(suffix) for file in parts.files(folder))
        rows.append(RuntimeRow.of(name, size, alike, times))
    return replace(about, runtimes=tuple(rows)) if options.runtimes else about


def _times(folder: Path, options: ExportOptions) -> Mapping[str, Any]:
    return bundle.measured(folder) if options.measure else {"reason": LEFT_OUT}


def _int8(
    folder: Path, parts: _Parts, options: ExportOptions, splits: Mapping[str, SplitImages] | None
) -> Generator[str, None, Card]:
    """As `_float32`, quantized, with the thresholds solved again. Raises OfframpError without the
    images, and where that costs more accuracy than was allowed."""
    assert options.int8 is not None
    yield "reading the images"
    splits = splits or for_int8(parts.manifest, options.root, options.trust_code)
    every = graphs.layout(inside(parts.net).trunk_of, parts.rule.exits)
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        floats, ints, plain = (Path(scratch, name) for name in ("float32", "int8", "bundle"))
        for at, traced in enumerate(graphs.export(parts.net, every, floats), start=1):
            yield f"stage {at} of {len(every)}: up to exit {traced.stage.exit}"
        for at, _ in enumerate(int8.quantize(every, floats, splits["calibration"], ints), start=1):
            yield f"stage {at} of {len(every)} in int8"
        yield "answering in int8"
        network = int8.Layers(every, ints)
        logits = {name: network.logits(images.batches()) for name, images in splits.items()}
        quantized = trials.with_logits(parts.trained, logits)
        yield "solving the thresholds again"
        rule = trials.solved_again(quantized, parts.rule)
        before = int8.accuracies(parts.trained, parts.rule)
        labels = quantized.calibration.labels
        lost = _lost(before, int8.accuracies(quantized, rule), len(labels), options.int8)
        doubts = (*options.doubts, *_doubts(rule, quantized, options))
        useful.check(doubts, options.anyway)
        small = replace(parts, rule=rule, trained=quantized, doubts=doubts, precision="int8")
        int8.join(every, ints, small.stages, folder)
        about = _rest(folder, small, options.runtimes)

        def compare(other: Bundle) -> Likeness:
            return parity.alike(other, rule, quantized.test, splits["test"].batches(), lost)

        if options.check:
            yield "comparing with what was calibrated"
            about = replace(about, check=compare(bundle.opened(folder, pictures=False)))
        yield "measuring beside float32"
        for _ in graphs.export(parts.net, parts.stages, plain):
            pass
        float32 = _rest(plain, parts).with_latency(_times(plain, options))
        about = about.with_latency(_times(folder, options))
        about = yield from _in_runtimes(folder, small, about, options, compare)
        sizes = (total_bytes(parts.files(plain)), total_bytes(small.files(folder)))
    return about.beside_float32(float32, sizes, lost, options.int8)


def _lost(before: tuple[float, float], after: tuple[float, float], images: int, allowed: float) -> float:
    """The accuracy that int8 costs, the policy or the full network. before, after: accuracies of both on
    so many calibration images. Raises OfframpError where that is more than is allowed."""
    policy, full = (was - now for was, now in zip(before, after, strict=True))
    if max(policy, full) > allowed + ROUNDING:
        raise OfframpError(
            f"int8 costs the policy {100 * policy:.2f} points of accuracy on the {images:,} "
            f"calibration images, and the full network {100 * full:.2f}; {100 * allowed:g} are allowed; "
            "allow more, or export without int8"
        )
    return max(policy, full)


def _rest(folder: Path, parts: _Parts, runtimes: tuple[str, ...] = ()) -> Card:
    """Write what a bundle has beside its stages, which are there; returns the card without check and
    times."""
    rule, trained, manifest = parts.rule, parts.trained, parts.manifest
    flat = graphs.one_size(parts.net, parts.numbers)
    spent = trained.costs.leaving([rule.exits.index(number) for number in parts.numbers])
    stages = [
        {"file": stage.file, "exit": stage.exit, "after": stage.after, "macs": macs}
        for stage, macs in zip(parts.stages, spent, strict=True)
    ]
    layout = {
        **{"format": 1, "normalized": manifest.normalized, "plain_macs": trained.plain_macs},
        "unreliable": list(parts.doubts),
        "precision": parts.precision,
        "fixed_size": _fixed_size(flat),
        # What heads have learned to add is in their graphs.
        **({"carry": rule.carry} if rule.carry and not isinstance(rule.carry, str) else {}),
        **({"runtimes": {name: RUNTIMES[name].suffix for name in runtimes}} if runtimes else {}),
        "stages": stages,
    }
    bundle.write_json(folder / "stages.json", layout)
    (folder / "policy.json").write_text(policy.to_json(rule), encoding="utf-8")
    expectation = expected.expect(rule, trained, parts.numbers)
    bundle.write_json(folder / expected.FILE, expectation.as_json())
    bundle.write_json(folder / "labels.json", list(trained.classes))
    bundle.write_json(folder / "preprocessing.json", preprocessing(manifest).as_json())
    bundle.copy_sources(folder, runtimes)
    bundle.seal(folder)
    tested = evaluate(rule, trained.test, trained.costs, trained.classes)
    macs_by_exit = dict(zip(parts.numbers, spent, strict=True))
    own_trunks = len({stage.trunk for stage in parts.stages}) > 1
    about = card(manifest, trained, rule, tested, flat, macs_by_exit, own_trunks)
    notes = useful.notes(rule, trained.calibration, tested)
    return replace(about, unreliable=parts.doubts, precision=parts.precision, notes=notes)


def _fixed_size(flat: tuple[int, ...]) -> str:
    if not flat:
        return "its stages were exported for that size"
    exits = f"exit {flat[0]}" if len(flat) == 1 else f"exits {', '.join(map(str, flat))}"
    return f"the head of {exits} fits one size only"


def preprocessing(manifest: Manifest) -> Preprocessing:
    """What the training data's geometry does, for a picture. Means nothing where the images came
    normalized.

    Raises:
        ValueError: The network has other channels than pictures have.
    """
    channels, height, width = manifest.input_shape
    geometry = manifest.data.provenance.geometry or GeometryRecord()
    resize: int | tuple[int, int] | None = None
    crop = geometry.size is not None and geometry.fit == "crop"
    if crop:
        resize = geometry.resize or geometry.size
    elif geometry.size is not None:
        resize = (height, width)
    gray = geometry.channels == 1
    size = (height, width)
    return Preprocessing(size, channels, manifest.mean, manifest.std, resize, crop, gray=gray)
