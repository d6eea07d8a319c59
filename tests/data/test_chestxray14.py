"""ChestX-ray14 in NIH's layout, made small."""

from pathlib import Path

import pytest
from pictures import counts, noise, read, refused, save
from syrupy.assertion import SnapshotAssertion

from offramp.data import Data

HEAD = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age\n"
PATIENTS, EACH = 60, 3


def findings(patient: int) -> str:
    if patient % 3 == 0:
        return "Infiltration|Pneumonia" if patient % 2 else "Pneumonia"
    return "Hernia" if patient % 20 == 1 else "No Finding"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """60 patients with 3 images each, in two folders; every third has pneumonia, three a hernia."""
    folder = tmp_path / "nih"
    rows = []
    for patient in range(PATIENTS):
        for i in range(EACH):
            name = f"{patient:08d}_{i:03d}.png"
            save(
                folder / f"images_{patient % 2 + 1:03d}/images" / name, noise(EACH * patient + i)[..., 0]
            )
            rows.append(f"{name},{findings(patient)},{i},{patient},50\n")
    (folder / "Data_Entry_2017_v2020.csv").write_text(HEAD + "".join(rows))
    return folder


def xrays(root: Path, **options: object) -> Data:
    return read("chestxray14", root, size=6, channels=1, **options)


def numbers(data: Data, name: str) -> set[int]:
    """Which images (numbered over patients) a split holds."""
    number_of = {noise(i)[..., 0].tobytes(): i for i in range(PATIENTS * EACH)}
    return {number_of[image.numpy().tobytes()] for image in data.splits[name].images}


def patients(data: Data, name: str) -> set[int]:
    return {number // EACH for number in numbers(data, name)}


def test_pneumonia_against_no_finding(root: Path) -> None:
    data = xrays(root)
    assert data.classes == ("No Finding", "Pneumonia")
    everyone = set.union(*(patients(data, name) for name in data.splits))
    assert everyone == {p for p in range(PATIENTS) if findings(p) != "Hernia"}
    for name, split in data.splits.items():
        pneumonia = {p for p in patients(data, name) if "Pneumonia" in findings(p)}
        assert int(split.labels.sum()) == EACH * len(pneumonia)


def test_patients_stay_together_unless_images_are_asked_for(root: Path) -> None:
    data = xrays(root)
    patients_of = [patients(data, name) for name in data.splits]
    assert sum(map(len, patients_of)) == len(set.union(*patients_of))
    assert sum(counts(data).values()) == EACH * len(set.union(*patients_of))
    assert len(data.test) == pytest.approx(0.2 * sum(counts(data).values()), abs=EACH)
    assert patients(xrays(root, split_seed=9), "test") == patients(data, "test")
    assert patients(xrays(root, split_seed=9), "validation") != patients(data, "validation")
    torn = xrays(root, split="image")
    assert patients(torn, "test") & patients(torn, "train")
    assert not numbers(torn, "test") & numbers(torn, "train")


def test_nihs_own_lists(root: Path, snapshot: SnapshotAssertion) -> None:
    names = sorted(path.name for path in root.rglob("*.png"))
    test = {name for name in names if int(name[:8]) >= 45}
    (root / "test_list.txt").write_text("\n".join(sorted(test)))
    assert refused(xrays, root, split="official") == snapshot
    (root / "train_val_list.txt").write_text("\n".join(n for n in names if n not in test))
    assert min(patients(xrays(root, split="official"), "test")) == 45
    (root / "train_val_list.txt").write_bytes(b"\xff\xfe")
    assert "NIH's two lists" in refused(xrays, root, split="official")
    (root / "train_val_list.txt").write_text("\n".join(n for n in names[1:] if n not in test))
    assert refused(xrays, root, split="official") == snapshot


def test_fewer_negatives_in_training_alone(root: Path, snapshot: SnapshotAssertion) -> None:
    whole, thin = xrays(root), xrays(root, negatives=1)
    assert thin.test.digest == whole.test.digest
    by_class = sum(thin.splits[n].labels.bincount() for n in ("train", "validation", "calibration"))
    assert by_class[0] == by_class[1]
    assert thin.provenance["negatives_left_out"] == sum(counts(whole).values()) - sum(
        counts(thin).values()
    )
    assert refused(xrays, root, negatives=0) == snapshot


def test_absent_images(root: Path, snapshot: SnapshotAssertion) -> None:
    for path in root.rglob("0000000[3-5]_*.png"):
        path.unlink()
    assert refused(xrays, root) == snapshot
    data = xrays(root, partial=True)
    assert data.provenance["absent"] == 9
    assert sum(counts(data).values()) == 174 - 9


def test_what_is_wrong_is_named(root: Path, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert refused(xrays, root, split="patients") == snapshot
    assert refused(xrays, tmp_path / "none") == snapshot
    table = root / "Data_Entry_2017_v2020.csv"
    table.write_text("Image Index,Finding Labels\na.png,Pneumonia\n")
    assert refused(xrays, root) == snapshot
    table.write_text(HEAD + "a.png,Hernia,0,1,50\n")
    assert refused(xrays, root) == snapshot
    table.unlink()
    assert refused(xrays, root) == snapshot
