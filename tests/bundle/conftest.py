from __future__ import annotations

from pathlib import Path

import pytest
from bundle_kit import digits_store, export_to, halving

from chromium import browser

__all__ = ["browser", "leaving"]


@pytest.fixture(scope="session")
def leaving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of digits by which about half of the images leave at each exit that they reach; treat it
    as read-only."""
    folder = tmp_path_factory.mktemp("leaving")
    store = digits_store(folder / "runs", ("two-stage", "cascade"))
    export_to(folder / "bundle", store, halving(store, "two-stage"))
    export_to(folder / "together", store, halving(store, "two-stage", "ensemble"))
    export_to(folder / "cascade", store, halving(store, "cascade"))
    export_to(folder / "gated", store, halving(store, "two-stage", "gate"))
    export_to(folder / "classwise", store, halving(store, "two-stage", "classwise"))
    return folder / "bundle"
