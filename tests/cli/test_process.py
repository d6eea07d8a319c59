"""What only a process of its own shows: signals, terminals, pipes, exit codes, what is imported."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from command import STUDY, Answer, call, data, refusal, untimed, without
from syrupy.assertion import SnapshotAssertion

SECONDS = 500  # a process that takes longer hangs
ENDLESS = "{name: joint, phases: {joint: {epochs: 999999}}}"
LONG = STUDY.replace("seeds: [1, 2]", "seeds: [1]").replace(
    "[baseline, joint, two-stage]", f"[baseline, two-stage, {ENDLESS}]"
)
HEAVY = "torch torchvision timm pandas"
SLOW = "torch._dynamo torch._inductor scipy.stats sklearn.datasets"
DRAWN = "time-total-digits-cnn-digits.svg"
VALIDATED = r"^epoch \d+/999999 · loss [\d.]+ · validation [\d.]+ [\d.]+ [\d.]+ % at exits 1–3$"
# Makes the terminal at hand the controlling one, so that Ctrl-C means something.
TAKE = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "offramp", *arguments]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)


def test_a_page_of_help_needs_no_arrays() -> None:
    """NumPy alone takes as long to import as all the rest of a command that only explains itself."""
    *pages, control = without(
        "numpy", ["--help"], ["--version"], ["calibrate", "--help"], ["taps", "vgg11"]
    )
    assert [page.code for page in pages] == [0, 0, 0] and control.code != 0


WRITING = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` has these tests ignore
from pathlib import Path
import click
from offramp import cli
from offramp.bundle import folder
from offramp.cli import app

@click.command()
def bundle():
    with folder.writing(Path("bundle"), False) as place:
        (place / "stage.onnx").write_bytes(bytes(1000))
        print("half", flush=True)
        time.sleep(600)

app.app = bundle
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(15, 143), (2, 130), (1, 129), (9, -9)])
def test_a_bundle_that_is_half_written_goes_with_its_process(number: int, code: int) -> None:
    """But for SIGKILL, which is the control."""
    words = [sys.executable, "-c", WRITING]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"half\n"
        assert any(Path().iterdir())
        process.send_signal(number)
        assert process.wait(SECONDS) == code
    assert any(Path().iterdir()) is (number == 9)


def test_words_need_no_torch() -> None:
    asked = ["--help", "--version", "run --help", "show --help", "strategies", "strategies --json"]
    asked += ["strategies distillation", "strategies distillation --json", "strategies jont", "rnu"]
    *told, control = without(HEAVY, *map(str.split, asked), ["taps", "vgg11"])
    for words, answer in zip(asked, told, strict=True):
        assert answer.code == (2 if words in ("strategies jont", "rnu") else 0), answer.err
        assert "Traceback" not in answer.err
    assert control.code != 0 and "torch is refused" in control.err


def test_torchrun_is_told_what_ended_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it reads that: without a traceback it shows the message."""
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    answer = call("run", "missing.yaml")
    failure: Any = ProcessFailure(0, os.getpid(), answer.code, str(file))
    assert answer.err == f"offramp: {failure.message['message']}\n" and "missing.yaml" in answer.err
    assert "py_callstack" not in failure.message["extraInfo"] and failure.timestamp > 0


READING = {  # and what is said then
    "status": "6 trials finished",
    "show joint-digits-cnn-digits-s1": "Phases",
    "compare joint two-stage": "paired by seed",
    "claims": "joint",
    "recommend --goal latency": "joint",
    "report --tables --only main": "",
    "report --numbers table.csv": "rows of 6 trials",
    "store pack --out pack": "6 trials packed",
    "report --figures --store pack --only time-total --format svg": "",
}


def test_reading_a_store_needs_no_torch(finished: tuple[Path, Answer]) -> None:
    usual = f" --store {finished[0] / 'runs'}"
    asked = [(words + ("" if "--store" in words else usual)).split() for words in READING]
    told = without("torch torchvision timm", *asked)
    for answer, said in zip(told, READING.values(), strict=True):
        assert answer.code == 0 and said in answer.out, answer
    assert Path("tables").exists()
    drawn = sorted(path.name for path in Path("figures").iterdir())
    assert drawn == ["captions.md", DRAWN]


