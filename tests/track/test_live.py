"""What a store says of trials that others train."""

import io
import json
import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion
from watched import at_epoch_zero, finish

from offramp.api.opening import awaited
from offramp.api.results.status import LiveStatus, watch
from offramp.hashing import text, with_seal
from offramp.store.live import COLUMNS, LivePhase, Reader, TrialProgress, phases_by_key
from offramp.store.store import Store
from offramp.study.run.events import GroupStarted
from offramp.study.run.run import RunConfig, run
from offramp.terminal import rendered
from support import CPU, tiny_plan, tiny_study
from wording import refusal


def printed(courses: Iterable[TrialProgress], width: int = 80) -> str:
    """What `watch` shows of a store."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rendered(LiveStatus("runs", list(courses), []).document(), width))
    return console.export_text()


def test_what_is_under_way_is_seen(store: Store, tmp_path: Path) -> None:
    reader = Reader(store.archive)
    baseline, two_stage = reader.courses()
    assert baseline.manifest is not None and [p.finished for p in baseline.phases] == [True]
    assert two_stage.manifest is None and two_stage.plan.seed == baseline.plan.seed == 42
    backbone, *heads = two_stage.phases
    assert backbone.key == baseline.phases[0].key and backbone.finished
    assert [(p.name, p.epoch, p.epochs, p.finished) for p in heads] == [
        (f"exit {k}", 1, 2, False) for k in (1, 2, 3)
    ]
    for phase in heads:
        assert [exit for exit, _ in phase.validation] and set(phase.history["epoch"]) == {1}
    finish(store, tmp_path)
    _, two_stage = reader.courses()
    assert two_stage.manifest is not None and all(p.finished for p in two_stage.phases)
    key = two_stage.phases[1].key
    assert two_stage.phases[1].history.equals(store.node_history(key)[COLUMNS])


@pytest.mark.parametrize("method", ["failures", "planned"])
def test_who_watches_waits_for_a_trial_that_ends_during_a_look(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Nothing of its end was shown or sent. asked: of the archive, when it ends."""
    reader, answer = Reader(store.archive), getattr(store.archive, method)

    def later(*about: str) -> Any:
        finish(store, tmp_path)
        return answer(*about)

    with monkeypatch.context() as patch:
        patch.setattr(store.archive, method, later)
        courses, over = reader.look()
    assert len(courses) == 1 and not over
    courses, over = reader.look()
    assert len(courses) == 2 and over and all(course.manifest is not None for course in courses)


def test_a_shared_phase_has_the_name_that_each_trial_gives_it(tmp_path: Path) -> None:
    """The plain network is the baseline's `backbone` and the last network of separate training."""
    store = Store(tmp_path / "runs")
    plan = tiny_plan(tiny_study(["baseline", "separate"]))
    with closing(run(plan, store, RunConfig(CPU, tmp_path / "caches"))) as events:
        while not isinstance(next(events), GroupStarted):
            pass
        under_way = list(Reader(store.archive).courses())
        for _ in events:
            pass
    for baseline, separate in (under_way, list(Reader(store.archive).courses())):
        assert [p.title for p in baseline.phases] == ["backbone"]
        assert [p.title for p in separate.phases] == [f"exit {k}" for k in (1, 2, 3, 4)]
        assert separate.phases[-1].key == baseline.phases[0].key
        assert phases_by_key([baseline, separate])[baseline.phases[0].key].title == "backbone"


def test_it_is_shown_in_eighty_columns(store: Store) -> None:
    text = printed(Reader(store.archive).courses())
    assert "1 of 2 trials" in text and "1 of 4 phases" in text
    assert "two-stage" in text and "1/2" in text and "by nobody" in text
    assert max(map(len, text.splitlines())) <= 80


def test_of_many_finished_trials_the_latest_are_shown_and_said_to_be(store: Store) -> None:
    done, _ = Reader(store.archive).courses()
    for count, heading in ((8, "finished  "), (9, "finished, the latest 8 of 9")):
        assert heading in printed([done] * count)


