"""Trials in real trackers: TensorBoard's reader, an MLflow server on the loopback, W&B offline."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pandas as pd
import pytest
from syrupy.assertion import SnapshotAssertion
from watched import at_epoch_zero, finish

from longer import long
from offramp.api.keep.track import track_store
from offramp.store import searches
from offramp.store.live import COLUMNS, LivePhase, Proposal, Reader, TrialProgress
from offramp.store.store import Store
from offramp.track import tracker
from offramp.track.send import FileTracker, Steps, TrialUpdate, results, send, settings, steps_of
from records import changed
from refusal import refuses
from wording import refusal

pytest.importorskip("tensorboard")
# Of MLflow's database.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

CURVE = "search/validation/accuracy/mean"
PATTERN = "strategies.0.phases.exit *.learning_rate"
FAILURE = "its loss is not finite"
CLIENT = "mlflow.tracking._tracking_service.client"
SILENT = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
COLD = pd.DataFrame(columns=COLUMNS)  # of a phase that saved nothing
STUDIES = Path(__file__).parents[2] / "docs" / "studies.md"


def sent(store: Store, address: str) -> tuple[int, int, int]:
    counts = send(Reader(store.archive).courses(), tracker(address))
    return counts.trials, counts.closed, counts.points


def expected(store: Store) -> dict[str, dict[tuple[str, int], float]]:
    """Every number by trial, and by name and epoch."""
    return {
        course.trial: {
            (f"{phase.title}/{name}", epoch): value
            for phase in course.phases
            for epoch, numbers in steps_of(phase, course.plan.places).items()
            for name, value in numbers.items()
        }
        for course in Reader(store.archive).courses()
    }


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def board(folder: Path, trial: str) -> dict[tuple[str, int], list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / trial)).Reload()
    values: dict[tuple[str, int], list[float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            values.setdefault((tag, event.step), []).append(event.value)
    return values


def test_tensorboard_reads_every_number_once(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "board"
    before = digests(tmp_path / "runs")
    first = sent(store, f"tensorboard:{folder}")
    assert first[:2] == (2, 1) and first[2] == sum(map(len, expected(store).values()))
    assert sent(store, f"tensorboard:{folder}")[2] == 0
    assert digests(tmp_path / "runs") == before  # the store was only read
    finish(store, tmp_path)
    assert sent(store, f"tensorboard:{folder}")[:2] == (2, 2)
    for trial, numbers in expected(store).items():
        read = board(folder, trial)
        closing = {key: read.pop(key) for key in list(read) if key[0].startswith("results/")}
        assert {key: [pytest.approx(value)] for key, value in numbers.items()} == read
        closing_numbers = results(store.read_trial(trial))
        assert {k[0].removeprefix("results/"): v[0] for k, v in closing.items()} == pytest.approx(
            closing_numbers
        )


@pytest.mark.parametrize("uri", ["sqlite+nothing:///here", *long("redis://here")])
def test_an_address_that_mlflow_cannot_use_is_one_line(uri: str, snapshot: SnapshotAssertion) -> None:
    """As a database is where its client alone is installed; SQLAlchemy has errors of its own."""
    pytest.importorskip("mlflow")
    assert refusal(tracker, f"mlflow:{uri}") == snapshot


def test_an_exit_has_one_name_in_curves_and_results(store: Store) -> None:
    for course in Reader(store.archive).courses():
        curves = {
            name for p in course.phases for of in steps_of(p, course.plan.places).values() for name in of
        }
        exits = {name for name in curves if name.startswith("validation/accuracy/")}
        assert exits and all(name.rpartition("/")[2].startswith("exit ") for name in exits)
        if course.manifest is not None:
            assert exits <= results(course.manifest).keys()


def test_settings_are_known_from_the_beginning(store: Store, tmp_path: Path) -> None:
    _, before = Reader(store.archive).courses()
    finish(store, tmp_path)
    _, after = Reader(store.archive).courses()
    assert before.manifest is None and after.manifest is not None
    assert settings(before) == settings(after)
    assert settings(before)["strategy"] == "two-stage" and settings(before)["recipe.epochs"] == 2


class Recorder:
    """A tracker that remembers what it is sent."""

    def __init__(self, whole: bool = False) -> None:
        self.whole, self.news = whole, list[TrialUpdate]()

    def open(self, _: TrialProgress) -> Recorder:
        return self

    def closed(self) -> bool:
        return False

    @property
    def steps(self) -> list[tuple[LivePhase, Steps]]:
        return [pair for news in self.news for pair in news.phases]

    def sent(self, phase: LivePhase) -> int:
        return max((max(steps) for other, steps in self.steps if other.key == phase.key), default=0)

    def send(self, news: TrialUpdate) -> None:
        self.news.append(news)


def test_the_last_epoch_goes_with_the_word_that_a_phase_is_finished(store: Store) -> None:
    """A tracker ends a phase's record when it gets that epoch, and asks nothing more."""
    course = next(course for course in Reader(store.archive).courses() if course.manifest is not None)
    history = course.phases[0].history
    epochs = history[history["split"] != "train-eval"]  # as between its last checkpoint and its end
    saved = replace(course.phases[0], finished=False, history=epochs)
    under_way = replace(course, phases=(saved,), manifest=None)
    recorder, last = Recorder(), saved.epoch
    assert last == saved.epochs and send([under_way], recorder).trials == 1
    send([course], recorder)
    seen = [(phase.finished, list(steps)) for phase, steps in recorder.steps]
    assert seen == [(False, list(range(1, last))), (True, [last])]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, whose tables the tracker makes, which takes a second."""
    pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    tracker(f"mlflow:sqlite:///{path}")
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> str:
    """The address of one of a test's own."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def runs_in(address: str) -> list[Any]:
    """Those of the experiment that is there without a name."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("offramp")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture(params=["database", pytest.param("server", marks=pytest.mark.long)])
def mlflow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where MLflow keeps runs: a database of SQLite, or a server before one."""
    pytest.importorskip("mlflow")
    if request.param == "database":
        yield request.getfixturevalue("database")
        return
    with serving(tmp_path) as address:
        yield address


