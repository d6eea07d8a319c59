"""ChestX-ray14 in NIH's layout, made small."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import counts, noise, read, save

from offramp.data import Data
from refusal import refuses

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


def xrays(root: Path, **given: object) -> Data:
    return read("chestxray14", root, size=6, channels=1, **given)


def numbers(data: Data, name: str) -> set[int]:
    """Which images (numbered over patients) a split holds."""
    known = {noise(i)[..., 0].tobytes(): i for i in range(PATIENTS * EACH)}
    return {known[image.numpy().tobytes()] for image in data.splits[name].images}


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
    shown = [patients(data, name) for name in data.splits]
    assert sum(map(len, shown)) == len(set.union(*shown))
    assert sum(counts(data).values()) == EACH * len(set.union(*shown))
    assert len(data.test) == pytest.approx(0.2 * sum(counts(data).values()), abs=EACH)
    assert patients(xrays(root, split_seed=9), "test") == patients(data, "test")
    assert patients(xrays(root, split_seed=9), "validation") != patients(data, "validation")
    torn = xrays(root, split="image")
    assert patients(torn, "test") & patients(torn, "train")
    assert not numbers(torn, "test") & numbers(torn, "train")


def test_nihs_own_lists(root: Path) -> None:
    names = sorted(path.name for path in root.rglob("*.png"))
    test = {name for name in names if int(name[:8]) >= 45}
    (root / "test_list.txt").write_text("\n".join(sorted(test)))
    refuses(r"holds no train_val_list\.txt; fetch", xrays, root, split="official")
    (root / "train_val_list.txt").write_text("\n".join(n for n in names if n not in test))
    assert min(patients(xrays(root, split="official"), "test")) == 45
    (root / "train_val_list.txt").write_text("\n".join(n for n in names[1:] if n not in test))
    refuses(r"00000000_000\.png is in neither list", xrays, root, split="official")


def test_fewer_negatives_in_training_alone(root: Path) -> None:
    whole, thin = xrays(root), xrays(root, negatives=1)
    assert thin.test.digest == whole.test.digest
    kept = sum(thin.splits[n].labels.bincount() for n in ("train", "validation", "calibration"))
    assert kept[0] == kept[1]
    assert thin.provenance["negatives_left_out"] == sum(counts(whole).values()) - sum(
        counts(thin).values()
    )
    refuses(r"data\.negatives is 0; give a number above zero", xrays, root, negatives=0)


def test_absent_images(root: Path) -> None:
    for path in root.rglob("0000000[3-5]_*.png"):
        path.unlink()
    refuses(r"lacks 9 of the 174 images .* 00000003_000\.png first.*partial", xrays, root)
    data = xrays(root, partial=True)
    assert data.provenance["absent"] == 9
    assert sum(counts(data).values()) == 174 - 9


def test_what_is_wrong_is_named(root: Path, tmp_path: Path) -> None:
    refuses(
        r"data\.split cannot be 'patients': .* 'patient', 'image' or 'official'",
        xrays,
        root,
        split="patients",
    )
    refuses(r"there is no folder .*nihcc\.app\.box\.com", xrays, tmp_path / "none")
    table = root / "Data_Entry_2017_v2020.csv"
    table.write_text("Image Index,Finding Labels\na.png,Pneumonia\n")
    refuses(r"is not NIH's table .*Patient ID", xrays, root)
    table.write_text(HEAD + "a.png,Hernia,0,1,50\n")
    refuses("names no image with 'Pneumonia'", xrays, root)
    table.unlink()
    refuses(r"holds no Data_Entry_2017\*\.csv; fetch", xrays, root)
