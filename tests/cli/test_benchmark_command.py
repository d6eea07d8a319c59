"""`offramp benchmark` and `offramp calibrate --max-mean-latency`, as a user runs them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Cli, call, refusal, refused
from syrupy.assertion import SnapshotAssertion

from offramp.api.deploy.benchmark import stage_tables
from offramp.bundle.export import ExportOptions, export
from offramp.infer import torch_timing
from offramp.infer.benchmark import Benchmark
from offramp.infer.timing import Effort, Timing
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.terminal import plain_text
from support import run_all, tiny_plan, tiny_study

QUICK = ("--repeats", "5", "--seconds", "0ms")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store `runs`."""
    folder = tmp_path_factory.mktemp("benchmark")
    run_all(tiny_plan(tiny_study(("joint", "separate"), recipe={"epochs": 1})), folder / "runs")
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A policy goes by the times of a few rounds, not of a thousand."""
    monkeypatch.setattr(torch_timing, "Effort", lambda *_: Effort(50, 10.0))
    monkeypatch.chdir(place)
    return lambda *words: call(*words)


@pytest.mark.long
@pytest.mark.parametrize("batch", ["1", "8"])
def test_a_policy_from_measured_times(run: Cli, batch: str) -> None:
    limit = ("--max-mean-latency", "10s", "--batch", batch)
    asked = ("calibrate", "joint", *limit, "--out", "p.json", "--anyway")
    status, out, _ = run(*asked)
    assert status == 0 and "time an image" in out and "ms an image" in out
    made = Policy.load("p.json").calibration
    assert made.chosen is not None and made.target is not None
    stages = made.chosen.stages or {}
    assert stages["batch"] == int(batch) and stages["machine"]["threads"] >= 1
    assert len(stages["segments"]) == len(stages["heads"]) == 4
    assert (made.target.kind, made.target.value) == ("max-mean-latency", 10.0)
    assert made.chosen.mean_seconds is not None and made.chosen.mean_seconds <= 10
    report = json.loads(run(*asked, "--json")[1])
    assert report["stages"]["batch"] == int(batch)


def test_times_that_cannot_be_had_or_make_no_sense(run: Cli, snapshot: SnapshotAssertion) -> None:
    status, _, err = run("calibrate", "joint", "--max-mean-latency", "1us", "--out", "no.json")
    assert status == 2 and "at most 0.001 ms" in err and not Path("no.json").exists()
    wrong = (("--max-mean-latency", "fast"), ("--min-accuracy", "0.1", "--batch", "4"))
    assert [refusal(run("calibrate", "joint", *words)) for words in wrong] == snapshot


@pytest.mark.parametrize("trial", ["joint", "separate"])
def test_a_trial_without_a_policy(run: Cli, trial: str) -> None:
    status, out, err = run("benchmark", trial, "--batch", "1", "--batch", "4", *QUICK)
    assert (status, err) == (0, "")
    for said in ("1 image at once", "4 images at once", "plain", "nothing leaves", "Each stage alone, "):
        assert said in out
    assert "policy" not in out and "threads" in out.replace("1 thread;", "1 threads;")
    assert max(map(len, out.splitlines())) <= 80


def test_a_stage_stands_under_its_batch() -> None:
    """In whatever order the batches were asked for."""
    one = Timing("eager", "segment 1", 1, p50=1e-3, p95=1e-3, rate=1000.0, macs=5.0, repeats=5)
    lines = (replace(one, batch=16, p50=16e-3), one)
    none: dict[str, Any] = {"shares": None, "compile_seconds": None, "machine": {}, "notes": ()}
    out = plain_text(stage_tables(Benchmark("t", (1,), lines=lines, busy=0.0, **none)))
    (row,) = (line.split() for line in out.splitlines() if line.startswith("segment 1"))
    assert out.index("ms at 1 ") < out.index("ms at 16") and row == ["segment", "1", "5", "1", "16"]


@pytest.fixture
def policy(run: Cli) -> str:
    run("calibrate", "joint", "--max-mean-macs", "60%", "--out", "policy.json", "--anyway")
    return "policy.json"


def test_a_trial_under_a_policy(run: Cli, policy: str) -> None:
    words = ("benchmark", "joint", "--policy", policy, "--batch", "1", "--batch", "4", *QUICK)
    status, out, _ = run(*words, "--figure", "speed.svg")
    assert status == 0 and "Leaving:" in out and "Figure: speed.svg" in out
    assert "milliseconds an image" in Path("speed.svg").read_text()
    report = json.loads(run(*words, "--json")[1])
    lines = [(line["what"], line["batch"]) for line in report["lines"]]
    assert ("policy", 1) in lines and ("policy", 4) in lines and ("segment 3", 4) in lines
    chosen = Policy.load(Path(policy)).calibration.chosen
    assert chosen is not None and report["shares"] == list(chosen.leaving)
    assert report["machine"]["threads"] == 1 and report["compile_seconds"] is None
    assert "better than chance" in report["unreliable"][0]


def test_what_was_measured_is_said_where_no_chart_can_be_written(
    run: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is seen before the work is refused before it; here the place is taken meanwhile."""
    Path("taken.svg").mkdir()
    status, out, err = run("benchmark", "joint", "--batch", "2", *QUICK, "--figure", "taken.svg")
    assert status == 2 and "taken.svg" in err and out == ""
    monkeypatch.setattr("offramp.api.chart.check_replaceable", lambda _: None)
    status, out, err = run("benchmark", "joint", "--batch", "2", *QUICK, "--figure", "taken.svg")
    assert status == 2 and "taken.svg" in err and "Figure:" not in out
    assert "2 images at once" in out and "stage alone, eager" in out


