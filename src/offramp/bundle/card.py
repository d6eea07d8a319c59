"""A bundle's card: what the network is, how it was trained, what it loses, what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from offramp.escape import markdown as escape
from offramp.policy.calibration import Chosen
from offramp.policy.evaluate import Evaluation, LabelLoss
from offramp.policy.policy import Policy
from offramp.policy.quality import Interval
from offramp.store.manifest import Manifest, NumericsRecord

if TYPE_CHECKING:  # these import torch, and whoever reads a card needs none
    from offramp.bundle.parity import Likeness, Parity
    from offramp.study.beside import Beside
    from offramp.study.trained import Trained

READERS = ("folder", "table")  # of any images: their names say nothing of the data
INTENDED = (
    "Inputs like the calibration images. Accuracy, savings and guarantees hold for inputs that are "
    "exchangeable with those, as if all had been shuffled together. They do not carry over to another "
    "camera, population or share of classes, where you train and calibrate anew, nor to noise, blur or "
    "images that were changed so that they leave late."
)


@dataclass(frozen=True)
class CardExit:
    """An exit of the trial."""

    exit: int  # its number
    place: str  # the layer that it follows
    in_bundle: bool  # whether the bundle has its head
    threshold: float | None  # none where nothing leaves
    accuracy: float  # on all test images
    share_leaving: float  # of test images
    accuracy_of_leaving: float | None  # none where none leaves
    macs: int | None  # of an image that leaves here; None where the bundle lacks it


@dataclass(frozen=True)
class CardTest:
    """The policy on the test split."""

    images: int
    accuracy: Interval
    full_accuracy: Interval
    accuracy_loss: Interval
    mean_macs: float
    labels: Mapping[str, LabelLoss]  # see `Evaluation`; absent from JSON where it has none


@dataclass(frozen=True)
class CardCalibration:
    """What the policy was chosen for and what is promised of it; target and chosen are those of its
    file."""

    score: str
    target: Mapping[str, Any]
    chosen: Mapping[str, Any]
    statement: str
    device: str | None
    promised: str | None


@dataclass(frozen=True)
class PrecisionRow:
    """A bundle in one precision. bytes: of all stages.  mean_milliseconds_batch_1: of an image, or None
    where that was not measured."""

    precision: str
    accuracy: float
    full_accuracy: float
    mean_macs: float
    stages: int
    bytes: int
    mean_milliseconds_batch_1: float | None


@dataclass(frozen=True)
class CardInt8:
    """A bundle in int8 beside itself in float32. lost, allowed: accuracy on calibration."""

    beside: tuple[PrecisionRow, PrecisionRow]
    lost: float
    allowed: float


@dataclass(frozen=True)
class RuntimeRow:
    """A runtime that has stages in the bundle. version, stage_milliseconds: of one image through all of
    a stage, for each, or None where that was not measured; largest, near: see `Parity`; share: see
    `Likeness`, of int8."""

    runtime: str
    version: str | None
    bytes: int
    images: int | None
    largest: float | None
    near: int | None
    stage_milliseconds: tuple[float, ...] | None
    share: float | None = None

    @classmethod
    def of(
        cls,
        runtime: str,
        size: int,
        check: Parity | Likeness | None,
        times: Mapping[str, Any] | None,
    ) -> RuntimeRow:
        """size: bytes of its stages; check: beside PyTorch, or of int8 beside what it shall be; times:
        of `runtime.measure`, or a reason."""
        seen = ("images", "largest", "near", "share")
        timed = times if times is not None and "stages" in times else None
        return cls(
            runtime,
            version=None if timed is None else timed["machine"][runtime],
            bytes=size,
            stage_milliseconds=None
            if timed is None
            else tuple(row["p50"] for row in timed["stages"] if row["batch"] == 1),
            **{name: getattr(check, name, None) for name in seen},
        )


@dataclass(frozen=True)
class Card:
    """All that a card says; its fields are those of `card.json`, in this order."""

    unreliable: tuple[str, ...]  # why answers are not to be trusted, where they are not
    precision: str  # float32 or int8
    trial: str  # the id of the trial
    trial_hash: str  # see `Manifest.hash`
    training: Mapping[str, Any]  # strategy, recipe, seeds and versions
    network: Mapping[str, Any]  # the backbone and its exits
    data: Mapping[str, Any]  # see `Manifest.data`
    exits: tuple[CardExit, ...]  # all of the trial
    test: CardTest  # on the test split
    plain_macs: int  # of the network without early exits
    full_macs: int  # of its final exit, without early heads
    labels: tuple[str, ...]  # of the classes, in order
    takes_pictures: bool  # or arrays that are normalized already
    calibration: CardCalibration  # what the policy was chosen for
    intended: str = INTENDED  # which inputs it is for
    # the comparison with PyTorch, or of int8 with what was calibrated; None where it was left out
    check: Parity | Likeness | None = None
    latency: Mapping[str, Any] | None = None  # of `runtime.measure`, or a reason
    int8: CardInt8 | None = None  # absent from JSON in a bundle of float32
    runtimes: tuple[RuntimeRow, ...] = ()  # onnxruntime first; absent from JSON where it is alone
    notes: tuple[str, ...] = ()  # what is told first, a sentence each; absent from JSON without any
    beside: Beside | None = None  # a smaller plain network; absent from JSON where none was trained

    def as_json(self) -> dict[str, Any]:
        """Types of JSON."""
        fields = asdict(self)
        for rare in ("int8", "runtimes", "notes", "beside"):
            if not fields[rare]:
                del fields[rare]
        if not fields["test"]["labels"]:
            del fields["test"]["labels"]
        plain: dict[str, Any] = json.loads(json.dumps(fields))  # as it is read again
        return plain

    def with_latency(self, measured: Mapping[str, Any]) -> Card:
        """The card with what the stages take, of `runtime.measure`, or a reason. The mean of a batch of
        one follows from the stages and the shares that reach them on test; larger batches shrink from
        stage to stage, so nothing is added up for them."""
        if "reason" in measured:
            return replace(self, latency={"reason": measured["reason"]})
        reached, left = {}, 1.0
        for exit in self.exits:
            if exit.in_bundle:
                reached[exit.exit] = left
                left -= exit.share_leaving
        single = [row for row in measured["stages"] if row["batch"] == 1]
        mean = sum(reached[row["exit"]] * row["p50"] for row in single)
        return replace(self, latency={**measured, "mean_milliseconds_batch_1": mean})

    def beside_float32(self, float32: Card, sizes: tuple[int, int], lost: float, allowed: float) -> Card:
        """The card of an int8 bundle, with float32 beside it. sizes: bytes of all stages, float32's
        first; lost, allowed: accuracy on calibration."""
        before, after = float32._row(sizes[0]), self._row(sizes[1])
        return replace(self, int8=CardInt8((before, after), lost, allowed))

    def _row(self, size: int) -> PrecisionRow:
        return PrecisionRow(
            self.precision,
            self.test.accuracy.value,
            self.test.full_accuracy.value,
            self.test.mean_macs,
            stages=sum(exit.in_bundle for exit in self.exits),
            bytes=size,
            mean_milliseconds_batch_1=(self.latency or {}).get("mean_milliseconds_batch_1"),
        )


def card(
    manifest: Manifest,
    trained: Trained,
    policy: Policy,
    tested: Evaluation,
    flattened: Sequence[int],
    macs: Mapping[int, int],
    own_trunks: bool = False,
) -> Card:
    """The card without check and times. tested: on the test split; flattened: exits whose heads take
    images of one size only; macs: of an image that leaves at each exit that the bundle has."""
    origin = policy.calibration
    exits = [
        CardExit(
            number,
            manifest.places[number - 1],
            in_bundle=number in macs,
            threshold=policy.thresholds[i],
            accuracy=tested.exits[i].accuracy_all,
            share_leaving=tested.exits[i].share,
            accuracy_of_leaving=tested.exits[i].accuracy,
            macs=macs.get(number),
        )
        for i, number in enumerate(policy.exits)
    ]
    network = {k: v for k, v in manifest.network.as_json().items() if k != "type"}
    return Card(
        unreliable=(),
        precision="float32",
        trial=trained.id,
        trial_hash=trained.hash,
        training={
            "strategy": manifest.strategy,
            "program": manifest.program,
            "options": manifest.options,
            "phases": [phase.name for phase in manifest.phases],
            "seeds": [manifest.seed],
            "recipe": manifest.recipe.as_json(),
            "numerics": manifest.numerics.as_json(),
            "made_with": manifest.provenance.as_json(),
        },
        network={
            **network,
            "input_shape": manifest.input_shape,
            "classes": len(trained.classes),
            "own_trunks": own_trunks,
            "heads_that_flatten": flattened,
        },
        data=manifest.data.as_json(),
        exits=tuple(exits),
        test=CardTest(
            tested.images, tested.policy, tested.full, tested.loss, tested.macs.mean, tested.labels
        ),
        plain_macs=trained.plain_macs,
        full_macs=trained.costs.full,
        labels=tuple(trained.classes),
        takes_pictures=not manifest.normalized,
        calibration=CardCalibration(
            policy.score,
            origin.target_json,
            origin.chosen_json,
            origin.statement,
            device=None if origin.chosen is None else origin.chosen.device,
            promised=None if origin.chosen is None else promised(origin.chosen),
        ),
    )


def promised(chosen: Chosen) -> str | None:
    """The time of an image on the device that a policy was solved for, in words; None where there is no
    such device."""
    if chosen.device is None:
        return None
    late, mean = chosen.p95_seconds, chosen.mean_seconds
    if late is not None:
        return f"95 of 100 images within {1000 * late:.3g} ms"
    return None if mean is None else f"{1000 * mean:.3g} ms an image on average"


def markdown(card: Mapping[str, Any]) -> str:
    """The card to read, of its JSON."""
    text = resources.files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8")
    template = Environment(
        trim_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: escape(str(value)),
    )
    images = card["data"].get("provenance", {}).get("images", {})
    counts = ", ".join(f"{number:,} {split}" for split, number in images.items())
    lines = label_lines(card)
    return template.from_string(text).render(
        card, counts=counts, title=data_title(card), labeled=lines, arithmetic=_arithmetic
    )


def label_lines(card: Mapping[str, Any]) -> list[str]:
    """What accuracy is of several labels an image, and what becomes of labels on test; nothing of one
    class an image."""
    losses, lines = card["test"].get("labels"), []
    for kind, what in (("label", "labels wrong"), ("miss", "labels missed, of those an image has")):
        if losses:
            more = {key: 100 * (number or 0.0) for key, number in losses[kind]["more"].items()}
            changed = "{mean:+.2f} points ({low:+.2f} to {high:+.2f}) by leaving early".format(**more)
            lines.append(f"{what}: {100 * losses[kind]['policy']:.2f} %, {changed}")
    what = "accuracy is exact match: the share of images all of whose labels are right"
    return [what, *lines] if losses else []


def data_title(card: Mapping[str, Any]) -> str:
    """What a card, and a page, calls its data.

    Example:
        >>> data = {"name": "folder", "provenance": {"root": "pictures/photos"}}
        >>> data_title({"data": data, "network": {"classes": 10}})
        'photos'
    """
    data, provenance = card["data"], card["data"].get("provenance", {})
    if title := (data.get("spec") or {}).get("title"):
        return str(title)
    if data["name"] not in READERS:
        return str(data["name"])
    # What was fetched lies under a hash.
    own = "" if "url" in provenance else Path(provenance.get("root") or "").name
    return own or f"{card['network']['classes']} classes of images"


def _arithmetic(numerics: Mapping[str, Any]) -> str:
    return NumericsRecord(**numerics).words
