"""No link in a store is followed, and nothing outside of it is written or removed."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from store_kit import node, record, trial
from syrupy.assertion import SnapshotAssertion

import records
from offramp import usercode
from offramp.errors import OfframpError
from offramp.files import inside
from offramp.store import pack
from offramp.store.archive import FOLDERS, Archive
from offramp.store.store import Store
from refusal import refuses
from wording import refusal

KEY, LOOSE = record(1).key, record(2).key


@pytest.fixture
def full(store: Store) -> Store:
    """A store with something in each of its folders, all of it old."""
    assert (node(store, 1), node(store, 2)) == (KEY, LOOSE)
    trial(store, "t", KEY)
    store.plan_trial("later", [KEY])
    store.write_seed_log("added", records.seed_log())
    store.note_failure("unfinished", "no memory")
    for key in (LOOSE, "unfinished"):
        store.write_checkpoint(key, {"w": torch.zeros(3)}, {})
    (store.root / "staging" / "left").mkdir()
    (store.root / "staging" / "left" / "file").write_text("of a killed writer")
    age(store.root)
    return store


def age(root: Path) -> None:
    then = time.time() - 4000
    for path in root.rglob("*"):
        os.utime(path, (then, then))


def moved_out(store: Store, name: str, outside: Path) -> Path:
    """Put a folder or file of the store outside, and a link to it in its place."""
    place = store.root / name
    outside.mkdir()
    target = outside / place.name
    shutil.move(place, target)
    place.symlink_to(target)
    return place


def content(outside: Path) -> dict[str, bytes | None]:
    """What lies outside: the bytes of files, None for folders."""
    return {
        path.relative_to(outside).as_posix(): path.read_bytes() if path.is_file() else None
        for path in outside.rglob("*")
    }


def everything(store: Store) -> list[Callable[[], object]]:
    """All that a store can be asked to do."""
    logits = {"test": np.eye(3)}
    return [
        lambda: store.note_failure("unfinished", "no memory at all"),
        lambda: store.archive.failures(),
        lambda: node(store, 1),
        lambda: node(store, 3),
        lambda: store.read_node(KEY),
        lambda: store.node_weights(KEY),
        lambda: store.node_history(KEY),
        lambda: store.has_node(KEY),
        lambda: store.read_trial("t"),
        lambda: store.trial_logits("t"),
        lambda: store.read_checkpoint("unfinished"),
        store.unneeded,
        store.collect,
        lambda: store.collect(abandon=True),
        lambda: store.write_trial("t", records.manifest((KEY,), seed=2), logits),
        lambda: store.plan_trial("later", []),
        lambda: store.drop_plan("later"),
        lambda: store.write_checkpoint("unfinished", {"w": torch.ones(3)}, {}),
        lambda: store.drop_checkpoint("unfinished"),
        lambda: store.drop_checkpoint(LOOSE),
        lambda: store.write_seed_log("added", records.seed_log(first=4)),
        lambda: store.archive.seed_logs(),
        lambda: store.lock("k").release(),
        lambda: store.lock(LOOSE).release(),
        lambda: store.discard_node(KEY),
        lambda: store.discard_node(LOOSE),
        lambda: store.collect(abandon=True),
    ]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_a_link_is_refused(
    full: Store, name: str, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    place = moved_out(full, name, tmp_path / "outside")
    (tmp_path / "outside" / name / "mine.txt").write_text("years of work")
    before = content(tmp_path / "outside")
    for opening in (Store, Archive):
        assert str(place) in refuses("is a link", opening, full.root)
    for abandon in (False, True):  # of a store that was opened before the link was there
        assert refusal(full.collect, abandon=abandon) == snapshot
    for call in everything(full):
        with suppress(OfframpError):
            call()
        assert content(tmp_path / "outside") == before and place.is_symlink()


ENTRIES = {
    "nodes": f"nodes/{KEY}",
    "loose": f"nodes/{LOOSE}",
    "node.json": f"nodes/{KEY}/node.json",
    "weights": f"nodes/{KEY}/weights.safetensors",
    "history": f"nodes/{KEY}/history.parquet",
    "trials": "trials/t",
    "trial.json": "trials/t/trial.json",
    "logits": "trials/t/logits.npz",
    "plan": "plans/later.json",
    "seeds": "seeds/added.json",
    "failure": "failures/unfinished.json",
    "work": "work/unfinished",
    "work done": f"work/{LOOSE}",
    "checkpoint": "work/unfinished/checkpoint.safetensors",
    "version": "store.json",
}


@pytest.mark.parametrize("name", ENTRIES.values(), ids=ENTRIES.keys())
def test_an_entry_that_is_a_link_is_not_followed(full: Store, name: str, tmp_path: Path) -> None:
    moved_out(full, name, tmp_path / "outside")
    age(tmp_path / "outside")
    before = content(tmp_path / "outside")
    refused = 0
    for call in everything(full):
        try:
            call()
        except OfframpError as error:
            refused += "is a link" in str(error)
        assert content(tmp_path / "outside") == before
    assert refused


@pytest.mark.parametrize("name", [".gate.1.lock", "k.1.lock", f"{LOOSE}.7.lock", f".write.{KEY}.1.lock"])
def test_a_lock_that_is_a_link_is_refused(
    full: Store, name: str, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    (tmp_path / "mine.txt").write_text("years of work")
    place = full.root / "locks" / name
    place.unlink(missing_ok=True)
    place.symlink_to(tmp_path / "mine.txt")
    for abandon in (False, True):
        assert refusal(full.collect, abandon=abandon) == snapshot
    for call in everything(full):
        with suppress(OfframpError):
            call()
        assert (tmp_path / "mine.txt").read_text() == "years of work"


def test_links_among_leftovers_go_and_what_they_lead_to_stays(full: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("years of work")
    links = ("staging/a", "staging/left/b", f"nodes/{LOOSE}/c", f"work/{LOOSE}/d", "plans/.x.tmp")
    for name in links:
        (full.root / name).symlink_to(outside)
        os.utime(full.root / name, (0, 0), follow_symlinks=False)
    age(full.root / "staging" / "left")
    os.utime(full.root / "staging" / "left", (0, 0))
    full.collect()
    assert content(outside) == {"mine.txt": b"years of work"}
    assert not [name for name in links if (full.root / name).is_symlink()]
    assert full.nodes() == [KEY] and list((full.root / "staging").iterdir()) == []


def test_the_root_may_be_a_link(full: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(full.root)
    store = Store(tmp_path / "link")
    assert store.collect() > 0 and store.nodes() == [KEY]
    store.verify_node(KEY)
    trial(store, "u", KEY)
    assert full.has_trial("u")


def circle(folder: Path) -> Path:
    """A link to a link to itself."""
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


DOORS: dict[str, Callable[[Path], object]] = {
    "store": Store,
    "store to write": lambda path: node(Store(path)),
    "pack": lambda path: pack.write(path, Archive("none"), [], pd.DataFrame(), ()),
    "pack to read": pack.read,
    "code": lambda path: usercode.load(f"{path}:make", "backbone"),
    "inside": lambda path: inside(path.parent, path.name),
}


@pytest.mark.parametrize("below", [False, True], ids=["itself", "below"])
@pytest.mark.parametrize("door", DOORS)
def test_links_in_a_circle_are_one_line(
    door: str, below: bool, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    path = circle(tmp_path)
    assert refusal(DOORS[door], path / "x" if below else path) == snapshot
