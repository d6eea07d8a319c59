"""What the tests of the store share."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import records
from offramp.store.manifest import NodeRecord
from offramp.store.store import Store
from wording import refusal

TWICE = "was trained twice, and not to the same bits"
INDEX = "index/nodes.json.gz"
UNCONDITIONAL = "makes an object although it is there"
NODE_FILES = ("node.json", "history.parquet", "cost.json", "weights.safetensors")


def record(n: int = 0, parents: tuple[str, ...] = ()) -> NodeRecord:
    """Of a small node that reads `n` and `parents`."""
    summary = {"epochs": 2, "best_epoch": 1, "selected_epoch": 1, "validation_loss": float("nan")}
    return records.node({"n": n, "parents": list(parents), "rate": 0.1}, summary=summary)


def history(**columns: object) -> pd.DataFrame:
    """Two epochs, with some columns in place of theirs."""
    usual = {"split": "train", "exit": "objective", "metric": "loss", "value": [0.5, float("inf")]}
    return pd.DataFrame({"epoch": [1, 2], **usual, **columns})


LOGITS = {"test": np.eye(3)[:, None], "test_labels": np.arange(3)}


def node(store: Store, n: int = 0, parents: tuple[str, ...] = (), fill: float = 1.0) -> str:
    """Keep such a node; its key."""
    new = record(n, parents)
    store.write_node(
        new,
        {"a.weight": torch.full((4, 3), fill), "a.steps": torch.tensor(7), "none": torch.ones(0)},
        history(),
        records.cost(),
    )
    return new.key


def trial(store: Store, name: str, *keys: str) -> None:
    store.write_trial(name, records.manifest(keys), LOGITS)


def kept_and_read(place: str) -> tuple[Store, str]:
    """A store that is begun at `place`, and the key of its node; all that it is given, a checkpoint too,
    another one there reads."""
    store = Store(place)
    assert not store.archive.exists() and store.nodes() == []
    key = node(store)
    trial(store, "t", key)
    other = Store(place)
    assert other.nodes() == [key] and other.trials() == ["t"] and other.find_trial("t") == "t"
    assert other.has_node(key) and not other.has_node("absent") and not other.has_node("a", whole=False)
    assert torch.equal(other.node_weights(key)["a.weight"], torch.ones(4, 3))
    assert other.read_node(key).key == key and other.trial_logits("t")["test"].shape == (3, 1, 3)
    store.write_checkpoint(key, {"w": torch.ones(2)}, {"epoch": 3})
    checkpoint = other.read_checkpoint(key)
    assert (
        checkpoint is not None and checkpoint[1] == {"epoch": 3} and other.archive.checkpoints() == [key]
    )
    other.drop_checkpoint(key)
    assert store.read_checkpoint(key) is None
    return store, key


def field_refusal(function: Callable[..., object], *args: Any) -> str:
    """The line in which a field is refused, without the words of pydantic, which its versions change."""
    return re.sub(r": Input should [^;]*", "", refusal(function, *args))


def count_or_die(at: int) -> Callable[[int], None]:
    """An `os.fsync` that kills its process, as `kill -9` does, when called for the `at`-th time."""
    sync, calls = os.fsync, [0]

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    return fsync


def files(root: Path) -> list[str]:
    """What lies in the store beside locks and the version."""
    paths = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return sorted(p for p in paths if not p.startswith("locks/") and p != "store.json")
