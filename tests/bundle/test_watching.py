"""What a server says of itself, on answers whose truth is known: shares, alarm, runs, labels."""

import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_kit import await_page, edited, noise
from prometheus_client import CollectorRegistry, generate_latest
from syrupy.assertion import SnapshotAssertion
from test_serving import ask, get, pictures, png, serving, wait

from chromium import axe, blank
from longer import long
from offramp.api.deploy.serve import listener, serve_bundle
from offramp.bundle.expected import FILE, Expected, ExpectedShare, read
from offramp.bundle.runtime import Bundle
from offramp.serve import answers as serve_answers
from offramp.serve import page, uploads
from offramp.serve.answers import AnswerFile, Labels, Windows
from offramp.serve.app import WatchGauges
from offramp.serve.batcher import Answer
from offramp.serve.watch import FallBack, Watch, WatchOptions, fallen_back, run_through
from refusal import refuses
from wording import refusal

__all__ = ["pictures"]
USUAL = (0.7, 0.2, 0.1)
SHARES = (
    *(ExpectedShare("exit", share, share - 0.04, share + 0.04, at) for at, share in enumerate(USUAL, 1)),
    ExpectedShare("disagreement", 0.08, 0.05, 0.11),
)
EXPECTED = Expected(
    2_500, SHARES, (1, 2, 3), 0.93, 0.41, (0.95, 0.8, 0.6), "No guarantee: thresholds were set by hand."
)


