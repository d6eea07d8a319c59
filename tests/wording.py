"""The wording of messages, compared with the snapshot file of the test's module (`__snapshots__`).

A test says that something is refused; how it is said is reviewed in the snapshot file. After a change of
words: `pytest --snapshot-update FILE`, then read the diff.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from offramp.errors import OfframpError
from refusal import refuses

TEMPORARY = [r"/[^\s'\",;:()]*?/pytest-\d+/(?:popen-gw\d+/)?"]
"""Where folders of tests lie: pytest's own place, and with `--basetemp` that one (conftest.py)."""


def stable(text: str) -> str:
    """A text without what differs between runs: the folder of a test's temporary files.

    >>> stable("no file /dev/shm/pytest-of-me/pytest-3/popen-gw1/test_a0/runs")
    'no file TMP/runs'
    """
    return re.sub(rf"(?:{'|'.join(TEMPORARY)})[^/\s'\",;:()]+", "TMP", text)


def unhashed(text: str) -> str:
    """A text without keys and hashes of trials.

    >>> unhashed("no trial joint-digits-s42-3c36db2e")
    'no trial joint-digits-s42-HASH'
    """
    return re.sub(r"\b[0-9a-f]{8,64}\b", "HASH", text)


def refusal(function: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """The one line in which `function(*args, **kwargs)` is refused, as a snapshot has it.

    >>> from offramp.units import share
    >>> refusal(share, "much", "the loss", 0.01)[:8]
    'the loss'
    """
    return stable(refuses(".", function, *args, **kwargs))


@contextmanager
def refused_as(snapshot: object) -> Iterator[pytest.ExceptionInfo[OfframpError]]:
    """That the block is refused, in the one line that the snapshot has."""
    with pytest.raises(OfframpError) as caught:
        yield caught
    line = str(caught.value)
    assert "\n" not in line
    assert stable(line) == snapshot
