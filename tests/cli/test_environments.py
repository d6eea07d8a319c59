"""Commands where handles, address space, letters or room are few: one line, or an answer."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command import Cli, refused
from PIL import Image

from offramp.errors import OfframpError
from offramp.report.render import charts

BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STUDY = """\
seeds: [1]
strategies: [baseline]
backbone: digits-cnn
exits: 1
recipe: {epochs: 1}
data: {name: digits, train_images: 200, test_images: 60}
"""
RESULTS = Path(__file__).parents[2] / "docs" / "results" / "cifar10-deploy"


@pytest.mark.parametrize(
    ("kind", "most", "words"),
    [
        (resource.RLIMIT_NOFILE, 20, "`ulimit -n` of 64 or more, and it is 20"),
        (resource.RLIMIT_AS, 1_000_000 * 1024, "`ulimit -v` of 78,643,200 or more, and it is 1,000,000"),
    ],
    ids=["handles", "address space"],
)
def test_charts_say_what_they_need(kind: int, most: int, words: str, tmp_path: Path) -> None:
    """vl-convert panicked, or ended the process with its stack."""
    figure = ("report", "--figures", str(RESULTS), "--only", "overall", "--out", str(tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-m", "offramp", *figure],
        preexec_fn=lambda: resource.setrlimit(kind, (most, resource.getrlimit(kind)[1])),
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stdout) == (2, "") and words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and "fault of offramp" not in done.stderr


def test_charts_are_drawn_under_usual_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    charts.check_room()
    for allowed in (resource.RLIM_INFINITY, 2**40):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        charts.check_room()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    with pytest.raises(OfframpError, match="ulimit -n"):
        charts.check_room()


def test_a_disk_that_is_full_at_once(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "offramp", "strategies"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "No space left" in done.stderr and "fault of offramp" not in done.stderr
    assert tmp_path.exists()


SEVERAL = """
import sys
from offramp.cli import main
for words in sys.argv[1:]:
    sys.argv = ["offramp", *words.split()]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
"""


def test_a_locale_of_ascii_and_names_beyond_it(tmp_path: Path) -> None:
    """Parquet and graphs were opened by names that no codec took. One process imports torch for all."""
    place = tmp_path / "\u00fc"
    place.mkdir()
    (place / "s.yaml").write_text(STUDY)
    photo, answers = place / "\u00f6.png", place / "a.csv"
    Image.new("L", (8, 8)).save(photo)
    commands = (
        f"run {place}/s.yaml --store {place}/runs --quiet",
        f"report --numbers {place}/n.parquet {place}/runs",
        f"predict baseline {photo} --store {place}/runs --out {answers}",
    )
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, *commands], env={**os.environ, **BARE}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert len(answers.read_text(errors="replace").splitlines()) == 2


def test_a_folder_of_any_depth(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "store.json").write_text('{"format": 1}')
    assert cli("store", "gc").code == 0
    here = os.open(tmp_path / "runs", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("staging", dir_fd=here)
        inner = os.open("staging", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        for words in (("status",), ("store", "gc"), ("store", "gc", "--dry-run")):
            answer = cli(*words)
            assert answer.code in (0, 2) and answer.err.count("\n") <= 1
            assert "fault of offramp" not in answer.err
            assert answer.code == 0 or "staging is nested too deeply" in answer.err
    finally:  # which pytest could not
        subprocess.run(["rm", "-rf", str(tmp_path / "runs")], check=True)


def test_a_log_in_a_pipe_that_nobody_reads_is_refused(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    words = ("--backbone", "digits-cnn", "--data", "digits", "--out", "b", "--dry-run")
    refused(cli("build", *words, "--log-file", tmp_path / "pipe"), "cannot write", "No such device")
