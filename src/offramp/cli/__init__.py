"""The command line. Commands are thin: they read arguments, call, and show the answer.

Answers go to standard output, everything else to standard error. Exit codes: 0, 1 when something
failed while it ran, 2 for a mistake that the user can mend, 130 when interrupted.
"""

from __future__ import annotations

import gc
import sys

from offramp.allocator import keep_freed_memory
from offramp.errors import OfframpError
from offramp.openmp import bound_spinning

# Objects made since the last look for garbage, instead of 700: imports make hundreds of thousands that
# stay, and looking through them again and again took a sixth of a command's start.
OBJECTS = 10_000


def prepare() -> None:
    """What a command sets for its process, before it imports torch."""
    gc.set_threshold(OBJECTS)
    keep_freed_memory()
    bound_spinning()


def main() -> None:
    """Entry point: a mistake that the user can mend is one line, never a traceback."""
    prepare()
    try:
        from offramp.cli.app import app

        app()
    except OfframpError as error:
        print("offramp:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
