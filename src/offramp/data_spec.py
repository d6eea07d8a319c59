"""What a study says of its data."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Annotated, Any, Literal, cast, get_args

from annotated_types import Ge, Gt, Le, Lt, Predicate

from offramp.errors import OfframpError, check_fields, nearest
from offramp.hashing import YOUNGER
from offramp.units import Count

Fit = Literal["crop", "stretch"]
Loader = Literal["auto", "resident", "streaming"]
Pixels = Annotated[int, Ge(1), Le(16_384)]
Natural = Annotated[int, Ge(0), Lt(2**63)]


# Their names are what messages say: see `errors.check_fields`.
def _is_text_that_can_be_read(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def _is_64_hex_digits(text: str) -> bool:
    return re.fullmatch("[0-9a-fA-F]{64}", text) is not None


Sha256 = Annotated[str, Predicate(_is_64_hex_digits)]
Text = Annotated[str, Predicate(_is_text_that_can_be_read)]
Means = tuple[Annotated[float, Ge(0), Le(1)], ...]
Deviations = tuple[Annotated[float, Gt(0), Le(1)], ...]
Normalization = Literal["train", "imagenet", "half", "clip", "unit"] | tuple[Means, Deviations]
"""By name, or a mean and a deviation for each channel, as shares of 255."""


SPLITS = ("train", "validation", "calibration", "test")
HELD_OUT = SPLITS[1:]  # in the order in which they are taken
GIVEN = "given"  # the name of data that `fit` was given: nothing can read them again


@dataclass(frozen=True)
class DataSpec:
    """Which data, how it is split, and what becomes of its images.

    Attributes:
        name: A name in DATASETS, or `path/file.py:function`.
        root: The folder of the files; None looks in `$OFFRAMP_DATA/<name>` where the source needs one.
        train_images: So many images of the official training split, classes in proportion, before
            anything is held out; None takes all.
        test_images: The same of the test split.
        held_out_images: About so many of train in each split that is held out of it, classes in
            proportion (rounded up), at most a quarter of a class; None: see
            `offramp.data.splits.hold_out`.
        split_seed: Which images the subsets and the held-out splits get; `trial`: each seed of a study
            draws its own, so that what seeds say in common does not rest on one split.
        validation: `held-out` of train, unless the source brings a validation split; `val`, which says
            that it does; or `test`: the test split, as the paper (nothing is then held out for
            validation, while calibration is held out as ever).
        test: The source's own, which is held out of train where there is none; `val`: its validation
            split is the test split; or `held-out`: its test images are train's too, and test is held
            out anew.
        split_file: A file that `save_splits` wrote: it says which image is in which split, in place of
            the six settings above, and is refused where the images are not the same.
        size: See `offramp.data.images.geometry`; None is the source's own choice, which for most is to
            leave images as they are. So of `resize` and `channels`.
        resize: What the shorter side is scaled to before the central square is cut out.
        fit: `crop`, or `stretch`.
        channels: 1 or 3.
        normalize: By mean and deviation of the training images (`train`), or by what weights were
            trained with: those of ImageNet, `half` (0.5 and 0.5), `clip`'s, `unit` (0 and 1), or a mean
            and a deviation for each channel, as shares of 255.
        on_error: `fail` at an image that is damaged, or `skip` it and count it.
        options: Further arguments of the source, as (name, value) pairs.
        url: The address (http, https) of an archive or a file, which is fetched where neither `root`
            nor the shared folder is there.
        sha256: Of what lies there, in hex; other bytes are refused.
        title: What pages, tables, figures and cards call the data, in place of its name; no key has it.

    Raises:
        OfframpError: for a value of another type or out of its range.

    Example:
        >>> from offramp import DataSpec
        >>> DataSpec("digits", train_images=500, split_seed=3).draw
        3
    """

    name: Text
    root: Text | None = None
    train_images: Count | None = None
    test_images: Count | None = None
    held_out_images: Count | None = None
    split_seed: Natural | Literal["trial"] = 0
    validation: Literal["held-out", "test", "val"] = "held-out"
    test: Literal["test", "val", "held-out"] = field(default="test", metadata=YOUNGER)
    split_file: Text | None = None
    size: Pixels | None = None
    resize: Pixels | None = None
    fit: Fit = "crop"
    channels: Literal[1, 3] | None = None
    normalize: Normalization = "train"
    on_error: Literal["fail", "skip"] = "fail"
    options: tuple[tuple[str, Any], ...] = ()
    url: Text | None = field(default=None, metadata=YOUNGER)
    sha256: Sha256 | None = field(default=None, metadata=YOUNGER)
    title: Text | None = field(default=None, metadata=YOUNGER)

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            object.__setattr__(self, name, _as_python(getattr(self, name)))
        object.__setattr__(self, "normalize", _by_channel(self.normalize))
        check_fields(self)

    @property
    def draw(self) -> int:
        """The number that splits are drawn with. Raises OfframpError where each trial has its own."""
        if isinstance(self.split_seed, int):
            return self.split_seed
        raise OfframpError(
            "data.split_seed: trial draws splits for one seed at a time; give a number as split_seed, "
            "or a study of one seed, seeds: [42]"
        )

    def drawn_for(self, seed: int) -> DataSpec:
        """These data with the splits of a trial's seed, where each trial has its own."""
        return replace(self, split_seed=seed) if self.split_seed == "trial" else self


def _as_python(value: Any) -> Any:
    """Paths as text, NumPy's whole numbers as Python's, a mapping as pairs; all else as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Integral) and not isinstance(value, int):
        return int(value)
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


def _by_channel(normalize: Any) -> Normalization:
    """The name, or mean and deviation as tuples, whatever sequences or arrays they are. Raises
    OfframpError for another name, and for what is not a number a channel, or not a share of 255."""
    if isinstance(normalize, str):
        names = get_args(get_args(Normalization)[0])
        if normalize not in names:
            raise OfframpError(f"normalize cannot be '{normalize}'{nearest(normalize, names)}")
        return cast(Normalization, normalize)
    try:
        mean, std = (tuple(map(float, numbers)) for numbers in normalize)
    except (TypeError, ValueError):
        raise OfframpError(
            f"normalize is {normalize!r}; give a name, or a mean and a deviation, each with one number "
            "a channel, as ((0.5,), (0.25,)) or ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))"
        ) from None
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s <= 1 for s in std):
        raise OfframpError(
            f"normalize is {(mean, std)}; a mean is a share of 255 from 0 to 1, a deviation one "
            "above 0 and at most 1; divide values of pixels from 0 to 255 by 255"
        )
    return mean, std
