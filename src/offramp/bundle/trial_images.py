"""The images that a trial saw, read again: what its bundle is checked on, and quantized with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data import Data, DataSpec, Split, load, normalize
from offramp.data.dataset import FileSplit, pixels
from offramp.data.fetch import already_fetched
from offramp.data.load import read_for_trained
from offramp.data_spec import GIVEN, HELD_OUT
from offramp.errors import OfframpError
from offramp.recipe import ADOPTED
from offramp.store.manifest import Manifest
from offramp.study.run.trials import data_code

BATCH = 32
RANDOM_IMAGES = 256
COMPARED = 1_000  # images of a test split that is not in memory
WHERE = "say where they are (`data_root`)"


@dataclass(frozen=True, eq=False)
class SplitImages:
    """A split as it lies in memory, normalized a batch at a time."""

    pixels: Tensor  # [N, C, H, W], uint8 or float32 that was normalized beforehand
    mean: Tensor  # [C], as shares of 255
    std: Tensor  # [C], likewise

    def batches(self, size: int = BATCH) -> Iterator[NDArray[np.float32]]:
        """[B, C, H, W] each, in order."""
        for part in torch.split(self.pixels, size):
            yield normalize(part, self.mean, self.std).numpy()

    def spread(self, most: int) -> SplitImages:
        """At most so many of them, evenly."""
        count = len(self.pixels)
        rows = torch.linspace(0, count - 1, min(count, most)).round().long()
        return SplitImages(self.pixels[rows], self.mean, self.std)


@dataclass(frozen=True)
class Shown:
    """What a bundle is compared with PyTorch on, and what that is, in words."""

    images: SplitImages
    what: str


def of_test(split: Split | FileSplit, mean: Sequence[float], std: Sequence[float]) -> Shown:
    """The test split, or its first COMPARED where memory does not hold it."""
    images = of_split(split, mean, std, COMPARED)
    count = len(images.pixels)
    return Shown(images, "the whole test split" if count == len(split) else f"{count:,} test images")


def of_split(
    split: Split | FileSplit, mean: Sequence[float], std: Sequence[float], most: int | None = None
) -> SplitImages:
    """most: of a split that is not in memory, from the first on; None reads all."""
    return SplitImages(pixels(split, most), torch.tensor(mean), torch.tensor(std))


def for_check(manifest: Manifest, root: str | None, trust_code: bool) -> Shown:
    """The images that a trial's bundle is compared on: its test split where it can be read, else noise.
    root: the folder of the data set's files, where the trial's is gone."""
    try:
        data = _data(manifest, root, trust_code)
        return of_test(_seen(data, manifest, "test"), manifest.mean, manifest.std)
    except OfframpError as error:
        if root is not None and not isinstance(error, _Changed | _Gone):
            raise
        reason = str(error)
    noise = np.random.default_rng(0).standard_normal((RANDOM_IMAGES, *manifest.input_shape))
    images = torch.from_numpy(noise.astype(np.float32))
    return Shown(SplitImages(images, torch.zeros(()), torch.ones(())), f"random numbers, as {reason}")


def for_int8(manifest: Manifest, root: str | None, trust_code: bool) -> Mapping[str, SplitImages]:
    """The splits that int8 is calibrated, chosen and reported on; the arguments are those of
    `for_check`. Raises OfframpError where they cannot be read."""
    try:
        data = _data(manifest, root, trust_code)
        how = manifest.mean, manifest.std
        return {name: of_split(_seen(data, manifest, name), *how) for name in HELD_OUT}
    except OfframpError as error:
        remedy = "export what `fit` returned" if isinstance(error, _Gone) else WHERE
        raise OfframpError(
            f"int8 is calibrated on the trial's images, and {error}; {remedy}, or export without int8"
        ) from None


class _Changed(OfframpError):
    """That a split is not the one that the trial saw."""


class _Gone(OfframpError):
    """That nobody but the process that trained on the images has them."""


def _data(manifest: Manifest, root: str | None, trust_code: bool) -> Data:
    """What is too large for memory stays in its files, as in training."""
    spec = _spec(manifest, root)
    if spec.name == GIVEN:
        raise _Gone("the images were given in Python")
    recorded = data_code(manifest, trust_code)
    if manifest.program == ADOPTED:
        return read_for_trained(spec, spec.normalize, recorded)
    return load(spec, recorded=recorded)


def _seen(data: Data, manifest: Manifest, name: str) -> Split | FileSplit:
    """A split, where it is still what the trial saw."""
    split = data.splits[name]
    if split.digest != manifest.data.splits[name]:
        raise _Changed("the data have changed since")
    return split


def _spec(manifest: Manifest, root: str | None) -> DataSpec:
    """How the trial's data were asked for; older trials kept the name and the counts."""
    record = manifest.data.spec
    if record is None:
        provenance = manifest.data.provenance
        images, available = provenance.images, provenance.available
        trained = sum(images[split] for split in ("train", "validation", "calibration"))
        record = {
            "name": manifest.data.name,
            "root": provenance.root,
            "train_images": trained if trained < available["train"] else None,
            "test_images": images["test"] if images["test"] < available["test"] else None,
            "split_seed": provenance.split_seed,
        }
    fields = {field.name for field in dataclasses.fields(DataSpec)}
    values = {name: value for name, value in record.items() if name in fields}
    values["split_seed"] = manifest.data.provenance.split_seed
    values["options"] = tuple((name, value) for name, value in record.get("options", ()))
    spec = DataSpec(**{**values, **({} if root is None else {"root": root})})
    if spec.url is None:
        return spec
    # Nothing is fetched because a record says so.
    here = already_fetched(spec)
    root = spec.root if here is None or root is not None else str(here.folder)
    return dataclasses.replace(spec, root=root, url=None, sha256=None)
