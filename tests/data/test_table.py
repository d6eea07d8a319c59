"""Tables of labels: forms, columns, what they name, and how they are suggested."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pictures import counts, digests, noise, read, refused, save, tree
from syrupy.assertion import SnapshotAssertion

from offramp.data.audit import audit, open_data
from offramp.data.load import read_for_trained
from offramp.data.notes import notes
from offramp.data.sources.folder import folder
from offramp.data.sources.table import table
from offramp.data_spec import DataSpec
from offramp.study.spec.file import parse
from refusal import refuses

N = 40  # images, of which every fourth is a cat


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """images/0.png to images/39.png, every image another."""
    for i in range(N):
        save(tmp_path / "photos" / "images" / f"{i}.png", noise(i))
    return tmp_path / "photos"


def rows(image: Callable[[int], str] = "images/{}.png".format, **more: Any) -> pd.DataFrame:
    columns = {
        "image": [image(i) for i in range(N)],
        "label": ["dog" if i % 4 else "cat" for i in range(N)],
    }
    return pd.DataFrame(columns | more)


def write(frame: pd.DataFrame, path: Path) -> Path:
    match path.suffix:
        case ".parquet":
            frame.to_parquet(path)
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        case _:
            frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def test_every_kind_of_file_says_the_same(photos: Path) -> None:
    kinds = (".csv", ".tsv", ".parquet", ".jsonl", ".txt")
    tables = [read("table", write(rows(), photos / f"labels{kind}")) for kind in kinds]
    assert tables[0].classes == ("cat", "dog")
    assert counts(tables[0]) == {"train": 16, "validation": 8, "calibration": 8, "test": 8}
    assert all(digests(each) == digests(tables[0]) for each in tables)
    shuffled = write(rows().sample(frac=1, random_state=1), photos / "again.csv")
    assert digests(read("table", shuffled)) == digests(tables[0])
    root = read("table", photos, file="labels.csv", images="images", test_share=0.2)
    assert digests(root) == digests(tables[0])


@pytest.mark.parametrize(
    "image",
    [
        "{}.png".format,
        "{}".format,  # as Kaggle's ids
        "images\\{}.png".format,
        "./images/{}.png".format,
        "/photos/images/{}.png".format,
    ],
    ids=["name", "id", "backslash", "dot", "absolute"],
)
def test_images_are_named_in_many_ways(photos: Path, image: Callable[[int], str]) -> None:
    plain = read("table", write(rows(), photos / "labels.csv"))

    def cell(i: int) -> str:
        text = image(i)
        return f"{photos.parent}{text}" if text.startswith("/") else text

    other = read("table", write(rows(cell), photos / "other.csv"))
    assert digests(other) == digests(plain)


def test_splits_and_groups_are_columns(photos: Path, snapshot: SnapshotAssertion) -> None:
    where = ["test" if i % 5 == 0 else "Val" if i % 5 == 1 else "training" for i in range(N)]
    who = [f"p{i // 2}" for i in range(N)]
    named = write(rows(split=where, patient_id=who), photos / "labels.csv")
    data = read("table", named)
    assert counts(data) == {"train": 12, "validation": 4, "calibration": 4, "test": 8}
    lines = notes(data.provenance)
    assert any("is 'label', split is 'split', group is 'patient_id'" in line for line in lines)
    assert refused(read, "table", named, test_share=0.5) == snapshot
    odd = write(rows(split=["elsewhere"] * N), photos / "odd.csv")
    assert refused(read, "table", odd) == snapshot
    renamed = write(rows(fold_of_mine=where).rename(columns={"label": "what"}), photos / "mine.csv")
    mine = read("table", renamed, split="fold_of_mine", label="what")
    assert counts(mine)["test"] == 8


def test_patients_stay_together_where_a_trained_network_is_judged(photos: Path) -> None:
    """Nothing is known of what it was trained on, so no patient is taken out for being there."""
    named = write(rows(patient_id=[f"p{i // 2}" for i in range(N)]), photos / "labels.csv")
    data = read_for_trained(DataSpec("table", str(named)), "half")
    sizes = counts(data)
    assert not sizes.pop("train") and min(sizes.values()) > 0 and sum(sizes.values()) == N


def isic(photos: Path) -> Path:
    """One column a class, as ISIC 2018 and 2019 have them; ids without ending, a class of no image."""
    hot = {name: [float((i % 4 == 0) == (name == "MEL")) for i in range(N)] for name in ("MEL", "NV")}
    frame = rows("{}".format).drop(columns="label").assign(**hot, UNK=0.0)
    return write(frame, photos / "ISIC_2019_Training_GroundTruth.csv")


def ham10000(photos: Path) -> Path:
    more = {"lesion_id": [f"HAM_{i // 2}" for i in range(N)], "age": ["80.0"] * N, "sex": ["male"] * N}
    frame = rows("{}".format, **more).rename(columns={"image": "image_id", "label": "dx"})
    return write(frame, photos / "HAM10000_metadata.csv")


def kaggle(photos: Path) -> Path:
    frame = rows("{}".format, breed=["x"] * N).drop(columns="breed")
    return write(frame.rename(columns={"image": "id", "label": "breed"}), photos / "labels.csv")


def tiny_imagenet(photos: Path) -> Path:
    """No line of names, boxes behind."""
    lines = [f"{i}.png\tn0{int(i % 4 > 0)}\t0\t32\t44\t{i}" for i in range(N)]
    (photos / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return photos / "val_annotations.txt"


def val_list(photos: Path) -> Path:
    """Names and class numbers with a space between them."""
    (photos / "val.txt").write_text("".join(f"{i}.png {int(i % 4 > 0)}\n" for i in range(N)))
    return photos / "val.txt"


def image_folder(photos: Path) -> Path:
    """As the hub's image folders."""
    lines = [json.dumps({"file_name": f"images/{i}.png", "label": int(i % 4 > 0)}) for i in range(N)]
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    return photos / "metadata.jsonl"


