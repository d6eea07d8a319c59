"""What a store says of trials and of the phases that they read: typed, in JSON as the files have it.

A field that an earlier offramp did not write has a default here and stays absent when the record is
written again; a field that only a later one knows is kept. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)

from offramp import arrays
from offramp.data_spec import SPLITS
from offramp.escape import has_controls
from offramp.hashing import canonical, digest, plain
from offramp.policy.calibration import Many
from offramp.recipe import ADOPTED
from offramp.store.place import Place
from offramp.store.sealed import REMEDY, Damaged, parsed
from offramp.units import arithmetic

NamedValue = Annotated[tuple[str, Any], Strict(False)]
Number = Annotated[int, Field(gt=-(2**63), lt=2**63)] | float  # 1 stays 1, and 1.0 stays 1.0
Fraction = Annotated[int | float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
HistoryRow = Annotated[tuple[Whole, str, str, str, Number], Strict(False)]


def _name(text: str) -> str:
    """Raises ValueError for a name that would steer a terminal, or that no file can hold."""
    if has_controls(text):
        raise ValueError("it holds control characters")
    return text


Name = Annotated[str, AfterValidator(_name)]


def _titled(spec: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for a title that is none."""
    title = spec.get("title", "")
    if title is not None and not isinstance(title, str):
        raise ValueError("its title is no text")
    _name(title or "")
    return spec


# What a network and its answers are made of: no label and no measured value.
IDENTITY = ("network", "input_shape", "classes", "mean", "std", "exits", "places", "final", "owners")


class Record(BaseModel):
    """Part of a file of the store."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    def as_json(self) -> dict[str, Any]:
        """The JSON that it was read from, up to the order of names."""
        document: dict[str, Any] = plain(self.model_dump(exclude_unset=True))
        return document


R = TypeVar("R", bound=Record)


def read(kind: type[R], value: object, path: Place, remedy: str = REMEDY) -> R:
    """`value` as a record of `kind`. path: the file that it is from; remedy: what to do about damage.

    Raises:
        Damaged: with the file and the first field that is missing or of another type.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        lacking = first["type"] == "missing"
        what = f"lacks the field '{field}'" if lacking else f"has a wrong '{field}': {first['msg']}"
        if not field:
            what = first["msg"].removeprefix("Value error, ")
        raise Damaged(path, what, remedy) from error


class PhaseKey(Record):
    """A phase by its name in the trial; node: its key, equal in trials that share the phase."""

    name: str
    node: str


class PartSource(Record):
    """Where a part's weights come from: the node that trained them, or a draw."""

    node: str | None
    draw: Literal["initial", "fresh"]


FLIPPED = "accuracy_flipped"  # on test: of logits averaged over an image and its mirror image


class Metrics(Record):
    """Values on a split, one an exit, 0 to 1 but for cross_entropy. Further metrics by their name, such
    as `auroc`; NaN where there is none."""

    __pydantic_extra__: dict[str, Many[Number | None]]
    accuracy: Many[Fraction]
    cross_entropy: Many[Number]

    @property
    def by_name(self) -> dict[str, tuple[Number | None, ...]]:
        """All of them, sorted by name."""
        return dict(sorted(self.model_dump().items()))


class NetworkRecord(Record):
    """A network as a study asks for it. options: of the backbone; head: of every exit's head."""

    backbone: Name
    options: Many[NamedValue] = ()
    taps: int | Many[str] | Many[Many[str]] | None
    head: Many[NamedValue] = ()
    weights: str | None = None


class Augmentation(Record):
    """What was done to training images; label: what tables call it."""

    label: Name


class GeometryRecord(Record):
    """How images of other sizes were fitted, in pixels; all None where they were not."""

    size: int | None = None
    fit: str = "crop"
    resize: int | None = None
    channels: int | None = None


class Provenance(Record):
    """With what a result was made; None where nobody knows."""

    offramp: str | None = None  # its version, as of all up to `python`
    torch: str | None = None
    torchvision: str | None = None
    timm: str | None = None
    numpy: str | None = None
    python: str | None = None
    machine: str | None = None  # its name
    device: str | None = None
    cores: int | None = None
    began: str | None = None  # in UTC, ISO 8601, as is `finished`
    finished: str | None = None
    git: str | None = None  # the revision of the working folder


BITS = ("torch", "torchvision", "timm", "numpy", "device")
"""Of a provenance, what may change the bits of a result where it differs."""


