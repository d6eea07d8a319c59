"""What is far out of any range, too long, or steers a terminal: one line, exit code 2, no traceback."""

import io
import json
import re
import shutil
from pathlib import Path

import click
import pytest
from command import STUDY, Cli, ok
from rich.text import Text

from offramp.cli import UNMAPPED
from offramp.escape import printable
from offramp.hashing import with_seal
from offramp.terminal import TextTable, console, plain, show

LONG = "x" * 5000
RUN = ("run", "s.yaml", "--dry-run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "x", "--store", LONG), "File name too long"),
        (("status", LONG), "File name too long"),
        (("report", LONG), "File name too long"),
        (("strategies", LONG), "unknown strategy"),
        (("strategies", "joint", "--exits", "99999999"), "in the range 1<=x<=1000"),
        (("taps", LONG), "unknown backbone|File name too long"),
        (("taps", "resnet18", "--input", "999999x999999x999999"), "at most 4096 channels and pixels"),
        (("taps", "resnet18", "--classes", "99999999999"), "in the range 2<=x<=100000"),
        ((*RUN, "--cache-memory", "1e30GB"), "must be auto or a size"),
        ((*RUN, "--cache-disk", str(2**63)), "must be auto or a size"),
        ((*RUN, "--set", "data.size=99999999999"), r"data\.size"),
        ((*RUN, "--set", "recipe.temperature=1e308"), r"recipe\.temperature"),
        ((*RUN, "--set", "strategies=[{name: distillation, temperature: 1e308}]"), "temperature"),
        ((*RUN, "--set", "seeds=[1180591620717411303424]"), "seeds"),
        (("strategies", "\x1b[31mred"), r"unknown strategy '\\x1b\[31mred'"),
        (("show", "a", "--store", "\x1b[31m\udc80"), r"\\x1b"),
        (("run", "a\udc80b.yaml"), r"a\\udc80b\.yaml"),
        (("strategies", "a\x00.py:b"), r"a\\x00"),
    ],
    ids=lambda part: " ".join(part)[:40] if isinstance(part, tuple) else "",
)
def test_one_line_and_no_escape(
    cli: Cli, words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    Path("s.yaml").write_text(STUDY)
    answer = cli(*words)
    last = answer.err.splitlines()[-1]
    assert answer.code == 2 and answer.out == "" and re.search(said, last), answer.err
    assert "\x1b" not in answer.err and "Traceback" not in answer.err and len(last) < 6000


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 2, "MemoryError; ask for less, or close other programs; "),
        (ImportError(f"a.so: {UNMAPPED} from shared object"), 2, "close other programs; "),
        (RecursionError("too deep"), 2, "nested too deeply"),
        (PermissionError(13, "Permission denied", "/a/b"), 2, r"Permission denied \(/a/b\); fix that"),
        (ValueError("line 1\nline \x1b[2J"), 1, r"ValueError: line 1 line \\x1b\[2J; this is a fault"),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, Exception) else "",
)
def test_what_nobody_foresaw_is_a_line_that_names_the_traceback(
    cli: Cli, error: Exception, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> str:
        raise error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(
        "offramp.api.train.strategies.GROUPS", type("Bad", (), {"items": lambda _: fails()})()
    )
    answer = cli("strategies")
    assert answer.code == code and answer.out == "" and len(answer.err.splitlines()) == 1
    assert re.search(said, answer.err)
    path = Path(re.search(r"the traceback is in (\S+)\n", answer.err)[1])
    assert path.parent == tmp_path and "in fails" in path.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert "the traceback could not be written" in cli("strategies").err


def test_what_steers_a_terminal_is_spelled_out() -> None:
    assert printable("naïve 5\u202fGB – τ") == "naïve 5\u202fGB – τ"
    assert printable("\x1b[1m\x00\u202e\udc80\n") == r"\x1b[1m\x00\u202e\udc80\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_no_name_steers_what_prints_it(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """However it is printed; rich's own codes stay."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    name = "a\x1b[2J\x9b1m\u202eb\x00\udc80c"
    spelled = r"a\x1b[2J\x9b1m\u202eb\x00\udc80c"
    with plain():
        click.echo(f"1 {name}\t\u2192\n")
        print("2", name)
        console().print(f"3 {name}", soft_wrap=True)
        show([TextTable([f"4 {name}"], (), [[f"5 {name}"]], f"6 {name}", f"7 {name}")])
        console().print(Text(f"8 {name}"))
    said = screen.getvalue()
    own = re.findall(r"\x1b\[[\d;]*m", said)
    assert bool(own) is terminal
    rest = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert printable(rest, keep="\n\t") == rest and "1 " in rest and "\t\u2192\n" in rest
    for number in range(2, 9):
        assert f"{number} {spelled}" in rest, number
    print(name)  # the control
    assert "\x1b[2J" in screen.getvalue() and "\u202e" in screen.getvalue()


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_letters_that_a_locale_lacks_are_spelled_out(
    monkeypatch: pytest.MonkeyPatch, errors: str
) -> None:
    """A finished run ended as a fault of offramp, for a dash in its table."""
    raw = io.BytesIO()
    screen = io.TextIOWrapper(raw, encoding="latin-1", errors=errors, write_through=True)
    monkeypatch.setattr("sys.stdout", screen)
    with plain():
        click.echo("97.9 ±0.8 –")
        console().print("→ \U0001f600")
    assert raw.getvalue() == b"97.9 \xb10.8 \\u2013\n\\u2192 \\U0001f600\n"


def test_names_in_records_of_others_steer_no_command(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack may say what it likes of what is missing, and call data and strategies what it likes."""
    monkeypatch.setenv("COLUMNS", "200")
    made = Path(__file__).parents[2] / "docs" / "results" / "cifar10-deploy"
    shutil.copytree(made, tmp_path / "pack")
    document = json.loads((made / "trials.json").read_text())
    document["missing"] = ["note \x1b[2J\x9b1m\u202e\x00"]
    for trial in document["trials"].values():
        trial["manifest"]["data"]["name"] += "\u202e"
    rest = {key: value for key, value in document.items() if key != "seal"}
    (tmp_path / "pack" / "trials.json").write_text(json.dumps(with_seal(rest)))
    for words in (
        ("report", "--tables", "pack", "--show", "main"),
        ("report", "--figures", "pack", "--only", "overall"),
    ):
        answer = ok(cli(*words, *(("--format", "json") if words[0] == "figures" else ())))
        said = answer.out + answer.err
        assert printable(said, keep="\n") == said and r"\x9b1m\u202e\x00" in said
    answer = cli("report", "--tables", "pack", "--show", "main", "--json")
    assert "\u202e" in json.loads(answer.out)["missing"][0] and answer.out.isascii()
