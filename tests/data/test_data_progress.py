"""How far reading is: messages that a program can listen to."""

import itertools
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from pictures import tree

from offramp.data import DataSpec, load, progress
from offramp.data.audit import audit, open_data
from offramp.data.progress import LoggedProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every look at the clock comes so many seconds after the one before."""
    ticks = itertools.count(0, getattr(request, "param", 0.4))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


@pytest.mark.usefixtures("clock")
def test_a_message_a_second_and_the_items_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "offramp.data")
    logged = LoggedProgress("counting", 2000)
    assert list(logged.over(range(4))) + list(logged.over("ab")) == [0, 1, 2, 3, "a", "b"]
    assert caplog.messages == ["counting: 3 of 2,000", "counting: 6 of 2,000"]


@pytest.mark.parametrize("clock", [0.3], indirect=True)
@pytest.mark.usefixtures("clock")
def test_what_takes_less_than_a_second_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "offramp.data")
    assert list(LoggedProgress("counting", 3).over("abc")) == ["a", "b", "c"]
    assert not caplog.messages


@pytest.mark.usefixtures("clock")
def test_every_pass_over_files_says_how_far_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = DataSpec("folder", str(tree(tmp_path / "photos")), size=8)
    caplog.set_level(logging.INFO, "offramp.data")

    def passes() -> set[str]:
        names = {message.partition(":")[0] for message in caplog.messages}
        caplog.clear()
        return names

    load(spec, None, "streaming")
    assert passes() == {"hashing files", "looking through images, once"}
    load(spec, None, "streaming")
    assert passes() == set()  # all of that is known now
    load(spec, None, "resident")
    assert passes() == {"reading images"}
    audit(open_data(spec))
    assert {"looking at images of train", "looking at images of test"} <= passes()
