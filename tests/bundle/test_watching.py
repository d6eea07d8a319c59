"""What a server says of itself, on answers whose truth is known: the alarm, and its metrics."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from bundle_kit import edited
from prometheus_client import CollectorRegistry, generate_latest
from test_serving import ask, get, pictures, png, serving

from offramp.bundle.expected import FILE, Expected, ExpectedShare, read
from offramp.bundle.folder import seal
from offramp.bundle.runtime import Bundle
from offramp.serve.alarm import YEAR, Watch
from offramp.serve.app import WatchGauges
from offramp.serve.batcher import Answer
from wording import refusal

__all__ = ["pictures"]
USUAL = (0.7, 0.2, 0.1)
SHARES = tuple(
    ExpectedShare("exit", share, share - 0.04, share + 0.04, at) for at, share in enumerate(USUAL, 1)
)
EXPECTED = Expected(2_500, SHARES, (1, 2, 3), 0.93, 0.41)


@pytest.fixture(scope="module")
def watched(leaving: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says to expect EXPECTED."""
    folder = tmp_path_factory.mktemp("watched") / "flowers"
    shutil.copytree(leaving, folder)
    edited(folder, FILE, "", EXPECTED.as_json())
    return folder


class Service:
    """A watch that sees answers by the shares of exits."""

    def __init__(self, folder: Path, every: int = YEAR) -> None:
        self.lines = list[str]()
        self.watch = Watch(Bundle(folder, threads=1), every, self.lines.append)
        self._chance = np.random.default_rng(0)

    def answer(self, shares: Sequence[float], images: int) -> None:
        for exit in self._chance.choice([1, 2, 3], images, p=shares).tolist():
            logits = np.zeros(10, np.float32)
            self.watch.answered(Answer("1", 0.9, exit, 0.3 * exit, 1, (0.5,) * exit, logits))


def test_as_calibrated_there_is_no_alarm(watched: Path) -> None:
    service = Service(watched)
    service.answer(USUAL, 10_000)
    assert service.watch.alarm is None and service.lines == []


def test_a_shift_is_an_alarm_within_minutes_and_ends_with_it(watched: Path) -> None:
    service = Service(watched)
    service.answer(USUAL, 3_000)
    service.answer((0.45, 0.35, 0.2), 1_200)
    assert service.watch.alarm is not None and len(service.lines) == 1
    first = service.watch.alarm[0]
    assert first.share.exit == 1 and abs(first.value - 0.45) < 0.1 and first.took < 600
    assert "exit 1 fell to" in service.lines[0]
    service.answer((0.45, 0.35, 0.2), 5_000)
    assert service.watch.alarm is not None and len(service.lines) == 1
    service.answer(USUAL, 4_000)
    assert service.watch.alarm is None and len(service.lines) == 2 and "ended" in service.lines[1]
    assert service.watch.alarms == 1


def test_an_alarm_that_is_off_raises_nothing(watched: Path) -> None:
    service = Service(watched, every=0)
    service.answer((0.1, 0.1, 0.8), 2_000)
    assert service.watch.alarm is None and service.lines == []


def test_scores_that_fall_are_an_alarm_though_exits_are_as_ever(watched: Path, tmp_path: Path) -> None:
    sure = ExpectedShare("score", 0.25, 0.2, 0.3, 1, 0.4)
    folder = Path(shutil.copytree(watched, tmp_path / "bundle"))
    edited(folder, FILE, "", Expected(2_500, (*SHARES, sure), (1, 2, 3), 0.93, 0.41).as_json())
    service = Service(folder)  # no image scores below 0.4 there
    service.answer(USUAL, 1_000)
    assert service.watch.alarm is not None and [each.share for each in service.watch.alarm] == [sure]
    assert "Exit 1 is surer: 0.0 %" in service.lines[0]


def test_bundles_say_what_to_expect(leaving: Path, watched: Path, tmp_path: Path) -> None:
    assert read(Bundle(watched, threads=1)) == EXPECTED
    assert read(Bundle(leaving, threads=1)).exits == (1, 2, 3)
    folder = shutil.copytree(leaving, tmp_path / "bundle")
    edited(folder, FILE, "", EXPECTED.as_json() | {"shares": [{"of": "exit"}]})
    assert f"{FILE} is damaged" in refusal(read, Bundle(folder, threads=1))
    (folder / FILE).unlink()
    seal(folder)
    assert f"{FILE} is damaged" in refusal(read, Bundle(folder, threads=1))


def test_metrics_have_the_alarm_and_what_it_expects(watched: Path) -> None:
    service, registry = Service(watched), CollectorRegistry()
    registry.register(WatchGauges(service.watch))

    def lines() -> dict[str, float]:
        text = generate_latest(registry).decode().splitlines()
        return {key: float(v) for key, v in (s.rsplit(" ", 1) for s in text if not s.startswith("#"))}

    service.answer(USUAL, 2_000)
    metrics = lines()
    assert metrics['offramp_expected_exit_share_low{exit="1"}'] == pytest.approx(0.66)
    assert metrics["offramp_expected_confidence"] == 0.93 and metrics["offramp_alarm"] == 0
    service.answer((0.3, 0.3, 0.4), 900)
    assert lines()["offramp_alarm"] == 1 and lines()["offramp_alarms_total"] == 1


def test_a_server_watches_its_answers(watched: Path, pictures: list[np.ndarray]) -> None:
    """Often wrong by intent: an alarm that is false every second image."""
    bundle, lines = Bundle(watched, threads=1), list[str]()
    with serving(bundle, Watch(bundle, 2, lines.append)) as port:
        for picture in pictures[:40]:
            assert ask(port, png(picture))[0] == 200
        metrics = get(port, "/metrics")[1]
    assert "offramp_alarm 1.0" in metrics and "offramp_confidence_count 40.0" in metrics
    assert len(lines) == 1 and lines[0].startswith("alarm: ")
