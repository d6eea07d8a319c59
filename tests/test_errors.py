"""Errors of others, as a user reads them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import offramp
from offramp.errors import in_line
from wording import TEMPORARY, stable

REMOTE = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 772, in Datapath
    raise RuntimeError(
RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err
"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("no  such\nfile", "no such file"),
        ("", "ValueError"),
        ("x" * 300, "x" * 199 + "…"),
        (
            REMOTE,
            "Initialization failure from server: RuntimeError: Starting Ray client server failed. See "
            "ray_client_server_23000.err",
        ),
        ("Traceback (most recent call last)", "ValueError"),
    ],
)
def test_a_message_is_one_line_and_of_a_traceback_its_end(message: str, line: str) -> None:
    assert in_line(ValueError(message)) == line


def test_a_long_value_is_cut_in_what_is_said_of_it() -> None:
    word = str(offramp.OfframpError(f"there is no file {'/a' * 50_000}.png; name another"))
    assert re.fullmatch(r"there is no file (/a)+…/?(a/)*a.png; name another", word) and len(word) < 250
    assert len(str(offramp.OfframpError("a b " * 50_000))) < 4100


SRC = Path(offramp.__file__).parent
# What only commands reach.
COMMANDS = {
    *(
        "bundle/web.py",
        "data/audit.py",
        "study/search.py",
        "study/variants.py",
        "study/spec/file.py",
    ),
    "study/run/cluster.py",
}
# Beside the keyword of Python, or of another program.
SAID_FOR_BOTH = (
    r"--[a-z-]+ \((in Python: )?[a-z_]+=(True|False)\)|python run.py .*|offramp [a-z ]+ --[a-z-]+"
)


def messages(code: str) -> Iterator[str]:
    """The texts of errors that code raises, values left out."""
    for call in ast.walk(ast.parse(code)):
        match call:
            case ast.Call(func=ast.Name(id="OfframpError" | "Unwritable" | "DataChanged")):
                texts = (n.value for n in ast.walk(call) if isinstance(n, ast.Constant))
                yield " ".join(text for text in texts if isinstance(text, str))


def flags(message: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z-]+", re.sub(SAID_FOR_BOTH, "", message))


@pytest.mark.parametrize("folder", ["api", "bundle", "data", "infer", "policy", "study"])
def test_what_python_can_raise_is_not_said_in_flags(folder: str) -> None:
    """A caller of `fit` or `build` has no command line."""
    flagged = {
        f"{path.relative_to(SRC)}: {message}"
        for path in sorted((SRC / folder).rglob("*.py"))
        if path.relative_to(SRC).as_posix() not in COMMANDS
        for message in messages(path.read_text())
        if flags(message)
    }
    assert not flagged


def test_a_flag_in_a_message_is_found() -> None:
    code = 'raise OfframpError(f"{name} is there; " + ("give --force" if force else ""))'
    assert [flags(message) for message in messages(code)] == [["--force"]]
    assert not flags("--force (force=True)") and not flags("python run.py --measure")


def test_snapshots_leave_out_any_place_of_temporary_files(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with `pytest --basetemp=…`."""
    monkeypatch.setattr(pytestconfig.option, "basetemp", "/mine/tmp")
    monkeypatch.setattr("wording.TEMPORARY", [*TEMPORARY])
    for plugin in pytestconfig.pluginmanager.get_plugins():
        if getattr(plugin, "__file__", None) == str(Path(__file__).with_name("conftest.py")):
            plugin.pytest_configure(pytestconfig)
    assert stable(f"{tmp_path}/a, /mine/tmp/test_b0/b and /mine/c") == "TMP/a, TMP/b and /mine/c"
