"""From a data set's name to four splits: subset, hold-outs, statistics, shared by all sources."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from offramp.data.custom import call
from offramp.data.dataset import Data, Split, statistics
from offramp.data.raw import RawData, RawSplit
from offramp.data.samples import Samples, class_names, read_given, read_samples
from offramp.data.sources import DATASETS
from offramp.data.splits import hold_out, subset
from offramp.errors import OfframpError, nearest
from offramp.usercode import function, is_user_code


@dataclass(frozen=True)
class DataSpec:
    """Which data, and how it is split.

    name: a name in DATASETS, or `path/file.py:function`.
    root: the folder of the files; None looks in `$OFFRAMP_DATA/<name>`.
    train_images: so many images of the official training split, classes in proportion, taken before
        anything is held out; None takes all.  test_images: the same of the test split.
    split_seed: which images the subsets and the held-out splits get.
    validation: `held-out` of train, or `test`: the test split, as the paper (nothing is then held
        out for validation, while calibration is held out as ever).
    options: further arguments of the source, as (name, value) pairs.
    """

    name: str
    root: str | None = None
    train_images: int | None = None
    test_images: int | None = None
    split_seed: int = 0
    validation: Literal["held-out", "test"] = "held-out"
    options: tuple[tuple[str, Any], ...] = ()


def load(spec: DataSpec) -> Data:
    """The data set that `spec` names, on the CPU.

    Raises OfframpError for an unknown name or option, and for whatever is wrong with the files.
    """
    if is_user_code(spec.name):
        make = function(spec.name, "data.name")
        raw = call(spec.name, make, _arguments(make, spec, None))
    elif spec.name in DATASETS:
        shared = os.environ.get("OFFRAMP_DATA")
        default = str(Path(shared) / spec.name) if shared else None
        source = DATASETS[spec.name]
        raw = source(**_arguments(source, spec, default))
    else:
        raise OfframpError(
            f"unknown data set '{spec.name}'{nearest(spec.name, DATASETS)} "
            "(your own: path/to/file.py:function)"
        )
    return assemble(raw, spec)


def from_dataset(
    train: Samples | tuple[Any, Any],
    validation: Samples | tuple[Any, Any] | None = None,
    calibration: Samples | tuple[Any, Any] | None = None,
    test: Samples | tuple[Any, Any] | None = None,
    *,
    classes: Sequence[str] | None = None,
    name: str = "custom",
    split_seed: int = 0,
) -> Data:
    """Data from map-style Datasets of (image, label), or pairs of arrays (images, labels).

    A split that is not given is held out of train. classes: names; by default those the Dataset
    names itself (`train.classes`), else the numbers of the training labels. See
    `offramp.data.samples.read_samples` for the forms an image may take.

    Raises OfframpError naming the sample that is wrong, or the split that would be empty.
    """
    raw = RawData(
        train=read_samples(train, "train"),
        validation=read_given(validation, "validation"),
        calibration=read_given(calibration, "calibration"),
        test=read_given(test, "test"),
        classes=tuple(classes) if classes is not None else class_names(train),
    )
    return assemble(raw, DataSpec(name, split_seed=split_seed))


def assemble(raw: RawData, spec: DataSpec) -> Data:
    """Subsets, hold-outs and statistics: what every source shares.

    No label or pixel of one official split influences another: test is read and cut to size by
    itself, the hold-outs are a function of (split_seed, training labels), mean and std are of the
    training split after holding out.

    Raises OfframpError as `load` does.
    """
    modes = ("held-out", "test")
    if spec.validation not in modes:
        hint = nearest(spec.validation, modes)
        raise OfframpError(f"data.validation cannot be '{spec.validation}'{hint}")
    rows = _rows(raw.train, spec.train_images, spec, "train")
    given = {"validation": raw.validation, "calibration": raw.calibration, "test": raw.test}
    if spec.validation == "test":
        del given["validation"]
    missing = [name for name, part in given.items() if part is None]
    if spec.test_images is not None and raw.test is None:
        raise OfframpError(f"data set '{spec.name}' has no test split; leave data.test_images out")
    held = hold_out(raw.train.labels[rows], missing, spec.split_seed)
    splits = {name: _read(raw.train, rows[part]) for name, part in held.items()}
    for name, part in given.items():
        if part is not None:
            splits[name] = _read(part, _rows(part, spec.test_images, spec, name))
    splits.setdefault("validation", splits["test"])
    mean, std = statistics(splits["train"].images)
    classes = raw.classes or tuple(map(str, range(int(raw.train.labels.max()) + 1)))
    provenance = {
        **raw.provenance,
        "available": {
            "train": len(raw.train.labels),
            "test": len(raw.test.labels) if raw.test else 0,
        },
        "images": {name: len(split) for name, split in splits.items()},
        "split_seed": spec.split_seed,
    }
    return Data(
        spec.name,
        classes,
        splits["train"],
        splits["validation"],
        splits["calibration"],
        splits["test"],
        mean=mean,
        std=std,
        provenance=provenance,
    )


def _rows(part: RawSplit, wanted: int | None, spec: DataSpec, name: str) -> Tensor:
    """The rows of a subset of `wanted` images; only train and test are ever cut."""
    if wanted is None or name not in ("train", "test"):
        return torch.arange(len(part.labels))
    if not 1 <= wanted <= len(part.labels):
        raise OfframpError(
            f"data.{name}_images is {wanted}, but the {name} split of '{spec.name}' has "
            f"{len(part.labels)} images; ask for 1 to {len(part.labels)}, or leave it out"
        )
    return subset(part.labels, wanted, spec.split_seed, f"subset of {name}")


def _read(part: RawSplit, rows: Tensor) -> Split:
    return Split(part.read(rows), part.labels[rows])


def _arguments(source: Callable[..., Any], spec: DataSpec, default_root: str | None) -> dict[str, Any]:
    """The keyword arguments for a source: its folder, where it takes one, and the options."""
    taken = inspect.signature(source).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    arguments = dict(spec.options)
    for option in arguments:
        if option == "root" or not (anything or option in taken):
            known = [p for p in taken if p != "root"]
            raise OfframpError(
                f"data set '{spec.name}' has no option '{option}'"
                f"{nearest(option, known) or '; remove it'}"
            )
    if "root" in taken:
        root = spec.root if spec.root is not None else default_root
        if root is not None:
            arguments["root"] = Path(root).expanduser()
        elif taken["root"].default is inspect.Parameter.empty:
            raise OfframpError(
                f"data set '{spec.name}' needs its folder; set data.root, or the environment "
                f"variable OFFRAMP_DATA to the folder that holds '{spec.name}'"
            )
    elif spec.root is not None:
        raise OfframpError(f"data set '{spec.name}' reads no folder; leave data.root out")
    return arguments
