"""MLflow: a run for each trial, in the experiment that was named."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run

from offramp.track.send import TrialRun

TRIAL, NAME = "offramp.trial", "mlflow.runName"
BATCH = 1000  # metrics that the API takes at once
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def connect(address: str) -> Server:
    """A tracking server or a database (sqlite:///…); behind # the experiment, by default offramp."""
    uri, _, experiment = address.partition("#")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client, name = MlflowClient(tracking_uri=uri), experiment or "offramp"
    with _few_retries():
        existing = client.get_experiment_by_name(name)
    number = existing.experiment_id if existing else client.create_experiment(name)
    return Server(client, str(number))


@dataclass(frozen=True)
class Server:
    client: MlflowClient
    experiment: str

    def has(self, trial: str) -> bool:
        return any(run.info.status == "FINISHED" for run in self._runs(trial))

    def send(self, run: TrialRun) -> None:
        for broken in self._runs(run.trial):  # what stopped halfway
            self.client.delete_run(broken.info.run_id)
        tags = {TRIAL: run.trial, NAME: run.trial}
        key = self.client.create_run(self.experiment, tags=tags).info.run_id
        params = [Param(name, str(value)) for name, value in run.settings.items()]
        self.client.log_batch(key, params=params)
        now = int(1000 * time.time())
        metrics = [
            Metric(name, value, now, epoch)
            for epoch, numbers in (*run.curves.items(), (0, run.results))
            for name, value in numbers.items()
        ]
        for first in range(0, len(metrics), BATCH):
            self.client.log_batch(key, metrics=metrics[first : first + BATCH])
        self.client.set_terminated(key)

    def _runs(self, trial: str) -> Sequence[Run]:
        return list(self.client.search_runs([self.experiment], f"tags.`{TRIAL}` = '{trial}'"))


@contextmanager
def _few_retries() -> Iterator[None]:
    """MLflow asks a server that is not there for minutes; its environment says otherwise."""
    before = os.environ.get(RETRIES)
    os.environ.setdefault(RETRIES, "2")
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES]
