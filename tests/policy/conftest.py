from typing import Any

import pytest

from offramp.policy import calibrate, solve
from offramp.policy.candidates import SplitLogits, candidates
from offramp.policy.limits import LIMITS
from offramp.policy.policy import Policy
from simulated import FINAL_SHARE

CANDIDATES_OF: dict[Any, tuple[SplitLogits, tuple[Policy, ...]]] = {}


def once(validation: SplitLogits, *options: Any) -> tuple[Policy, ...]:
    key = (id(validation), *options)
    if key not in CANDIDATES_OF:  # kept with its rows, so that no others get their id
        CANDIDATES_OF[key] = validation, candidates(validation, *options)
    return CANDIDATES_OF[key][1]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search in less detail, and once for the same rows, costs and loss. How good it is at what it
    searches is in test_solve."""
    monkeypatch.setattr(solve, "NEAR", 6)
    monkeypatch.setattr(calibrate, "candidates", once)


@pytest.fixture
def final_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """One limit more, which offramp knows from its entry alone."""
    monkeypatch.setitem(LIMITS, "max-final-share", FINAL_SHARE)  # type: ignore[arg-type]
