"""The launcher of a cluster: machines that Ray makes one, which this process joins or starts.

The only file that knows Ray. A task takes one line of JSON and answers in lines of JSON; Ray's own
object store holds nothing else. Ray is imported when a cluster is joined, and not before.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from offramp.errors import OfframpError, in_line
from offramp.meters.capacity import usable_cores
from offramp.study.run.events import Room, loads
from offramp.study.run.protocol import Message, Needs, TaskFailure, TaskOrder

LEAST = (2, 52)  # before it, any page in a browser could run code in a cluster (CVE-2025-62593)
CLIENT = "ray://"
OBJECTS = 80 * 2**20  # bytes of Ray's object store here: it holds lines of text
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
TOKEN_FILE = ".ray/auth_token"
TRIES = 3  # of the head to start a server for this driver: it forks among threads, and the child may die
SHORT = 16  # characters of a folder in which there is room for Ray's sockets, 107 with all that follows


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined."""

    ray: Any = field(repr=False)  # the module
    work: Any = field(repr=False)  # what a task does, sent to the machines once
    # the same in a process of its own: one that has used a GPU stays on it, whichever is meant for its
    # next task
    work_on_gpu: Any = field(repr=False)
    own: bool  # whether this process started the cluster
    by_client: bool  # whether it speaks through Ray Client, from outside of the cluster

    @property
    def device(self) -> str:
        """The class of device that tasks get: GPUs where any machine has one."""
        return "cuda" if any(node.get("GPU", 0) for node in self._resources()) else "cpu"

    def room(self, needs: Needs) -> Room:
        """For how many tasks at a time there is room, on machines that are up now."""
        fits = []
        for machine in self._resources():
            fit = min(
                machine.get("CPU", 0) // needs.cpus, machine.get("memory", 0) // max(1, needs.memory)
            )
            if needs.gpus:
                fit = min(fit, machine.get("GPU", 0) // needs.gpus)
            fits.append(int(fit))
        return Room(sum(fits), sum(fit > 0 for fit in fits))

    def _resources(self) -> list[dict[str, float]]:
        with self._reached():
            nodes = self.ray.nodes()
        return [node["Resources"] for node in nodes if node["Alive"]]

    def start(self, order: TaskOrder) -> Any:
        """A task that does what an order says, as soon as there is room for it."""
        needs = order.needs
        options: dict[str, Any] = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "memory": needs.memory,
            "max_retries": 0,  # whoever listens starts it anew, and says so
        }
        if not self.by_client:  # which brings what a task says only when it has ended
            options["num_returns"] = "streaming"
        work = self.work_on_gpu if needs.gpus else self.work
        return work.options(**options).remote(order.dumps())

    def hear(self, tasks: Sequence[Any], seconds: float | None) -> list[Message]:
        """What tasks say next; nothing after so many seconds."""
        if not tasks:
            time.sleep(seconds or 0.0)
            return []
        with self._reached():
            ready, _ = self.ray.wait(list(tasks), num_returns=1, timeout=seconds)
        return [self._hear(task) for task in ready]

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Raises OfframpError where the cluster answers no more; Ray Client raises all kinds then."""
        lost = (ConnectionError, self.ray.exceptions.RaySystemError)
        kinds = Exception if self.by_client else lost
        try:
            yield
        except kinds as error:
            reason = in_line(error)
            raise OfframpError(
                f"the cluster is gone ({reason}); run the same command again when it is back: "
                "finished work stays"
            ) from error

    def _hear(self, task: Any) -> Message:
        try:
            if self.by_client:
                return Message(task, tuple(map(loads, self.ray.get(task))), ended=True)
            return Message(task, (loads(self.ray.get(next(task))),))
        except StopIteration:
            return Message(task, ended=True)
        except self.ray.exceptions.RayError as error:
            reason = LOST.get(type(error).__name__) or in_line(error)
            return Message(task, ended=True, loss=TaskFailure(reason))

    def cancel(self, task: Any, force: bool = False) -> None:
        """Interrupt a task as Ctrl-C would; or kill it."""
        with suppress(self.ray.exceptions.RayError, ValueError):
            self.ray.cancel(task, force=force)


LOST = {
    "TaskCancelledError": "its process was told to end",
    "WorkerCrashedError": "its process was killed",
    "NodeDiedError": "its machine is gone",
    "LocalRayletDiedError": "its machine is gone",
    "OutOfMemoryError": "it was killed for lack of memory",
}


@contextmanager
def joined(where: str) -> Iterator[Cluster]:
    """Join a cluster while the block runs. where: `ray://HOST:PORT`, or `ray` for that of RAY_ADDRESS;
    without one, Ray is started here, for this machine alone, and ends with the block.

    Raises:
        OfframpError: Where Ray is not installed or too old, and where no cluster answers.
    """
    from offramp.study.run import entry

    check_version()
    address = where if where.startswith(CLIENT) else os.environ.get("RAY_ADDRESS") or None
    if address == "local":  # Ray's word for a cluster of one's own
        address = None
    with TemporaryDirectory(prefix="offramp-ray-", dir=_near(), ignore_cleanup_errors=True) as folder:
        if address is None:
            _protect()
        ray = _imported()
        try:
            quiet = {"log_to_driver": False, "logging_level": "error"}
            if address is None:
                own = {"num_cpus": usable_cores(), "object_store_memory": OBJECTS}
                ray.init("local", include_dashboard=False, _temp_dir=folder, **own, **quiet)
            else:
                _join(ray, address, quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = in_line(error)
            raise OfframpError(
                f"no cluster answers at {address or 'this machine'} ({reason}); start Ray there, or "
                "leave --on out"
            ) from None
        try:
            by_client = (address or "").startswith(CLIENT)
            task = entry.work_through if by_client else entry.work
            work, work_on_gpu = ray.remote(task), ray.remote(max_calls=1)(task)
            yield Cluster(ray, work, work_on_gpu, own=address is None, by_client=by_client)
        finally:
            ray.shutdown()


def _join(ray: Any, address: str, options: dict[str, Any]) -> None:
    for left in reversed(range(TRIES)):
        try:
            ray.init(address, **options)
            return
        except ConnectionAbortedError:  # the head answered, but has no server for this driver
            if not left:
                raise


def _near() -> str | None:
    """Where Ray's files go: it makes sockets there, whose paths may have a hundred characters."""
    folder = tempfile.gettempdir()
    return "/tmp" if len(folder) > SHORT and os.access("/tmp", os.W_OK) else folder


def check_version() -> None:
    """Raises OfframpError where Ray is not installed, or a version that others can misuse."""
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise OfframpError("Ray is not installed; pip install 'offramp[ray]'") from None
    if not is_safe(version):
        raise OfframpError(
            f"Ray {version} lets web pages run code in a cluster (CVE-2025-62593); pip install "
            "'offramp[ray]' brings a newer one"
        )


def is_safe(version: str) -> bool:
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major, minor) >= LEAST


def _protect() -> None:
    """Have Ray, when started here, listen on the loopback alone and to those who know a token."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # of which its loopback is a consequence
    os.environ["RAY_AUTH_MODE"] = "token"
    if not any(map(os.environ.get, TOKENS)) and not (Path.home() / TOKEN_FILE).exists():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which would tell its makers of this run
    import ray
    from ray._private import worker

    # What it has to say of machines that are gone it prints on standard output, with pages of logs.
    vars(worker)["_worker_logs_enabled"] = False
    return ray