def test_a_mistake_is_one_line_and_exit_code_two(snapshot: SnapshotAssertion) -> None:
    """What a study says wrong, and in which line: test_bad_input.py."""
    done = subprocess.run(
        command("strategies", "jont"), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert refusal(Answer(done.returncode, done.stdout, done.stderr)) == snapshot


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        command("strategies"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def kept(answer: str) -> None:
    """Of a study that was interrupted in its last phase: what is finished is shown, and stays."""
    assert re.search(r"^baseline[ –]+[\d.]+ *$", answer, re.MULTILINE), answer
    assert " of 3 trials in runs" in answer
    assert list(Path("runs/trials").glob("baseline-*"))
    status = data(call("status", "--json"))
    assert any(trial.startswith("joint-") for trial in status["unfinished"])


@pytest.mark.long  # on a terminal: test_a_terminal_has_moving_lines; without one: test_until_decided.py
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals, snapshot: SnapshotAssertion) -> None:
    """What is finished is shown and kept; it says how to go on."""
    Path("s.yaml").write_text(LONG)
    with subprocess.Popen(
        command("run", "s.yaml"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for said in process.stderr:
            if "[3/4]" in said:  # by now the trial of the first phase is written
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number
    assert untimed(err)[-1] == snapshot
    assert "Traceback" not in err
    kept(out)


@contextmanager
def terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command on a terminal of its own, and the other end of it."""
    screen, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, *command(*arguments)],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    )
    os.close(end)
    try:
        yield process, screen
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(SECONDS)
        os.close(screen)


def shown(screen: int, until: str | None = None) -> str:
    """What appears on a terminal, up to something or to the end."""
    text = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(screen, 65536):
            text += piece
            if until is not None and re.search(until, text.decode(errors="replace")):
                break
    return text.decode(errors="replace")


def plain(text: str) -> list[str]:
    """The lines without their control sequences."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", text))


def test_a_terminal_has_moving_lines(snapshot: SnapshotAssertion) -> None:
    Path("s.yaml").write_text(LONG)
    with terminal("run", "s.yaml") as (process, screen):
        before = shown(screen, r"epoch (?!1/)\d+/999999")
        os.write(screen, b"\x03")
        after = shown(screen)
        assert process.wait(SECONDS) == 130
    lines = plain(before + after)
    kept("\n".join(lines))
    assert "Traceback" not in after
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    assert any(re.search(r"^[━╌]+ \d+ % · .* left · 3/4 phases$", line) for line in lines)
    assert "seed 1 · joint · joint" in lines
    assert any(re.search(VALIDATED, line) for line in lines)
    assert any(line.startswith("[3/4] seed 1 · two-stage · ") for line in lines)
    assert [line for line in lines if line.startswith("Interrupted")] == snapshot
    assert after.rindex("\x1b[?25h") > after.rfind("\x1b[?25l")  # the cursor is back


def test_ctrl_c_reaches_several_workers_as_one() -> None:
    Path("s.yaml").write_text(STUDY.replace("[baseline, joint, two-stage]", f"[{ENDLESS}]"))
    with terminal("run", "s.yaml", "--workers", "2") as (process, screen):
        shown(screen, r"epoch \d+/999999")
        os.write(screen, b"\x03")
        after = "\n".join(plain(shown(screen)))
        assert process.wait(SECONDS) == 130
        with pytest.raises(ProcessLookupError):  # soon none of them is left
            for _ in range(10 * SECONDS):
                os.killpg(process.pid, 0)
                time.sleep(0.1)
    assert "Interrupted." in after and "Traceback" not in after


@pytest.mark.long
def test_a_dumb_terminal_has_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    Path("s.yaml").write_text(STUDY)
    with terminal("run", "s.yaml", "--set", "seeds=[1]") as (process, screen):
        text = shown(screen)
        assert process.wait(SECONDS) == 0
    assert "\x1b" not in text and "  [4/4] seed 1" in text


@pytest.mark.long
def test_torchvision_and_timm_are_imported_where_they_are_used() -> None:
    Path("s.yaml").write_text(STUDY.replace("seeds: [1, 2]", "seeds: [1]"))
    own, theirs = without("torchvision timm", ["run", "s.yaml"], ["taps", "resnet18"])
    assert own.code == 0 and "3 trials" in own.out, own
    assert theirs.code != 0 and "torchvision is refused" in theirs.err


def test_a_plan_waits_for_no_import_that_it_can_do_without() -> None:
    """torch's compiler, scipy.stats and scikit-learn take half the time that a plan takes."""
    Path("s.yaml").write_text(STUDY)
    run = ["run", "s.yaml"]
    plan, places, trains = without(SLOW, [*run, "--dry-run"], ["taps", "digits-cnn"], run)
    assert plan.code == places.code == 0, (plan, places)
    assert trains.code != 0 and f"{SLOW.split()[0]} is refused" in trains.err  # optimizers import it
