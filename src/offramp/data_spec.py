"""What a study says of its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt, Predicate

from offramp.hashing import YOUNGER
from offramp.units import Count

Fit = Literal["crop", "stretch"]
Side = Annotated[int, Ge(1), Le(16_384)]
Natural = Annotated[int, Ge(0), Lt(2**63)]
Text = Annotated[str, Predicate(lambda text: bool(text.strip()) and text.isprintable())]


@dataclass(frozen=True)
class DataSpec:
    """Which data, how it is split, and what becomes of its images.

    name: a name in DATASETS, or `path/file.py:function`.
    root: the folder of the files; None looks in `$OFFRAMP_DATA/<name>` where the source needs one.
    train_images: so many images of the official training split, classes in proportion, taken before
        anything is held out; None takes all.  test_images: the same of the test split.
    held_out_images: about so many of train in each split that is held out of it, classes in proportion
        (rounded up), at most a quarter of a class; None: see `offramp.data.splits.hold_out`.
    split_seed: which images the subsets and the held-out splits get.
    validation: `held-out` of train, unless the source brings a validation split; `val`, which says
        that it does; or `test`: the test split, as the paper (nothing is then held out for validation,
        while calibration is held out as ever).
    test: the source's own, which is held out of train where there is none; or `val`: its validation
        split is the test split.
    split_file: a file that `offramp.data.save_splits` wrote: it says which image is in which split, in
        place of the five settings above, and is refused where the images are not the same.
    size, resize, fit, channels: see `offramp.data.images.geometry`; what is None is the source's
        own choice, which for most is to leave images as they are.
    normalize: by mean and deviation of the training images (`train`), or of ImageNet, which public
        weights were trained with.
    on_error: `fail` at an image that is damaged, or `skip` it and count it.
    options: further arguments of the source, as (name, value) pairs.
    """

    name: Text
    root: Text | None = None
    train_images: Count | None = None
    test_images: Count | None = None
    held_out_images: Count | None = None
    split_seed: Natural = 0
    validation: Literal["held-out", "test", "val"] = "held-out"
    test: Literal["test", "val"] = field(default="test", metadata=YOUNGER)
    split_file: Text | None = None
    size: Side | None = None
    resize: Side | None = None
    fit: Fit = "crop"
    channels: Literal[1, 3] | None = None
    normalize: Literal["train", "imagenet"] = "train"
    on_error: Literal["fail", "skip"] = "fail"
    options: tuple[tuple[str, Any], ...] = ()
