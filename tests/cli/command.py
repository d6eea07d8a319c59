"""How tests call commands."""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from offramp.cli import main
from wording import stable

STUDY = """\
seeds: [1, 2]
strategies: [baseline, joint, two-stage]
backbone: digits-cnn
exits: {taps: [blocks.0, blocks.2], head: linear}
data: {name: digits, train_images: 200, test_images: 100}
recipe: {epochs: 2, learning_rate: 0.01}
"""


class Answer(NamedTuple):
    """What a command said: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def untimed(text: str) -> list[str]:
    """The lines of a log without their times, which each must have."""
    found = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (.*)", line) for line in text.splitlines()]
    assert all(found), text
    return [line[1] for line in found if line]


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


def ok(answer: Answer) -> Answer:
    """The answer of a command that succeeds."""
    assert answer.code == 0, answer.err
    return answer


def narrow(answer: Answer) -> str:
    """What a command says to people: within 80 columns, nothing cut, nothing on standard error."""
    assert answer.code == 0 and answer.err == "", answer.err
    for line in answer.out.splitlines():
        assert len(line) <= 80 and "…" not in line.replace(" … ", " "), line
    return answer.out


def data(answer: Answer) -> Any:
    """What it says to programs: one JSON value on standard output."""
    assert answer.code == 0 and answer.err == "", answer.err
    return json.loads(answer.out, parse_constant=pytest.fail)


def refused(answer: Answer, *said: str) -> None:
    """What it says of a mistake: one line on standard error that names it."""
    assert answer.code == 2 and answer.out == "" and answer.err.count("\n") == 1, answer
    assert answer.err.startswith("offramp: ")
    for words in said:
        assert words in answer.err, answer.err


def refusal(answer: Answer) -> str:
    """The one line in which a command refuses a mistake, as a snapshot has it (tests/wording.py)."""
    refused(answer)
    return stable(answer.err)


def keys(store: str = "runs") -> list[str]:
    return sorted(path.name for path in Path(store, "nodes").iterdir())


def without(modules: str, *commands: Sequence[object]) -> list[Answer]:
    """Commands, one after another in a process of its own, in which these modules are not there."""
    code = (
        "import json, sys\n"
        "class Refuse:  # scipy looks for torch among the modules, so None in its place will not do\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if {{name, name.split('.')[0]}} & {set(modules.split())}:\n"
        "            raise ImportError(name + ' is refused')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}\n"
        "from command import call\n"
        f"told = [call(*words) for words in {[[*map(str, words)] for words in commands]!r}]\n"
        "print(json.dumps(told))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return [Answer(*told) for told in json.loads(done.stdout)]
