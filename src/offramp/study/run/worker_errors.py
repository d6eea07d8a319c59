"""Where a worker that cannot begin tells its parent why.

Before a process of the crew does anything it runs the user's script, as a module that is not
`__main__`, and finds there what its task names. What goes wrong until then multiprocessing hands to
`sys.excepthook`, in a process that the fork server made. The fork server imports this module, and
nothing else does. It serves a user's own processes too, which are left alone.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import TracebackType

from offramp.errors import in_line
from offramp.study.run.crew import WORKER


def told(error: BaseException) -> str:
    """What the parent says of it."""
    if isinstance(error, RuntimeError) and "freeze_support" in str(error):  # multiprocessing's own
        return (
            "each worker process imports your script, which would start workers of its own; put what "
            'runs below if __name__ == "__main__":, or use one worker'
        )
    return (
        f"a worker process could not begin: {type(error).__name__}: {in_line(error)}; workers import "
        "your script and find functions in it by name: write those at the top of a file that can be "
        "imported, or use one worker"
    )


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    if multiprocessing.current_process().name != WORKER:
        return
    for pipe in forkserver.get_inherited_fds() or ():  # what the process was given: its events
        Connection(pipe, readable=False).send(told(error))


sys.excepthook = _tell