def test_threads_are_put_back(run: Cli) -> None:
    report = json.loads(run("benchmark", "joint", "--batch", "2", "--threads", "2", "--json", *QUICK)[1])
    assert report["machine"]["threads"] == 2 and torch.get_num_threads() == 1


def test_a_bundle(run: Cli, policy: str, place: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle, quick = tmp_path / "bundle", ExportOptions(check=False, measure=False, anyway=True)
    for _ in export(Store(place / "runs"), "joint", Policy.load(Path(policy)), bundle, quick):
        pass
    words = ("benchmark", str(bundle), "--batch", "8", "--json", *QUICK)
    report = json.loads(run(*words)[1])
    seen = {(line["engine"], line["what"], line["batch"]) for line in report["lines"]}
    for engine in ("eager", "onnxruntime"):
        for what in ("plain", "nothing leaves", "policy"):
            assert (engine, what, 8) in seen
    taken = {(line["what"], line["batch"]): line["memory"] for line in report["lines"] if line["memory"]}
    assert sorted(taken) == [("plain", 8), ("policy", 8)]
    assert all(100_000 < memory < 500_000_000 for memory in taken.values())
    assert "better than chance" in report["unreliable"][0]
    shutil.copytree(bundle, tmp_path / "changed")
    (tmp_path / "changed" / "scoring.py").write_text("")
    refused(run("benchmark", str(tmp_path / "changed"), *QUICK), "scoring.py")


def test_a_bundle_that_is_there_to_be_measured(run: Cli, place: Path, tmp_path: Path) -> None:
    """It has a stage for every exit, and by its policy nothing leaves."""
    pytest.importorskip("onnxruntime")
    asked = ExportOptions(check=False, measure=False, anyway=True, every_exit=True)
    for _ in export(Store(place / "runs"), "joint", None, tmp_path / "probe", asked):
        pass
    words = ("benchmark", str(tmp_path / "probe"), "--batch", "1", "--store", str(place), *QUICK)
    status, out, err = run(*words, "--json")
    assert status == 0, err
    report = json.loads(out)
    notes = " ".join(report["notes"])
    assert "backbone was not" in notes
    assert f"--store {place / 'runs'} has it." in notes
    assert {line["engine"] for line in report["lines"]} == {"onnxruntime"}
    seen = {line["what"] for line in report["lines"]}
    assert seen == {"nothing leaves", "stage 1", "stage 2", "stage 3", "stage 4"}
