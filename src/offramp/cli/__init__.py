"""The command line. Commands are thin: they read arguments, call, and show the answer.

Answers go to standard output, everything else to standard error. Exit codes: 0, 1 when something
failed while it ran, 2 for a mistake that the user can mend, 130 when interrupted.
"""

from __future__ import annotations

import gc
import os
import sys

from offramp.allocator import keep_freed_memory
from offramp.errors import OfframpError
from offramp.openmp import bound_spinning

# Objects made since the last look for garbage, instead of 700: imports make hundreds of thousands that
# stay, and looking through them again and again took a sixth of a command's start.
OBJECTS = 10_000
GIVEN = "OFFRAMP_GC_THRESHOLD"  # another number of them, in the environment
MOST = 2**31 - 1  # that Python takes


def prepare() -> None:
    """What a command sets for its process, before it imports torch."""
    look_less_for_garbage()
    keep_freed_memory()
    bound_spinning()


def look_less_for_garbage() -> None:
    """No result depends on it. Raises OfframpError where the environment says no number it can be."""
    given = os.environ.get(GIVEN, str(OBJECTS))
    if not given.isdecimal() or int(given) > MOST:
        raise OfframpError(f"{GIVEN} is '{given}'; give a number of objects (Python's own is 700)")
    gc.set_threshold(int(given))


def main() -> None:
    """Entry point: a mistake that the user can mend is one line, never a traceback."""
    try:
        prepare()
        from offramp.cli.app import app

        app()
    except OfframpError as error:
        print("offramp:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
