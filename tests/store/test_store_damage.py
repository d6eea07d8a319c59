"""Damaged files of the store are named and made anew."""

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_kit import LOGITS, NODE_FILES, history, node, record, trial

import records
from disks import flip, sparse, truncate
from offramp.errors import OfframpError
from offramp.store.sealed import REMEDY
from offramp.store.store import Damaged, Store


def pipe(path: Path) -> None:
    """Whoever reads one waits; the time limit of every test would end that."""
    path.unlink()
    os.mkfifo(path)


HARM = [truncate, flip, Path.unlink, pipe, sparse]


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("file", NODE_FILES)
def test_damage_to_a_node_is_named_and_mended(
    store: Store, file: str, harm: Callable[[Path], None]
) -> None:
    key = node(store)
    path = store.root / "nodes" / key / file
    harm(path)
    with pytest.raises(Damaged) as caught:
        store.verify_node(key)
    assert caught.value.remedy == REMEDY
    assert caught.value.path == path and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    read: dict[str, Callable[[str], Any]] = {
        "node.json": store.read_node,
        "history.parquet": store.node_history,
        "cost.json": store.node_cost,
        "weights.safetensors": store.node_weights,
    }
    for name, method in read.items():
        if file in (name, "node.json"):
            with pytest.raises(Damaged):
                method(key)
        else:
            method(key)
    # The cheap look sees all but a flipped bit outside node.json.
    assert store.has_node(key) == (harm is flip and file != "node.json")
    node(store)
    store.verify_node(key)


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("file", ["trial.json", "logits.npz"])
def test_damage_to_a_trial_is_named_and_mended(
    store: Store, file: str, harm: Callable[[Path], None]
) -> None:
    trial(store, "t1", node(store))
    path = store.root / "trials" / "t1" / file
    harm(path)
    with pytest.raises(Damaged) as caught:
        store.trial_logits("t1")
    assert caught.value.path == path
    with pytest.raises(Damaged):
        store.archive.verify_trial("t1")
    assert store.has_trial("t1") == (harm is flip and file != "trial.json")
    trial(store, "t1", node(store))
    assert store.has_trial("t1") and np.array_equal(store.trial_logits("t1")["test"], LOGITS["test"])


def test_a_node_under_another_name_is_damaged(store: Store) -> None:
    key = node(store)
    (store.root / "nodes" / key).rename(store.root / "nodes" / "other")
    assert not store.has_node("other")
    with pytest.raises(Damaged, match="describe 'other'"):
        store.read_node("other")
    with pytest.raises(Damaged, match="missing"):
        store.read_node(key)


def test_another_layout_of_a_manifest_is_no_damage_and_no_cover_for_it(store: Store) -> None:
    key = node(store)
    path = store.root / "nodes" / key / "node.json"
    whole = store.read_node(key)
    text = path.read_text()
    loose = json.dumps(json.loads(text))
    path.write_text(loose)
    assert store.read_node(key) == whole
    later = ('"epochs": 2', '"epochs": 3')
    for edited in (
        *(loose.replace(*later), text.replace(*later), text.replace("\n", "\n\n", 1).replace(*later)),
        *(text.replace('"seal"', '"sea"'), text[:-1] + ', "more": 1}'),
        text.replace('{\n "files"', '{\n "epochs": 2,\n "files"'),
    ):
        assert edited not in (text, loose)
        path.write_text(edited)
        with pytest.raises(Damaged, match="seal"):
            store.read_node(key)


def test_damaged_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(Damaged(Path("a"), "is missing")))
    assert isinstance(error, Damaged) and error.path == Path("a") and "is missing" in str(error)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE])
def test_what_cannot_be_read_now_is_not_called_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """For want of a permission, which root has wherever it looks, or of file handles."""
    key = node(store)

    def read_regular(path: Path, most: int) -> bytes:  # noqa: ARG001
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr("offramp.store.sealed.read_regular", read_regular)
    with pytest.raises(OfframpError, match=rf"cannot read .*{os.strerror(code)}") as caught:
        store.has_node(key)
    assert not isinstance(caught.value, Damaged)


ODD_LOGITS: dict[str, dict[str, np.ndarray]] = {
    "no labels": {"test": LOGITS["test"]},
    "none of test": {"calibration": LOGITS["test"], "calibration_labels": np.arange(3)},
    "no images": {"test": np.zeros((0, 1, 3)), "test_labels": np.zeros(0, int)},
    "no axis of exits": LOGITS | {"test": np.eye(3)},
    "another number of exits": LOGITS | {"test": np.zeros((3, 2, 3))},
    "text": LOGITS | {"test": LOGITS["test"].astype(str)},
    "dates": LOGITS | {"test": LOGITS["test"].astype("M8[s]")},
    "labels in text": LOGITS | {"test_labels": np.array(["a", "b", "c"])},
    "fewer labels": LOGITS | {"test_labels": np.arange(2)},
    "a class that is none": LOGITS | {"test_labels": np.array([0, 1, 2**40])},
    "a class below all": LOGITS | {"test_labels": np.array([0, 1, -1])},
}


@pytest.mark.parametrize("name", ODD_LOGITS)
def test_arrays_that_are_no_logits_are_named(store: Store, name: str) -> None:
    """Somebody who makes a store can seal them."""
    store.write_trial("t", records.manifest(), ODD_LOGITS[name])
    with pytest.raises(Damaged) as caught:
        store.trial_logits("t")
    assert caught.value.path == store.root / "trials" / "t" / "logits.npz"
    assert "\n" not in str(caught.value)


ODD_HISTORIES = {
    "epochs in text": history(epoch=["1", "2"]),
    "values in text": history(value=["a", "b"]),
    "exits by number": history(exit=1),
    "a metric that is missing": history(metric=[None, "loss"]),
    "no metric": history().drop(columns="metric"),
    "two alike": history(epoch=1),
}


@pytest.mark.parametrize("name", ODD_HISTORIES)
def test_a_table_that_is_no_history_is_named(store: Store, name: str) -> None:
    store.write_node(record(), {}, ODD_HISTORIES[name], records.cost())
    with pytest.raises(Damaged) as caught:
        store.node_history(record().key)
    assert caught.value.path == store.root / "nodes" / record().key / "history.parquet"
    assert "\n" not in str(caught.value)


def test_logits_of_several_labels_an_image_are_read(store: Store) -> None:
    store.write_trial("t", records.manifest(), LOGITS | {"test_labels": np.eye(3, dtype=np.uint8)})
    assert store.trial_logits("t")["test_labels"].ndim == 2
