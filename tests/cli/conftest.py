import shutil
from pathlib import Path

import pytest
from command import STUDY, Answer, Cli, call

from offramp.meters.meter import Missing
from offramp.study.plan import forecast
from offramp.study.run import costs


@pytest.fixture(autouse=True)
def _speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forecast trains each network for some steps, to see how fast: tests/study/test_schedule.py."""
    monkeypatch.setattr(forecast, "macs_per_second", lambda *_, **__: 3e10)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """`cli("run", "s.yaml")` in a folder of its own, on a screen of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A folder with a study, s.yaml, that was run into the store `runs`, and what the run said. There is
    no meter of energy, on whatever machine."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        patch.setattr(costs, "find_packages", lambda: Missing("no counter in /sys"))
        (folder / "s.yaml").write_text(STUDY)
        return folder, call("run", "s.yaml")


@pytest.fixture
def studied(cli: Cli, finished: tuple[Path, Answer], tmp_path: Path) -> Cli:
    """`cli` beside a finished study of its own."""
    assert finished[1].code == 0, finished[1].err
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return cli
