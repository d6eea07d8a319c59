from pathlib import Path

import pytest
from bundle_kit import digits_store, export_to, halving

from chromium import browser

__all__ = ["browser", "digits", "leaving"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the trials of `digits_store` lie that are trained once and read by many."""
    return tmp_path_factory.mktemp("digits") / "runs"


@pytest.fixture(scope="session")
def leaving(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of digits by which about half of the images leave at each exit that they reach; treat it
    as read-only. Beside it: its exits answering together, and left by gates; and that of a cascade,
    whose exits have learned to add to the answer before."""
    folder = tmp_path_factory.mktemp("leaving")
    store = digits_store(digits, ("two-stage", "cascade"))
    export_to(folder / "bundle", store, halving(store, "two-stage"))
    export_to(folder / "together", store, halving(store, "two-stage", "ensemble"))
    export_to(folder / "cascade", store, halving(store, "cascade"))
    export_to(folder / "gated", store, halving(store, "two-stage", "gate"))
    return folder / "bundle"
