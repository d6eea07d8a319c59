"""Processes that begin with everything imported, as importing torch takes seconds of each.

`fork` runs a function in a fork of this process. `forked` runs code in a fork of one that does nothing
else: what has to be alone in its process, so that it can run a study or lead a session of its own.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent


def fork(work: Callable[[], object]) -> int:
    """Begin `work` in a fork of this process; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside torch's idle threads
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def status(child: int) -> int:
    """Wait for a fork; its exit status, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_fork(work: Callable[[], object]) -> int:
    """Run `work` in a fork of this process; its exit status."""
    return status(fork(work))


class Forked:
    """What of `subprocess.Popen` these tests use: text goes in and comes out in lines."""

    def __init__(self, control: socket.socket, stdin: int, stdout: int) -> None:
        self._control = control.makefile()
        control.close()
        self.pid = int(self._control.readline())
        self.stdin, self.stdout = os.fdopen(stdin, "w"), os.fdopen(stdout)
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is None:
            with self._control:
                self.returncode = int(self._control.readline())
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stdin.close()
        self.wait()
        self.stdout.close()


def forked(code: str, *argv: str, session: bool = False, **environment: str) -> Forked:
    """A process that runs `code`, in the folder and environment of this one, and with `environment`.

    session: it leads a session, and a group, of its own.
    """
    mine, its = socket.socketpair()
    its_stdin, stdin = os.pipe()
    stdout, its_stdout = os.pipe()
    handles = [its.fileno(), its_stdin, its_stdout, 2]
    socket.send_fds(_server(), [b"!"], handles)
    for end in (its_stdin, its_stdout):
        os.close(end)
    its.close()
    order = {"code": code, "argv": ["-c", *argv], "session": session, "folder": str(Path.cwd())}
    order["environment"] = os.environ | {"OMP_NUM_THREADS": "1", **environment}
    mine.sendall(json.dumps(order).encode() + b"\n")
    return Forked(mine, stdin, stdout)


@functools.cache
def _server() -> socket.socket:
    """Where the one process of this one takes orders; it ends with this one."""
    mine, its = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, __file__, str(its.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=[its.fileno()],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    its.close()

    def end() -> None:
        mine.close()
        process.wait()

    atexit.register(end)
    return mine


def _serve(orders: socket.socket) -> None:
    left = set[int]()
    while True:
        message, fds, *_ = socket.recv_fds(orders, 1, 4)
        if not message:
            break
        child = os.fork()
        if child == 0:
            orders.close()
            _attend(socket.socket(fileno=fds[0]), fds[1:])
        for fd in fds:
            os.close(fd)
        left = {pid for pid in left | {child} if os.waitpid(pid, os.WNOHANG) == (0, 0)}
    for pid in left:
        os.waitpid(pid, 0)


def _attend(control: socket.socket, fds: list[int]) -> None:
    """Start what is asked for, and tell its number and its end."""
    with control.makefile() as orders:
        order = json.loads(orders.readline())
    child = os.fork()
    if child == 0:
        control.close()
        os._exit(_status(order, fds))
    for fd in fds:
        os.close(fd)
    control.sendall(f"{child}\n".encode())
    control.sendall(f"{status(child)}\n".encode())
    os._exit(0)


def _status(order: dict[str, Any], fds: list[int]) -> int:
    if order["session"]:
        os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` has these tests ignore
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = order["argv"]
    try:
        exec(compile(order["code"], "<forked>", "exec"), {"__name__": "__main__"})
        return 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _main() -> None:
    sys.path[:0] = [str(HERE), str(HERE / "study"), str(HERE / "engine")]
    import child
    import rank_tasks
    import torch
    import torch._dynamo  # which any optimizer imports as it steps

    import support

    torch.set_num_threads(1)
    child.prepare()
    rank_tasks.program_nodes("joint")
    support.tiny_data()
    _serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    _main()
