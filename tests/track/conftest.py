"""A store in which one trial is finished and another under way."""

import shutil
from pathlib import Path

import pytest
from watched import finish

from offramp.store.store import Store
from offramp.study.run.run import RunConfig, run
from support import CPU, tiny_plan, tiny_study


@pytest.fixture(scope="session")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it was trained; read-only."""
    folder = tmp_path_factory.mktemp("under-way")
    store = Store(folder / "runs")
    list(run(tiny_plan(tiny_study(["baseline"])), store, RunConfig(CPU, folder / "caches")))
    finish(store, folder, first_epoch=True)
    return folder / "runs"


@pytest.fixture
def store(under_way: Path, tmp_path: Path) -> Store:
    """Baseline finished; of two-stage, the first epoch of three of its heads is saved. A copy for one
    test."""
    shutil.copytree(under_way, tmp_path / "runs")
    return Store(tmp_path / "runs")
