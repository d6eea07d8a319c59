"""How tests call commands."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass

from offramp.cli import main

STUDY = """\
seeds: [1, 2]
strategies: [baseline, joint, two-stage]
backbone: digits-cnn
exits: {taps: [blocks.0, blocks.2], head: linear}
data: {name: digits, train_images: 200, test_images: 100}
recipe: {epochs: 2, learning_rate: 0.01}
"""


@dataclass(frozen=True)
class Answer:
    """What a command said: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


def call(*arguments: object) -> Answer:
    """The entry point, in this process, as the shell starts it."""
    out, err, before, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["offramp", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    finally:
        sys.argv = before
    return Answer(code, out.getvalue(), err.getvalue())
