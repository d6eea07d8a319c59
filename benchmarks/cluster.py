"""What a cluster costs: the driver's part of a run of phases without work, and two machines of one core
against two processes of `--workers 2`."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contest import Result, against, middle
from benchmarks.subjects import Setting, plan
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run import cluster as clusters
from offramp.study.run import driver, events, protocol
from offramp.study.run.ledger import Failures, Ledger
from offramp.study.run.run import RunConfig
from offramp.units import counted

HALF = "cpu-one-thread"
DEMO = Setting("digits-cnn", 1200, 20, test_images=300, data="digits", numerics=HALF, learning_rate=0.01)
QUICK = {"name": "resnet18", "stem": "imagenet"}
CIFAR = Setting(QUICK, 10_000, 2, test_images=4000, numerics=HALF)  # a quarter of its epochs
PHASES = 1000


def measure(quick: bool) -> Iterator[Result]:
    with two_machines() as joined:
        yield from overhead(joined, PHASES // 10 if quick else PHASES, 1 if quick else 3)
        if not quick:
            yield from beside(joined, "ResNet-18, 10,000 images", CIFAR, 1)
        yield from beside(joined, "demo", replace(DEMO, epochs=2) if quick else DEMO, 1 if quick else 3)


@contextmanager
def two_machines() -> Iterator[clusters.Cluster]:
    """A head without cores, and two machines of one core, in processes of this machine."""
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            machines.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = machines.address
        with clusters.joined("ray") as joined:
            yield joined
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        machines.shutdown()


@dataclass(frozen=True)
class Idle:
    """A cluster whose machines say that they have done what they have not."""

    cluster: clusters.Cluster
    work: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    def start(self, order: protocol.Order) -> Any:
        options = {"num_cpus": order.needs.cpus, "max_retries": 0, "num_returns": "streaming"}
        return self.work.options(**options).remote(order.dumps())


def idle(line: str) -> Iterator[str]:
    order = protocol.loads(line)
    if order.keys:
        yield events.dumps(events.GroupStarted(order.keys, 0, "nowhere"))
    for key in order.keys:
        yield events.dumps(events.Finished(key, 0.0))
    for trial in order.trials:
        yield events.dumps(events.TrialDone(trial, False))


def overhead(joined: clusters.Cluster, phases: int, rounds: int) -> Iterator[Result]:
    """Seconds of the driver a phase, all of Ray's included, where no phase takes any time."""
    small = plan(replace(DEMO, seeds=tuple(range(10))))
    seeds = tuple(range(max(1, 10 * phases // len(small.nodes))))
    planned = plan(replace(DEMO, seeds=seeds))
    nothing = Idle(joined, joined.ray.remote(idle))
    times = [_driven(planned, nothing) / len(planned.nodes) for _ in range(1 + rounds)][1:]
    trials = len(planned.trials)
    note = f"seconds a phase: {len(planned.nodes)} phases and {trials} trials without work, two machines"
    yield middle("cluster: the driver's part of a phase", times, note=note)


def _driven(planned: Plan, joined: Any) -> float:
    """Seconds; the store gets nothing but plans of trials."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as failed:
        store = Store(Path(folder))
        config = RunConfig(asked_device(), Path(folder))
        order = protocol.order_of(planned, store, config, protocol.Needs(1, 0))
        ledger = Ledger(planned, store, Failures(Path(failed)))
        began = time.perf_counter()
        done = sum(
            isinstance(event, events.Finished) for event in driver.Driver(ledger, joined, order).work()
        )
        assert done == len(planned.nodes)
        return time.perf_counter() - began


def beside(joined: clusters.Cluster, study: str, setting: Setting, rounds: int) -> Iterator[Result]:
    """A study on two machines of one core, against two processes of one thread."""
    from offramp.study.run.processes import run_pooled

    planned = plan(setting)
    warm = plan(replace(DEMO, epochs=1, strategies=("joint",)))  # so that libraries are there
    away, here = [], []
    with tempfile.TemporaryDirectory() as folder:
        list(driver.run_on_cluster(warm, Store(Path(folder) / "warm"), joined))
        for turn in range(rounds):
            roots = [Path(folder) / f"{name}{turn}" for name in ("ray", "pool")]
            conduct = RunConfig(asked_device(), Path(folder) / "caches", workers=2)
            began = time.perf_counter()
            list(driver.run_on_cluster(planned, Store(roots[0]), joined))
            between = time.perf_counter()
            list(run_pooled(planned, Store(roots[1]), conduct))
            away.append(between - began)
            here.append(time.perf_counter() - between)
    note = (
        f"best {min(away):.1f} / {min(here):.1f} s, {setting.epochs} epochs, {counted(rounds, 'turn')}"
    )
    name = f"cluster: {study}, --workers 2 against two machines of one core"
    yield against(name, here, away, bar=0.95, better="higher", note=note)


def asked_device() -> Any:
    from offramp import device

    return device.chosen("cpu")