class DataProvenance(Record):
    """What was read."""

    root: str | None = None
    split_seed: int | None = None
    images: dict[str, int] = {}  # how many by split
    available: dict[str, int] = {}  # how many there were, by split
    by_class: dict[str, Many[Whole]] = {}  # images of each class, by split
    # images that are there twice, byte for byte: `calibration in train`
    duplicates: dict[str, Whole] = {}
    geometry: GeometryRecord | None = None
    source: Any = None  # what is known of code that made the data
    # a digest of what the images were read from, by split: equal ones are the same pictures, whatever
    # size they were brought to; an earlier offramp did not write it
    sources: dict[str, str] = {}

    @property
    def seen(self) -> int:
        """How many calibration images are training images too."""
        return self.duplicates.get("calibration in train", 0)

    @property
    def code_sha256(self) -> str | None:
        """SHA-256 of the file of code that made the data, if code did."""
        sha256 = self.source.get("sha256") if isinstance(self.source, Mapping) else None
        return sha256 if isinstance(sha256, str) else None


def data_label(data: str, augment: object | None) -> str:
    """`cifar10`, or `cifar10 (crop 4, flip)` where images were augmented: that is another recipe."""
    return data if augment is None else f"{data} ({augment})"


class DataRecord(Record):
    """A trial's data. Equal digests of splits are the same images."""

    name: Name
    augment: Augmentation | None = None
    spec: Annotated[dict[str, Any], AfterValidator(_titled)] | None = None  # how the study asked
    provenance: DataProvenance
    train: str  # a digest of the split, as are `validation`, `calibration` and `test`
    validation: str
    calibration: str
    test: str

    @property
    def label(self) -> str:
        return data_label(self.title or self.name, self.augment and self.augment.label)

    def same_pictures(self, other: DataRecord, split: str) -> bool:
        """Whether a split is of the same images, at another size perhaps."""
        read = [each.provenance.sources.get(split) for each in (self, other)]
        return self.splits[split] == other.splits[split] or (read[0] == read[1] is not None)

    @property
    def title(self) -> str | None:
        """What the study calls it; None where it has no name but its own."""
        return (self.spec or {}).get("title")

    def titled(self, title: str) -> DataRecord:
        """The same under another title."""
        return self.model_copy(update={"spec": {**(self.spec or {"name": self.name}), "title": title}})

    @property
    def splits(self) -> dict[str, str]:
        """Digests by split."""
        return {name: getattr(self, name) for name in SPLITS}


class RecipeRecord(Record):
    """Settings of the optimization, as the study has them."""

    optimizer: str
    epochs: int
    learning_rate: Number
    batch_size: int
    schedule: str
    momentum: Number
    nesterov: bool
    weight_decay: Number
    warmup_epochs: Number
    patience: int | None


class ExecutionRecord(Record):
    """How phases were run: mode is `plain` or `derived`."""

    mode: str
    share: bool
    cache: bool
    fuse: bool


class NumericsRecord(Record):
    """The numerics profile."""

    name: str
    version: int
    precision: str
    threads: int | None = None
    ranks: int = 1
    tf32: bool = False
    deterministic: bool = True
    memory_format: str = "channels_last"

    @property
    def words(self) -> str:
        """For people."""
        return arithmetic(
            self.precision, self.threads, self.tf32, self.memory_format, self.deterministic
        )


class TrialPlan(Record):
    """What is known of a trial before it is finished, as in its `Manifest` where nothing else is said.

    An earlier offramp wrote nodes alone.
    """

    nodes: Many[str]  # keys of those that it needs
    phases: Many[PhaseKey] = ()
    strategy: Name | None = None
    seed: Whole | None = None
    options: dict[str, Any] = {}
    study: Name | None = None
    places: Many[Name] = ()
    backbone: Name | None = None  # its label
    data: Name | None = None  # their label
    recipe: RecipeRecord | None = None


class SearchRecord(Record):
    """How a trial's settings were found, on validation."""

    over: dict[str, str]  # where each was looked for, by its key
    trials: Whole  # how many were tried
    per: str | None = None  # `strategy` where each strategy has its own
    found: dict[str, Any]  # the settings


class SeedLog(Record):
    """How seeds were added to a study until its pairs were decided: the rule, fixed before its first
    look, and what each look found."""

    study: str | None
    trials: Many[str]  # of the study's own seeds, by which it is known
    seeds: Many[Whole]  # those that it has and may get, in order
    first: Whole  # how many of them the first look has
    difference: Fraction  # in accuracy, 0 to 1, below which strategies are alike
    alpha: Fraction  # of all looks at all pairs
    looks: dict[str, Many[dict[str, Any]]] = {}  # findings, by how many seeds