def test_who_looks_on_waits_for_a_store(
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    coming = tmp_path / "coming"
    sleep = SimpleNamespace(sleep=lambda _: shutil.copytree(store.root, coming))
    monkeypatch.setattr("offramp.api.opening.time", sleep)
    assert awaited(coming).exists()
    assert "Waiting for a store" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    assert refusal(awaited, tmp_path / "other") == snapshot


def test_trials_that_wait_are_counted_and_never_hide_what_failed(store: Store) -> None:
    """A study of a hundred trials is higher than a terminal, which cuts the end off."""
    baseline, two_stage = Reader(store.archive).courses()
    waiting = replace(two_stage, trial="waiting", phases=(LivePhase("a" * 32),))
    broken = replace(two_stage, trial="broken", phases=(LivePhase("b" * 32, failed="it diverged"),))
    text = printed([baseline, two_stage, waiting, waiting, broken])
    assert "waiting" not in text and "2 trials not begun" in text
    places = [text.index(word) for word in ("it diverged", "finished  ", "begun  ", "not begun")]
    assert places == sorted(places)


def test_a_phase_has_its_name_before_its_first_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    with at_epoch_zero(store, tmp_path):
        courses = list(Reader(store.archive).courses())
        phases = courses[-1].phases
        assert [(p.title, p.epoch, p.begun) for p in phases[1:]] == [
            (f"exit {k}", 0, True) for k in (1, 2, 3)
        ]
        assert "exit 1, by " in printed(courses, 200)


def test_a_plan_of_an_earlier_offramp_is_read(store: Store) -> None:
    (path,) = store.root.glob("plans/*.json")  # type: ignore[union-attr]
    fields = json.loads(path.read_bytes())
    path.write_bytes(text(with_seal({name: fields[name] for name in ("name", "nodes")})))
    _, two_stage = Reader(store.archive).courses()
    assert [p.title for p in two_stage.phases[1:]] == ["exit 1", "exit 2", "exit 3"]
    assert not [path for path, _ in store.unneeded() if path.parent.name == "nodes"]  # type: ignore[union-attr]


def test_what_failed_is_over_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Watching waited for it without end."""
    diverging = {"name": "joint", "phases": {"joint": {"optimizer": "sgd", "learning_rate": 1e30}}}
    plan, store = tiny_plan(tiny_study(["baseline", diverging])), Store(tmp_path / "runs")
    with closing(run(plan, store, RunConfig(CPU, tmp_path / "caches"))) as events:
        for event in events:
            if isinstance(event, GroupStarted):
                assert not all(course.over for course in Reader(store.archive).courses())
    baseline, joint = Reader(store.archive).courses()
    assert joint.manifest is None and joint.over and baseline.over
    under_way = replace(joint, phases=(replace(joint.phases[0], holder="process 1"),))
    assert not under_way.over  # what is at work may still be kept
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    watch(store.root, every=3600).run(False, lambda: None)
    words = " ".join(capsys.readouterr().out.split())
    assert f"{joint.trial} " in words and "is not finite" in words and "begun" not in words


def test_who_watches_waits_for_what_is_to_come(store: Store, tmp_path: Path) -> None:
    """Between two studies of a list, or two looks at seeds, no trial is under way."""
    finish(store, tmp_path)
    reader = Reader(store.archive)
    with store.more_to_come():
        assert store.archive.more_comes() and all(course.over for course in reader.courses())
    assert not store.archive.more_comes()


@pytest.mark.parametrize("spoilt", [b"", b"no checkpoint", b"\x08\0\0\0\0\0\0\0[1, 2]\n\n"])
def test_a_damaged_checkpoint_tells_nothing(store: Store, spoilt: bytes) -> None:
    for path in store.root.glob("work/*/checkpoint.safetensors"):  # type: ignore[union-attr]
        path.write_bytes(spoilt)
    _, two_stage = Reader(store.archive).courses()
    assert [p.epoch for p in two_stage.phases] == [2, 0, 0, 0]
