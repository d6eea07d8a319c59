"""`offramp search`."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import STUDY, Cli, ok, refused, untimed
from PIL import Image

from offramp.api.progress.display import Display
from offramp.api.progress.log import Format, Log, moving
from offramp.report import evidence
from offramp.report.page.how import facts
from offramp.study.run import events
from offramp.study.search import Proposed, SearchEvent
from offramp.study.variants import Best, SearchOptions

OVER = "recipe.learning_rate=[0.001,0.01]"


def test_each_strategy_at_its_own_best(cli: Cli) -> None:
    """From a search to what the page states."""
    Path("s.yaml").write_text(STUDY.replace("[baseline, joint, two-stage]", "[baseline, joint]"))
    answer = ok(
        cli("search", "s.yaml", "--set", "seeds=[1]", "--over", OVER, "--per", "strategy", "--trials", 2)
    )
    lines = [line for line in untimed(answer.err) if " · epoch " not in line]  # slow machines
    assert [line.split(":")[0] for line in lines] == [
        *("baseline · trial 1 of 2", "baseline · trial 2 of 2"),
        *("joint · trial 1 of 2", "joint · trial 2 of 2"),
    ]
    assert "Written to s-found.yaml" in answer.out and "best of 2" in answer.out
    on = ("search", "s.yaml", "--set", "seeds=[1]", "--over", OVER, "--per", "strategy", "--trials", 2)
    assert cli(*on).code == 0  # what a search wrote, it may write again
    kept = Path("s-found.yaml").read_text()
    Path("s-found.yaml").write_text("# mine\n" + kept)
    refused(cli("search", "s.yaml", "--over", OVER), "s-found.yaml is there already")
    Path("s-found.yaml").write_text(kept)
    ran = cli("run", "s-found.yaml", "--quiet")
    assert ran.code == 0 and "2 reused" in ran.out, ran.out + ran.err  # what the search trained
    (settings,) = [fact for fact in facts(evidence.open(Path("runs"))) if fact.name == "Settings"]
    (said,) = settings.values
    assert (
        "each strategy has its own: baseline learning rate 0.0" in said
        and "; joint learning rate" in said
    )
    assert "searched on validation, learning rate in [0.001,0.01], 2 tried" in said


def test_a_search_is_kept_in_a_folder(cli: Cli) -> None:
    help = " ".join(cli("search", "--help").out.split())
    assert "FOLDER" in help and "s3:" not in help


def test_a_search_of_all_together_answers_programs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.api.progress.display.PACE", 0.0)
    Path("s.yaml").write_text(STUDY + "controls: [{cut: 1}]\n")
    words = ("search", "s.yaml", "--set", "seeds=[1]", "--over", OVER, "--trials", 1, "--out", "f.yaml")
    answer = cli(*words, "--json", "--log-format", "json")
    said = json.loads(answer.out)
    assert said["study"] == "f.yaml" and said["found"].keys() == {"all"}
    assert "controls:" in Path("f.yaml").read_text()
    epoch, *_, trial = map(json.loads, answer.err.splitlines())
    assert [line["event"] for line in (epoch, trial)] == ["epoch", "trial"] and trial["number"] == 1
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
    monkeypatch.setattr("offramp.data.progress.PERIOD", 0.0)
    monkeypatch.setattr("offramp.api.progress.log.SELDOM", 0.0)
    for number in range(80):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 3 * number, np.uint8)).save(path)
    text = (
        "seeds: [1]\nstrategies: [baseline]\nbackbone: digits-cnn\nrecipe: {epochs: 1, batch_size: 16}\n"
    )
    Path("p.yaml").write_text(f"{text}data: {{name: 'folder:{tmp_path}/photos'}}\n")
    answer = ok(cli("search", "p.yaml", "--over", OVER, "--trials", 1))
    assert "images: 80 of 80" in answer.err or "files: 80 of 80" in answer.err


def test_for_whom_a_search_waits_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It looked as if it hung."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def waiting() -> Generator[SearchEvent, None, Best]:
        yield Proposed(1, {"recipe.epochs": 3})
        for at in range(70):
            clock[0] = float(at)
            yield events.Note("energy is not measured")
            yield events.Waiting(("k",), f"process 7 on node1, at it for {at} s")
        return Best({}, 0.5, 1)

    Display(Log()).search(SearchOptions({}, 1), waiting())
    note, *lines = untimed(capsys.readouterr().err)
    assert note == "energy is not measured"
    assert [line.split()[-2] for line in lines] == ["10", "20", "40"]
    assert lines[0].startswith("trial 1 of 1: recipe.epochs=3 · waiting for process 7 on node1")


def test_a_key_that_no_study_has(cli: Cli) -> None:
    Path("s.yaml").write_text(STUDY)
    words = ("search", "s.yaml", "--over", "recipe.epoch=int(1,2)", "--trials", "1")
    refused(cli(*words), "unknown key 'recipe.epoch'")
    of_all = ("--over", "recipe.alpha=uniform(0,1)", "--per", "strategy")
    refused(cli("search", "s.yaml", *of_all), "a strategy has no 'recipe.alpha'")
