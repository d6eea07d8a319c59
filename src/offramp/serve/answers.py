"""What was answered, for labels that come later: the latest in memory, all in a file. No pixels."""

from __future__ import annotations

import json
import os
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError

REMEMBERED = 100_000  # answers that a label can come for


class Labels:
    """How many answers of each exit were right, of those whose label came.

    Args:
        exits: How many exits there are.
        most: Answers that are remembered; the oldest is forgotten first.
    """

    def __init__(self, exits: int, most: int = REMEMBERED) -> None:
        self._answers: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._most = most
        self.labeled, self.right = [0] * exits, [0] * exits

    def answered(self, id: str, exit: int, label: str) -> None:
        """exit: counted from 0; label: the answer."""
        self._answers[id] = exit, label
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def label(self, id: str, label: str) -> bool:
        """Whether an answer of that id waited for its label, which came now."""
        if id not in self._answers:
            return False
        exit, answer = self._answers.pop(id)
        self.labeled[exit] += 1
        self.right[exit] += answer == label
        return True


class AnswerFile:
    """A file of JSON lines that grows; whoever reads it sees whole lines. A disk that is full later ends
    nothing: `lost` counts the lines.

    Raises:
        OfframpError: It cannot be written, or is no file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lost = path, 0
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._handle = os.open(path, flags, 0o644)
        except OSError as error:
            raise OfframpError(
                f"cannot append to {path} ({error.strerror}); choose another file for `answers`"
            ) from error
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._handle)
            raise OfframpError(f"{path} is no file; choose another for `answers`")
        # After a crash in the middle of a line the next one begins on its own.
        self._torn = status.st_size > 0 and os.pread(self._handle, 1, status.st_size - 1) != b"\n"

    def append(self, fields: dict[str, Any]) -> None:
        """A line, in one write."""
        line = (b"\n" if self._torn else b"") + json.dumps(fields, ensure_ascii=False).encode() + b"\n"
        try:
            written = os.write(self._handle, line)
        except OSError:
            written = 0
        self.lost += written < len(line)
        if written:
            self._torn = written < len(line)

    def close(self) -> None:
        os.close(self._handle)