@pytest.fixture(scope="module")
def watched(leaving: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says to expect EXPECTED."""
    folder = tmp_path_factory.mktemp("watched") / "flowers"
    shutil.copytree(leaving, folder)
    edited(folder, FILE, "", EXPECTED.as_json())
    return folder


class Service:
    """A watch with a clock of its own, and answers at eight a second by the shares of exits."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.now, self.lines, self.bundle = 1000.0, list[str](), Bundle(folder, threads=1)
        chance = random.Random(0)
        self.watch = Watch(
            self.bundle, WatchOptions(**options), lambda: self.now, chance, self.lines.append
        )
        self._chance = np.random.default_rng(0)

    def answer(self, shares: Sequence[float], images: int, differing: float = 0.08) -> list[Answer]:
        """differing: share of early answers, of all images, that are not the last exit's."""
        answers = []
        early = sum(shares[:2])
        for exit in self._chance.choice([1, 2, 3], images, p=shares).tolist():
            thresholds = [stage.threshold or 0.0 for stage in self.bundle.stages]
            scores = [t - 0.01 for t in thresholds[: exit - 1]] + [thresholds[exit - 1] + 0.01]
            left = exit
            if self.watch.bundle is not self.bundle:  # fallen back to all: it goes on to the end
                scores, left = scores + [0.5] * (3 - exit), 3
            answer = Answer("1", 0.9, left, 0.3 * left, 1, tuple(scores))
            if self.watch.answered(answer):
                self.watch.ran(exit - 1, exit < 3 and bool(self._chance.random() < differing / early))
            self.now += 0.125  # which floats add up exactly
            answers.append(answer)
        return answers

    @property
    def verdict(self) -> page.WatchVerdict:
        return page.verdict(self.watch)


def test_windows_forget_what_is_older_than_they_are() -> None:
    windows = Windows(2)
    windows.add(10.2, {0: 1, 1: 0.5})
    windows.add(69.9, {0: 1})
    assert windows.sums(69.9, 60).tolist() == [2, 0.5]
    assert windows.sums(70.0, 60).tolist() == [1, 0]
    assert windows.sums(70.0, 600).tolist() == [2, 0.5]
    windows.add(3610.5, {0: 3})  # in the row of second 10
    assert windows.sums(3610.5, 3600).tolist() == [4, 0]
    assert windows.sums(10_000.0, 3600).tolist() == [0, 0]


def test_windows_of_a_watch_say_what_happened_in_them(watched: Path) -> None:
    service = Service(watched, shadow=0.0)
    service.answer((1.0, 0.0, 0.0), 1200)
    service.answer((0.0, 0.0, 1.0), 480)
    service.now -= 0.125
    minute, ten, hour = service.watch.windows
    assert (minute.images, ten.images, hour.images) == (480, 1680, 1680)
    assert minute.shares == (0, 0, 1) and ten.shares == hour.shares == (1200 / 1680, 0, 480 / 1680)
    assert minute.compute == pytest.approx(0.9) and hour.compute == pytest.approx(0.3 + 0.6 * 480 / 1680)
    assert hour.confidence == pytest.approx(0.9) and hour.disagreement is None
    service.now += 3600
    assert [window.images for window in service.watch.windows] == [0, 0, 0]


def test_as_calibrated_there_is_no_alarm(watched: Path) -> None:
    service = Service(watched)
    assert service.verdict.state == "early"
    service.answer(USUAL, 10_000)
    assert service.verdict.state == "calm" and service.lines == []


@pytest.mark.parametrize("fall_back", ["none", "all"])
def test_a_shift_is_an_alarm_within_minutes_and_ends_with_it(watched: Path, fall_back: FallBack) -> None:
    """Also where images go on to the end while it stands: what the policy would do with them counts."""
    service = Service(watched, fall_back=fall_back)
    service.answer(USUAL, 3_000)
    service.answer((0.45, 0.35, 0.2), 1_200)
    alarm = service.watch.alarm
    assert alarm is not None and service.verdict.state == "alarm" and len(service.lines) == 1
    assert service.now - alarm.since > 75  # of the 150 seconds that the shift has lasted
    first = alarm.changes[0]
    assert first.share.exit == 1 and abs(first.value - 0.45) < 0.1
    assert "exit 1 fell to" in service.verdict.sentences[0]
    service.answer((0.45, 0.35, 0.2), 5_000)
    assert service.watch.alarm is not None and service.watch.alarm.since == alarm.since
    service.answer(USUAL, 4_000)
    assert service.watch.alarm is None and len(service.lines) == 2 and "ended" in service.lines[1]
    assert service.watch.alarms == 1 and service.watch.bundle is service.bundle


def test_more_disagreement_is_an_alarm_though_exits_are_as_ever(watched: Path) -> None:
    """Images on which early exits are as sure as ever, and wrong."""
    service = Service(watched, shadow=0.2)
    service.answer(USUAL, 4_000, differing=0.3)
    assert service.watch.alarm is not None
    (change,) = service.watch.alarm.changes
    assert change.share.of == "disagreement" and 0.2 < change.value < 0.5


@pytest.mark.parametrize(("differing", "said"), [(0.08, "no difference"), (0.3, "more now")])
def test_disagreement_is_estimated_and_held_against_calibration(
    watched: Path, differing: float, said: str
) -> None:
    service = Service(watched, shadow=0.2, alarm_every=0)
    service.answer(USUAL, 100)
    assert "are needed" in page.agreement(service.watch)[0]
    service.answer(USUAL, 8_000, differing)
    watch = service.watch
    share = watch.disagreement
    assert share is not None and share.low < differing < share.high and share.high - share.low < 0.1
    assert 1_400 < sum(watch.runs) < 1_800 and said in page.agreement(watch)[1]
    assert watch.differing[2] == 0  # the last exit is its own


def test_what_there_is_no_room_for_is_left_out_at_every_exit(watched: Path) -> None:
    """Those of the last exit run to the end in any case; counted alone they hid the disagreement."""
    service = Service(watched, shadow=1.0)
    for answer in service.answer(USUAL, 50):
        assert not service.watch.answered(answer, room=False)
    watch = service.watch
    assert sum(watch.runs) == 50 and watch.skipped == 50 and watch.images == 100
    assert "50 more were" in page.agreement(watch)[-1]


def test_a_run_to_the_end_is_held_against_the_policys_answer(leaving: Path) -> None:
    bundle = Bundle(leaving, threads=1)
    images = noise(64)
    answers, last = bundle.run(images), bundle.all_exits(images)[:, -1].argmax(axis=1)
    for row in range(64):
        stage, differs = run_through(bundle, images[row : row + 1])
        assert bundle.stages[stage].exit == answers.exits[row]
        assert differs == (answers.classes[row] != last[row])


@pytest.mark.parametrize("kind", ["bundle", "together", "gated"])
def test_falling_back_keeps_images_in_for_longer(kind: str, leaving: Path) -> None:
    bundle = Bundle(leaving.with_name(kind), threads=1)
    usual = bundle.run(noise(64)).exits
    raised, full = (fallen_back(bundle, how).run(noise(64)).exits for how in ("raise", "all"))
    assert (usual <= raised).all() and usual.mean() < raised.mean() <= full.mean() == 3
    assert fallen_back(bundle, "none") is bundle


def test_labels_that_come_later_are_counted_by_exit() -> None:
    labels = Labels(2, most=3)
    for id in "abcd":
        labels.answered(id, id > "b", "cat")
    assert not labels.label("a", "cat")  # forgotten
    assert labels.label("b", "cat") and labels.label("c", "dog") and labels.label("d", "cat")
    assert not labels.label("d", "cat")  # once is enough
    assert (labels.labeled, labels.right) == ([1, 2], [1, 1])


def test_the_file_of_answers_grows_by_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "old"}\n{"id": "to')  # a crash
    file = AnswerFile(path)
    file.append({"id": "ä"})
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        file.append({"id": "lost"})
    file.append({"id": "new"})
    file.close()
    assert path.read_text().splitlines() == [
        '{"id": "old"}',
        '{"id": "to',
        '{"id": "ä"}',
        '{"id": "new"}',
    ]
    assert file.lost == 1


def test_an_answer_that_is_no_text_is_kept(tmp_path: Path) -> None:
    """The network failed, said the server, of a class that is half a character."""
    file = AnswerFile(tmp_path / "answers.jsonl")
    file.append({"id": "a", "class": "\ud800é"})
    assert [*file.latest()] == [{"id": "a", "class": "\ud800é"}] and not file.lost
    file.close()


def test_labels_count_that_come_after_a_restart(
    watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    before = Service(watched, answers=path)
    first, second, *others = (answer.id for answer in before.answer(USUAL, 20))
    assert before.watch.label(first, "1")
    before.watch.close()
    with path.open("a") as file:
        file.write('[]\nno JSON\n{"id": "of another", "exit": 9, "class": "1"}\n{"id": "cut o')
    again = Service(watched, answers=path)
    assert again.watch.label(second, "1") and not again.watch.label(second, "1")
    assert not again.watch.label(first, "1") and not again.watch.label("of another", "1")
    assert sum(again.watch.labels.labeled) == sum(again.watch.labels.right) == 1
    again.watch.close()
    assert not Service(watched).watch.label(others[0], "1")  # the control: without the file
    monkeypatch.setattr(serve_answers, "TAIL", 400)  # some lines
    late = Service(watched, answers=path)
    assert late.watch.label(others[-1], "1") and not late.watch.label(others[0], "1")
    late.watch.close()


def test_a_place_that_holds_no_lines_is_refused(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "none" / "a.jsonl"):
        assert refusal(AnswerFile, place) == snapshot


def test_how_a_server_watches_is_checked_before_it_listens(
    leaving: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    silent = {"fall_back": "all", "alarm_every": 0}
    place = tmp_path / "none" / "a"
    for wrong in ({"answers": place}, {"shadow": 2.0}, {"fall_back": "never"}, silent):
        assert refusal(serve_bundle, str(leaving), port=0, **wrong) == snapshot
    with listener("127.0.0.1", 0) as busy:
        port = busy.getsockname()[1]
        refuses("cannot listen", serve_bundle, str(leaving), port=port, answers=tmp_path / "a.jsonl")


def test_bundles_say_what_to_expect(leaving: Path, watched: Path, tmp_path: Path) -> None:
    assert read(Bundle(watched, threads=1)) == EXPECTED
    assert read(Bundle(leaving, threads=1)).exits == (1, 2, 3)
    folder = shutil.copytree(leaving, tmp_path / "bundle")
    edited(folder, FILE, "shares", ...)
    refuses("is damaged", read, Bundle(folder, threads=1))


def test_what_the_page_says(watched: Path, snapshot: SnapshotAssertion) -> None:
    service = Service(watched, shadow=0.1, fall_back="all")

    def said() -> dict[str, Any]:
        watch = service.watch
        tables = {"rows": page.window_rows(watch), "labels": page.label_rows(watch)}
        return asdict(page.verdict(watch)) | {"agreement": page.agreement(watch), **tables}

    service.answer(USUAL, 10)
    assert said() == snapshot(name="a second")
    for answer in service.answer(USUAL, 3_000)[:200]:
        service.watch.label(answer.id, "1" if answer.exit < 3 else "2")
    assert said() == snapshot(name="as calibrated")
    service.answer((0.3, 0.3, 0.4), 900)
    assert said() == snapshot(name="an alarm")
    service.answer(USUAL, 10_000)
    assert said() == snapshot(name="after it")


def test_metrics_have_what_the_page_says(watched: Path) -> None:
    service, registry = Service(watched, shadow=0.1), CollectorRegistry()
    registry.register(WatchGauges(service.watch))

    def lines() -> dict[str, float]:
        text = generate_latest(registry).decode().splitlines()
        return {key: float(v) for key, v in (s.rsplit(" ", 1) for s in text if not s.startswith("#"))}

    assert 'offramp_window_exit_share{exit="1",window="1min"}' not in lines()  # of no image
    answers = service.answer(USUAL, 2_000)
    service.watch.label(answers[0].id, "1")
    metrics = lines()
    share = np.mean([answer.exit == 1 for answer in answers])
    assert metrics['offramp_window_exit_share{exit="1",window="10min"}'] == pytest.approx(share)
    assert metrics['offramp_expected_exit_share_low{exit="1"}'] == pytest.approx(0.66)
    assert metrics['offramp_window_images{window="10min"}'] == 2_000 and metrics["offramp_alarm"] == 0
    assert metrics[f'offramp_labels_right_total{{exit="{answers[0].exit}"}}'] == 1
    assert metrics["offramp_disagreement_low"] < 0.08 < metrics["offramp_disagreement_high"]
    service.answer((0.3, 0.3, 0.4), 900)
    assert lines()["offramp_alarm"] == 1 and lines()["offramp_alarms_total"] == 1


def test_a_server_watches_itself(watched: Path, pictures: list[np.ndarray], tmp_path: Path) -> None:
    """Its images run to the end after their answer; labels find their answers; nothing has pixels."""
    path = tmp_path / "answers.jsonl"
    bundle = Bundle(watched, threads=1)
    with serving(bundle, Watch(bundle, WatchOptions(shadow=1.0, answers=path))) as port:
        answers = [ask(port, png(each))[1] for each in pictures[:40]]
        wait(lambda: runs(get(port, "/metrics")[1]) == 40)
        right = [{"id": answer["id"], "label": answer["class"]} for answer in answers[:30]]
        assert ask(port, json.dumps(right), "/feedback") == (200, {"labeled": 30, "unknown": []})
        again = json.dumps({**right[0], "label": answers[0]["class"]})
        assert ask(port, again, "/feedback")[1] == {"labeled": 0, "unknown": [right[0]["id"]]}
        for body in (b"no JSON", b"[1]", b'{"id": 1}', b'{"id": "a", "label": "none"}', b"[" * 100_000):
            assert ask(port, body, "/feedback")[0] == 422
        form = ask(port, b'{"id": "a", "labels": ["1"]}', "/feedback")[1]["error"]
        assert '"label":' in form and "class" not in form
        many = json.dumps([right[0]] * (uploads.LABELS + 1))
        assert ask(port, many, "/feedback")[0] == 413 and ask(port, "[]", "/feedback")[0] == 200
        metrics = get(port, "/metrics")[1]
    assert f'offramp_labels_total{{exit="{answers[0]["exit"]}"}}' in metrics
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines[:40]] == [answer["id"] for answer in answers]
    assert set(lines[0]) == {"time", "id", "exit", "class", "confidence", "compute_share"}
    assert len(lines) == 70 and set(lines[-1]) == {"time", "id", "label"}


def runs(metrics: str) -> float:
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith("offramp_shadow_runs_total")
    )


LINES_OF_WINDOWS = """
    return [...document.querySelectorAll("thead th")].slice(1, 4).map((head) => {
      const text = document.createRange();
      text.selectNodeContents(head);
      return text.getClientRects().length;
    });
"""
LOOKS = [(1400, "light"), (390, "dark"), *long((1400, "dark"), (390, "light"))]


@pytest.fixture(scope="module")
def alarmed(watched: Path) -> Iterator[tuple[Service, int]]:
    """A server whose watch has seen a shift, and its port."""
    service = Service(watched, shadow=0.1)
    service.answer(USUAL, 3_000)
    with serving(service.bundle, service.watch) as port:
        yield service, port


@pytest.mark.parametrize(("width", "colors"), LOOKS)
def test_the_page_in_a_browser(
    width: int, colors: str, browser: Any, alarmed: tuple[Service, int]
) -> None:
    """It is read by everyone, fits a phone, and follows what happens."""
    service, port = alarmed
    blank(browser, width, colors)
    browser.get(f"http://127.0.0.1:{port}/")
    assert browser.find_element("tag name", "h1").text == "flowers"
    service.answer((0.3, 0.3, 0.4), 900)
    images = f"{service.watch.images:,} images"
    await_page(browser, f"document.getElementById('footer').textContent.includes('{images}')")
    assert browser.find_element("id", "verdict").get_attribute("class") == "alarm"
    assert "share of exit" in browser.find_element("id", "verdict").text
    assert axe(browser) == []
    page_width = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert page_width == [width, width]
    assert browser.execute_script(LINES_OF_WINDOWS) == [1, 1, 1]  # `1 min` is read as one
    assert browser.get_log("browser") == []


def test_a_page_whose_server_has_gone_says_so(browser: Any, watched: Path) -> None:
    with serving(watched) as port:
        blank(browser, 390, "light")
        browser.get(f"http://127.0.0.1:{port}/")
        assert not browser.find_element("id", "stale").is_displayed()
    browser.execute_script("dispatchEvent(new Event('focus'))")
    await_page(browser, "!document.getElementById('stale').hidden")
