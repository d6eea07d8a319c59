"""What a store says is read strictly, and written again as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
from store_kit import field_refusal, node, trial
from syrupy.assertion import SnapshotAssertion

import records
from offramp.hashing import text, with_seal
from offramp.store.manifest import Cost, Manifest, NodeRecord
from offramp.store.store import Store

PACKS = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/trials.json"))


@pytest.mark.parametrize("path", PACKS, ids=lambda path: path.parent.name)
def test_records_of_earlier_runs_are_written_as_they_were_read(path: Path) -> None:
    document = json.loads(path.read_text())
    for fields in (entry["manifest"] for entry in document["trials"].values()):
        assert text(Manifest.model_validate(fields).as_json()) == text(fields)
    for fields in document["nodes"].values():
        cost = fields.pop("cost")
        assert text(Cost.model_validate(cost).as_json()) == text(cost)
        assert text(NodeRecord.model_validate(fields).as_json()) == text(fields)


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
    ("field", "value"),
    [
        ("data.test", None),
        ("seed", "1"),
        ("macs", [1.5]),
        ("metrics.test.accuracy", ["high"]),
        ("data.spec", {"title": 3}),
    ],
)
def test_a_field_that_is_missing_or_of_another_type_is_named(
    store: Store, field: str, value: Any, snapshot: SnapshotAssertion
) -> None:
    trial(store, "t", node(store))
    changed(store.root / "trials" / "t" / "trial.json", "manifest", *field.split("."), value=value)
    line = field_refusal(store.read_trial, "t")
    assert "trial.json" in line and field in line and line == snapshot


def test_a_field_of_a_node_that_is_missing_is_named(store: Store, snapshot: SnapshotAssertion) -> None:
    key = node(store)
    path = store.root / "nodes" / key / "node.json"
    changed(path, "reads", "exits", value={"p1": {"head": {"trains": 1}}})
    assert field_refusal(store.read_node, key) == snapshot


def test_what_a_later_version_adds_is_kept() -> None:
    fields = records.manifest(later={"more": [1]}).as_json()
    assert fields["later"] == {"more": [1]} and "initial" not in fields
