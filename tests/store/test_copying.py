"""Copies of stores, from and to folders and object stores."""

from pathlib import Path

import pytest
import torch
from store_kit import TWICE, files, node, trial
from syrupy.assertion import SnapshotAssertion

from disks import flip
from offramp.store.archive import Archive
from offramp.store.copying import AT_ONCE, CopyOutcome, FolderPart, copy
from offramp.store.store import Store
from refusal import refuses
from wording import refusal


def copied(source: Store, target: Store) -> list[CopyOutcome]:
    return [step for step in copy(source.archive, target) if isinstance(step, CopyOutcome)]


def content(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files(root)}


def test_there_and_back_it_is_the_same_to_the_bit(s3: str, store: Store, tmp_path: Path) -> None:
    keys = [node(store, n) for n in range(3)]
    trial(store, "t", *keys[:2])
    store.plan_trial("unfinished", keys[2:])
    away, back = Store(s3), Store(tmp_path / "back")
    assert {step.what for step in copied(store, away) if step.bytes} == {
        *(f"nodes/{key}" for key in keys),
        *("trials/t", "plans/unfinished.json"),
    }
    copied(away, back)
    assert content(back.root) == content(store.root) and len(content(store.root)) == 15  # type: ignore[arg-type]
    assert not any(step.bytes for step in copied(store, Store(s3)))  # all of it is there
    assert Store(s3).at_work() is None


def test_one_that_was_cut_short_goes_on(store: Store, tmp_path: Path) -> None:
    for n in range(4 * AT_ONCE):
        node(store, n)
    target = Store(tmp_path / "target")
    steps = copy(store.archive, target)
    for _ in range(3):
        next(steps)
    refuses(r"copies into .*\(process", lambda: list(copy(store.archive, target)))
    steps.close()
    copies = len(target.nodes())
    assert 0 < copies < len(store.nodes())
    assert sum(step.bytes > 0 for step in copied(store, target)) == len(store.nodes()) - copies
    assert content(tmp_path / "target") == content(store.root)  # type: ignore[arg-type]


def test_a_trial_that_is_finished_meanwhile_is_not_copied_without_its_nodes(
    store: Store, tmp_path: Path
) -> None:
    trial(store, "t", node(store, 0))
    target = Store(tmp_path / "target")
    for step in copy(store.archive, target):
        if isinstance(step, FolderPart) and step.folder == "nodes":  # all nodes have been listed
            trial(store, "later", node(store, 1))
    needed = {key for name in target.trials() for key in target.read_trial(name).keys}
    assert target.has_trial("t") and needed <= set(target.nodes())
    copied(store, target)
    assert target.trials() == ["later", "t"] and len(target.nodes()) == 2


def test_what_is_damaged_is_left_out_there_and_replaced_here(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound, bad = node(store, 0), node(store, 1)
    target = Store(tmp_path / "target")
    node(target, 0)
    (target.root / "nodes" / sound / "node.json").unlink()  # type: ignore[operator]
    flip(store.root / "nodes" / bad / "weights.safetensors")  # type: ignore[operator]
    steps = {step.what: step for step in copied(store, target)}
    assert "weights.safetensors" in steps[f"nodes/{bad}"].damaged
    assert target.nodes() == [sound]
    target.verify_node(sound)
    assert not caplog.records


def test_what_is_damaged_here_and_whole_there_stops_nothing(store: Store, tmp_path: Path) -> None:
    keys = sorted(node(store, n) for n in range(3))
    target = Store(tmp_path / "target")
    copied(store, target)
    flip(store.root / "nodes" / keys[0] / "node.json")  # type: ignore[operator]
    trial(store, "t", keys[1])
    steps = {step.what: step for step in copied(store, target)}
    assert "node.json" in steps[f"nodes/{keys[0]}"].damaged
    target.verify_node(keys[0])
    assert target.has_trial("t")


def test_other_bits_under_one_key_are_said(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, target = node(store), Store(tmp_path / "target")
    node(target, fill=2.0)
    assert copied(store, target) == [CopyOutcome(f"nodes/{key}", 0)]
    assert TWICE in caplog.text
    assert torch.equal(target.node_weights(key)["a.weight"], torch.full((4, 3), 2.0)), "the first stays"


def test_what_makes_no_sense_is_refused(
    store: Store, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    nothing = Archive(tmp_path / "nothing")
    assert refusal(lambda: list(copy(nothing, store))) == snapshot
    node(store)
    assert refusal(lambda: list(copy(store.archive, Store(store.root)))) == snapshot
