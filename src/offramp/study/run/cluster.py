"""Machines that Ray makes one: joining or starting it, what there is room for, tasks and what they say.

The only file that knows Ray. A task is given one line of JSON and says lines of JSON; Ray's own object
store holds nothing else. Ray is imported when a cluster is asked for, and not before.
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
from offramp.meters import usable_cores
from offramp.study.run.events import Room
from offramp.units import counted, size

LEAST = (2, 52)  # before it, any page in a browser could run code in a cluster (CVE-2025-62593)
CLIENT = "ray://"
OBJECTS = 80 * 2**20  # bytes of Ray's object store here: it holds lines of text
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
TOKEN_FILE = ".ray/auth_token"
TRIES = 3  # of the head to start a server for this driver: it forks among threads, and the child may die
SHORT = 16  # characters of a folder in which there is room for Ray's sockets, 107 with all that follows


@dataclass(frozen=True)
class Needs:
    """What a task takes of its machine. memory: bytes.  gpus: 0 for none, less than 1 for a share."""

    cpus: int
    memory: int
    gpus: float = 0.0

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} of a GPU" if self.gpus else ""
        return f"{counted(self.cpus, 'core')}, {size(self.memory)} of memory{gpus}"


@dataclass(frozen=True)
class Heard:
    """What a task said. lost: why nothing more will come although it was not finished, in words."""

    task: Any
    lines: tuple[str, ...] = ()
    ended: bool = False
    lost: str | None = None


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined. own: whether this process started it.
    work: what a task does, sent to the machines once.  work_on_gpu: the same in a process of its own, as
    one that has used a GPU stays on it, whichever it is given next."""

    ray: Any = field(repr=False)
    work: Any = field(repr=False)
    work_on_gpu: Any = field(repr=False)
    own: bool
    by_client: bool

    @property
    def device(self) -> str:
        """The class of device that tasks get: GPUs where any machine has one."""
        return "cuda" if any(node.get("GPU", 0) for node in self._resources()) else "cpu"

    def room(self, needs: Needs) -> Room:
        """For tasks that need so much, on machines that are there now."""
        fits = []
        for has in self._resources():
            fit = min(has.get("CPU", 0) // needs.cpus, has.get("memory", 0) // max(1, needs.memory))
            if needs.gpus:
                fit = min(fit, has.get("GPU", 0) // needs.gpus)
            fits.append(int(fit))
        return Room(sum(fits), sum(fit > 0 for fit in fits))

    def _resources(self) -> list[dict[str, float]]:
        with self._reached():
            nodes = self.ray.nodes()
        return [node["Resources"] for node in nodes if node["Alive"]]

    def submit(self, order: str, needs: Needs) -> Any:
        """A task that does what an order says, as soon as there is room for it."""
        options: dict[str, Any] = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "memory": needs.memory,
            "max_retries": 0,  # whoever listens starts it anew, and says so
        }
        if not self.by_client:  # which brings what a task says only when it has ended
            options["num_returns"] = "streaming"
        work = self.work_on_gpu if needs.gpus else self.work
        return work.options(**options).remote(order)

    def hear(self, tasks: Sequence[Any], seconds: float) -> list[Heard]:
        """What tasks say next; nothing after so many seconds."""
        if not tasks:
            time.sleep(seconds)
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

    def _hear(self, task: Any) -> Heard:
        try:
            if self.by_client:
                return Heard(task, tuple(self.ray.get(task)), ended=True)
            return Heard(task, (self.ray.get(next(task)),))
        except StopIteration:
            return Heard(task, ended=True)
        except self.ray.exceptions.RayError as error:
            lost = LOST.get(type(error).__name__) or in_line(error)
            return Heard(task, ended=True, lost=lost)

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
    """Join the cluster at `where` (`ray://HOST:PORT`), or that of RAY_ADDRESS, or start Ray here, for
    this machine alone, and end it with the block.

    Raises OfframpError where Ray is not installed or too old, and where no cluster answers.
    """
    from offramp.study.run import task_entry

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
                mine = {"num_cpus": usable_cores(), "object_store_memory": OBJECTS}
                ray.init("local", include_dashboard=False, _temp_dir=folder, **mine, **quiet)
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
            does = task_entry.work_through if by_client else task_entry.work
            work, work_on_gpu = ray.remote(does), ray.remote(max_calls=1)(does)
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
    given = tempfile.gettempdir()
    return "/tmp" if len(given) > SHORT and os.access("/tmp", os.W_OK) else given


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
    known = any(os.environ.get(name) for name in TOKENS) or (Path.home() / TOKEN_FILE).exists()
    if not known:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which would tell its makers of this run
    import ray
    from ray._private import worker

    # What it has to say of machines that are gone it prints on standard output, with pages of logs.
    vars(worker)["_worker_logs_enabled"] = False
    return ray
