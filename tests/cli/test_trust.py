"""Code that a store's record names runs only if the user lets it, and never if it has changed."""

import io
import os
import pty
import re
import shlex
import shutil
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import command
import pytest
from command import Answer, Cli, call, ok, refusal
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from offramp.cli import main
from offramp.hashing import file_digest
from wording import unhashed

CODE = """
from pathlib import Path
import torch
from torch import nn
from offramp.parts import backbone, head
from offramp.phase import CE, Phase

Path("ran").touch()

def make_net(classes, input_shape):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes),
    )

def make_data():
    labels = torch.arange(120) % 3
    noise = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 80
    images = noise.to(torch.uint8) + labels.view(-1, 1, 1, 1).to(torch.uint8) * 60
    return {"train": (images, labels), "classes": ["a", "b", "c"]}

def mine(exits):
    return (
        Phase("all but heads", train=backbone(exits), loss=(CE(exits),)),
        Phase("head 1", train=head(1), loss=(CE(1),)),
    )
"""
STUDY = """
seeds: [1]
strategies: [joint]
backbone: "net.py:make_net"
exits: {taps: ["1"], head: linear}
data: "data.py:make_data"
recipe: {epochs: 1}
"""
COMMANDS = {
    words.partition(" ")[0]: words.split()
    for words in (
        "calibrate joint --max-accuracy-loss 0.9 --anyway --out other.json",
        "predict joint a.png --policy policy.json",
        "benchmark joint --batch 1 --repeats 5 --seconds 0",
        "export joint --policy policy.json --out bundle --no-measure --anyway",
    )
}
NET, DATA = "net.py:make_net", "data.py:make_data"
SPLIT = "the whole test split"  # of which a bundle's check is told
NAMED = "Code that this runs"
LIST = "studies: [study.yaml, other.yaml]\n"
PRINTS = "import sys\nprint('ran', file=sys.stderr)\n"
MARKS = 'open("ran by data", "w").close()\n'
BUILD = ("--backbone", NET, "--data", DATA, "--exits", "1")
QUICK = "--out b --strategy joint --set recipe.epochs=1 --quiet --anyway"
SMALL = "--set data.train_images=120 --set data.test_images=60 --set recipe.epochs=1"
every_command = pytest.mark.parametrize("words", list(COMMANDS.values()), ids=list(COMMANDS))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of one's own code, a policy and an image; read-only."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("net.py", "data.py"):
            Path(name).write_text(f"# {name}\n{CODE}")
        Path("study.yaml").write_text(STUDY)
        ok(call("run", "study.yaml", "--quiet"))  # typed by the user: nothing is asked
        words = ("calibrate", "joint", "--max-accuracy-loss", "0.9", "--anyway", "--trust-code")
        ok(call(*words))
        Image.new("L", (8, 8)).save("a.png")
        Path("ran").unlink()
    return folder


@pytest.fixture
def mine(cli: Cli, made: Path, tmp_path: Path) -> Cli:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return cli


def refused(answer: Answer, *said: str) -> None:
    command.refused(answer, *said)
    assert not Path("ran").exists()


def told(answer: Answer) -> str:
    """How it is refused to run code, before any did."""
    refused(answer)
    return unhashed(refusal(answer))


@every_command
def test_where_nobody_can_be_asked_it_is_refused(mine: Cli, words: list[str]) -> None:
    command = shlex.join(["offramp", *words, "--trust-code"])  # which works: see below
    refused(mine(*words), f"net.py (SHA-256 {file_digest(Path('net.py'))[:12]})", f": {command}\n")


@every_command
def test_what_has_changed_is_refused_before_it_runs(
    mine: Cli, words: list[str], snapshot: SnapshotAssertion
) -> None:
    with Path("net.py").open("a") as file:
        file.write("# changed\n")
    answers = [mine(*words, *more) for more in ((), ("--trust-code",))]
    assert [answer.code for answer in answers] == [2, 2] and not Path("ran").exists()
    # Of an export the data, which are as they were, are asked about first.
    assert [unhashed(answer.err.splitlines()[-1]) for answer in answers] == snapshot


@every_command
def test_trusted_code_runs(mine: Cli, words: list[str]) -> None:
    answer = ok(mine(*words, "--trust-code"))
    assert Path("ran").exists()
    if words[0] == "export":
        assert SPLIT in answer.out


