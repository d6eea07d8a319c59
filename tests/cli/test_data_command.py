"""`offramp data`: planted faults are found and named, and the sheet shows what it says."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Cli, ok, refusal, refused
from PIL import Image
from syrupy.assertion import SnapshotAssertion

import offramp.api.train.data as audits
from offramp.data import DataSpec, load
from offramp.data.images.sheet import CELL, EDGE, GAP, HEAD, LABEL, MOST_CLASSES
from wording import stable

SPLITS = {"train": 14, "test": 5}
SAVED = "data.split_file=s.json"
LONG_NAME = "a class with quite a long name"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Different pictures of 20 px; those of dogs are bright."""
    root = tmp_path / "photos"
    generator = np.random.default_rng(8)
    for split, count in SPLITS.items():
        for shade, name in ((0, "cat"), (120, "dog")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(shade, shade + 100, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"p{number}_{split}.png")
    return root


def check(cli: Cli, root: Path, *more: str) -> tuple[int, list[str], list[str]]:
    answer = cli("data", "check", f"folder:{root}", *more, "--json")
    said = json.loads(answer.out)
    notes = [note for note in said["notes"] if not note.startswith("few images")]
    return answer.code, said["wrong"], notes


def stable_lines(lines: list[str]) -> str:
    return stable("\n".join(lines))


def test_nothing_is_wrong_with_good_data(cli: Cli, photos: Path, snapshot: SnapshotAssertion) -> None:
    assert check(cli, photos) == (0, [], [])
    answer = ok(cli("data", "check", f"folder:{photos}"))
    assert answer.out.splitlines()[-1] == snapshot(name="photos")
    assert cli("data", "check", "digits").out == snapshot(name="digits")


def test_a_damaged_file_is_named(cli: Cli, photos: Path) -> None:
    bad = photos / "test" / "dog" / "p3_test.png"
    bad.write_bytes(bad.read_bytes()[:60])
    code, wrong, _ = check(cli, photos)
    assert code == 1 and len(wrong) == 1 and str(bad) in wrong[0]
    said = json.loads(cli("data", "describe", f"folder:{photos}", "--no-sheet", "--json").out)
    assert [len(split["damaged"]) for split in said["splits"].values()].count(1) == 1
    assert str(bad) in cli("data", "check", f"folder:{photos}").out


def copy(one: Path, other: Path) -> None:
    other.write_bytes(one.read_bytes())


def test_labels_far_apart_make_no_list_of_what_is_between(cli: Cli, tmp_path: Path) -> None:
    """A label of 10**8 took five gigabytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)

    def written(label: int) -> str:
        labels = np.where(np.arange(60) == 7, label, np.arange(60) % 2)
        np.savez(tmp_path / "a.npz", train_images=pixels, train_labels=labels)
        return f"npz:{tmp_path}"

    for label in (10**8, 2**62):
        for command in ("describe", "check"):
            refused(cli("data", command, written(label)), "at most 100,000 classes")
    whole = json.loads(cli("data", "check", written(3000), "--json").out)
    assert len(whole["wrong"]) == 4 * 1001 and "1,998 more" in whole["wrong"][1000]
    described = cli("data", "describe", written(3000), "--no-sheet")
    assert described.code == 0 and "and 2,001 more classes" in described.out
    assert cli("data", "check", written(1)).code == 0


def test_copies_are_told_by_where_they_are(
    cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """Within a split a note, in two splits or in two classes wrong."""
    test, train = photos / "test", photos / "train"
    copy(test / "cat" / "p0_test.png", test / "cat" / "again.png")
    code, wrong, notes = check(cli, photos)
    assert (code, wrong) == (0, []) and notes == snapshot(name="within a split")
    copy(test / "cat" / "p1_test.png", test / "dog" / "again.png")
    code, wrong, _ = check(cli, photos)
    assert code == 1 and stable_lines(wrong) == snapshot(name="in two classes")
    for number in range(2):
        copy(test / "dog" / f"p{number}_test.png", train / "dog" / f"again{number}.png")
    code, wrong, _ = check(cli, photos)
    assert code == 1 and len(wrong) in (2, 3)
    assert sum("both test and " in line for line in wrong) == len(wrong) - 1
    said = json.loads(cli("data", "describe", f"folder:{photos}", "--no-sheet", "--json").out)
    assert len(said["copies"]) == 4
    monkeypatch.setattr(audits, "MOST", 3)
    table = cli("data", "describe", f"folder:{photos}", "--no-sheet").out.partition("Duplicates")[2]
    assert "4 images" in table and "and 1 more" in table


def test_groups_in_two_splits_are_told(cli: Cli, photos: Path, snapshot: SnapshotAssertion) -> None:
    code, wrong, notes = check(cli, photos, "--set", r"data.group=p\d+")
    assert code == 0 and not wrong and stable_lines(notes) == snapshot


def test_sizes_that_differ_are_wrong_until_one_is_asked_for(
    cli: Cli, photos: Path, snapshot: SnapshotAssertion
) -> None:
    Image.new("RGB", (31, 23), (9, 9, 9)).save(photos / "test" / "cat" / "wide.png")
    code, wrong, _ = check(cli, photos)
    assert code == 1 and wrong == snapshot
    assert check(cli, photos, "--set", "data.size=16")[:2] == (0, [])
    assert "20–31 × 20–23, 2 sizes, most often 20 × 20" in " ".join(
        cli("data", "describe", f"folder:{photos}", "--no-sheet").out.split()
    )


def test_uneven_classes_are_a_note(cli: Cli, photos: Path) -> None:
    for number in range(6):
        for path in (photos / "train" / "cat").glob("p*_train.png"):
            with Image.open(path) as image:
                image.putpixel((number, 0), (255, number, 0))
                image.save(path.with_name(f"more{number}_{path.name}"))
    code, wrong, notes = check(cli, photos)
    assert code == 0 and not wrong and "class_weights: balanced" in notes[0]


def test_a_data_set_is_named_by_place_or_as_elsewhere(cli: Cli, photos: Path) -> None:
    name = f"folder:{photos}"
    assert cli("data", "check", "--data", name) == cli("data", "check", name)
    assert cli("data", "check", name, "--data", name).code == 0
    refused(cli("data", "check", name, "--data", "digits"), f"{name} and --data digits")
    assert "Missing argument 'NAME'" in cli("data", "check").err


def described(cli: Cli, *arguments: str) -> Any:
    return json.loads(cli("data", "describe", *arguments, "--json").out)


def test_a_class_called_all_has_a_row_of_its_own(cli: Cli, photos: Path) -> None:
    """It had the numbers of all images."""
    for split in SPLITS:
        (photos / split / "cat").rename(photos / split / "all")
    lines = cli("data", "describe", f"folder:{photos}", "--no-sheet").out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("all")] == ["5", "10"]


def test_description_of_digits(cli: Cli) -> None:
    said = described(cli, "digits", "--no-sheet")
    sizes = {"train": 948, "validation": 200, "calibration": 200, "test": 449}
    assert {n: s["images"] for n, s in said["splits"].items()} == sizes
    assert said["splits"]["train"]["by_class"]["0"] == 93
    assert said["splits"]["test"]["sizes"] == [{"width": 8, "height": 8, "images": 449}]
    data = load(DataSpec("digits"))
    assert said["mean"] == list(data.mean) and said["std"] == list(data.std)
    assert not list(Path().glob("*.png"))


def pixels_of(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_a_sheet_has_a_row_for_each_class_and_shows_views_beside_images(cli: Cli, photos: Path) -> None:
    plain = described(cli, f"folder:{photos}")
    augmented = described(cli, f"folder:{photos}", "--augment", "[flip, crop]", "--sheet", "views.png")
    assert plain["sheet"] == "photos-sheet.png" and augmented["sheet"] == "views.png"
    sheets = [pixels_of(said["sheet"]) for said in (plain, augmented)]
    top, left = HEAD + 20, EDGE + LABEL + 20
    for pixels in sheets:
        assert len(pixels) == HEAD + 2 * (CELL + GAP) + EDGE
        rows = [pixels[top + n * (CELL + GAP) :][:40] for n in (0, 1)]
        cat, dog = (row[:, left : left + 40].mean() for row in rows)
        assert cat < 70 and dog > 150  # cats are dark, dogs bright
    cells = [sheets[1][top : top + 40, left + n * (CELL + GAP) :][:, :40] for n in (0, 1)]
    assert not np.array_equal(*cells)
    again = described(cli, f"folder:{photos}", "--augment", "[flip, crop]", "--sheet", "again.png")
    assert Path("views.png").read_bytes() == Path(again["sheet"]).read_bytes()


def test_a_sheet_shows_the_views_that_train(cli: Cli, photos: Path) -> None:
    """Of two views in turn, epochs 0 and 2 have the same."""
    said = described(cli, f"folder:{photos}", "--augment", "{crop: 4, views: 2}", "--sheet", "two.png")
    pixels, left = pixels_of(said["sheet"]), EDGE + LABEL
    cells = [pixels[HEAD : HEAD + CELL, left + n * (CELL + GAP) :][:, :CELL] for n in (1, 2, 3)]
    assert np.array_equal(cells[0], cells[2]) and not np.array_equal(cells[0], cells[1])


OWN = """\
import torch


def own():
    return {"train": (PIXELS, torch.arange(60) % 3)}
"""


@pytest.mark.parametrize(
    ("pixels", "augment", "message"),
    [
        ("torch.randn(60, 3, 8, 8)", "{resized_crop: [0.5, 1]}", "needs uint8 images"),
        ("torch.randn(60, 3, 8, 8)", "{jitter: 0.2}", "needs uint8 images"),
        ("torch.ones(60, 3, 8, 8).byte()", "{crop: 9, pad: reflect}", "cannot reflect images of 8×8"),
        ("torch.ones(60, 4, 8, 8).byte()", "{resized_crop: [0.5, 1]}", "works on 1 or 3 channels"),
    ],
    ids=["box-of-floats", "jitter-of-floats", "reflected", "channels"],
)
def test_a_sheet_is_refused_where_training_would_be(
    cli: Cli, tmp_path: Path, pixels: str, augment: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("PIXELS", pixels))
    refused(cli("data", "describe", f"{tmp_path}/own.py:own", "--augment", augment), message)


def test_a_sheet_of_many_classes_says_that_it_is_not_all(cli: Cli, tmp_path: Path) -> None:
    for number in range(MOST_CLASSES + 3):
        place = tmp_path / "many" / f"{LONG_NAME} {number:02d}"
        place.mkdir(parents=True)
        for image in range(5):
            Image.new("L", (9, 9), number * 9 + image).save(place / f"{image}.png")
    said = described(cli, f"folder:{tmp_path / 'many'}")
    height = HEAD + MOST_CLASSES * (CELL + GAP) + EDGE
    assert len(pixels_of(said["sheet"])) == height and len(said["classes"]) == MOST_CLASSES + 3


def test_damaged_images_are_not_on_the_sheet(cli: Cli, photos: Path) -> None:
    for path in sorted((photos / "train" / "cat").iterdir())[:10]:
        path.write_bytes(b"no image")
    said = described(cli, f"folder:{photos}")
    damaged = sum("no readable image" in line for line in said["wrong"])
    assert damaged == 10 and pixels_of(said["sheet"]).shape[1] > 1000


def test_a_saved_split_is_the_one_that_a_study_gets(
    cli: Cli, photos: Path, snapshot: SnapshotAssertion
) -> None:
    few = ("--train-images", "20", "--seed", "3", "--out", "s.json")
    answer = cli("data", "split", f"folder:{photos}", *few)
    assert (answer.code, answer.err) == (0, "")
    assert " ".join(answer.out.split()) == snapshot
    given = DataSpec("folder", root=str(photos), train_images=20, split_seed=3)
    listed = DataSpec("folder", root=str(photos), split_file="s.json")
    one, other = load(given), load(listed)
    assert all(one.splits[name].digest == other.splits[name].digest for name in one.splits)
    assert load(DataSpec("folder", root=str(photos))).train.digest != one.train.digest
    said = described(cli, f"folder:{photos}", "--no-sheet", "--set", SAVED)
    sizes = {"train": 12, "validation": 4, "calibration": 4, "test": 10}
    assert {name: split["images"] for name, split in said["splits"].items()} == sizes


def test_a_split_is_told_to_programs_with_what_it_leaves_out(
    cli: Cli, photos: Path, snapshot: SnapshotAssertion
) -> None:
    groups = ("--set", r"data.group=p\d+", "--set", "data.validation=test")
    said = json.loads(cli("data", "split", f"folder:{photos}", *groups, "--out", "s.json", "--json").out)
    assert said["images"]["validation"] == said["images"]["test"] == 10
    assert stable_lines(said["notes"]) == snapshot(name="notes")
    again = cli("data", "split", f"folder:{photos}", *groups, "--out", "s.json")
    assert refusal(again) == snapshot(name="there already")
    text = cli("data", "split", f"folder:{photos}", *groups, "--out", "t.json").out
    assert "Note: " in text and "validation is test." in " ".join(text.split())


def rewritten(path: Path) -> None:
    """Another content of the same size, at the same time."""
    state, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # behind the picture's end
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    while path.stat().st_ctime_ns == state.st_ctime_ns:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_what_is_not_what_it_was_is_named_by_a_fresh_check_alone(
    cli: Cli, photos: Path, snapshot: SnapshotAssertion
) -> None:
    target = photos / "test" / "dog" / "p1_test.png"
    assert check(cli, photos, "--fresh") == (0, [], [])
    rewritten(target)
    code, wrong, _ = check(cli, photos, "--fresh")
    assert code == 1 and stable_lines(wrong) == snapshot
    assert check(cli, photos, "--fresh") == (0, [], [])  # as it says: known now
    rewritten(target)
    assert check(cli, photos) == (0, [], [])
    assert cli("data", "check", "digits", "--fresh").code == 0


def test_a_fresh_check_names_it_also_where_hashes_choose_the_splits(cli: Cli, photos: Path) -> None:
    """There opening the data set has hashed the file before anything is compared."""
    root = photos / "train"
    target = root / "dog" / "p1_train.png"
    assert check(cli, root, "--fresh") == (0, [], [])
    rewritten(target)
    code, wrong, _ = check(cli, root, "--fresh")
    assert code == 1 and [str(target) in line for line in wrong] == [True]
    assert check(cli, root, "--fresh") == (0, [], [])


def test_a_cache_that_was_altered_is_said_in_one_line(
    cli: Cli, photos: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    assert check(cli, photos)[0] == 0
    (kept,) = (tmp_path / "cache" / "offramp" / "manifests").iterdir()
    kept.write_text(kept.read_text().replace('"root"', '"toor"'))
    answer = cli("data", "check", f"folder:{photos}")
    assert answer.code == 0 and "nothing wrong" in answer.out
    assert stable(answer.err.replace(kept.name, "KEPT")) == snapshot
    assert cli("data", "check", f"folder:{photos}").err == ""


@pytest.mark.parametrize("labels", [[0, 1], [-1, 1], [0, 0]])
def test_labels_that_name_no_class_are_one_line(
    cli: Cli, tmp_path: Path, labels: list[int], snapshot: SnapshotAssertion
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    train = np.array(labels * 30)
    arrays = {"train_images": images, "train_labels": train}
    arrays |= {"test_images": images[:8], "test_labels": np.arange(8) % 4}
    np.savez(tmp_path / "cells.npz", **arrays)
    file = f"npz:{tmp_path / 'cells.npz'}"
    described, checked = (refusal(cli("data", command, file)) for command in ("describe", "check"))
    assert described == checked == snapshot
