"""What a person should know of data that was read: from its provenance, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def notes(provenance: Mapping[str, Any]) -> list[str]:
    """Images that were dropped, skipped, or are there twice, one sentence a kind and split."""
    found = []
    for split, count in provenance.get("group_in_another_split", {}).items():
        found.append(
            f"{_images(count['images'])} of {split} left out: {count['groups']} of its groups are in "
            "another split."
        )
    for split, names in provenance.get("skipped", {}).items():
        found.append(f"{_images(len(names))} of {split} skipped as damaged, {names[0]} first.")
    for where, count in provenance.get("duplicates", {}).items():
        split, _, other = where.partition(" in ")
        twin = f"one of {other}" if other else "another of it"
        found.append(f"{_images(count)} of {split} equal to {twin}, byte for byte.")
    return found


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"
