"""Two ways to read image files: in memory, or as they are needed. They give the same bits and keys."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from multiprocessing.util import _finalizer_registry
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from pictures import epoch, refused, same
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from forks import forked
from longer import long
from offramp.augment import Augment, View
from offramp.data import Data, DataSpec, load
from offramp.data import read as reading
from offramp.data.batches import SharedSlots, _kill, _workers
from offramp.data.dataset import FileSplit, Split
from offramp.data.images.files import Files
from offramp.data_spec import Loader
from offramp.engine.images import Images
from offramp.errors import OfframpError
from offramp.study.plan.plan import data_identity
from support import CPU

SIDE = 16
SPEC: dict[str, int] = {"size": SIDE, "resize": 20}
BOXES = Augment(flip=True, resized_crop=(0.2, 1.0), jitter=0.1)
WINDOWS = Augment(flip=True, crop=2, rotate=10)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of all sizes and both kinds of color, 30 to train and 9 to test of each class."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(3)
    for split, count in (("train", 30), ("test", 9)):
        for name in ("cat", "dog"):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(18, 40, 2)
                small = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
                picture = Image.fromarray(small).resize((int(width), int(height)))
                picture = picture.convert("L") if number % 7 == 0 else picture
                picture.save(place / f"{number}.jpg", quality=90)
    return root


def read(root: Path, loader: Loader, augment: Augment | None = None, **more: object) -> Data:
    settings: dict[str, object] = {**SPEC, **more}
    return load(DataSpec("folder", str(root), **settings), augment, loader)  # type: ignore[arg-type]


KINDS = {"as they are": None, "windows": WINDOWS, "boxes": BOXES}


@pytest.mark.parametrize(
    ("workers", "kind"),
    [*((0, kind) for kind in KINDS), (2, "boxes"), *long((2, "as they are"), (2, "windows"))],
)
def test_both_loaders_give_the_same_batches(workers: int, kind: str, photos: Path) -> None:
    augment = KINDS[kind]
    resident, streaming = read(photos, "resident", augment), read(photos, "streaming", augment)
    assert isinstance(resident.test, Split) and isinstance(streaming.test, FileSplit)
    assert same(epoch(resident), epoch(streaming, workers))
    assert not same(epoch(resident), epoch(streaming, workers, number=1))


def test_both_loaders_give_the_same_keys(photos: Path) -> None:
    seen = []
    for augment in (None, WINDOWS, BOXES):
        resident, streaming = read(photos, "resident", augment), read(photos, "streaming", augment)
        assert data_identity(resident) == data_identity(streaming)
        assert resident.test.digest == streaming.test.digest
        assert resident.calibration.digest == streaming.calibration.digest
        assert resident.provenance == streaming.provenance
        seen.append(str(data_identity(resident)))
    assert len(set(seen)) == 3


def test_workers_go_on_over_several_passes_and_after_one_is_broken_off(photos: Path) -> None:
    data = read(photos, "streaming", BOXES)
    images, plain = Images(data, CPU, 2), Images(data, CPU)
    chunks = torch.split(torch.arange(len(data.train)), 4)
    for number in range(3):
        view = View(5, number)
        expected = [plain.read("train", rows, view) for rows in chunks]
        broken = images.reads("train", chunks, view)
        assert torch.equal(next(broken), expected[0])
        del broken
        assert same(images.reads("train", chunks, view), iter(expected))
    images.close()


def test_batches_may_grow_and_be_kept(photos: Path) -> None:
    """Memory that workers write into is used again; what is handed out is not."""
    data = read(photos, "streaming", BOXES)
    images, plain = Images(data, CPU, 2), Images(data, CPU)
    for size in (3, 16, 5):
        chunks = torch.split(torch.arange(len(data.train)), size)
        batches = list(images.reads("train", chunks, View(5, size)))
        assert same(iter(batches), plain.reads("train", chunks, View(5, size)))
    assert list(images.reads("train", [])) == []
    images.close()


def test_batches_come_through_shared_memory_or_where_there_is_none_through_pipes(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read(photos, "streaming", BOXES)
    expected = list(epoch(data))
    used: list[int] = []
    array = SharedSlots.array

    def counted(slots: SharedSlots, slot: int, *form: Any) -> np.ndarray:
        used.append(slot)
        return array(slots, slot, *form)

    monkeypatch.setattr(SharedSlots, "array", counted)
    assert same(epoch(data, 2), iter(expected))
    assert len(used) == (len(expected) if sys.platform == "linux" else 0)
    used.clear()
    monkeypatch.setattr(SharedSlots, "allocate", lambda *_: None)
    assert same(epoch(data, 2), iter(expected))
    assert not used


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks soon, not after five seconds, whether a worker that says nothing is there."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))


@pytest.mark.usefixtures("quick")
def test_a_worker_that_is_killed_is_replaced(photos: Path) -> None:
    data = read(photos, "streaming", BOXES)
    images, plain, view = Images(data, CPU, 2), Images(data, CPU), View(5, 1)
    chunks = torch.split(torch.arange(len(data.train)), 4)
    expected = [plain.read("train", rows, view) for rows in chunks]
    before = signal.getsignal(signal.SIGCHLD)
    seen = []
    for number, batch in enumerate(images.reads("train", chunks, view)):
        seen.append(batch)
        if number in (2, 5, 7):
            _workers(images._prefetch._loader)[number % 2].kill()
    assert len(seen) == len(expected) and same(iter(seen), iter(expected))
    assert signal.getsignal(signal.SIGCHLD) == before
    with pytest.raises(OfframpError, match=r"reads images died \(SIGKILL\), and 3 had been") as caught:
        # So many that what is ready when this process waits for its turn is never all that is left.
        for _ in images.reads("train", chunks * 5, view):
            for worker in _workers(images._prefetch._loader):
                worker.kill()
    assert "\n" not in str(caught.value) and _workers(images._prefetch._loader) == ()


READER = """
import signal, sys, psutil, torch
from offramp.augment import Augment, View
from offramp.data import DataSpec, load
from offramp.engine.images import Images
boxes = Augment(flip=True, resized_crop=(0.2, 1.0))
data = load(DataSpec("folder", sys.argv[1], size=16), boxes, "streaming")
images = Images(data, torch.device("cpu"), 2)
for batch in images.reads("train", torch.split(torch.arange(len(data.train)), 4), View(1, 0)):
    print(*(child.pid for child in psutil.Process().children()), flush=True)
    signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends workers with their parent")
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_nothing_is_left_of_a_reader_that_is_killed(how: signal.Signals, photos: Path) -> None:
    with forked(READER, str(photos)) as reader:
        workers = [psutil.Process(int(pid)) for pid in reader.stdout.readline().split()]
        assert len(workers) == 2
        os.kill(reader.pid, how)
        reader.wait()
    _, alive = psutil.wait_procs(workers, 300)
    assert not [w for w in alive if w.status() != psutil.STATUS_ZOMBIE]
    theirs = {str(process.pid) for process in (reader, *workers)}  # torch puts the process into the name
    assert not [f for f in Path("/dev/shm").glob("torch_*") if f.name.split("_")[1] in theirs]