@every_command
def test_forbidden_code_does_not(mine: Cli, words: list[str], snapshot: SnapshotAssertion) -> None:
    assert told(mine(*words, "--no-user-code")) == snapshot


def test_the_data_are_asked_about_only_where_they_are_read(
    mine: Cli, snapshot: SnapshotAssertion
) -> None:
    export = COMMANDS["export"]
    assert told(mine(*export)) == snapshot
    answer = mine(*export, "--no-check")
    assert "net.py" in answer.err and "data.py" not in answer.err


def test_changed_data_are_not_run_for_the_check(mine: Cli, snapshot: SnapshotAssertion) -> None:
    Path("data.py").write_text(MARKS + Path("data.py").read_text())
    answer = ok(mine(*COMMANDS["export"], "--trust-code"))
    assert re.findall(r"data\.py [^.;]* recorded", unhashed(" ".join(answer.out.split()))) == snapshot
    assert not Path("ran by data").exists()


@pytest.mark.parametrize("reply", ["y", "n"])
@pytest.mark.usefixtures("mine")
def test_on_a_terminal_it_is_asked_once(reply: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    said: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                said.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    os.write(ours, f"{reply}\n".encode())
    code: object = 0
    with os.fdopen(theirs) as keyboard, os.fdopen(os.dup(theirs), "w") as screen:
        monkeypatch.setattr(sys, "argv", ["offramp", *COMMANDS["calibrate"]])
        monkeypatch.setattr(sys, "stdin", keyboard)
        with redirect_stderr(screen), redirect_stdout(io.StringIO()):
            try:
                main()  # the command in this process: no other has to import torch
            except SystemExit as stop:
                code = stop.code
    reader.join()
    os.close(ours)
    text = " ".join(b"".join(said).decode().split())
    assert text.count("Run it?") == 1
    assert f"net.py (SHA-256 {file_digest(Path('net.py'))[:12]})" in text
    assert (code or 0) == (0 if reply == "y" else 2), text
    assert Path("ran").exists() == Path("other.json").exists() == (reply == "y")


def test_a_reader_can_refuse_code_of_a_study(mine: Cli, snapshot: SnapshotAssertion) -> None:
    shutil.copy("study.yaml", "other.yaml")
    Path("all.yaml").write_text(LIST)
    words = ("run", "--backbone", "digits-cnn", "--data", "digits", "--no-user-code")
    runs = (
        ("run", "study.yaml", "--no-user-code"),
        ("run", "all.yaml", "--no-user-code"),
        (*words, "--strategy", "net.py:mine"),
    )
    assert [told(mine(*run)) for run in runs] == snapshot
    assert mine(*words, "--strategy", "joint", "--dry-run").code == 0  # there is none in it


def test_code_of_a_study_is_named_before_it_runs(mine: Cli, snapshot: SnapshotAssertion) -> None:
    """A file from somebody else may look like any other study."""
    digests = [file_digest(Path(name))[:12] for name in ("data.py", "net.py")]
    why = ("show", "0", "--study", "study.yaml")
    for words in (("run", "study.yaml", "--dry-run", "--json"), why):
        answer = mine(*words)
        first = answer.err.partition("\n")[0]  # of a run, behind the time
        assert re.findall("SHA-256 ([0-9a-f]+)", first) == digests
        assert unhashed(first[first.index(NAMED) :]) == snapshot and answer.err.count(NAMED) == 1
        assert Path("ran").exists()
        Path("ran").unlink()
    Path("net.py").write_text(PRINTS + Path("net.py").read_text())
    lines = mine(*why).err.splitlines()
    assert lines[0].startswith(f"{NAMED}: data.py") and lines.index("ran") > 0
    assert sum(line.startswith(NAMED) for line in lines) == 1
    Path("ran").unlink()
    assert told(mine(*why, "--no-user-code")) == snapshot


def test_a_build_of_ones_own_code_asks_nothing(mine: Cli) -> None:
    answer = ok(mine("build", *BUILD, *QUICK.split()))
    assert SPLIT in answer.out


def test_a_strategy_that_is_code_is_not_taken_from_runs(mine: Cli, snapshot: SnapshotAssertion) -> None:
    given = ("--backbone", "digits-cnn", "--data", "digits", *SMALL.split())
    ok(mine("run", "--strategy", "net.py:mine", *given, "--store", "known"))
    Path("ran").unlink()
    answer = mine("build", *given, "--out", "b", "--evidence", "known", "--dry-run")
    assert told(answer) == snapshot
