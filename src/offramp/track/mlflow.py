"""MLflow: a run for each trial, in it one for each phase, in the experiment that was named."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

from offramp.errors import OfframpError
from offramp.store.live import LivePhase, TrialProgress
from offramp.track.send import Steps, TrialUpdate, settings

TRIAL, NODE, EPOCH, FILES = "offramp.trial", "offramp.node", "offramp.epoch", "offramp.files"
PROPOSAL = "offramp.proposal"  # in place of TRIAL
WHY = "offramp.failed"
PARENT, NAME = "mlflow.parentRunId", "mlflow.runName"
BATCH = 1000  # metrics that the API takes at once
SILENT, RETRIES = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_REFUSED = re.compile(r"[^\w\-./ ]")  # in names of metrics and of params, such as the * of phases


def mlflow(address: str) -> Server:
    """A tracking server or a database (sqlite:///…); behind # the experiment, by default offramp.
    Raises OfframpError where it cannot be opened, or does not answer."""
    uri, _, experiment = address.partition("#")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        client = MlflowClient(tracking_uri=uri)
    except Exception as error:  # of MLflow, a database or its driver; the extra's client knows none
        raise OfframpError(
            f"MLflow cannot use {uri} ({_first(error)}); give http://HOST:PORT, or for sqlite:///FILE "
            "install all of it: pip install mlflow"
        ) from None
    name = experiment or "offramp"
    try:  # first a quick word: MLflow asks a server that is not there for minutes
        with _during(RETRIES, os.environ.get(RETRIES, "2")):
            existing = client.get_experiment_by_name(name)
        number = existing.experiment_id if existing else client.create_experiment(name)
    except MlflowException as error:
        raise OfframpError(f"MLflow at {uri} does not answer: {_first(error)}; start it") from None
    return Server(client, str(number))


@dataclass(frozen=True)
class Server:
    """Methods raise OfframpError for what the server refuses."""

    client: MlflowClient
    experiment: str
    whole: bool = False

    def open(self, course: TrialProgress) -> TrialRun:
        kind = TRIAL if course.proposal is None else PROPOSAL
        run = self.run({kind: course.trial, NAME: course.trial}, course.began)
        values = {_REFUSED.sub("_", name): value for name, value in settings(course).items()}
        new = [Param(name, str(v)) for name, v in values.items() if name not in run.data.params]
        with _answering():
            self.client.log_batch(run.info.run_id, params=new)
        return TrialRun(self, run, course.ended)

    def attach(self, files: Iterable[str], store: str) -> None:
        run = self.run({FILES: store, NAME: f"files of {store}"}).info.run_id
        with _answering():
            for file in map(Path, files):
                if file.is_dir():
                    self.client.log_artifacts(run, str(file), file.name)
                else:
                    self.client.log_artifact(run, str(file))
            self.end(run)

    def end(self, run: str, ended: float | None = None, status: str = "FINISHED") -> None:
        with _during(SILENT, "true"):  # no links: standard output is the command's
            self.client.set_terminated(run, status, _milliseconds(ended))

    def find(self, tags: Mapping[str, str]) -> Run | None:
        """The run with these tags, whatever its name."""
        query = " and ".join(f"tags.`{k}` = {_quoted(v)}" for k, v in tags.items() if k != NAME)
        with _answering():
            runs = self.client.search_runs([self.experiment], query, max_results=1)
        return runs[0] if runs else None

    def run(self, tags: Mapping[str, str], began: float | None = None) -> Run:
        """The run with these tags, which is made where there is none. began: by default now."""
        if (run := self.find(tags)) is not None:
            return run
        with _answering():
            return self.client.create_run(self.experiment, _milliseconds(began), dict(tags))


@dataclass(frozen=True)
class TrialRun:
    server: Server
    run: Run
    ended: float | None

    def closed(self) -> bool:
        return bool(self.run.info.status == "FINISHED")

    def sent(self, phase: LivePhase) -> int:
        run = self.server.find(self._tags(phase))
        return 0 if run is None else int(run.data.tags.get(EPOCH, 0))

    def send(self, update: TrialUpdate) -> None:
        with _answering():
            if update.failed is None and self.run.info.status == "FAILED":
                self._go_on()
            for phase, steps in update.phases:
                self._phase(phase, steps)
            if update.failed is not None and self.run.info.status != "FAILED":
                self._fail(update.failed)
            if update.results is not None:
                self._log(self.run.info.run_id, {0: update.results}, self.ended)
                self.server.end(self.run.info.run_id, self.ended)

    def _phase(self, phase: LivePhase, steps: Steps) -> None:
        # Made with the first numbers: until then a phase that an earlier offramp planned has no name.
        began = phase.ended if phase.began is None else phase.began
        run = self.server.run(self._tags(phase), began).info.run_id
        self._log(run, steps, phase.ended)
        curves = dict(TrialUpdate(((phase, steps),)).curves)
        self._log(self.run.info.run_id, curves, phase.ended)
        self.server.client.set_tag(run, EPOCH, str(max(steps)))
        if phase.finished:
            self.server.end(run, phase.ended)

    def _fail(self, reason: str) -> None:
        """Nobody is at work on it: what is not finished ends with it."""
        self.server.client.set_tag(self.run.info.run_id, WHY, reason)
        for run in (self.run, *self._phases("RUNNING")):
            self.server.end(run.info.run_id, status="FAILED")

    def _go_on(self) -> None:
        self.server.client.delete_tag(self.run.info.run_id, WHY)
        for run in (self.run, *self._phases("FAILED")):
            self.server.client.update_run(run.info.run_id, "RUNNING")

    def _phases(self, status: str) -> Iterable[Run]:
        query = f"tags.`{PARENT}` = {_quoted(self.run.info.run_id)} and attributes.status = '{status}'"
        runs: Iterable[Run] = self.server.client.search_runs([self.server.experiment], query)
        return runs

    def _tags(self, phase: LivePhase) -> dict[str, str]:
        return {PARENT: self.run.info.run_id, NODE: phase.key, NAME: phase.title}

    def _log(self, run: str, steps: Steps, when: float | None) -> None:
        """when: by default now."""
        at = int(1000 * (time.time() if when is None else when))
        metrics = [
            Metric(_REFUSED.sub("_", name), value, at, epoch)
            for epoch, numbers in steps.items()
            for name, value in numbers.items()
            if math.isfinite(value)  # a database may refuse others
        ]
        for first in range(0, len(metrics), BATCH):
            self.server.client.log_batch(run, metrics=metrics[first : first + BATCH])


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise OfframpError(f"MLflow refuses: {_first(error)}; see to it, and run this again") from None
    except ImportError as error:  # of what it imports for the place of a server's files, such as boto3
        raise OfframpError(
            f"MLflow lacks a package for this server's files ({_first(error)}); install it"
        ) from None


@contextmanager
def _during(name: str, value: str) -> Iterator[None]:
    """While a variable of the environment has this value, which MLflow reads."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(1000 * seconds)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "") + '"'


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
