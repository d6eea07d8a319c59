"""Packed results that another changed: refused with the file and the field, or said on the page."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from offramp.errors import OfframpError
from offramp.hashing import with_seal
from offramp.report import evidence
from offramp.report.model import Detail
from offramp.report.page import how
from offramp.report.page.folder import assemble
from offramp.report.page.html import page
from offramp.store import pack
from refusal import refuses

MADE = Path(__file__).parents[2] / "docs" / "results" / "cifar10-deploy"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of a small pack."""
    return Path(shutil.copytree(MADE, tmp_path / "pack"))


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "trials.json").read_text())
    return found


def sealed(folder: Path, said: dict[str, Any]) -> None:
    """Write `trials.json` as one does who can seal, with the hashes of the files as they are."""
    if isinstance(said.get("files"), dict):
        said["files"] = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in said["files"]}
    (folder / "trials.json").write_text(json.dumps(with_seal(said)))


def put(holder: Any, path: str, value: object) -> None:
    """`...` takes away what is there; `*` is the first of whatever names there are."""
    *steps, last = path.split(" ")
    for step in steps:
        holder = holder[next(iter(holder)) if step == "*" else int(step) if step.isdigit() else step]
    if value is ...:
        del holder[next(iter(holder)) if last == "*" else last]
    else:
        holder[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("files", ..., "lacks the field 'files'"),
        ("files", [], "has a wrong 'files'"),
        ("files logits.npz", ..., r"logits\.npz does not match trials\.json"),
        ("missing", ..., "lacks the field 'missing'"),
        ("missing", "none", "has a wrong 'missing'"),
        ("nodes", ..., "lacks the field 'nodes'"),
        ("nodes *", ..., "a node that is not in it"),
        ("nodes * key", "other", "calls the node"),
        ("nodes * cost", ..., r"lacks the field 'nodes\..*\.cost'"),
        ("nodes * reads exits", ..., "lacks the field 'exits'"),
        ("trials * manifest macs", ..., r"lacks the field 'trials\..*\.manifest\.macs'"),
        ("trials * manifest macs", [1], "another number of exits in macs"),
        ("trials * manifest macs 0", 10**400, "wrong 'trials"),
        ("trials * manifest seed", "first", r"has a wrong 'trials\..*\.manifest\.seed'"),
        ("trials * manifest seed", 10**400, "has a wrong 'trials"),
        ("trials * manifest metrics test accuracy 0", float("nan"), r"metrics\.test\.accuracy\.0'"),
        ("trials * manifest metrics test accuracy 0", 1.5, r"metrics\.test\.accuracy\.0'"),
        ("trials * manifest metrics test", ..., "no metrics on test"),
        ("trials * manifest exits", [1, 99], "another number of exits|exits that its network"),
        ("trials * manifest final", {}, "no weights of an exit"),
        ("trials * manifest places", ["x"], "a place that its network does not have|exits that its net"),
        ("trials * logits test exits", [], "another number of exits in its logits"),
        ("trials * logits test", "all", "has a wrong 'trials"),
        ("trials", [], "has a wrong 'trials'"),
        ("trials * manifest strategy", "\x1b[31mred", "strategy': .*it holds control characters"),
        ("trials * manifest classes 0", "\ud800", r"classes\.0'"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: object, said: str, mine: Path) -> None:
    changed = document(mine)
    put(changed, path, value)
    sealed(mine, changed)
    line = refuses(said, evidence.open, mine)
    assert str(mine) in line and line.endswith("pack the results again")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format":' * 100_000, "", "9" * 5000])
def test_text_that_is_no_json_is_a_line(text: str, mine: Path) -> None:
    (mine / "trials.json").write_text(text)
    refuses(r"trials\.json is not JSON; pack the results again|is no packed results", pack.read, mine)
    deep: Any = 0
    for _ in range(900):  # the reader takes it, what hashes it does not
        deep = [deep]
    (mine / "trials.json").write_text(json.dumps({"format": pack.FORMAT, "missing": deep, "seal": ""}))
    refuses("does not match its seal", pack.read, mine)


def test_any_flipped_byte_is_refused(mine: Path) -> None:
    whole = (mine / "trials.json").read_bytes()
    for at in range(0, len(whole), 97):
        (mine / "trials.json").write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        with pytest.raises(OfframpError) as caught:
            pack.read(mine)
        assert "\n" not in str(caught.value)


def test_files_that_hold_something_else(mine: Path) -> None:
    said = document(mine)
    (mine / "table.parquet").write_bytes(b"PAR1 and no more PAR1")
    sealed(mine, said)
    refuses(r"table\.parquet is no readable Parquet file", pack.read, mine)
    pd.DataFrame({"trial": ["a"]}).to_parquet(mine / "table.parquet")
    sealed(mine, said)
    refuses(r"table\.parquet lacks the column 'strategy'", pack.read, mine)
    pd.read_parquet(MADE / "table.parquet").assign(trial="b").to_parquet(mine / "table.parquet")
    sealed(mine, said)
    refuses(r"table\.parquet has no row of trial joint", evidence.open, mine)
    shutil.copy(MADE / "table.parquet", mine)
    for data in (b"", (MADE / "logits.npz").read_bytes()[:-1000]):
        (mine / "logits.npz").write_bytes(data)
        sealed(mine, said)
        found = pack.read(mine)
        refuses(
            r"logits\.npz does not hold what trials\.json says", found.trial_logits, found.trials()[0]
        )


def test_an_accuracy_that_the_logits_do_not_give_is_said(mine: Path) -> None:
    assert evidence.open(mine).disagreements == ()
    changed = document(mine)
    trial = next(iter(changed["trials"]))
    put(changed, "trials * manifest metrics test accuracy 0", 0.978)
    sealed(mine, changed)
    exit = changed["trials"][trial]["manifest"]["exits"][0]
    logits, labels = evidence.open(mine).logits(trial)
    rounded = np.float64(np.mean(logits[:, 0].argmax(axis=1) == labels))
    first, second = evidence.open(mine).disagreements
    where = f"at exit {exit} on test, and its"
    assert first.startswith(f"the record of trial {trial} says accuracy 0.9780 {where} logits give 0.8")
    assert second.startswith("the table says accuracy 0.8") and second.endswith(f"{where} record 0.9780")
    assert abs(float(second.split()[4]) - rounded) < 0.005


@pytest.mark.slow
def test_the_page_says_whether_the_numbers_of_a_pack_are_its_own(mine: Path) -> None:
    def checked(found: Sequence[Detail]) -> Sequence[str]:
        (values,) = (detail.values for detail in found if detail.name == "Checked")
        return values

    whole = (
        "every file has the SHA-256 that its manifest names, and every accuracy is what its logits give"
    )
    sound = how.facts(evidence.open(mine))
    assert [*checked(sound)] == [whole]
    changed = document(mine)
    put(changed, "trials * manifest metrics test accuracy 0", 0.978)
    sealed(mine, changed)
    contents = assemble(evidence.open(mine), [])
    assert len(contents.wrong) == 2 and "says accuracy 0.9780 at exit 1 on test" in contents.wrong[0]
    first, *more = checked(contents.how)
    assert first == whole.partition(",")[0] and len(more) == 2
    text = page(contents, ())
    assert "Numbers here do not agree with one another" in text and text.count("0.9780") == 4
    assert "do not agree" not in page(replace(contents, wrong=[], how=sound), ())
