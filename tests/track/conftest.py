"""A store in which one trial is finished and another under way."""

from __future__ import annotations

from pathlib import Path

import pytest
from watched import finish

from offramp.store.store import Store
from offramp.study.run.run import Conduct, run
from support import CPU, tiny_plan, tiny_study


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Baseline finished; of two-stage, the first epoch of three of its heads is saved."""
    kept = Store(tmp_path / "runs")
    list(run(tiny_plan(tiny_study(["baseline"])), kept, Conduct(CPU, tmp_path / "caches")))
    finish(kept, tmp_path, first_epoch=True)
    return kept