class Manifest(Record):
    """Everything that a store says of a finished trial."""

    strategy: Name  # its label
    program: Name  # the strategy that it is, by name
    options: dict[str, Any]  # of the strategy
    study: Name | None
    seed: Whole
    asked: Many[Whole] | None = None  # all seeds that its study asked for then
    phases: Many[PhaseKey]  # in order
    marginal: Many[str]  # keys of the nodes that no trial before it in its study reads
    exits: Many[Whole]  # their numbers, ascending; `macs` and `parameters` have one entry for each
    places: Many[Name]  # of every exit of the network, in order of their numbers
    final: dict[str, Many[PartSource]]  # by exit, where the weights on its path come from
    owners: Many[int]  # the trunk of each exit of the network
    # what exits add of the answer before to their heads' logits (see `Phase`); logits and metrics are of
    # answers
    carry: Annotated[float, Field(ge=0, le=1)] | Literal["learned", "hidden"] = 0.0
    gates: Many[Many[float] | None] = ()  # the numbers of each exit's gate, where gates were trained
    macs: Many[Whole]  # of an image that leaves there, after all exits before it were asked
    backbone_macs: Whole  # of the plain network
    # of its segments, and of all exits' heads; empty where it was trained before that was kept
    part_macs: Many[Many[int]] = ()
    parameters: Many[Whole]  # of the network cut off there
    metrics: dict[str, Metrics]
    network: NetworkRecord
    initial: str | None = None  # a hash of the weights that training began with, where they were given
    input_shape: Many[int]  # channels, height, width
    classes: Many[Name]
    mean: Many[Number]  # one a channel, as is `std`
    std: Many[Number]
    data: DataRecord
    recipe: RecipeRecord
    execution: ExecutionRecord
    numerics: NumericsRecord
    provenance: Provenance
    search: SearchRecord | None = None  # how its settings were found

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        """Raises ValueError where its parts do not go together, and for a number that no hash takes."""
        try:
            canonical(self.model_dump(exclude={"metrics"}))
        except ValueError:
            raise ValueError("names a number that is not finite, outside of metrics") from None
        count = len(self.exits)
        lengths = {len(v) for metrics in self.metrics.values() for v in metrics.by_name.values()}
        wrong = {
            "exits that its network does not have": set(self.exits)
            - set(range(1, len(self.places) + 1)),
            "another number of exits in macs or parameters": (
                {len(self.macs), len(self.parameters)} != {count}
            ),
            "another number of exits in its metrics": lengths - {count},
            "no metrics on test": "test" not in self.metrics,
            "no weights of an exit": {str(exit) for exit in self.exits} - self.final.keys(),
            "no exits": not count,
            "marginal nodes that it does not read": set(self.marginal) - set(self.keys),
        }
        for what, reason in wrong.items():
            if reason:
                raise ValueError(f"names {what}")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The nodes that it reads, in order."""
        return tuple(phase.node for phase in self.phases)

    @property
    def planned(self) -> TrialPlan:
        """What was known of it before."""
        return TrialPlan(
            nodes=self.keys,
            phases=self.phases,
            strategy=self.strategy,
            seed=self.seed,
            options=self.options,
            study=self.study,
            places=self.places,
            backbone=self.network.backbone,
            data=self.data.label,
            recipe=self.recipe,
        )

    @property
    def normalized(self) -> bool:
        """Whether the images came as float32, normalized in a way that is not recorded: no picture can
        be brought to the same form. A mean of 0 and a deviation of 1 that the study itself asked for are
        not meant: those are of pixels."""
        by_hand = (self.data.spec or {}).get("normalize", "train") != "train"
        return not by_hand and not any(self.mean) and set(self.std) == {1.0}

    @cached_property
    def sources(self) -> Mapping[int, str]:
        """By exit, a key of its weights: trials with equal ones are identical by construction there."""
        final = self.as_json()["final"]
        return {exit: digest(final[str(exit)])[:16] for exit in self.exits}

    @property
    def adopted(self) -> bool:
        """Whether its weights came from elsewhere and nothing here trained them; its recipe then says
        nothing."""
        return self.program == ADOPTED

    @property
    def pretrained(self) -> bool:
        """Whether training began with given weights, not with random ones."""
        return self.network.weights is not None or self.initial is not None

    def hash(self, logits: Mapping[str, np.ndarray]) -> str:
        """SHA-256 that ties a policy to a network: of what the network is made of, and of its answers
        on validation and calibration. No label of any split and no test image enters it."""
        document = self.as_json()
        answers = {name: arrays.digest(logits[name]) for name in ("validation", "calibration")}
        return digest([{key: document[key] for key in IDENTITY}, answers])


class HeadReads(Record):
    """A head that a phase's loss reads; trains: whether the phase trains it."""

    spec: Any
    trains: bool


