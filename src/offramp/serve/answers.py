"""What was answered: sums of the last hour, the latest for labels that come later, all in a file."""

from __future__ import annotations

import json
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpError
from offramp.hashing import from_text

WINDOWS = {"1 min": 60, "10 min": 600, "1 h": 3600}
LONGEST = max(WINDOWS.values())
REMEMBERED = 100_000  # answers that a label can come for
TAIL = 32 * 2**20  # bytes of a file of answers that are read again at a start


class Windows:
    """Sums of some numbers, second by second. columns: how many numbers there are."""

    def __init__(self, columns: int) -> None:
        self._sums = np.zeros((LONGEST, columns))
        self._second = np.full(LONGEST, -1, np.int64)  # that a row has the sums of

    def add(self, now: float, values: Mapping[int, float]) -> None:
        """now: seconds of a clock that never goes back; values: by column."""
        second = int(now)
        row = second % LONGEST
        if self._second[row] != second:
            self._second[row], self._sums[row] = second, 0.0
        for column, value in values.items():
            self._sums[row, column] += value

    def sums(self, now: float, seconds: int) -> NDArray[np.float64]:
        """The sums [columns] of the last seconds; the one that has begun is one of them."""
        lately = (self._second >= 0) & (self._second > int(now) - seconds)
        return np.asarray(self._sums[lately].sum(axis=0))


class Labels:
    """How many answers of each exit were right, of those whose label came. most: answers that are
    remembered; the oldest is forgotten first."""

    def __init__(self, exits: int, most: int = REMEMBERED) -> None:
        self._answers: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._most = most
        self.labeled, self.right = [0] * exits, [0] * exits

    def answered(self, id: str, exit: int, label: str) -> None:
        """exit: counted from 0; label: the answer."""
        self._answers[id] = exit, label
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def recall(self, fields: Mapping[str, Any], exits: Sequence[int]) -> None:
        """See a line of the file of answers again. exits: their numbers."""
        match fields:
            case {"id": str(id), "exit": int(exit), "class": str(label)} if exit in exits:
                self.answered(id, exits.index(exit), label)
            case {"id": str(id), "label": str()}:  # which it has had
                self._answers.pop(id, None)

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

    def latest(self) -> Iterator[dict[str, Any]]:
        """The last lines, as far as they are of this kind."""
        size = os.fstat(self._handle).st_size
        first = max(size - TAIL, 0)  # where a line begins, or not
        for line in os.pread(self._handle, size - first, first).splitlines()[first > 0 :]:
            try:
                fields = from_text(line)
            except ValueError:
                continue
            if isinstance(fields, dict):
                yield fields

    def append(self, fields: dict[str, Any]) -> None:
        """A line, in one write. Half a character is escaped, which is JSON's escape too."""
        text = json.dumps(fields, ensure_ascii=False).encode(errors="backslashreplace")
        line = (b"\n" if self._torn else b"") + text + b"\n"
        try:
            written = os.write(self._handle, line)
        except OSError:
            written = 0
        self.lost += written < len(line)
        if written:
            self._torn = written < len(line)

    def close(self) -> None:
        os.close(self._handle)