def test_the_documented_server_has_these_options() -> None:
    """Those of `serving`, which one test starts."""
    (line,) = re.findall(r"^ {4}(mlflow server .*)$", STUDIES.read_text(), re.MULTILINE)
    options = dict(zip(line.split()[2::2], line.split()[3::2], strict=True))
    assert options.keys() == {"--backend-store-uri", "--host", "--port"}
    assert f"mlflow:http://{options['--host']}:{options['--port']}" in STUDIES.read_text()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server's address: another one where, before it listened, somebody else took its port."""
    for _ in range(3):
        with started(folder) as (process, address):
            if answers(process, address):
                yield address
                return
    pytest.fail((folder / "log").read_text())


@contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(process.pid, 15)
        process.wait()


def answers(process: subprocess.Popen[bytes], address: str) -> bool:
    """Wait until a server does, or has ended."""
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=60).read()
        except OSError:
            time.sleep(0.2)  # a server of another process, which tells by its answers alone
        else:
            return True
    return False


def test_mlflow_has_runs_phases_and_files(
    store: Store,
    tmp_path: Path,
    mlflow: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlflow import MlflowClient

    address = f"mlflow:{mlflow}#mine"
    monkeypatch.chdir(tmp_path)
    assert sent(store, address)[:2] == (2, 1)
    finish(store, tmp_path)
    assert sent(store, address)[:2] == (2, 2)
    assert sent(store, address)[2] == 0
    client = MlflowClient(mlflow)
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    by_trial = {run.data.tags["offramp.trial"]: run for run in runs if "offramp.trial" in run.data.tags}
    for trial, numbers in expected(store).items():
        run, manifest = by_trial[trial], store.read_trial(trial)
        assert run.info.status == "FINISHED"
        assert run.data.params["strategy"] == manifest.strategy
        assert run.data.params["recipe.epochs"] == "2"
        for curve in sorted({name for name, _ in numbers})[:3]:
            history = client.get_metric_history(run.info.run_id, curve)
            mine = {epoch: value for (name, epoch), value in numbers.items() if name == curve}
            assert {m.step: m.value for m in history} == pytest.approx(mine)
            assert len(history) == len(mine), "no number twice"
        accuracy = run.data.metrics["test/accuracy/exit 1"] if len(manifest.exits) > 1 else None
        assert accuracy is None or accuracy == pytest.approx(manifest.metrics["test"].accuracy[0])
        phases = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert {r.data.tags["offramp.node"] for r in phases} == set(manifest.keys)
        assert {r.info.status for r in phases} == {"FINISHED"}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("<p>")
    mine = tracker(address)
    assert isinstance(mine, FileTracker)
    mine.attach(["report"], "runs")
    (files,) = (
        r for r in client.search_runs([experiment.experiment_id]) if "offramp.files" in r.data.tags
    )
    assert [f.path for f in client.list_artifacts(files.info.run_id, "report")] == ["report/index.html"]
    assert capsys.readouterr().out == ""  # standard output is the command's


def test_files_of_two_stores_of_one_name_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: list[str] = []

    class Shelf:
        whole = False

        def open(self, course: TrialProgress) -> Any: ...

        def attach(self, files: Iterable[str], store: str) -> None:
            attached.append(f"{', '.join(files)} of {store}")

    monkeypatch.setattr("offramp.track.tracker", lambda _: Shelf())
    for project in ("a", "b"):
        with Store(tmp_path / project / "runs").lock("a"):  # its first write makes the folder
            pass
        (tmp_path / project / "report").mkdir()
        monkeypatch.chdir(tmp_path / project)
        track_store(Path("runs"), to=["mlflow:x"], file=["report"])
    assert attached == [f"report of {tmp_path / project / 'runs'}" for project in ("a", "b")]


def test_files_that_mlflow_lacks_a_package_for_are_one_line(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    pytest.importorskip("mlflow")
    from offramp.track.mlflow import Server

    client = MagicMock()
    client.log_artifact.side_effect = ModuleNotFoundError("no boto3")
    (tmp_path / "page.html").write_text("<p>")
    assert refusal(Server(client, "1").attach, [str(tmp_path / "page.html")], "runs") == snapshot


def test_mlflow_names_phases_that_were_seen_before_they_saved_anything(
    tmp_path: Path, database: str
) -> None:
    store = Store(tmp_path / "runs")
    with at_epoch_zero(store, tmp_path):
        sent(store, f"mlflow:{database}")
    finish(store, tmp_path)
    assert sent(store, f"mlflow:{database}")[:2] == (2, 2)
    names = {run.info.run_name for run in runs_in(database) if "offramp.node" in run.data.tags}
    assert names == {"backbone", "exit 1", "exit 2", "exit 3"}


def test_mlflow_has_the_times_of_training(store: Store, database: str) -> None:
    """Not those of sending: they are moved to a year that no clock of this machine says."""
    then = 10**9  # in 2001

    def moved(phase: LivePhase) -> LivePhase:
        began = None if phase.began is None else then + 10.0
        return replace(phase, began=began, ended=then + 20.0 if phase.finished else None)

    for course in Reader(store.archive).courses():
        manifest = course.manifest
        if manifest is not None:
            finished = datetime.fromtimestamp(then + 30, UTC).isoformat()
            manifest = changed(manifest, "provenance", finished=finished)
        phases = tuple(map(moved, course.phases))
        send([replace(course, phases=phases, manifest=manifest)], tracker(f"mlflow:{database}"))
    runs = runs_in(database)
    assert len(runs) == 2 + 1 + 4
    for run in runs:
        assert run.info.start_time == 1000 * (then + 10), run.info.run_name
        ends = {None} if run.info.status == "RUNNING" else {1000 * (then + 20), 1000 * (then + 30)}
        assert run.info.end_time in ends, run.info.run_name


def test_mlflow_prints_nothing(
    store: Store, database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip(CLIENT)
    monkeypatch.setattr(client, "RestStore", object)  # of a server's runs it prints links
    monkeypatch.setattr(client, "get_workspace_url", lambda: "http://127.0.0.1")
    sent(store, f"mlflow:{database}")
    assert capsys.readouterr().out == ""
    assert SILENT not in os.environ


def test_wandb_offline(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial has one folder: of several of one run the server keeps the numbers of one."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DIR", str(tmp_path))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert sent(store, "wandb:mine")[:2] == (1, 1)  # the trial under way waits
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1
    finish(store, tmp_path)
    assert sent(store, "wandb:mine")[:2] == (2, 2)
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert sent(store, "wandb:mine")[2] == 0  # what was sent is remembered
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == len(runs) == 2
    wandb.teardown()  # a process of its own writes the files, and has ended when this returns
    text = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
    for name in (b"exit 1/", b"exit 3/", b"validation/accuracy", b"test/accuracy"):
        assert name in text, text[-1000:]


def test_what_the_end_says_of_an_epoch_that_was_sent_is_sent_too(store: Store) -> None:
    """Of the best epoch: who followed a training never got it."""
    course = next(course for course in Reader(store.archive).courses() if course.manifest is not None)
    whole = course.phases[0]
    epochs = whole.history[whole.history["split"] != "train-eval"]
    last = whole.history[(whole.history["split"] == "train-eval") & (whole.history["epoch"] == 2)]
    ended = replace(whole, history=pd.concat([epochs, last, last.assign(epoch=1)]))  # the first was best
    saved = replace(whole, finished=False, history=epochs)
    recorder = Recorder()
    for phase, manifest in ((saved, None), (ended, course.manifest), (ended, course.manifest)):
        send([replace(course, phases=(phase,), manifest=manifest)], recorder)
    seen = [(epoch, name) for _, steps in recorder.steps for epoch, of in steps.items() for name in of]
    of = {epoch for epoch, name in seen if name.startswith("train-eval/")}
    assert of == {1, 2} and len(seen) == len(set(seen))  # all of them, and none twice


def failed_of(store: Store) -> tuple[TrialProgress, TrialProgress, TrialProgress]:
    """The trial that is under way; failed; failed, and begun again."""
    _, course = Reader(store.archive).courses()
    assert course.manifest is None
    first, *rest = course.phases
    why = replace(rest[0], failed=FAILURE)
    return course, replace(course, phases=(first, why, *rest[1:])), course


def test_a_failure_is_news_until_it_goes_on(store: Store) -> None:
    course, failed, _ = failed_of(store)
    assert failed.over and not course.over
    for whole in (False, True):
        recorder = Recorder(whole)
        send([course, failed], recorder)
        assert [news.failed for news in recorder.news] == [None] * (not whole) + [FAILURE]
    nothing = replace(failed, phases=(replace(failed.phases[1], epoch=0, history=COLD),))
    send([nothing], recorder := Recorder())
    assert recorder.news == [TrialUpdate((), None, FAILURE)]  # in its first epoch


def test_a_run_that_failed_is_one_in_mlflow_and_goes_on(
    store: Store, tmp_path: Path, database: str
) -> None:
    for course, status in zip(failed_of(store), ("RUNNING", "FAILED", "RUNNING"), strict=True):
        send([course], tracker(f"mlflow:{database}"))
        runs = {run.info.run_name: run for run in runs_in(database)}
        assert runs[course.trial].info.status == status
        assert {runs[f"exit {k}"].info.status for k in (1, 2, 3)} == {status}
        assert runs["backbone"].info.status == "FINISHED"
        why = runs[course.trial].data.tags.get("offramp.failed")
        assert why == (FAILURE if status == "FAILED" else None)
    finish(store, tmp_path)
    sent(store, f"mlflow:{database}")
    assert {run.info.status for run in runs_in(database)} == {"FINISHED"}


def test_tensorboard_has_settings_once_however_long_the_first_epoch_takes(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "runs"), tmp_path / "board"
    with at_epoch_zero(store, tmp_path):
        (begun,) = (c for c in Reader(store.archive).courses() if c.plan.strategy == "two-stage")
        fresh = replace(begun, phases=begun.phases[1:])  # without the backbone, which has epochs
        for _ in range(3):
            send([fresh], tracker(f"tensorboard:{folder}"))
        assert len(list((folder / fresh.trial).glob("events.*"))) == 1
    finish(store, tmp_path)
    assert sent(store, f"tensorboard:{folder}")[:2] == (2, 2)


def test_tensorboard_says_once_why_a_trial_failed(store: Store, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, failed, again = failed_of(store)
    for course in (failed, failed, again, failed):
        send([course], tracker(f"tensorboard:{tmp_path / 'board'}"))
        events = EventAccumulator(str(tmp_path / "board" / course.trial)).Reload()
        assert len(events.Tensors("failed/text_summary")) == 1


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder, and a library that lacks the user's key."""

    class Keyless:
        def init(self, **_: Any) -> None:
            raise RuntimeError("no key")

    monkeypatch.setitem(sys.modules, "trackio", Keyless())  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("keyless")
def test_what_a_library_refuses_is_said_in_a_line(
    store: Store, database: str, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """W&B without a key, a server of MLflow that went away: they were called faults of offramp."""
    assert refusal(sent, store, "trackio:mine") == snapshot
    exceptions = pytest.importorskip("mlflow.exceptions")
    mine = tracker(f"mlflow:{database}")

    def gone(*_: Any, **__: Any) -> None:
        raise exceptions.MlflowException("gone")

    monkeypatch.setattr(mine.client, "log_batch", gone)  # type: ignore[attr-defined]
    assert refusal(send, Reader(store.archive).courses(), mine) == snapshot


class Library:
    """A library with what W&B and trackio have in common."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []

    def init(self, **options: Any) -> Library:
        print("* Trackio project initialized")
        self.runs.append({"given": options, "lines": []})
        return self

    def log(self, line: dict[str, float]) -> None:
        self.runs[-1]["lines"].append(line)

    def finish(self) -> None:
        self.runs[-1]["done"] = True


@pytest.mark.usefixtures("keyless")
def test_a_tracker_that_fails_is_told_once_the_others_have_it(store: Store) -> None:
    tracking = track_store("runs", to=["trackio:mine", "tensorboard:board"])
    refuses("no key", tracking.run)
    assert {path.name for path in Path("board").iterdir()} == set(expected(store))
    assert sent(store, "tensorboard:board")[2] == 0  # nothing was left for another time


def test_trackio_is_used_as_it_documents(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Library()
    monkeypatch.setitem(sys.modules, "trackio", library)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    sent(store, "trackio:mine")
    assert capsys.readouterr().out == ""  # what `--json` answers stands there
    assert all(run["given"]["project"] == "mine" and run["done"] for run in library.runs)
    lines = [line for run in library.runs for line in run["lines"]]
    assert {line["epoch"] for line in lines if "epoch" in line} == {1, 2}


@pytest.mark.long
def test_what_a_search_tried_is_a_run_of_its_own(store: Store, tmp_path: Path, database: str) -> None:
    """One is interrupted and goes on, one is given up, one fails, and one is under way."""
    optuna = pytest.importorskip("optuna")
    assert isinstance(store.root, Path)
    (store.root / searches.FOLDER).mkdir()
    log = optuna.storages.journal.JournalFileBackend(str(store.root / searches.FOLDER / "mine.log"))
    study = optuna.create_study(storage=optuna.storages.JournalStorage(log), study_name="mine")
    baseline, _ = Reader(store.archive).courses()

    def proposed(means: dict[int, float]) -> Any:
        trial = study.ask()
        trial.suggest_float("recipe.learning_rate", 0.1, 1.0)
        trial.set_user_attr(searches.PLANNED, baseline.plan.as_json())
        for epoch, mean in means.items():
            trial.report(mean, epoch)
        return trial

    def sent_courses() -> list[TrialProgress]:
        courses = list(searches.proposals(Reader(store.archive)))
        for address in (f"tensorboard:{tmp_path / 'board'}", f"mlflow:{database}"):
            send(courses, tracker(address))
            assert send(courses, tracker(address)).points == 0, "sent before"
        return courses

    first = proposed({1: 0.25, 2: 0.5})
    (course,) = sent_courses()
    assert course.trial == "search-mine-1" and not course.over
    study.tell(first, state=optuna.trial.TrialState.FAIL)  # as the search does when it takes it up again
    study.enqueue_trial(first.params)
    study.tell(proposed({2: 0.5, 3: 0.75}), 0.75)
    for why, means in ((searches.WORSE, {1: 0.125}), (FAILURE, {})):
        trial = proposed(means)
        trial.set_user_attr(searches.WHY, why)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    proposed({})
    courses = sent_courses()
    assert [course.trial for course in courses] == [f"search-mine-{number}" for number in (1, 2, 3, 4)]
    complete, pruned, *_ = (board(tmp_path / "board", course.trial) for course in courses)
    curve = {epoch: values for (name, epoch), values in complete.items() if name.endswith("/mean")}
    assert curve == {1: [0.25], 2: [0.5], 3: [0.75]}
    assert complete["results/validation/accuracy", 0] == [0.75]
    for name, value in expected(store)[baseline.trial].items():
        assert complete[name] == pruned[name] == [pytest.approx(value)]
    assert pruned[CURVE, 1] == [0.125]
    runs = {run.data.tags.get("offramp.proposal"): run for run in runs_in(database)}
    statuses = ["FINISHED", "FAILED", "FAILED", "RUNNING"]
    assert [runs[course.trial].info.status for course in courses] == statuses
    for course, state in zip(courses, ("complete", "pruned", "failed", None), strict=True):
        run = runs[course.trial]
        assert "offramp.trial" not in run.data.tags and "trial" not in run.data.params
        assert run.data.params.get("state") == state and run.data.params["search"] == "mine"
        assert float(run.data.params["recipe.learning_rate"]) >= 0.1  # as proposed, not the study's
    assert runs["search-mine-1"].data.metrics["validation/accuracy"] == 0.75
    assert runs["search-mine-3"].data.tags["offramp.failed"] == f"failed: {FAILURE}"


def test_mlflow_takes_settings_of_phases_that_a_pattern_names(store: Store, database: str) -> None:
    """It refuses a * in names, and nothing of such a search was sent."""
    course = next(course for course in Reader(store.archive).courses() if course.manifest is not None)
    tried = Proposal({"search": "mine", "proposal": 1, PATTERN: 0.1}, None, None, "", None)
    course = replace(course, trial="search-mine-1", manifest=None, proposal=tried)
    for _ in range(2):  # what is there is not sent again
        send([course], tracker(f"mlflow:{database}"))
    (run,) = (run for run in runs_in(database) if "offramp.proposal" in run.data.tags)
    assert run.data.params[PATTERN.replace("*", "_")] == "0.1"


def test_addresses_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    for nowhere in ("nowhere:x", "mlflow", "tensorboard:"):
        refuses("names no tracker", tracker, nowhere)
    monkeypatch.setitem(sys.modules, "trackio", None)
    (tmp_path / "file").write_text("")
    assert [refusal(tracker, a) for a in ("trackio:mine", f"tensorboard:{tmp_path}/file")] == snapshot


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv(RETRIES, "0")
    refuses("does not answer", tracker, "mlflow:http://127.0.0.1:9")


def test_a_server_that_does_not_answer_is_soon_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow asks seven times, which takes minutes."""
    mlflow = pytest.importorskip("mlflow")

    def ask(*_: object) -> None:
        asked.append(os.environ.get(RETRIES))
        raise mlflow.MlflowException("nobody there")

    asked: list[str | None] = []
    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", ask)
    for expected in ("2", "0"):
        refuses("does not answer", tracker, "mlflow:http://127.0.0.1:9")
        assert asked.pop() == expected
        monkeypatch.setenv(RETRIES, "0")  # the user's own