class SpanReads(Record):
    """Segments on an exit's path, up to and with the one that ends at the place `to`."""

    to: str
    trains: bool


class ExitReads(Record):
    """An exit that a phase's loss reads."""

    head: HeadReads
    spans: Many[SpanReads]


class PhaseReads(Record):
    """Of all that a phase reads what is asked for again. network: its identity.  exits: by place."""

    network: dict[str, Any]
    exits: dict[str, ExitReads]

    @property
    def places(self) -> set[str]:
        """All that it names."""
        spans = (span for exit in self.exits.values() for span in exit.spans)
        return {*self.exits, *(span.to for span in spans)}


class NodeLabels(Record):
    """What a node is called: trains are its parts; strategies, those of the study that made it."""

    phase: str
    seed: int
    trains: Many[str]
    strategies: Many[str]


class NodeSummary(Record):
    """What training came to. Weights of `selected_epoch` (from 1) were handed on, of that loss."""

    epochs: int
    best_epoch: int
    selected_epoch: int
    validation_loss: Number


class NodeRecord(Record):
    """What is known of a finished phase without its data. reads: what its key is the digest of."""

    key: str
    reads: dict[str, Any]
    labels: NodeLabels
    provenance: Provenance
    summary: NodeSummary

    @cached_property
    def phase(self) -> PhaseReads:
        """The part of `reads` that is asked for again."""
        return PhaseReads.model_validate(self.reads)


class TallyNote(Record):
    """How far an epoch is: see `offramp.engine.tally.Tally`."""

    images: Whole
    steps: Whole
    seconds: Number


class CheckpointNote(Record):
    """What a checkpoint says beside its tensors: see `offramp.engine.trainee.pack`.

    Attributes:
        phase: its name.
        epochs: how many there are; `epoch`: how many are done.
        rows: of the history, each its epoch, split, exit, metric and value.
        tally: of an epoch under way.
    """

    phase: str = ""
    epochs: Whole | None = None
    epoch: Whole = 0
    seconds: dict[str, Number] = {}
    epoch_seconds: Many[Number] = ()
    began: Annotated[float, Field(allow_inf_nan=False)] | None = None
    frozen_macs: Number = 0
    usage: dict[str, Number | None] = {}
    rows: Many[HistoryRow] = ()
    tally: TallyNote | None = None


class SealedNote(Record):
    """The metadata of a checkpoint. state: JSON of its note."""

    state: str
    seal: str


class TensorHeader(Record):
    """The head of a checkpoint's file, a safetensors file."""

    metadata: SealedNote = Field(alias="__metadata__")


def sealed_note(data: bytes, path: Place) -> tuple[SealedNote, CheckpointNote]:
    """What a checkpoint's file says beside its tensors, as it stands there and typed; its seal, which
    takes the tensors, is not checked. Raises Damaged."""
    head = parsed(data[8 : 8 + int.from_bytes(data[:8], "little")], path)
    note = read(TensorHeader, head, path).metadata
    return note, read(CheckpointNote, parsed(note.state.encode(), path), path)


class Cost(Record):
    """What a phase cost."""

    seconds: dict[str, Number]  # by kind
    # of each finished epoch, with its validation and its waiting for images
    epoch_seconds: Many[Number] | None = None
    # of its time, by place; attributed by MACs where there are several
    exit_shares: dict[str, Number] = {}
    macs_written: Whole  # of the phase in full, as the paper runs it
    macs_executed: Whole  # that did run
    # see `offramp.meters.meter.Usage`; None where it was not measured
    used: dict[str, Number | None] = {}
    idle: dict[str, Number | None] = {}  # watts of the machine at rest
    not_measured: dict[str, str] = {}  # why, by meter
    mode: str = "derived"  # how it was run, as in `ExecutionRecord`
    cache: bool = True
    # bytes of frozen values that its group read again and again, by where they were
    kept: dict[str, int] = {}
    group: int = 1  # phases trained at once, this one included
    workers: int = 1  # processes on the machine
    comparable: bool  # whether its time was measured alone, unshared, uncached and in one go
