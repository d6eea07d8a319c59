"""Where a worker that cannot begin tells its parent why.

Before a process of this machine does anything it runs the user's script, as a module that is not
`__main__`. What goes wrong until then multiprocessing hands to `sys.excepthook`, in a process that the
fork server made. The fork server imports this module, and nothing else does. It serves a user's own
processes too, which are left alone.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import TracebackType

from offramp.errors import in_line
from offramp.study.run.events import WorkerFailed, dumps
from offramp.study.run.processes import WORKER


def reason_of(error: BaseException) -> str:
    """What the parent is told of an error before the worker's first line."""
    if isinstance(error, RuntimeError) and "freeze_support" in str(error):  # multiprocessing's own
        return (
            "each worker process imports your script, which would start workers of its own; put what "
            'runs below if __name__ == "__main__":, or use one worker'
        )
    return (
        f"a worker process could not begin: {type(error).__name__}: {in_line(error)}; workers import "
        "your script: let it be one that can be imported, or use one worker"
    )


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    if multiprocessing.current_process().name != WORKER:
        return
    line = dumps(WorkerFailed(reason_of(error), again=False)).encode()
    for pipe in forkserver.get_inherited_fds() or ():  # the process's own: that of its events
        Connection(pipe, readable=False).send_bytes(line)


sys.excepthook = _report
