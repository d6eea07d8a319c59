"""The command line. Commands are thin: they read arguments, call, and show the answer."""

from __future__ import annotations

import sys

from offramp.errors import OfframpError


def main() -> None:
    """Entry point: mistakes that a user can mend are one line and exit code 2."""
    from offramp.cli.app import app

    try:
        app()
    except OfframpError as error:
        print(f"offramp: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stderr.close()
        sys.exit(0)
