"""The command line. Commands are thin: they read arguments, call, and show the answer.

Answers go to standard output, everything else to standard error. Exit codes: 0, 1 when something
failed while it ran, 2 for a mistake that the user can mend, 130 when interrupted, 143 by SIGTERM and 129
by SIGHUP.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

import click

from offramp.errors import OfframpError, UntrustedCode, readable
from offramp.process import exit_code, prepare, terminable
from offramp.terminal import plain

UNMAPPED = "failed to map segment"  # of a library that the limit of address space has no room for


def main() -> None:
    """Entry point: whatever goes wrong is one line, never a traceback; no name steers the terminal."""
    if "_OFFRAMP_COMPLETE" in os.environ:  # a shell asks, and click answers it in bytes
        _answer()
        return
    with plain():
        _answer()


def _answer() -> None:
    try:
        _silence_later_ranks()
        with terminable():  # so that a folder that is half written goes
            prepare()
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged EXIF: they name no file
            from offramp.cli.app import app

            sys.exit(app.main(prog_name="offramp", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:  # its message is the whole help
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        command = "offramp" if context is None else context.command_path
        message = error.format_message().rstrip(".")
        _say(f"{message}{' See' if message[-1] in '?)' else '; see'} {command} --help")
        sys.exit(error.exit_code)
    except click.Abort as error:  # what click makes of a KeyboardInterrupt
        cause = error.__cause__
        sys.exit(exit_code(cause) if isinstance(cause, KeyboardInterrupt) else 130)
    except OfframpError as error:
        again = isinstance(error, UntrustedCode)
        _say(
            f"{error}: {shlex.join(['offramp', *sys.argv[1:], '--trust-code'])}" if again else str(error)
        )
        sys.exit(error.exit_code)
    except KeyboardInterrupt as error:
        sys.exit(exit_code(error))
    except Exception as error:
        hint = _hint(error)
        what = hint or "this is a fault of offramp: report it"
        _say(f"{_reason(error)}; {what}; {_traceback_place(error)}")
        sys.exit(2 if hint else 1)


def _silence_later_ranks() -> None:
    """Silence all processes of torchrun but the first: they would say the same. What ends one of them
    torchrun says."""
    if os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("RANK") != "0":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _say(text: str) -> None:
    line = readable(text)
    print("offramp:", line, file=sys.stderr)
    _tell_torchrun(line)


def _tell_torchrun(line: str) -> None:
    """Have torchrun say it where it started this process: all but the first are silent."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        report = {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": report}), encoding="utf-8")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        named = "" if error.filename is None else f" ({str(error.filename)[:200]})"
        return f"{error.strerror}{named}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")


def _hint(error: Exception) -> str:
    """What mends it; empty of a fault of offramp."""
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and UNMAPPED in str(error)):
        return "ask for less, or close other programs"
    if isinstance(error, RecursionError):
        return "what was read is nested too deeply; give another file"
    return "fix that and run again" if isinstance(error, OSError) else ""


def _traceback_place(error: Exception) -> str:
    """Where the traceback is, for whoever looks into it."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="offramp-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return "the traceback could not be written"
    return f"the traceback is in {file.name}"
