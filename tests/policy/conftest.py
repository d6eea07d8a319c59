from __future__ import annotations

import pytest

from offramp.policy import solve
from offramp.policy.limits import LIMITS
from simulated import FINAL_SHARE


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search in less detail. How good it is at what it searches is in test_solve."""
    monkeypatch.setattr(solve, "NEAR", 6)


@pytest.fixture
def final_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """One limit more, which offramp knows from its entry alone."""
    monkeypatch.setitem(LIMITS, "max-final-share", FINAL_SHARE)  # type: ignore[arg-type]