@pytest.mark.parametrize("form", [isic, ham10000, kaggle, tiny_imagenet, val_list, image_folder])
def test_forms_that_lie_about_need_no_option(photos: Path, form: Callable[[Path], Path]) -> None:
    data = read("table", form(photos))
    assert len(data.classes) == 2 and sum(counts(data).values()) == N
    assert int(sum((split.labels == 0).sum() for split in data.splits.values())) == N // 4
    assert notes(data.provenance)


def test_tiny_imagenet_whole_is_a_folder(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    for c, name in enumerate(("n00", "n01")):
        for i in range(16):
            save(root / "train" / name / "images" / f"{name}_{i}.png", noise(100 + 16 * c + i))
    for i in range(4):
        save(root / "test" / "images" / f"test_{i}.png", noise(200 + i))
    photos.rename(root / "val")
    tiny_imagenet(root / "val")
    data = read("folder", root)
    assert counts(data)["validation"] == N and data.classes == ("n00", "n01")
    assert int((data.validation.labels == 0).sum()) == N // 4
    assert any("test has no classes and is passed over" in line for line in notes(data.provenance))
    assert counts(read("folder", root, test="val"))["test"] == N


def test_lines_without_a_label_are_left_out_and_told(photos: Path) -> None:
    frame = rows()
    frame.loc[:3, "label"] = ""
    data = read("table", write(frame, photos / "labels.csv"))
    assert sum(counts(data).values()) == N - 4
    assert any(
        "4 lines of labels.csv without a label left out" in line for line in notes(data.provenance)
    )


def change(frame: pd.DataFrame, **cells: Any) -> pd.DataFrame:
    return frame.assign(**{k: [v, *frame[k][1:]] for k, v in cells.items()})


WRONG: dict[str, Any] = {
    "absent": (change(rows(), image="images/gone.png"), {}),
    "all absent": (rows("gone/{}.jpg".format), {"image": "image"}),
    "above": (change(rows(), image="../../secret.png"), {}),
    "absolute": (change(rows(), image="/etc/passwd"), {}),
    "two lines": (change(rows(), image="images/1.png"), {}),
    "no column": (rows(), {"label": "lable"}),
    "two label columns": (rows(category=["x"] * N), {}),
    "no label column": (rows().rename(columns={"label": "a"}).assign(b="x"), {}),
    "no one-hot": (rows(a=[0] * N, b=[1] * N), {"label": ["a", "image"]}),
    "two hot": (rows(a=[1] * N, b=[1] * N), {"label": ["a", "b"]}),
    "no label": (rows().assign(label=""), {}),
    "no train": (rows(split=["test"] * N), {}),
    "no folder": (rows(), {"images": "elsewhere"}),
    "no table": (rows(), {"file": "gone.csv"}),
}


@pytest.mark.parametrize(("frame", "options"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(
    photos: Path, frame: pd.DataFrame, options: Mapping[str, Any], snapshot: SnapshotAssertion
) -> None:
    write(frame, photos / "labels.csv")
    assert refused(read, "table", photos, **{"file": "labels.csv", **options}) == snapshot


def test_images_of_one_name_in_two_folders_need_the_folder(
    photos: Path, snapshot: SnapshotAssertion
) -> None:
    save(photos / "masks" / "1.png", noise(77))
    named = write(rows("{}.png".format), photos / "labels.csv")
    assert refused(read, "table", named) == snapshot
    assert sum(counts(read("table", named, images="images")).values()) == N
    gone = write(change(rows(), image="images/gone.png"), photos / "gone.csv")
    assert sum(counts(read("table", gone, partial=True)).values()) == N - 1
    (photos / "broken.parquet").write_bytes(b"PAR1")
    (photos / "binary.csv").write_bytes(b"\xff\xfe\x00image")
    for name in ("broken.parquet", "binary.csv"):
        assert refused(read, "table", photos / name) == snapshot


@pytest.mark.parametrize("image", ["{}.png", "{}"])
def test_an_image_in_the_folder_that_is_meant_comes_before_others_below_it(
    photos: Path, image: str, snapshot: SnapshotAssertion
) -> None:
    plain = read("table", write(rows(), photos / "plain.csv"))
    for i in range(N):
        save(photos / "images" / "thumbs" / f"{i}.png", noise(500 + i, 3, 3))
    named = write(rows(image.format), photos / "labels.csv")
    assert refused(read, "table", named) == snapshot
    assert digests(read("table", named, images="images")) == digests(plain)


def test_a_folder_of_images_and_a_table_suggests_it(photos: Path, snapshot: SnapshotAssertion) -> None:
    isic(photos)
    assert refused(read, "folder", photos) == snapshot
    assert len(read("table", photos).classes) == 2  # the only table there


def flat(root: Path, names: str, start: int = 0) -> None:
    """Twelve images in a folder; `{}` is their number."""
    for i in range(12):
        save(root / names.format(i), noise(start + i))


def shapes(home: Path) -> list[Callable[[], object]]:
    """What builds each shape of the page on data, in its order."""

    def split(*splits: str) -> Callable[[], object]:
        return lambda: tree(home / "photos", splits)

    def csv(name: str, image: str, *lines: str, cell: str = "{}") -> None:
        flat(home, image)
        text = [lines[0], *(f"{cell.format(i)},{lines[1 + i % 2]}" for i in range(12))]
        (home / name).write_text("\n".join(text))

    def tiny() -> None:
        for c, name in enumerate(("n01", "n02")):
            flat(home / f"tiny/train/{name}/images", "{}.png", 100 + 100 * c)
        flat(home / "tiny/val/images", "val_{}.png")
        lines = (f"val_{i}.png\tn0{1 + i % 2}\t0\t0\t9\t9" for i in range(12))
        (home / "tiny/val/val_annotations.txt").write_text("\n".join(lines))

    def patients() -> None:
        for c, name in enumerate(("sick", "well")):
            for i in range(24):
                save(home / "scans" / name / f"person{c}{i // 2}_{i % 2}.png", noise(100 * c + i))

    def cells() -> None:
        images = np.stack([noise(i) for i in range(48)])
        np.savez(
            home / "cells.npz",
            **{f"{name}_images": images[k::2] for k, name in enumerate(("train", "test"))},
            **{f"{name}_labels": np.arange(24) % 2 for name in ("train", "test")},
        )

    return [
        lambda: [
            flat(home / "photos" / name, "{}.png", 50 * c) for c, name in enumerate(("cat", "dog"))
        ],
        split("train", "val", "test"),
        split("train", "val"),
        patients,
        lambda: csv("shop/labels.csv", "shop/a/{}.png", "path,class", "cup", "jug", cell="a/{}.png"),
        lambda: csv("dogs/labels.csv", "dogs/train/{}.png", "id,breed", "pug", "lab"),
        lambda: csv("isic/truth.csv", "isic/input/{}.png", "image,MEL,NV", "1.0,0.0", "0.0,1.0"),
        lambda: csv("chest/labels.csv", "chest/{}.png", "image,edema,effusion", "1,1", "1,1"),
        lambda: csv("nih/labels.csv", "nih/{}.png", "image,findings", *["Edema|Effusion"] * 2),
        tiny,
        cells,
    ]


PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
ROWS = re.findall(r"^\| .+ \| `((?:folder|table|npz|\{).+)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("number", range(len(ROWS)), ids=ROWS.__getitem__)
def test_every_shape_of_the_page_is_described(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    builders = shapes(tmp_path)
    assert len(builders) == len(ROWS) >= 8
    builders[number]()
    study = {"strategies": ["baseline"], "backbone": "resnet18", "data": yaml.safe_load(ROWS[number])}
    audited = audit(open_data(parse(study, "page").data))
    assert not audited.wrong and len(audited.classes) == 2
    assert all(split.images for split in audited.splits.values())


def test_json_lines_hold_any_text_and_may_begin_with_a_mark(photos: Path) -> None:
    records = rows(note=["one\u2028two"] * N).to_dict("records")
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in records)
    (photos / "labels.jsonl").write_text(text, encoding="utf-8-sig", newline="")
    data = read("table", photos / "labels.jsonl")
    assert digests(data) == digests(read("table", write(rows(), photos / "labels.csv")))


def test_lists_in_lists_are_no_table(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    (tmp_path / "labels.jsonl").write_text("[" * 100_000)
    assert refused(read, "table", tmp_path / "labels.jsonl") == snapshot


@pytest.mark.parametrize("kind", [".parquet", ".jsonl"])
def test_endings_in_capitals_mean_the_same(photos: Path, kind: str) -> None:
    write(rows(), photos / f"labels{kind}").rename(photos / f"LABELS{kind.upper()}")
    assert read("table", photos / f"LABELS{kind.upper()}").classes == ("cat", "dog")
    assert read("table", photos).classes == ("cat", "dog")


def test_paths_of_another_machine_beside_names_are_passed_over(
    photos: Path, snapshot: SnapshotAssertion
) -> None:
    elsewhere = [f"/kaggle/input/{i}.png" for i in range(N)]
    plain = read("table", write(rows(), photos / "plain.csv"))
    both = write(rows().assign(filepath=elsewhere), photos / "labels.csv")
    assert digests(read("table", both)) == digests(plain)
    alone = rows().drop(columns="image").assign(filepath=elsewhere, path=elsewhere)
    assert refused(read, "table", write(alone, photos / "alone.csv")) == snapshot


def test_spaces_behind_commas_are_no_part_of_cells(photos: Path) -> None:
    plain = read("table", write(rows(), photos / "plain.csv"))
    marks = ["image, cat, dog", *(f"{i}.png, {int(not i % 4)}, {int(i % 4 > 0)}" for i in range(N))]
    (photos / "marks.csv").write_text("\n".join(marks))
    quoted = ["image, label", *(f'"{i}.png", "{"dog" if i % 4 else "cat"}, tame"' for i in range(N))]
    (photos / "quoted.csv").write_text("\n".join(quoted))
    assert digests(read("table", photos / "marks.csv")) == digests(plain)
    assert read("table", photos / "quoted.csv").classes == ("cat, tame", "dog, tame")


def test_names_that_several_columns_have(photos: Path, snapshot: SnapshotAssertion) -> None:
    path = photos / "labels.csv"
    for header, more in (("image,label,label", {}), ("image,mark,mark", {"label": "mark"})):
        path.write_text(f"{header}\nimages/0.png,dog,cat\n")
        assert refused(read, "table", path, **more) == snapshot
    lines = [f"images/{i}.png,{'dog' if i % 4 else 'cat'},," for i in range(N)]
    for header in ("image,label,,", "image,what,,"):  # empty ones at the end, of a spreadsheet
        path.write_text("\n".join([header, *lines]))
        assert read("table", path).classes == ("cat", "dog")


def test_classes_that_train_lacks_are_counted_and_passed_over(tmp_path: Path) -> None:
    """As Tiny-ImageNet's list, where ten classes of its 200 are there."""
    for c, name in enumerate(("n01", "n02")):
        flat(tmp_path / "train" / name, "{}.png", 100 + 100 * c)
    flat(tmp_path / "val/images", "val_{}.png")
    text = tmp_path / "val" / "val_annotations.txt"
    text.write_text("\n".join(f"val_{i}.png\tn0{1 + i % 4}\t0\t0\t9\t9" for i in range(12)))
    raw = folder(tmp_path)
    assert raw.validation is not None and raw.validation.labels.tolist() == [0, 1] * 3
    remark = "6 images in val_annotations.txt passed over, of 2 classes that train has not ('n03' first)"
    assert raw.remarks == (remark,)
    text.write_text(text.read_text().replace("n03", "n01").replace("n04", "n02"))
    assert folder(tmp_path).remarks == ()
    text.write_text(text.read_text().replace("n0", "m0"))
    refuses("has no class that train has", folder, tmp_path)


def test_images_whose_names_tell_their_class_get_a_table(tmp_path: Path) -> None:
    flat(tmp_path, "pug_{}.png")
    said = refuses("holds 0 class folders", folder, tmp_path)
    assert f"write {tmp_path}/labels.csv" in said and "pug_0.png,pug" in said
    assert said.endswith(f"say table:{tmp_path}/labels.csv")
    (tmp_path / "labels.csv").write_text(
        "path,class\n" + "".join(f"pug_{i}.png,{'pug' if i % 2 else 'lab'}\n" for i in range(12))
    )
    raw = table(tmp_path / "labels.csv")
    assert raw.test is not None and len(raw.train.labels) + len(raw.test.labels) == 12
