from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from offramp.store import locks
from offramp.store.locks import LOOK_S
from offramp.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What time it is, which sleeping changes; nobody writes into their files unasked. There is no other
    clock: who compared those of two machines would fail here."""
    now = SimpleNamespace(s=1000.0)

    def sleep(seconds: float) -> None:
        now.s += seconds

    stand_in = SimpleNamespace(monotonic=lambda: now.s, sleep=sleep)
    monkeypatch.setattr(locks, "time", stand_in)
    monkeypatch.setattr(locks, "BEAT_S", 1e6)
    monkeypatch.setattr(locks, "POLL_S", LOOK_S)
    return now


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From now on this process is on that machine."""

    def move(name: str) -> None:
        monkeypatch.setattr(locks, "_machine", lambda: name)
        monkeypatch.setattr(locks.socket, "gethostname", lambda: name)

    return move
