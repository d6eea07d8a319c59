"""Which rows of a source make which split: before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from offramp.data.raw import RawData, RawSplit
from offramp.data.spec import DataSpec
from offramp.data.splits import hold_out, hold_out_groups, subset
from offramp.errors import OfframpError, nearest

PRECEDENCE = ("test", "validation", "calibration", "train")  # which split keeps a group that two show


@dataclass(frozen=True, eq=False)
class Part:
    """`rows` [n] int64, ascending, of `source`: the images of one split."""

    source: RawSplit
    rows: Tensor

    @property
    def labels(self) -> Tensor:
        return self.source.labels[self.rows]

    def only(self, kept: Tensor) -> Part:
        """A part of it. kept: [n] bool."""
        return Part(self.source, self.rows[kept])


@dataclass(frozen=True, eq=False)
class Chosen:
    """parts: the four splits, by name; `validation` may be the same object as `test`.
    dropped: what was left out because its group is in another split: by split, the number of images
    and of groups.
    """

    parts: Mapping[str, Part]
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def choose(raw: RawData, spec: DataSpec) -> Chosen:
    """Subsets and hold-outs. Images of one group are never in two splits: of a group that the source
    shows in several, the test split's stay, and the training split's are dropped and counted.

    Raises OfframpError for counts that cannot be had.
    """
    modes = ("held-out", "test")
    if spec.validation not in modes:
        hint = nearest(spec.validation, modes)
        raise OfframpError(f"data.validation cannot be '{spec.validation}'{hint}")
    if spec.test_images is not None and raw.test is None:
        raise OfframpError(f"data set '{spec.name}' has no test split; leave data.test_images out")
    if spec.held_out_images is not None and spec.held_out_images < 1:
        raise OfframpError(f"data.held_out_images is {spec.held_out_images}; give 1 or more")
    sources = {"validation": raw.validation, "calibration": raw.calibration, "test": raw.test}
    if spec.validation == "test":
        del sources["validation"]
    missing = [name for name, source in sources.items() if source is None]
    given = {name: source for name, source in sources.items() if source is not None}
    whole = {n: Part(s, torch.arange(len(s.labels))) for n, s in {"train": raw.train, **given}.items()}
    whole, dropped = _apart(whole)
    train = _subset(whole["train"], spec.train_images, spec, "train")
    parts = {
        name: Part(raw.train, train.rows[rows]) for name, rows in _held(train, missing, spec).items()
    }
    parts |= {name: whole[name] for name in given}
    if raw.test is not None:
        parts["test"] = _subset(whole["test"], spec.test_images, spec, "test")
    parts.setdefault("validation", parts["test"])
    return Chosen(parts, dropped)


def _apart(parts: Mapping[str, Part]) -> tuple[dict[str, Part], dict[str, dict[str, int]]]:
    """The parts without the images whose group a part of higher precedence shows; their numbers."""
    seen: set[str] = set()
    kept, dropped = {}, {}
    for name in PRECEDENCE:
        if name not in parts:
            continue
        part, groups = parts[name], parts[name].source.groups
        if groups is not None:
            fresh = torch.tensor([group not in seen for group in groups])
            if not fresh.all():
                gone = {group for group in groups if group in seen}
                dropped[name] = {"images": int((~fresh).sum()), "groups": len(gone)}
                part = part.only(fresh)
            if not len(part.rows):
                raise OfframpError(
                    f"every group of the {name} split is in another split too; correct the groups"
                )
            seen |= set(groups)
        kept[name] = part
    return kept, dropped


def _held(train: Part, missing: list[str], spec: DataSpec) -> dict[str, Tensor]:
    groups = train.source.groups
    if groups is None:
        return hold_out(train.labels, missing, spec.split_seed, spec.held_out_images)
    shown = [groups[row] for row in train.rows.tolist()]
    return hold_out_groups(train.labels, shown, missing, spec.split_seed, spec.held_out_images)


def _subset(part: Part, wanted: int | None, spec: DataSpec, name: str) -> Part:
    if wanted is None:
        return part
    if not 1 <= wanted <= len(part.rows):
        raise OfframpError(
            f"data.{name}_images is {wanted}, but the {name} split of '{spec.name}' has "
            f"{len(part.rows)} images; ask for 1 to {len(part.rows)}, or leave it out"
        )
    rows = subset(part.labels, wanted, spec.split_seed, f"subset of {name}")
    return Part(part.source, part.rows[rows])
