"""The command line. Commands are thin: they read arguments, call, and show the answer.

Answers go to standard output, everything else to standard error. Exit codes: 0, 1 when something
failed while it ran, 2 for a mistake that the user can mend, 130 when interrupted.
"""

from __future__ import annotations

import sys

from offramp.errors import OfframpError
from offramp.process import prepare


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
