"""A user's own Datasets: of several sizes, too large for memory, under a random transform, iterable."""

import io
import random
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import epoch, refused, same
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import offramp
from longer import long
from offramp.augment import Augment, View
from offramp.data import Data, DataSpec, load
from offramp.data import samples as samples_module
from offramp.data.dataset import FileSplit, Split
from offramp.data.load import assemble, from_dataset
from offramp.data.notes import notes
from offramp.data.samples import read_samples
from offramp.device import seeded_on_cpu
from offramp.engine.images import Images
from offramp.nets.backbones.digits_cnn import DigitsCNN
from offramp.study.plan.plan import data_identity
from support import CPU

SIDE = 8
GENERATOR = np.random.default_rng(5)
SIZED = [
    Image.fromarray(GENERATOR.integers(0, 256, (*GENERATOR.integers(9, 20, 2), 3), dtype=np.uint8))
    for _ in range(48)
]
SIZED[7] = SIZED[7].convert("L")
DEEP = Image.fromarray(np.asarray(SIZED[9].convert("L")).astype(np.uint16) * 256 + 77)  # 16 bits


class Photos(Dataset[Any]):
    """Pictures, through a transform."""

    def __init__(self, change: Callable[[Image.Image], Any] | None = None) -> None:
        self.change = change

    def __len__(self) -> int:
        return len(SIZED)

    def __getitem__(self, row: int) -> Any:
        image = SIZED[row]
        return image if self.change is None else self.change(image), row % 2


def small(image: Image.Image) -> Image.Image:
    return image.convert("RGB").resize((SIDE, SIDE))


def normalized(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(small(image))).permute(2, 0, 1) / 127.5 - 1


class Draws:
    """What a random transform draws, by the generator that it asks."""

    own = np.random.default_rng(1)

    def __init__(self, which: str = "torch") -> None:
        self.which = which

    def __call__(self, image: Image.Image) -> Image.Image:
        most = 2**24
        number = {
            "torch": lambda: int(torch.randint(0, most, ())),
            "numpy": lambda: int(np.random.randint(0, most)),
            "python": lambda: random.randrange(most),
            "own": lambda: int(self.own.integers(0, most)),
        }[self.which]()
        return Image.fromarray(np.asarray(small(image)) + np.frombuffer(number.to_bytes(3), np.uint8))


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """All Datasets are too large to be kept once they were read."""
    monkeypatch.setattr(samples_module, "IN_MEMORY", 0)


def photos(loader: Any = "auto", augment: Augment | None = None, **spec: Any) -> Data:
    return assemble(read_samples({"train": Photos()}), DataSpec("own", **spec), augment, loader)


