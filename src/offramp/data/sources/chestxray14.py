"""ChestX-ray14 (Wang et al., 2017): pneumonia against no finding, from NIH's chest X-rays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from offramp.data.images.files import Files, check_folder, folders, image_files
from offramp.data.raw import DataSource, DeclaredCounts, RawData, RawSplit
from offramp.data.splits import by_hash, together
from offramp.errors import OfframpError, in_line
from offramp.files import DOCUMENT, TABLE, read_regular, read_regular_text
from offramp.hashing import text_digest

FETCH = (
    "Data_Entry_2017_v2020.csv and the images of https://nihcc.app.box.com/v/ChestXray-NIHCC so that it "
    "holds the CSV file and images_001/ to images_012/ (or images/)"
)
CLASSES = ("No Finding", "Pneumonia")
IMAGE, FINDINGS, PATIENT = "Image Index", "Finding Labels", "Patient ID"
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}

# NIH's Data_Entry_2017_v2020.csv: of 112,120 images of 30,805 patients 60,361 have no finding and 1,431
# pneumonia, 322 of these nothing else. A fifth of each is test; whole patients make it less even.
BY_PATIENT = DeclaredCounts((48_289, 1_145), (12_072, 286), (3, 224, 224))
# NIH's train_val_list.txt (86,524 images) and test_list.txt (25,596).
OFFICIAL = DeclaredCounts((50_500, 876), (9_861, 555), (3, 224, 224))


def chestxray14(
    root: Path,
    split: Literal["patient", "image", "official"] = "patient",
    test_share: float = 0.2,
    negatives: float | None = None,
    partial: bool = False,
) -> RawData:
    """Images whose findings name pneumonia (class 1), and those with no finding (class 0).

    All others are left out. The images are 1024 px; give `data.size`.

    Args:
        root: The folder of the table and the images.
        split: `patient` puts all images of a patient into one split; `image` splits images, as the
            paper may have; `official` reads NIH's train_val_list.txt and test_list.txt, which split by
            patient.
        test_share: Of each class. Neither depends on a seed.
        negatives: At most so many training images without finding for each with pneumonia; None takes
            all. The test split keeps its proportions.
        partial: Whether to take the images that are there, where the table names others too.

    Raises:
        OfframpError: naming the file or column that is missing or wrong.
    """
    check_folder(root, FETCH)
    table, source = _table(root)
    paths = _paths(root)
    absent = ~table[IMAGE].isin(list(paths))
    if (absent.any() and not partial) or absent.all():
        raise OfframpError(
            f"{root} lacks {int(absent.sum())} of the {len(table)} images that {source} names, "
            f"{table[IMAGE][absent].iloc[0]} first; fetch {FETCH}, or set data.partial: true"
        )
    table = table[~absent].reset_index(drop=True)
    labels = torch.tensor(table["label"].to_numpy(), dtype=torch.int64)
    files = Files(root, tuple(paths[name] for name in table[IMAGE]))
    test = _test_rows(root, table, files, labels, split, test_share)
    train = _thinned(table, labels, ~test, negatives)

    def part(chosen: Tensor) -> RawSplit:
        groups = None if split == "image" else tuple(map(str, table[PATIENT][chosen.numpy()]))
        return RawSplit(files.only(chosen.nonzero().flatten()), labels[chosen], groups)

    provenance: dict[str, Any] = {"root": str(root), "table": source, "absent": int(absent.sum())}
    provenance["negatives_left_out"] = int((~test).sum() - train.sum())
    return RawData(part(train), part(test), CLASSES, provenance=provenance)


def _table(root: Path) -> tuple[pd.DataFrame, str]:
    """The rows of the two classes with their label, in the order of the images' names; the file."""
    files = sorted(root.glob("Data_Entry_2017*.csv"))
    if not files:
        raise OfframpError(f"{root} holds no Data_Entry_2017*.csv; fetch {FETCH}")
    try:
        content = io.BytesIO(read_regular(files[-1], TABLE))
        table = pd.read_csv(content, usecols=[IMAGE, FINDINGS, PATIENT], dtype=str)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        reason = in_line(error)
        raise OfframpError(f"{files[-1]} is not NIH's table ({reason}); fetch it again") from error
    findings = table[FINDINGS].fillna("").str.split("|")
    table["label"] = findings.map(lambda names: 1 if CLASSES[1] in names else 0)
    table = table[findings.map(lambda names: CLASSES[1] in names or names == [CLASSES[0]])]
    if table["label"].nunique() < 2:
        raise OfframpError(
            f"{files[-1]} names no image with '{CLASSES[1]}', or none with '{CLASSES[0]}'; "
            "fetch it again"
        )
    return table.sort_values(IMAGE, ignore_index=True), files[-1].name


def _paths(root: Path) -> dict[str, str]:
    """Where each image is, below root, by its name."""
    places = [place for place in folders(root) if place.name.startswith("images")]
    return {i.rpartition("/")[2]: i for place in places for i in sorted(image_files(root, place))}


def _test_rows(
    root: Path, table: pd.DataFrame, files: Files, labels: Tensor, split: str, share: float
) -> Tensor:
    """Which rows are the test split: [N] bool."""
    if split != "official":
        names = table[PATIENT if split == "patient" else IMAGE].tolist()
        return by_hash(labels, together(names, files.digests(torch.arange(len(files)))), share)
    listed = {}
    for part, file in LISTS.items():
        try:
            listed[part] = set(read_regular_text(root / file, DOCUMENT).split())
        except (OSError, UnicodeDecodeError) as error:
            raise OfframpError(f"{root} holds no {file}; fetch {FETCH} and NIH's two lists") from error
    unlisted = ~table[IMAGE].isin(listed["train"] | listed["test"])
    if unlisted.any():
        raise OfframpError(
            f"{table[IMAGE][unlisted].iloc[0]} is in neither list of {root}; fetch both again"
        )
    return torch.tensor(table[IMAGE].isin(listed["test"]).to_numpy())


def _thinned(table: pd.DataFrame, labels: Tensor, train: Tensor, negatives: float | None) -> Tensor:
    """The training rows [N] bool with fewer without finding: those whose names hash lowest."""
    if negatives is None:
        return train
    if not negatives > 0:
        raise OfframpError(f"data.negatives is {negatives:g}; give a number above zero")
    names = table[IMAGE].tolist()
    rows = (train & (labels == 0)).nonzero().flatten().tolist()
    rows.sort(key=lambda row: text_digest(f"negatives {names[row]}"))
    thinned = train.clone()
    thinned[rows[max(1, round(negatives * int((train & (labels == 1)).sum()))) :]] = False
    return thinned


def _counts(options: Mapping[str, Any]) -> DeclaredCounts | None:
    if not options.keys() <= {"split", "partial"}:
        return None
    return OFFICIAL if options.get("split") == "official" else BY_PATIENT


CHESTXRAY14 = DataSource(chestxray14, FETCH, _counts)
