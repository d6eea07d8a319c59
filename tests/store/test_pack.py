"""Packed results that another changed: refused with the file and the field, or said on the page."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from store_kit import field_refusal
from syrupy.assertion import SnapshotAssertion

from offramp.hashing import file_digest, with_seal
from offramp.report import evidence
from offramp.report.model import RunDetail
from offramp.report.page import how
from offramp.report.page.folder import assemble, page
from offramp.store import pack
from refusal import refuses
from wording import refusal

MADE = Path(__file__).parents[2] / "docs" / "results" / "cifar10-deploy"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of a small pack."""
    return Path(shutil.copytree(MADE, tmp_path / "pack"))


def document(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / "trials.json").read_text())
    return fields


def sealed(folder: Path, fields: dict[str, Any]) -> None:
    """Write `trials.json` as one does who can seal, with the hashes of the files as they are."""
    if isinstance(fields.get("files"), dict):
        fields["files"] = {n: file_digest(folder / n) for n in fields["files"]}
    (folder / "trials.json").write_text(json.dumps(with_seal(fields)))


def put(holder: Any, path: str, value: object) -> None:
    """`...` takes away what is there; `*` is the first of whatever names there are."""
    *steps, last = path.split(" ")
    for step in steps:
        holder = holder[next(iter(holder)) if step == "*" else int(step) if step.isdigit() else step]
    if value is ...:
        del holder[next(iter(holder)) if last == "*" else last]
    else:
        holder[int(last) if last.isdigit() else last] = value


WRONG: list[tuple[str, object]] = [
    ("files", ...),
    ("files", []),
    ("files logits.npz", ...),
    ("missing", ...),
    ("missing", "none"),
    ("nodes", ...),
    ("nodes *", ...),
    ("nodes * key", "other"),
    ("nodes * cost", ...),
    ("nodes * reads exits", ...),
    ("trials * manifest macs", ...),
    ("trials * manifest macs", [1]),
    ("trials * manifest macs 0", 10**400),
    ("trials * manifest seed", "first"),
    ("trials * manifest seed", 10**400),
    ("trials * manifest metrics test accuracy 0", float("nan")),
    ("trials * manifest metrics test accuracy 0", 1.5),
    ("trials * manifest metrics test", ...),
    ("trials * manifest exits", [1, 99]),
    ("trials * manifest final", {}),
    ("trials * manifest places", ["x"]),
    ("trials * logits test exits", []),
    ("trials * logits test", "all"),
    ("trials", []),
    ("trials * manifest strategy", "\x1b[31mred"),
    ("trials * manifest classes 0", "\ud800"),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_wrong_field_is_named(
    path: str, value: object, mine: Path, snapshot: SnapshotAssertion
) -> None:
    changed = document(mine)
    put(changed, path, value)
    sealed(mine, changed)
    line = field_refusal(evidence.open, mine)
    assert line.startswith("TMP/pack") and line == snapshot


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"format":' * 100_000, "", "9" * 5000],
    ids=["lists", "objects", "nothing", "a number"],
)
def test_text_that_is_no_json_is_a_line(text: str, mine: Path, snapshot: SnapshotAssertion) -> None:
    (mine / "trials.json").write_text(text)
    assert refusal(pack.read, mine) == snapshot
    deep: Any = 0
    for _ in range(900):  # the reader takes it, what hashes it does not
        deep = [deep]
    (mine / "trials.json").write_text(json.dumps({"format": pack.FORMAT, "missing": deep, "seal": ""}))
    assert refusal(pack.read, mine) == snapshot


def test_any_flipped_byte_is_refused(mine: Path) -> None:
    whole = (mine / "trials.json").read_bytes()
    for at in range(0, len(whole), 97):
        (mine / "trials.json").write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        refuses(".", pack.read, mine)


def test_files_that_hold_something_else(mine: Path, snapshot: SnapshotAssertion) -> None:
    fields, table = document(mine), pd.read_parquet(MADE / "table.parquet")
    changes: dict[str, Callable[[Path], object]] = {
        "bytes": lambda path: path.write_bytes(b"PAR1 and no more PAR1"),
        "columns": lambda path: pd.DataFrame({"trial": ["a"]}).to_parquet(path),
        "rows": lambda path: table.assign(trial="b").to_parquet(path),
        "doubled": lambda path: pd.concat([table, table.tail(1)]).to_parquet(path, index=False),
        "texts": lambda path: table.assign(exit=table["exit"].astype(str)).to_parquet(path),
        "exits": lambda path: table[table["exit"] != 1].to_parquet(path, index=False),
        "gaps": lambda path: table.assign(strategy=None).to_parquet(path),
    }
    for change in changes.values():
        change(mine / "table.parquet")
        sealed(mine, fields)
        assert refusal(evidence.open, mine) == snapshot
    shutil.copy(MADE / "table.parquet", mine)
    for data in (b"", (MADE / "logits.npz").read_bytes()[:-1000]):
        (mine / "logits.npz").write_bytes(data)
        sealed(mine, fields)
        packed = pack.read(mine)
        assert refusal(packed.trial_logits, packed.trials()[0]) == snapshot


ACCURACY = "trials * manifest metrics test accuracy 0"


def test_an_accuracy_that_the_logits_do_not_give_is_said(
    mine: Path, snapshot: SnapshotAssertion
) -> None:
    assert evidence.open(mine).disagreements == ()
    changed = document(mine)
    trial = next(iter(changed["trials"]))
    put(changed, ACCURACY, 0.978)
    sealed(mine, changed)
    logits, labels = evidence.open(mine).logits(trial)
    rounded = np.float64(np.mean(logits[:, 0].argmax(axis=1) == labels))
    disagreements = evidence.open(mine).disagreements
    assert len(disagreements) == 2 and list(disagreements) == snapshot
    assert all("0.9780" in line for line in disagreements)
    assert abs(float(disagreements[1].split()[4]) - rounded) < 0.005


def test_classes_that_are_called_as_paths_are_keep_their_names() -> None:
    """As Open Images calls them; folders of the machine are left out."""
    manifest = {"classes": ["/m/01g317", "/m/04rky"], "data": {"root": "/home/me/photos"}}
    assert pack.portable(manifest) == {**manifest, "data": {"root": "photos"}}


def test_the_page_says_whether_the_numbers_of_a_pack_are_its_own(
    mine: Path, snapshot: SnapshotAssertion
) -> None:
    def checked(details: Sequence[RunDetail]) -> Sequence[str]:
        (values,) = (detail.values for detail in details if detail.name == "Checked")
        return values

    sound = how.facts(evidence.open(mine))
    (whole,) = checked(sound)
    assert whole == snapshot
    changed = document(mine)
    put(changed, ACCURACY, 0.978)
    sealed(mine, changed)
    contents = assemble(evidence.open(mine), [])
    assert len(contents.wrong) == 2 and "0.9780" in contents.wrong[0]
    first, *more = checked(contents.how)
    assert first == whole.partition(",")[0] and len(more) == 2
    assert page(contents, ()).count("0.9780") == 4
    assert "do not agree" in page(contents, ())
    assert "do not agree" not in page(replace(contents, wrong=[], how=sound), ())


@pytest.mark.parametrize("other", [{"format": "of a later offramp"}, None], ids=["format", "a list"])
def test_what_is_of_another_format_is_said_to_be(other: dict[str, Any] | None, mine: Path) -> None:
    if other is None:
        (mine / "trials.json").write_text("[]")
    else:
        sealed(mine, document(mine) | other)
    refuses("is no packed results of this offramp", pack.read, mine)
