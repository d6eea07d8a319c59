"""What a store says is read strictly, and written again as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from store_kit import node, trial

import records
from offramp.hashing import text, with_seal
from offramp.store.manifest import Cost, Manifest, NodeRecord
from offramp.store.store import Damaged, Store

PACKS = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/trials.json"))


@pytest.mark.parametrize("path", PACKS, ids=lambda path: path.parent.name)
def test_records_of_earlier_runs_are_written_as_they_were_read(path: Path) -> None:
    document = json.loads(path.read_text())
    for said in (entry["manifest"] for entry in document["trials"].values()):
        assert text(Manifest.model_validate(said).as_json()) == text(said)
    for said in document["nodes"].values():
        cost = said.pop("cost")
        assert text(Cost.model_validate(cost).as_json()) == text(cost)
        assert text(NodeRecord.model_validate(said).as_json()) == text(said)


def changed(path: Path, *names: str, value: Any = None) -> None:
    """Put `value` at a place in a sealed file, or take it away, and seal the file again."""
    document = json.loads(path.read_text())
    del document["seal"]
    *above, last = names
    part = document
    for name in above:
        part = part[name]
    part.pop(last) if value is None else part.update({last: value})
    path.write_bytes(text(with_seal(document)))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("data.test", None, "lacks the field 'data.test'"),
        ("seed", "1", "has a wrong 'seed'"),
        ("macs", [1.5], "has a wrong 'macs.0'"),
        ("metrics.test.accuracy", ["high"], "has a wrong 'metrics.test.accuracy.0"),
    ],
)
def test_a_field_that_is_missing_or_of_another_type_is_named(
    store: Store, field: str, value: Any, said: str
) -> None:
    trial(store, "t", node(store))
    path = store.root / "trials" / "t" / "trial.json"
    changed(path, "manifest", *field.split("."), value=value)
    with pytest.raises(Damaged, match="run its study again") as caught:
        store.read_trial("t")
    assert f"{path} {said}" in str(caught.value) and "\n" not in str(caught.value)


def test_so_is_one_of_a_node(store: Store) -> None:
    key = node(store)
    path = store.root / "nodes" / key / "node.json"
    changed(path, "reads", "exits", value={"p1": {"head": {"trains": 1}}})
    with pytest.raises(Damaged, match=r"node\.json lacks the field 'exits\.p1\.head\.spec'"):
        store.read_node(key)


def test_what_a_later_version_adds_is_kept() -> None:
    said = records.manifest(later={"more": [1]}).as_json()
    assert said["later"] == {"more": [1]} and "initial" not in said
