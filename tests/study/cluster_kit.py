"""One Ray cluster of processes for all tests of clusters, and what they run on it."""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import object_store
from offramp.study.run.cluster import joined

# Before Ray is imported: on the loopback, with a token, and no word of it to its makers.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# And so that nothing goes by how busy this machine is. The proxy of Ray Client forks among threads of
# gRPC, whose handlers may end the child; whoever is slow is given up; memory of others ends tasks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "300")
os.environ.setdefault("TIMEOUT_FOR_SPECIFIC_SERVER_S", "120")
os.environ.setdefault("RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S", "60")
os.environ.setdefault("RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S", "60")
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
ROOM = 16 * 2**30  # bytes that Ray takes each machine to have, whatever is free
PATIENCE_S = 300.0  # for a machine to come

STUDY = """\
seeds: [1]
strategies: [baseline, joint, two-stage]
backbone: digits-cnn
data: digits
numerics: cpu-one-thread
recipe: {{epochs: {epochs}, batch_size: 64, learning_rate: 1e-3, optimizer: adam}}
"""


def study_file(folder: Path, epochs: int = 2) -> Path:
    """A study of three strategies of one thread each, in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(STUDY.format(epochs=epochs))
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Machines:
    """The cluster of the tests: a head without cores, and two machines with one core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.client_port = free_port()
        head = {"num_cpus": 0, "memory": ROOM, "include_dashboard": False}
        head["ray_client_server_port"] = self.client_port
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        self.whole()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def whole(self) -> None:
        """Two machines, whatever the test before left."""
        while len(self.nodes) < 2:
            self.add()
        while len(self.nodes) > 2:
            self.cluster.remove_node(self.nodes.pop())

    def add(self, cores: int = 1) -> None:
        node = self.cluster.add_node(wait=False, num_cpus=cores, memory=ROOM)
        self.cluster._wait_for_node(node, PATIENCE_S)
        self.nodes.append(node)

    def wait(self) -> None:
        """Until Ray has seen which machines are gone."""
        import ray

        with joined("ray"):
            while sum(n["Alive"] for n in ray.nodes()) != len(self.nodes) + 1:
                time.sleep(0.2)

    def kill(self, worker: psutil.Process | None = None) -> None:
        """The end of a machine, of the one that `worker` is on, without a word."""
        parent = None if worker is None else worker.ppid()
        raylets = {n: n.all_processes["raylet"][0].process.pid for n in self.nodes}
        node = next(n for n, pid in raylets.items() if parent in (None, pid))
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="session")
def _machines(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """They know an object store, as the driver does, and keep what they fetch in a folder of theirs."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", s3_server)
        patch.setenv("OFFRAMP_CACHE", str(tmp_path_factory.mktemp("fetched")))
        cluster = Machines()
        yield cluster
        cluster.cluster.shutdown()


@pytest.fixture
def machines(_machines: Machines, monkeypatch: pytest.MonkeyPatch) -> Machines:
    _machines.whole()
    monkeypatch.setenv("RAY_ADDRESS", _machines.address)
    return _machines
