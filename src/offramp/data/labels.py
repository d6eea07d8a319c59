"""Labels as people give them (numbers from 0 or 1, names, one-hot vectors), made into class numbers."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.errors import OfframpError, nearest


@dataclass(frozen=True, eq=False)
class Numbered:
    """labels: by split, [N] int64.  classes: their names; empty where numbers are all there is.
    remark: what was made of them, if anything was; a sentence."""

    labels: Mapping[str, Tensor]
    classes: tuple[str, ...]
    remark: str | None = None


def numbered(given: Mapping[str, Sequence[Any]], classes: Sequence[str] = ()) -> Numbered:
    """given: the labels of each split, `train` among them.  classes: names, where they are known.

    Numbers count from 0. Those of 1 to C count from 1: where `classes` has C names, or where training
    images show each of them. Names are numbered as in `classes`, else in their order in the alphabet.
    A vector is one-hot.

    Raises OfframpError, naming the sample, for what is no label, and for a name that is not a class.

    >>> numbered({"train": ["dog", "cat", "dog"]}).labels["train"].tolist()
    [1, 0, 1]
    """
    plain = {split: [_plain(x, split, i) for i, x in enumerate(found)] for split, found in given.items()}
    names = tuple(classes)
    if isinstance(plain["train"][0], str):
        return _named(plain, names)
    numbers = {split: [_number(x, split, i) for i, x in enumerate(xs)] for split, xs in plain.items()}
    every = [number for found in numbers.values() for number in found]
    least, most = min(every), max(every)
    if not -(2**63) <= least <= most < 2**63:
        raise OfframpError(f"labels go from {least} to {most}; give class numbers from 0 or from 1")
    counted = (len(names) or len(set(numbers["train"]))) == most  # of numbers from 1 to `most`: all
    if least != 1 or most < 2 or not counted:
        return Numbered(_tensors(numbers), names)
    shifted = {split: [number - 1 for number in found] for split, found in numbers.items()}
    remark = f"labels 1 to {most} are taken as classes 0 to {most - 1}"
    return Numbered(_tensors(shifted), names or tuple(map(str, range(1, most + 1))), remark)


def _named(plain: Mapping[str, Sequence[int | str]], names: tuple[str, ...]) -> Numbered:
    for i, label in enumerate(plain["train"]):
        if not isinstance(label, str):
            raise OfframpError(f"train sample {i} has the label {label!r} among names; give names only")
    names = names or tuple(sorted({str(label) for label in plain["train"]}))
    places = {name: place for place, name in enumerate(names)}
    for split, found in plain.items():
        for i, label in enumerate(found):
            if label not in places:
                raise OfframpError(
                    f"{split} sample {i} has the label {label!r}, which is not a class"
                    f"{nearest(str(label), names)}"
                )
    return Numbered(_tensors({s: [places[str(x)] for x in found] for s, found in plain.items()}), names)


def _plain(label: Any, split: str, i: int) -> int | str:
    """A label as a number or a name."""
    if isinstance(label, str):
        return str(label)
    try:
        return operator.index(label)
    except (TypeError, ValueError, RuntimeError):
        pass
    if isinstance(label, (list, tuple, np.ndarray, Tensor)) and len(np.shape(label)) == 1:
        found = np.asarray(label)
        if len(found) == 1 and found.dtype.kind in "iu":
            return int(found[0])
        if found.dtype.kind in "biuf" and sorted(found) == [0] * (len(found) - 1) + [1]:
            return int(found.argmax())
        raise OfframpError(
            f"{split} sample {i} has the label {found.tolist()}, which is not one class; give one 1 "
            "among zeros, or a class number"
        )
    raise OfframpError(
        f"{split} sample {i} has the label {label!r}; give an integer class number, a name, or one-hot"
    )


def _number(label: int | str, split: str, i: int) -> int:
    if isinstance(label, str):
        raise OfframpError(
            f"{split} sample {i} has the label {label!r} among numbers; give numbers, or names, only"
        )
    return label


def _tensors(numbers: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {split: torch.tensor(found, dtype=torch.int64) for split, found in numbers.items()}
