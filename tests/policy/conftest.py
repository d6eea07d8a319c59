from __future__ import annotations

import pytest

from offramp.policy import solve


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search in less detail. How good it is at what it searches is in test_solve."""
    monkeypatch.setattr(solve, "NEAR", 6)
