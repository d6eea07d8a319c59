"""A user's own code by name: `path/to/file.py:function`."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError, nearest


def is_user_code(name: str) -> bool:
    """Whether a name means a function in a file."""
    return name.rpartition(":")[0].endswith(".py")


def file_of(name: str) -> Path:
    """The file that `path/file.py:function` names."""
    return Path(name.rpartition(":")[0]).expanduser()


def function(name: str, what: str) -> Callable[..., Any]:
    """The function that `path/file.py:function` names; `what` is the setting, for messages.

    Raises OfframpError when the file is missing or cannot be run, or has no such function.
    """
    path, wanted = file_of(name), name.rpartition(":")[2]
    if not path.is_file():
        raise OfframpError(f"there is no file {path}; {what} is path/to/file.py:function")
    spec = importlib.util.spec_from_file_location(f"offramp_user_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise OfframpError(f"{path} is not a Python file; {what} is path/to/file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up while they are made
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise failed(name, error) from error
    finally:
        del sys.modules[spec.name]
    known = {key: value for key, value in vars(module).items() if callable(value)}
    if wanted not in known:
        raise OfframpError(f"{path} has no function '{wanted}'{nearest(wanted, known)}")
    chosen: Callable[..., Any] = known[wanted]
    return chosen


def failed(name: str, error: Exception) -> OfframpError:
    """What to tell when the user's code raised `error`: its line, and the reason in one line."""
    here = str(file_of(name).resolve())
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == here]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f" at line {lines[-1]}" if lines else ""
    reason = " ".join(str(error).split())
    return OfframpError(f"{name} failed{where}: {type(error).__name__}: {reason}; correct the file")
