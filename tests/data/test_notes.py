"""What is said of splits before anything trains on them."""

import math
import shutil
from pathlib import Path

import numpy as np
import torch
from pictures import REAL, read, real
from scipy import stats
from syrupy.assertion import SnapshotAssertion

from offramp.data.notes import chi_squared_p, duplicates, notes, remarks, torn

CLASSES = ("normal", "pneumonia")


def remark(
    train: tuple[int, int], calibration: tuple[int, int], others: tuple[int, int] = (99, 99)
) -> str:
    splits = {"train": train, "validation": others, "calibration": calibration, "test": others}
    return " ".join(remarks(splits, CLASSES))


def test_shares_that_differ_by_more_than_chance_are_told() -> None:
    assert "50 % of it is 'normal', of train 19 %" in remark((72, 298), (50, 50))
    assert remark((112, 338), (50, 50))
    assert not remark((112, 338), (25, 75)) and not remark((100, 300), (33, 67))
    assert not remark((100, 0), (100, 0), (100, 0))  # and a class that is nowhere is no difference


def test_a_class_that_other_splits_alone_show_is_told(snapshot: SnapshotAssertion) -> None:
    assert remark((100, 0), (100, 0), (99, 1)) == snapshot


def test_false_alarms_are_rare() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = (torch.rand(1000, 600, generator=draw) < 0.2).sum(1)
    alarms = sum(bool(remark((2000, 8000), (int(n), 600 - int(n)))) for n in labels)
    assert alarms <= 5


def test_p_is_that_of_scipy() -> None:
    draw = np.random.default_rng(0)
    for classes in (2, 3, 40):
        table = draw.integers(1, 300, (2, classes)).astype(float)
        expected = stats.chi2_contingency(table, correction=False).pvalue
        assert math.isclose(chi_squared_p(table), expected, rel_tol=1e-9)


def test_few_images_are_told_with_what_follows(snapshot: SnapshotAssertion) -> None:
    assert not remark((50, 50), (50, 50), (50, 50))
    words = remark((40, 40), (10, 10), (15, 20))
    assert words == snapshot and "5 points" in words and "±17 points" in words


@real("chest_xray")
def test_uneven_x_rays(tmp_path: Path) -> None:
    """150 of one class and 400 of the other, in one folder: every split has as large a share of them."""
    for name, count in (("NORMAL", 150), ("PNEUMONIA", 400)):
        (tmp_path / name).mkdir()
        for i, path in enumerate(sorted((REAL / "chest_xray").glob(f"*/{name}/*"))[:count]):
            shutil.copy(path, tmp_path / name / f"{i}{path.suffix}")
    data = read("folder", tmp_path, size=16, channels=1)
    shares = [float((split.labels == 0).float().mean()) for split in data.splits.values()]
    assert all(abs(share - 150 / 550) < 0.02 for share in shares), shares
    assert "other shares" not in str(notes(data.provenance))


def test_images_that_are_there_twice_are_counted_in_the_later_split() -> None:
    digests = {
        "train": ["a", "b", "b", "c"],
        "validation": ["c", "d"],
        "calibration": ["e", "d", "d"],
        "test": ["a", "a", "c", "f"],
    }
    assert duplicates(digests) == {
        **{"train": 1, "calibration": 1, "test": 1},
        **{"validation in train": 1, "test in train": 3},
        **{"calibration in validation": 2, "test in validation": 1},
    }
    twin = digests["test"]  # a test split that serves for validation is no copy of itself
    assert duplicates({"validation": twin, "test": twin}) == {"validation": 1, "test": 1}


def test_equal_images_with_unlike_labels_are_found_in_and_across_splits() -> None:
    digests = {"train": ["a", "b", "b", "c"], "test": ["c", "d", "a", "d"]}
    labels = {"train": [0, 1, 1, 0], "test": [1, 0, 0, 2]}
    assert torn(digests, labels) == (4, (("train", 3), ("test", 0)))  # both c, both d
    assert torn(digests, {**labels, "test": [0, 2, 0, 2]}) == (0, ())