def test_boxes_are_cut_from_more_than_the_middle_of_the_image(photos: Path) -> None:
    """The training view of a wide image shows what its central square does not."""
    data = read(photos, "streaming", Augment(resized_crop=(0.05, 0.1)))
    assert data.train.shape == (3, SIDE, SIDE)
    assert isinstance(data.train, FileSplit)
    sizes = [data.train.geometry.whole(data.train.source.open(int(r))).size for r in data.train.rows]
    assert {min(size) for size in sizes} == {20} and max(max(size) for size in sizes) > 30


def test_what_is_cut_off_as_they_are_is_in_the_key_of_boxes_alone(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name, shade in (("cat", 60), ("dog", 160)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(12):
                image = Image.new("RGB", (60, 20), (shade, number, 0))
                image.save(tmp_path / split / name / f"{number}.png")

    def identities() -> list[str]:
        spec = DataSpec("folder", str(tmp_path), size=16)
        return [str(data_identity(load(spec, augment))) for augment in (None, WINDOWS, BOXES)]

    before = identities()
    for path in (tmp_path / "train").rglob("*.png"):
        image = Image.open(path)
        image.putpixel((0, 0), (255, 255, 255))  # at the edge of the long side
        image.save(path)
    after = identities()
    assert before[:2] == after[:2] and before[2] != after[2]


def test_auto_goes_by_size_and_augmentation(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(read(photos, "auto").train, Split)
    assert isinstance(read(photos, "auto", WINDOWS).train, Split)
    boxes = read(photos, "auto", BOXES)
    assert isinstance(boxes.train, FileSplit) and boxes.train.memory is None
    assert isinstance(boxes.test, Split)
    resident = read(photos, "resident", BOXES).train
    assert isinstance(resident, FileSplit) and resident.memory is not None

    class Little:
        available = 4 * 3 * SIDE * SIDE * 20  # room for 20 images in a quarter of it

    monkeypatch.setattr("offramp.data.read.psutil.virtual_memory", Little)
    assert isinstance(read(photos, "auto").train, FileSplit)


def test_pixels_in_memory_cannot_be_streamed(snapshot: SnapshotAssertion) -> None:
    assert refused(load, DataSpec("digits"), None, "streaming") == snapshot
    assert refused(load, DataSpec("digits"), None, "streamign") == snapshot  # type: ignore[arg-type]


@pytest.fixture
def root(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photographs, to be changed."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def test_a_damaged_file_is_named_or_skipped_by_both(root: Path, snapshot: SnapshotAssertion) -> None:
    bad = root / "train" / "dog" / "11.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    assert refused(read, root, "streaming") == refused(read, root, "resident") == snapshot
    resident, streaming = (read(root, loader, on_error="skip") for loader in ("resident", "streaming"))
    assert streaming.provenance["skipped"] == resident.provenance["skipped"] != {}
    assert data_identity(resident) == data_identity(streaming)
    assert same(epoch(resident), epoch(streaming, 2))


def test_where_nothing_can_be_read_both_say_so(root: Path, snapshot: SnapshotAssertion) -> None:
    for path in (root / "test").rglob("*.jpg"):
        path.write_bytes(b"nothing")
    lines = {refused(read, root, x, on_error="skip") for x in ("resident", "streaming", "auto")}
    assert len(lines) == 1 and lines.pop() == snapshot


def test_a_size_that_differs_is_named(photos: Path, snapshot: SnapshotAssertion) -> None:
    assert refused(read, photos, "streaming", size=None, resize=None) == snapshot


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_damaged_later_is_named_in_one_line(workers: int, root: Path) -> None:
    data = read(root, "streaming")
    assert isinstance(data.test, FileSplit)
    Path(data.test.source.name(3)).write_bytes(b"nothing")
    images = Images(data, CPU, workers)
    with pytest.raises(OfframpError) as caught:
        list(images.reads("test", torch.split(torch.arange(len(data.test)), 2)))
    assert "test/cat" in str(caught.value) and "\n" not in str(caught.value)
    workers = _workers(images._prefetch._loader)
    images.close()
    for last in list(_finalizer_registry.values()):
        if last._callback is _kill:  # as at the end of this process, which then waits for them
            last()
    for worker in workers:  # the error that is kept here holds them
        worker.join()


def test_files_are_gone_through_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(root, "streaming")

    def refuse(*_: object) -> None:
        raise AssertionError("a file was opened again")

    monkeypatch.setattr("offramp.data.images.files.open_image", refuse)
    again = read(root, "streaming")
    assert data_identity(first) == data_identity(again) and first.mean == again.mean
    with pytest.raises(AssertionError, match="was opened again"):
        read(root, "streaming", size=12)


def test_large_images_are_looked_through_a_few_at_a_time(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand whole photographs were in memory before the first was looked at."""
    read_images: list[None] = []
    ahead: list[int] = []
    make, count = reading._image, reading.value_counts

    def making(*args: Any) -> Tensor | None:
        read_images.append(None)
        return make(*args)

    def counting(images: Tensor) -> Tensor:
        ahead.append(len(read_images) - len(ahead))
        return count(images)

    monkeypatch.setattr(reading, "LEAST", 4)
    monkeypatch.setattr(reading, "ROOM", 1)
    monkeypatch.setattr(reading, "_image", making)
    monkeypatch.setattr(reading, "value_counts", counting)
    streamed = read(photos, "streaming")
    assert max(ahead) <= 4 and len(read_images) == len(ahead) == 78
    assert streamed.train.digest == read(photos, "resident").train.digest


def test_counts_that_were_altered_are_counted_anew(
    photos: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = read(photos, "streaming")
    scans = sorted((cache_folder / "offramp" / "scans").iterdir())
    assert scans
    for path in scans:
        document = json.loads(path.read_text())
        document["scan"]["counts"][0][255] += 10**6
        path.write_text(json.dumps(document))
    again = read(photos, "streaming")
    assert data_identity(first) == data_identity(again) and first.mean == again.mean
    named = sorted(message.partition(" does not match its seal")[0] for message in caplog.messages)
    assert named == [*map(str, scans)]
    caplog.clear()
    assert read(photos, "streaming").mean == first.mean and not caplog.messages


def test_images_that_change_classes_get_another_key(root: Path, tmp_path: Path) -> None:
    """Equal in size and time, so that neither tells."""
    cat, dog = root / "train" / "cat" / "0.jpg", root / "train" / "dog" / "1.jpg"
    longer = max(cat.stat().st_size, dog.stat().st_size)
    for path in (cat, dog):
        path.write_bytes(path.read_bytes().ljust(longer, b"\0"))  # behind the picture's end
        os.utime(path, ns=(10**18, 10**18))
    before = data_identity(read(root, "streaming"))
    assert data_identity(read(root, "streaming")) == before
    dog.rename(tmp_path / "dog")
    cat.rename(dog)
    (tmp_path / "dog").rename(cat)
    after = data_identity(read(root, "streaming"))
    assert after != before and after == data_identity(read(root, "resident"))


@pytest.mark.parametrize("augment", [None, BOXES], ids=["scanned", "held"])
def test_a_file_that_changes_while_it_is_read_is_named(
    augment: Augment | None,
    root: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    train = read(root, "streaming", augment).train
    assert isinstance(train, FileSplit)
    target = Path(train.source.name(int(train.rows[3])))
    if augment is None:  # else the scan is kept, and images are decoded alone
        shutil.rmtree(cache_folder / "offramp" / "scans")
    opened = Files.open

    def swapped(files: Files, row: int) -> Image.Image:
        image = opened(files, row)
        if files.name(row) == str(target):
            target.write_bytes(target.read_bytes() + b"!")
        return image

    monkeypatch.setattr(Files, "open", swapped)
    assert refused(read, root, "streaming" if augment is None else "resident", augment) == snapshot


def test_global_random_numbers_are_left_alone(photos: Path) -> None:
    data = read(photos, "streaming", BOXES)
    before = torch.get_rng_state()
    list(epoch(data, 2))
    assert torch.equal(torch.get_rng_state(), before)


# Memory that processes share


def _write(slots: SharedSlots) -> None:
    for slot in range(slots.count):
        slots.array(slot, (2, 3))[:] = slot + 1


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot fork")
def test_what_a_forked_process_writes_is_seen() -> None:
    slots = SharedSlots.allocate(3, 8)
    assert slots is not None
    assert not slots.array(1, (8,)).any()
    child = multiprocessing.get_context("fork").Process(target=_write, args=(slots,))
    child.start()
    child.join()
    assert child.exitcode == 0
    for slot in range(3):
        expected = np.array([slot + 1] * 6 + [0, 0], dtype=np.uint8)
        assert np.array_equal(slots.array(slot, (8,)), expected)


def test_a_slot_has_its_size_and_no_more() -> None:
    slots = SharedSlots.allocate(2, 6)
    assert slots is not None
    for slot, shape in ((0, (7,)), (2, (1,)), (-1, (1,))):
        with pytest.raises(ValueError, match="there are 2 of 6 bytes"):
            slots.array(slot, shape)


def test_too_much_is_none() -> None:
    assert SharedSlots.allocate(2**40, 2**40) is None
    assert SharedSlots.allocate(1, 2**62) is None
    assert SharedSlots.allocate(1, 0) is None
