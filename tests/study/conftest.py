from collections.abc import Callable
from pathlib import Path

import pytest

from offramp.store.store import Store


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes `s.yaml` in the current folder, so that messages begin with its bare name."""
    monkeypatch.chdir(tmp_path)

    def file(text: str) -> Path:
        Path("s.yaml").write_text(text, encoding="utf-8")
        return Path("s.yaml")

    return file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")
