"""`offramp search`."""

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import STUDY, Cli, ok, refusal, untimed
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from offramp.api.progress import display
from offramp.api.progress import log as logs
from offramp.api.progress.display import Display
from offramp.api.progress.log import Format, Log, moving
from offramp.data import progress
from offramp.report import evidence
from offramp.report.page.how import facts
from offramp.study.run import events
from offramp.study.search import Proposed, SearchEvent
from offramp.study.variants import Best, SearchOptions

OVER = "recipe.learning_rate=[0.001,0.01]"
THREE = "[baseline, joint, two-stage]"  # strategies of STUDY
PHOTOS = """\
seeds: [1]
strategies: [baseline]
backbone: digits-cnn
recipe: {epochs: 1, batch_size: 16}
data: {name: 'folder:photos'}
"""
NOTE = "energy is not measured"


@pytest.mark.journey
def test_each_strategy_at_its_own_best(cli: Cli, snapshot: SnapshotAssertion) -> None:
    """From a search to what the page states."""
    Path("s.yaml").write_text(STUDY.replace(THREE, "[baseline, joint]"))
    of = ("--set", "seeds=[1]", "--over", OVER, "--per", "strategy", "--trials", 2)
    answer = ok(cli("search", "s.yaml", *of))
    lines = [line for line in untimed(answer.err) if " · epoch " not in line]  # slow machines
    assert [line.split(":")[0] for line in lines] == [
        *("baseline · proposal 1 of 2", "baseline · proposal 2 of 2"),
        *("joint · proposal 1 of 2", "joint · proposal 2 of 2"),
    ]
    assert "best of 2" in answer.out
    assert re.findall("^Written to .*", answer.out, re.MULTILINE) == snapshot(name="written")
    assert cli("search", "s.yaml", *of).code == 0  # what a search wrote, it may write again
    kept = Path("s-found.yaml").read_text()
    Path("s-found.yaml").write_text("# mine\n" + kept)
    assert refusal(cli("search", "s.yaml", "--over", OVER)) == snapshot(name="there already")
    Path("s-found.yaml").write_text(kept)
    ran = cli("run", "s-found.yaml", "--quiet")
    assert ran.code == 0 and "2 reused" in ran.out, ran.out + ran.err  # what the search trained
    (settings,) = [fact for fact in facts(evidence.open(Path("runs"))) if fact.name == "Settings"]
    (said,) = settings.values
    assert re.sub(r"learning rate 0\.\d+", "learning rate N", said) == snapshot(name="settings")


def test_a_search_is_kept_in_a_folder(cli: Cli) -> None:
    help = " ".join(cli("search", "--help").out.split())
    assert "FOLDER" in help and "s3:" not in help


def test_a_search_of_all_together_answers_programs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PACE", 0.0)
    Path("s.yaml").write_text(STUDY + "controls: [{cut: 1}]\n")
    words = ("search", "s.yaml", "--set", "seeds=[1]", "--over", OVER, "--trials", 1, "--out", "f.yaml")
    answer = cli(*words, "--json", "--log-format", "json")
    said = json.loads(answer.out)
    assert said["study"] == "f.yaml" and said["found"].keys() == {"all"}
    assert "controls:" in Path("f.yaml").read_text()
    epoch, *_, proposal = map(json.loads, answer.err.splitlines())
    assert [line["event"] for line in (epoch, proposal)] == ["epoch", "proposal"] and proposal[
        "number"
    ] == 1
    assert {"strategy", "settings", "loss", "validation_accuracy", "seconds"} < epoch.keys()


@pytest.mark.parametrize("about", [{"progress": False}, {"format": Format.json}])
def test_nothing_moves_where_no_progress_is_to_be_shown(
    about: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --quiet, or between lines of JSON on a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for log, moves in ((Log(**about), False), (Log(), True)):
        with moving("preparing", log):
            pass
        assert ("preparing" in capsys.readouterr().err) is moves


def test_the_reading_of_images_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of many was silent for minutes."""
    monkeypatch.setattr(progress, "PERIOD", 0.0)
    monkeypatch.setattr(logs, "SELDOM", 0.0)
    for number in range(80):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 3 * number, np.uint8)).save(path)
    Path("p.yaml").write_text(PHOTOS)
    answer = ok(cli("search", "p.yaml", "--over", OVER, "--trials", 1))
    assert "images: 80 of 80" in answer.err or "files: 80 of 80" in answer.err


def test_for_whom_a_search_waits_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    """It looked as if it hung."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def waiting() -> Generator[SearchEvent, None, Best]:
        yield Proposed(1, {"recipe.epochs": 3})
        for at in range(70):
            clock[0] = float(at)
            yield events.Note(NOTE)
            yield events.Waiting(("k",), f"process 7, for {at} s")
        return Best({}, 0.5, 1)

    Display(Log()).search(SearchOptions({}, 1), waiting())
    note, *lines = untimed(capsys.readouterr().err)
    assert note == NOTE
    assert lines == snapshot
