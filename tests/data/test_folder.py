"""Folders of images: layouts, groups, duplicates, damage."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pictures import (
    REAL,
    as_tensor,
    counts,
    digests,
    noise,
    pixel_hash,
    read,
    real,
    refused,
    save,
    smooth,
    tree,
)
from syrupy.assertion import SnapshotAssertion

from offramp.data import Data
from offramp.data.images.files import open_image, pixels
from offramp.data.notes import notes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(tmp_path / "pets")


def hashes(data: Data, *names: str) -> set[str]:
    return {pixel_hash(image) for name in names for image in data.splits[name].images}


def test_split_folders(root: Path) -> None:
    data = read("folder", root)
    assert data.classes == ("cat", "dog")
    assert counts(data) == {"train": 12, "validation": 6, "calibration": 6, "test": 24}
    assert data.test.labels.tolist() == [0] * 12 + [1] * 12
    order = sorted(range(12), key=lambda i: f"p{i // 2}_{i}.png")  # by name
    assert torch.equal(data.test.images[0], as_tensor(noise(24 + order[0])))
    assert torch.equal(data.test.images[5], as_tensor(noise(24 + order[5])))
    assert data.provenance["files"] == {"test": 24, "train": 24}
    assert str(root) not in str([data.train.digest, data.classes])


def test_all_four_splits_may_be_given_under_their_usual_names(
    root: Path, snapshot: SnapshotAssertion
) -> None:
    (root / "train").rename(root / "Training")
    tree(root, ("val", "calib"), n=4)
    assert counts(read("folder", root)) == {"train": 24, "validation": 8, "calibration": 8, "test": 24}
    (root / "valid").mkdir()
    assert refused(read, "folder", root) == snapshot


def test_classes_alone_are_split_by_content(
    root: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    flat = root / "train"
    data = read("folder", flat)
    assert counts(data)["test"] == 4
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    everything = hashes(data, "train", "validation", "calibration")
    assert len(everything) == 20 and not everything & hashes(data, "test")
    # Neither names nor the seed nor another place change what is in test; the share does.
    moved = tmp_path / "moved"
    for i, path in enumerate(sorted(flat.rglob("*.png"))):
        (moved / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, moved / path.parent.name / f"{97 * i % 31}.png")
    assert hashes(read("folder", moved, split_seed=4), "test") == hashes(data, "test")
    assert counts(read("folder", flat, test_share=0.5))["test"] == 12
    assert refused(read, "folder", flat, test_share=1.0) == snapshot


def test_what_becomes_of_a_validation_split_without_a_test_split(
    root: Path, snapshot: SnapshotAssertion
) -> None:
    (root / "test").rename(root / "val")
    data = read("folder", root)
    assert counts(data) == {"train": 12, "validation": 24, "calibration": 6, "test": 6}
    assert "no test split, so 6 images of train are held out as test" in notes(data.provenance)[0]
    meant = read("folder", root, validation="val")
    assert digests(meant) == digests(data) and "no test split" not in str(notes(meant.provenance))
    other = read("folder", root, test="val")
    assert counts(other) == {"train": 12, "validation": 6, "calibration": 6, "test": 24}
    assert other.test.digest == data.validation.digest
    shared = read("folder", root, test_share=0.5)
    assert counts(shared) == {"train": 10, "validation": 24, "calibration": 2, "test": 12}
    assert "no test split" not in str(notes(shared.provenance))
    assert refused(read, "folder", root, test_share=0.5, test="val") == snapshot
    tree(root, ("test",))
    assert refused(read, "folder", root, test_share=0.5) == snapshot
    assert refused(read, "folder", root, test="val") == snapshot
    shutil.rmtree(root / "val")
    assert refused(read, "folder", root, test="val") == snapshot
    assert refused(read, "folder", root, validation="val") == snapshot


@pytest.mark.parametrize("group", [None, ".+"])
def test_equal_images_are_in_one_split_of_those_that_are_made(root: Path, group: str | None) -> None:
    """The control: by groups alone, each with a copy in another group, they are torn apart."""
    flat = root / "train"
    for i, path in enumerate(sorted(flat.rglob("*.png"))):
        for copy in range(3):
            shutil.copy(path, path.with_name(f"copy{100 * i + copy}.png"))
    data = read("folder", flat, group=group)
    assert len(data.test) and not any("in" in key.split() for key in data.provenance["duplicates"])


def test_a_class_named_train_is_no_split(tmp_path: Path) -> None:
    for name in ("train", "tram"):
        for i in range(30):
            save(tmp_path / name / f"{i}.png", noise(i + len(name) * 100))
    assert read("folder", tmp_path).classes == ("train", "tram")


def test_splits_of_images_without_classes_are_no_classes(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    for name in ("train", "test"):
        for i in range(30):
            save(tmp_path / name / f"{'cat' if i % 2 else 'dog'}.{i}.png", noise(i))
    assert refused(read, "folder", tmp_path) == snapshot


def test_planted_duplicates_are_counted(root: Path) -> None:
    assert read("folder", root).provenance["duplicates"] == {}
    shutil.copy(root / "test/cat/p0_0.png", root / "test/dog/again.png")
    shutil.copy(root / "test/cat/p0_1.png", root / "train/cat/leaked.png")
    data = read("folder", root, validation="test")
    duplicates = data.provenance["duplicates"]
    assert duplicates["test"] == 1
    assert sum(duplicates.get(f"test in {name}", 0) for name in ("train", "calibration")) == 1


def test_no_group_is_in_two_splits(root: Path) -> None:
    """p0 to p5 are in train and in test; give train four more."""
    for i in range(40):
        save(root / "train/cat" / f"q{i // 4}_{i}.png", noise(1000 + i))
        save(root / "train/dog" / f"r{i // 4}_{i}.png", noise(2000 + i))
    plain = read("folder", root)
    assert plain.provenance["group_in_another_split"] == {}
    data = read("folder", root, group=r"[pqr]\d+")
    assert data.provenance["group_in_another_split"] == {"train": {"images": 24, "groups": 6}}
    assert counts(data) == {"train": 48, "validation": 16, "calibration": 16, "test": 24}
    where = {
        pixel_hash(as_tensor(noise(start + i))): f"{start} {i // 4}"
        for start in (1000, 2000)
        for i in range(40)
    }
    groups = {n: {where[h] for h in hashes(data, n)} for n in ("train", "validation", "calibration")}
    assert all(groups.values())
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == 20
    # The control: without groups they are torn apart.
    torn = {n: {where.get(h) for h in hashes(plain, n)} - {None} for n in ("train", "validation")}
    assert torn["train"] & torn["validation"]


def test_a_group_is_what_the_expression_names(root: Path, snapshot: SnapshotAssertion) -> None:
    assert refused(read, "folder", root, group=r"q(\d+)") == snapshot
    assert refused(read, "folder", root, group="(p") == snapshot
    assert refused(read, "folder", root, group=r"(p)\d") == snapshot
    alone = read("folder", root / "train", group=r"p(\d+)_")
    groups = {pixel_hash(as_tensor(noise(12 * c + i))): (c, i // 2) for c in range(2) for i in range(12)}
    test = {groups[h] for h in hashes(alone, "test")}
    rest = {groups[h] for h in hashes(alone, "train", "validation", "calibration")}
    assert {number for _, number in test}.isdisjoint(number for _, number in rest)


def test_a_group_may_be_named_by_letters_that_are_no_utf_8(root: Path) -> None:
    save(root / "train/cat" / os.fsdecode(b"b\xe4r_99.png"), noise(77))
    assert sum(counts(read("folder", root / "train", group=r"(.+)_\d+")).values()) == 25


def test_a_damaged_image_is_named_or_skipped_and_counted(
    root: Path, snapshot: SnapshotAssertion
) -> None:
    broken = root / "test/dog/p3_6.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert refused(read, "folder", root) == snapshot
    data = read("folder", root, on_error="skip")
    assert data.provenance["skipped"] == {"test": [str(broken)]}
    assert data.test.labels.tolist() == [0] * 12 + [1] * 11
    order = sorted(range(12), key=lambda i: f"p{i // 2}_{i}.png")
    left = [i for i in order if i != 6]
    assert torch.equal(data.test.images[12:], torch.stack([as_tensor(noise(36 + i)) for i in left]))
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"")
    assert refused(read, "folder", root, on_error="skip") == snapshot


def test_only_images_that_are_used_are_opened(root: Path, snapshot: SnapshotAssertion) -> None:
    data = read("folder", root, test_images=2)
    used = hashes(data, "test")
    for path in (root / "test").rglob("*.png"):
        if pixel_hash(pixels(open_image(path, "it"))) not in used:
            path.write_bytes(b"")
    assert read("folder", root, test_images=2).test.digest == data.test.digest
    assert refused(read, "folder", root) == snapshot


def test_sizes_are_compared_with_an_image_that_was_read(root: Path, snapshot: SnapshotAssertion) -> None:
    (root / "test/cat/p0_0.png").write_bytes(b"")
    save(root / "test/cat/wide.jpg", smooth(20, 90))
    assert refused(read, "folder", root, on_error="skip") == snapshot


def test_sizes_and_channels(root: Path, snapshot: SnapshotAssertion) -> None:
    save(root / "test/cat/wide.jpg", smooth(20, 90))
    assert refused(read, "folder", root) == snapshot
    assert read("folder", root, size=8).shape == (3, 8, 8)
    assert read("folder", root, size=8, resize=10, channels=1).shape == (1, 8, 8)
    cropped, stretched = (read("folder", root, size=8, fit=fit) for fit in ("crop", "stretch"))
    assert cropped.test.digest != stretched.test.digest


def emptied(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


DOGS = "test/dog"
WRONG: dict[str, Callable[[Path], object]] = {
    "missing": shutil.rmtree,
    "no classes": lambda root: save(emptied(root) / "a.png", noise(1)),
    "one class": lambda root: [shutil.rmtree(root / split / "dog") for split in ("train", "test")],
    "empty class": lambda root: emptied(root / DOGS),
    "only text": lambda root: [
        (emptied(root / DOGS) / "notes.txt").write_text("no image"),
        save(root / DOGS / ".hidden.png", noise(1)),
    ],
    "extra class": lambda root: save(root / "test/emu/a.png", noise(1)),
    "absent class": lambda root: shutil.rmtree(root / DOGS),
    "pipe": lambda root: os.mkfifo(root / DOGS / "a.png"),
    "linked pipe": lambda root: [
        os.mkfifo(root / DOGS / "b.fifo"),
        (root / DOGS / "a.png").symlink_to(root / DOGS / "b.fifo"),
    ],
}


@pytest.mark.parametrize("harm", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_clear_line(
    root: Path, harm: Callable[[Path], object], snapshot: SnapshotAssertion
) -> None:
    harm(root)
    line = refused(read, "folder", root)
    assert line == snapshot and line == refused(read, "folder", root, on_error="skip")


def test_a_folder_of_links_holds_the_images_that_they_lead_to(root: Path) -> None:
    plain = digests(read("folder", root))
    for place in list(root.rglob("*.png")):
        place.symlink_to(place.rename(root.parent / "-".join(place.relative_to(root).parts)))
    (root / DOGS).symlink_to((root / DOGS).rename(root.parent / "dogs"))
    assert digests(read("folder", root)) == plain


@pytest.mark.parametrize("target", ["nowhere.png", "a.png"])
def test_a_link_that_leads_nowhere_is_an_unreadable_image(root: Path, target: str) -> None:
    whole = len(read("folder", root).test)
    (root / DOGS / "a.png").symlink_to(root / DOGS / target)
    line = refused(read, "folder", root)
    assert f"{DOGS}/a.png" in line and "replace or remove" in line
    assert len(read("folder", root, on_error="skip").test) == whole


def test_links_inside_hidden_files_and_deeper_folders(root: Path) -> None:
    (root / "test/dog/again.png").symlink_to(root / "test/dog/p0_0.png")
    (root / "test/dog/round").symlink_to(root / "test/dog")  # would never end
    save(root / "test/dog/deeper/still/a.JPG", noise(5), format="JPEG")
    save(root / "test/dog/.trash/b.png", noise(6))
    save(root / ".thumbs/c.png", noise(7))
    assert len(read("folder", root).test) == 24 + 2


@pytest.mark.long  # the same of made images is above
@real("chest_xray")
def test_real_chest_x_rays() -> None:
    patients = r"(?:NORMAL2-)?IM-\d+|person\d+"
    data = read("folder", REAL / "chest_xray", size=96, channels=1, group=patients)
    assert data.classes == ("NORMAL", "PNEUMONIA")
    assert data.shape == (1, 96, 96)
    assert data.provenance["available"] == {"train": 600, "test": 200}
    assert data.provenance["group_in_another_split"] == {"train": {"images": 12, "groups": 11}}
    assert data.provenance["duplicates"] == {"test": 3}
    assert sum(counts(data).values()) == 800 - 12
    plain = read("folder", REAL / "chest_xray", size=96, channels=1)
    assert sum(counts(plain).values()) == 800
    assert plain.test.digest == data.test.digest


def test_classes_of_one_image_make_no_test_split(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    for i, label in enumerate(("cat", "dog")):
        save(tmp_path / "few" / label / "1.png", noise(i))
        for k in range(2):
            save(tmp_path / "one" / label / f"{label}{k}.png", noise(9 + 2 * i + k))
    assert refused(read, "folder", tmp_path / "few") == snapshot
    assert refused(read, "folder", tmp_path / "one", group="[a-z]+") == snapshot
