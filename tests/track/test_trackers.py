"""Trials in real trackers: TensorBoard's reader, an MLflow database, W&B offline."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from watched import finish

from longer import long
from offramp.api.keep.track import track_store
from offramp.store.store import Store
from offramp.store.table import tidy
from offramp.track.send import check, send, trial_run
from refusal import refuses
from wording import refusal

pytest.importorskip("tensorboard")
# Of MLflow's database.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
NOBODY = "http://127.0.0.1:9"


def expected(store: Store, trial: str) -> dict[tuple[str, int], float]:
    """Every number of a trial, by name and epoch; what has none is of epoch 0."""
    run = trial_run(store.archive, trial)
    steps = (*run.curves.items(), (0, run.results))
    return {(name, epoch): value for epoch, numbers in steps for name, value in numbers.items()}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def board(folder: Path, trial: str) -> dict[tuple[str, int], list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / trial), size_guidance={"scalars": 0}).Reload()
    values: dict[tuple[str, int], list[float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            values.setdefault((tag, event.step), []).append(event.value)
    return values


def test_a_run_has_every_number_of_the_tidy_table(store: Store, tmp_path: Path) -> None:
    finish(store, tmp_path)
    for trial in store.archive.trials():
        table, numbers = tidy(store.archive, [trial]), expected(store, trial)
        assert sorted(numbers.values()) == sorted(table["value"].dropna())  # so none has another's name
        manifest = store.read_trial(trial)
        final = numbers[f"test/accuracy/exit {manifest.exits[0]}", 0]
        assert final == manifest.metrics["test"].accuracy[0]
        settings = trial_run(store.archive, trial).settings
        assert settings["strategy"] == manifest.strategy and settings["recipe.epochs"] == 2
        last = manifest.phases[-1].name
        assert {epoch for name, epoch in numbers if name.startswith(f"{last}/validation/")} == {1, 2}


def test_tensorboard_reads_every_number_once(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "board"
    before = digests(tmp_path / "runs")
    assert send(store.archive, f"tensorboard:{folder}") == 1  # the one that is finished
    assert send(store.archive, f"tensorboard:{folder}") == 0
    assert digests(tmp_path / "runs") == before  # the store was only read
    finish(store, tmp_path)
    assert send(store.archive, f"tensorboard:{folder}") == 1
    assert {path.name for path in folder.iterdir()} == set(store.archive.trials())
    for trial in store.archive.trials():
        numbers = expected(store, trial)
        assert board(folder, trial) == {key: [pytest.approx(value)] for key, value in numbers.items()}


def test_mlflow_has_a_run_a_trial(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert send(store.archive, f"mlflow:{uri}#mine") == 1
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("mine").experiment_id
    (done,) = client.search_runs([experiment])
    client.update_run(done.info.run_id, "RUNNING")  # as one that stopped halfway
    assert send(store.archive, f"mlflow:{uri}#mine") == 1
    assert send(store.archive, f"mlflow:{uri}#mine") == 0
    (run,) = client.search_runs([experiment])
    trial = run.data.tags["offramp.trial"]
    assert run.info.run_name == trial and run.info.status == "FINISHED"
    assert run.data.params["strategy"] == "baseline" and run.data.params["recipe.epochs"] == "2"
    numbers = expected(store, trial)
    assert set(run.data.metrics) == {name for name, _ in numbers}
    for curve in [name for name, epoch in numbers if epoch == 2][:3]:
        history = client.get_metric_history(run.info.run_id, curve)
        of_curve = {epoch: value for (name, epoch), value in numbers.items() if name == curve}
        assert [(m.step, m.value) for m in history] == list(of_curve.items())
    assert capsys.readouterr().out == ""  # standard output is the command's


def test_wandb_offline(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DIR", str(tmp_path))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert send(store.archive, "wandb:mine") == 1
    assert send(store.archive, "wandb:mine") == 0  # what was sent is remembered
    assert send(store.archive, "wandb:other") == 1
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    wandb.teardown()  # a process of its own writes the files, and has ended when this returns
    text = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
    for name in (b"exit 4", b"validation/accuracy", b"test/accuracy"):
        assert name in text, text[-1000:]


def test_wandb_without_a_network_is_soon_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb").teardown()  # it has the settings of another test
    monkeypatch.chdir(tmp_path)
    for name, value in (("MODE", "online"), ("BASE_URL", NOBODY), ("API_KEY", "a" * 40)):
        monkeypatch.setenv(f"WANDB_{name}", value)
    began = time.monotonic()
    refuses("WANDB_MODE=offline", send, store.archive, "wandb:mine")
    assert time.monotonic() - began < 10
    assert not Path("offramp-track").exists()


def test_a_tracker_that_fails_does_not_stop_the_others(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    tracking = track_store("runs", to=["tensorboard:file", "tensorboard:board"])
    refuses("name another|choose another|cannot write", tracking.run)
    assert {path.name for path in Path("board").iterdir()} == set(store.archive.trials())
    followed = track_store("runs", to=["tensorboard:file", "tensorboard:later"], follow=True)
    looks = iter(range(2))

    def sleep(_: float) -> None:
        if next(looks):
            finish(store, tmp_path)

    monkeypatch.setattr("offramp.api.keep.track.time.sleep", sleep)
    capsys.readouterr()
    refuses("cannot write", followed.run)
    assert capsys.readouterr().err.count("cannot write") == 1  # at every look, and told once
    assert {path.name for path in Path("later").iterdir()} == set(store.archive.trials())
    assert len(store.archive.trials()) == 2


def test_what_is_damaged_is_left_out(store: Store, tmp_path: Path) -> None:
    for path in store.root.glob("trials/*/*.json"):  # type: ignore[union-attr]
        path.write_bytes(b"{}")
    send(store.archive, f"tensorboard:{tmp_path / 'board'}")
    assert not list(tmp_path.glob("board/*"))


@pytest.mark.parametrize("uri", ["sqlite+nothing:///here", *long("redis://here")])
def test_an_address_that_mlflow_cannot_use_is_one_line(
    uri: str, store: Store, snapshot: SnapshotAssertion
) -> None:
    """As a database is where its client alone is installed; SQLAlchemy has errors of its own."""
    pytest.importorskip("mlflow")
    assert refusal(send, store.archive, f"mlflow:{uri}") == snapshot


def test_addresses_that_name_no_tracker() -> None:
    for nowhere in ("nowhere:x", "mlflow", "tensorboard:"):
        refuses("names no tracker", check, nowhere)


def test_a_library_that_is_not_installed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "offramp.track.wandb", raising=False)
    refuses(r"pip install 'offramp\[track\]'", send, store.archive, "wandb:mine")


def test_a_server_that_does_not_answer_is_soon_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow asks seven times, which takes minutes."""

    mlflow = pytest.importorskip("mlflow")
    asked: list[str | None] = []

    def ask(*_: Any) -> None:
        asked.append(os.environ.get(RETRIES))
        raise mlflow.MlflowException("nobody there")

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", ask)
    for count in ("2", "0"):
        refuses("nobody there", send, store.archive, f"mlflow:{NOBODY}")
        assert asked.pop() == count and os.environ.get(RETRIES) == (None if count == "2" else "0")
        monkeypatch.setenv(RETRIES, "0")  # the user's own