@pytest.mark.parametrize(
    ("fit", "channels"), [("crop", None), ("stretch", 1), *long(("crop", 1), ("stretch", None))]
)
def test_pictures_of_several_sizes_are_resized_as_those_of_files(
    tmp_path: Path, fit: Any, channels: Any
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for row, image in enumerate([*SIZED[:9], DEEP, *SIZED[10:]]):
        for split in ("train", "test"):
            path = tmp_path / split / str(row % 2) / f"{row:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, exif=turned if row == 4 else Image.Exif())

    class Opened(Photos):
        def __getitem__(self, row: int) -> Any:
            return Image.open(tmp_path / "test" / str(row % 2) / f"{row:02}.png"), row % 2

    spec = {"size": SIDE, "fit": fit, "channels": channels}
    files = load(DataSpec("folder", str(tmp_path), **spec))
    own = assemble(read_samples({"train": Photos(), "test": Opened()}), DataSpec("own", **spec))
    assert isinstance(files.test, Split) and isinstance(own.test, Split)
    by_class = [*range(0, 48, 2), *range(1, 48, 2)]  # the order of files in folders
    assert torch.equal(files.test.images, own.test.images[by_class])


def test_the_network_says_the_size_in_fit(snapshot: SnapshotAssertion) -> None:
    module = DigitsCNN(2, 3)
    net = offramp.attach(module, exits=["blocks.2"], input_shape=(3, SIDE, SIDE))
    fitted = offramp.fit(net, "baseline", Photos(), recipe={"epochs": 1})
    geometry = fitted._manifest.data.provenance.geometry
    assert geometry is not None and (geometry.size, geometry.channels) == (SIDE, 3)
    assert refused(from_dataset, Photos(), shape=(3, 8, 9)) == snapshot


@pytest.mark.parametrize("odd", [0, 1, 48])
def test_pictures_are_made_to_the_networks_size_be_they_one_or_all(odd: int) -> None:
    class Sized(Photos):
        def __getitem__(self, row: int) -> Any:
            image, label = super().__getitem__(row)
            return image.resize((9, 12) if row < odd else (SIDE, SIDE)), label

    data = from_dataset(Sized(), shape=(3, SIDE, SIDE))
    assert data.shape == (3, SIDE, SIDE)
    remarks = [line for line in notes(data.provenance) if "another size" in line]
    remark = f"{odd} of 48 pictures are of another size than the network takes, such as 9×12: "
    assert remarks == ([remark + f"they are scaled and cropped to {SIDE}×{SIDE}."] if odd else [])
    assert (data.provenance["geometry"]["size"] is None) == (odd == 0)  # else keys would change


@pytest.mark.parametrize(
    "augment", [None, Augment(flip=True, crop=2), Augment(resized_crop=(0.2, 1.0))], ids=str
)
def test_what_does_not_fit_into_memory_is_read_as_it_is_needed_to_the_same_bits(
    augment: Augment | None,
) -> None:
    resident, streaming = (photos(loader, augment, size=SIDE) for loader in ("resident", "streaming"))
    assert isinstance(streaming.train, FileSplit) and streaming.train.memory is None
    assert data_identity(resident) == data_identity(streaming)
    expected = list(epoch(resident))
    assert same(epoch(streaming), iter(expected)) and same(epoch(streaming, 2), iter(expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_floats_stream_too(workers: int) -> None:
    raw = read_samples({"train": Photos(normalized)})
    resident, streaming = (assemble(raw, DataSpec("own"), None, x) for x in ("resident", "streaming"))
    assert isinstance(streaming.train, FileSplit) and streaming.train.dtype == torch.float32
    assert data_identity(resident) == data_identity(streaming)
    assert streaming.mean == (0.0,) * 3 and streaming.std == (1.0,) * 3
    assert same(iter(list(epoch(resident))), iter(list(epoch(streaming, workers))))


def test_the_seed_of_the_program_stands_still() -> None:
    torch.manual_seed(3)
    with seeded_on_cpu(1):
        first = (random.random(), np.random.rand(), float(torch.rand(())))
    after = float(torch.rand(()))
    torch.manual_seed(3)
    assert float(torch.rand(())) == after
    with seeded_on_cpu(1):
        assert (random.random(), np.random.rand(), float(torch.rand(()))) == first


@pytest.mark.parametrize("which", ["torch", "numpy", "python"])
def test_a_random_transform_is_drawn_anew_each_epoch_and_never_in_evaluation(which: str) -> None:
    data = from_dataset(Photos(Draws(which)), plain=Photos(small))
    plain = from_dataset(Photos(small))
    assert all(data.splits[name].digest == split.digest for name, split in plain.splits.items())
    assert (data.mean, data.std) == (plain.mean, plain.std)
    images = Images(data, CPU)
    rows = torch.arange(len(data.train))
    asis, first, second = (images.read("train", rows, v) for v in (None, View(1, 0), View(1, 1)))
    assert torch.equal(asis, Images(plain, CPU).read("train", rows))
    assert not any(torch.equal(a, b) for a, b in zip(asis, first, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # A function of seed, epoch and image: of no order, batch or process, so a resumed epoch is the same.
    assert torch.equal(images.read("train", rows[5:9], View(1, 1)), second[5:9])
    assert not torch.equal(images.read("train", rows, View(2, 0)), first)
    expected = list(epoch(data, 0, 3))
    assert same(epoch(data, 2, 3), iter(expected))


def test_a_random_transform_is_part_of_the_key_and_said() -> None:
    plain = Photos(small)
    data = from_dataset(Photos(Draws()), plain=plain)
    other = from_dataset(Photos(Draws("python")), plain=plain)
    assert data_identity(data) == data_identity(from_dataset(Photos(Draws()), plain=plain))
    assert data_identity(data) != data_identity(other)
    assert str(data.augment) == "own transform"
    assert any("drawn anew each epoch by the data's own" in note for note in notes(data.provenance))
    more = from_dataset(Photos(Draws()), plain=plain, augment=Augment(flip=True, views=2))
    assert str(more.augment) == "own transform, flip, 2 views"


def test_a_random_transform_trains() -> None:
    def trained(change: Any, augment: Any = None) -> Any:
        net = offramp.attach(module, exits=["blocks.2"], input_shape=(3, SIDE, SIDE))
        recipe = {"epochs": 1, "learning_rate": 0.01}
        return offramp.fit(
            net, "two-stage", Photos(change), plain=Photos(small), recipe=recipe, augment=augment
        )

    torch.manual_seed(0)
    module = DigitsCNN(2, 3)
    first, again, still = trained(Draws()), trained(Draws()), trained(small)
    assert first.trial == again.trial != still.trial
    assert np.array_equal(first.logits["test"], again.logits["test"])
    assert not np.array_equal(first.logits["test"], still.logits["test"])
    assert "own transform, flip" in str(trained(Draws(), ["flip"])._manifest.data.augment)


class Other(Photos):
    def __getitem__(self, row: int) -> Any:
        image, label = super().__getitem__(row)
        return image, 1 - label


UNREPEATABLE: dict[str, Any] = {
    "train": {"train": Photos(Draws())},
    "test": {"train": Photos(small), "test": Photos(Draws())},
    "plain": {"train": Photos(Draws()), "plain": Photos(Draws())},
    "own generator": {"train": Photos(Draws("own"))},
    "own generator and plain": {"train": Photos(Draws("own")), "plain": Photos(small)},
    "other label": {"train": Photos(Draws()), "plain": Other(small)},
    "other length": {
        "train": TensorDataset(torch.zeros(3, 1, 2, 2), torch.arange(3)),
        "plain": Photos(small),
    },
}


@pytest.mark.parametrize("samples", UNREPEATABLE.values(), ids=UNREPEATABLE)
def test_what_cannot_be_told_or_repeated_is_refused(
    samples: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    assert refused(from_dataset, **samples) == snapshot


def test_a_transform_that_ends_in_another_size_is_named(snapshot: SnapshotAssertion) -> None:
    data = from_dataset(Photos(lambda image: Draws()(image).resize((9, 9))), plain=Photos(small))
    read = Images(data, CPU).read
    assert refused(read, "train", torch.tensor([1]), View(1, 0)) == snapshot


def test_a_dataset_that_changes_or_fails_while_it_is_read_is_named(snapshot: SnapshotAssertion) -> None:
    samples = Photos(small)
    raw = read_samples({"train": samples})
    data = assemble(raw, DataSpec("own"), None, "streaming")
    read = Images(data, CPU).read
    samples.change = lambda image: small(image).point(lambda value: 255 - value)
    assert refused(read, "test", torch.tensor([1])) == snapshot
    samples.change = lambda _: 1 / 0
    line = refused(read, "test", torch.tensor([1]))
    assert re.sub(r"line \d+", "line N", line) == snapshot


class Stream(IterableDataset[Any]):
    def __init__(self, length: int = len(SIZED), shuffled: bool = False) -> None:
        self.length, self.shuffled = length, shuffled

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        photos = Photos(small)
        samples = [photos[row] for row in range(len(photos))]
        return iter(random.sample(samples, len(samples)) if self.shuffled else samples)


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_an_iterable_with_a_length_is_as_good_as_a_list(loader: Any) -> None:
    streamed, listed = (
        assemble(read_samples({"train": samples}), DataSpec("own"), None, loader)
        for samples in (Stream(), Photos(small))
    )
    assert data_identity(streamed) == data_identity(listed)
    assert same(epoch(streamed, 2), epoch(listed))


@pytest.mark.parametrize("samples", [Stream(60), Stream(shuffled=True)], ids=["short", "shuffled"])
def test_iterables_that_are_refused(samples: Any, snapshot: SnapshotAssertion) -> None:
    assert refused(from_dataset, samples) == snapshot


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_shards_of_webdataset(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    wds = pytest.importorskip("webdataset")
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard}.tar", "w") as tar:
            for row in range(shard * 24, shard * 24 + 24):
                for name, data in (("png", _png(small(SIZED[row]))), ("cls", str(row % 2).encode())):
                    entry = tarfile.TarInfo(f"{row:04}.{name}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    shards = str(tmp_path / "shard-{0..1}.tar")
    pipeline = wds.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "cls")
    assert refused(from_dataset, pipeline) == snapshot
    own, listed = from_dataset(pipeline.with_length(48, silent=True)), from_dataset(Photos(small))
    assert data_identity(own) == data_identity(listed)
    # Its first samples of two passes differ; by chance, one in 48 times they are one.
    mixed = wds.WebDataset(shards, shardshuffle=False).shuffle(100, rng=random.Random(0))
    shuffled = mixed.decode("pil").to_tuple("png", "cls").with_length(48, silent=True)
    assert refused(from_dataset, shuffled) == snapshot


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "png")
    return data.getvalue()
