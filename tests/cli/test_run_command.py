"""`offramp run`: one trial, a study, a list of studies, a budget, what fails."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import STUDY, Answer, Cli, ok, refused, untimed
from syrupy.assertion import SnapshotAssertion

from offramp.api.progress import display
from offramp.api.train import budget, results
from offramp.store.store import Store
from offramp.store.table import by_strategy
from support import PAPER

DIVERGING = "{name: joint, as: wild, phases: {joint: {learning_rate: 1e30}}}"
THREE = "[baseline, joint, two-stage]"  # strategies of STUDY
WEAK = "1 epoch of 100 images, 1 step a phase, and networks stay near chance"


def unmeasured(text: str) -> str:
    """A text without what differs between runs or machines: losses, accuracies and times."""
    return re.sub(r"(?<=loss )[\d.]+|[\d.]+(?= %)|[\d.]+ (?:min [\d.]+ )?s\b", "N", text)


def closings(answer: Answer) -> list[str]:
    """What a run says of each study at its end, without how long it took."""
    return re.findall(r"^.*\btrials?\b.*(?:trained|reused)\b", answer.out, re.MULTILINE)


def workers(answer: Answer) -> str:
    """How many processes train, and why, without what is the machine's."""
    (told,) = re.findall(r"Workers: [^)]*", " ".join(f"{answer.out} {answer.err}".split()))
    told = re.sub(r"\d+ cores? for 2 threads each: \d+; .*; ", "CORES AND MEMORY; ", told)
    return str(re.sub(r"; with 2 threads each they slow .*", "", told))


def test_a_run_shows_a_line_a_phase_then_the_tables(
    finished: tuple[Path, Answer], snapshot: SnapshotAssertion
) -> None:
    answer = finished[1]
    lines = untimed(answer.err)
    phases = [line for line in lines if line.startswith("[")]
    assert [line.split("]")[0] for line in phases] == [f"[{n}/8" for n in range(1, 9)]
    first = next(line for line in lines if line.endswith(": begins"))
    assert [first, unmeasured(phases[0])] == snapshot(name="phase")
    assert "\x1b" not in answer.out + answer.err and "\r" not in answer.out + answer.err
    for label in ("baseline", "joint", "two-stage"):
        assert len(re.findall(rf"^{label} ", answer.out, re.MULTILINE)) == 2  # accuracy, compute
    accuracy, compute, *_ = answer.out.split("\n\n")
    titles = [table.splitlines()[0] for table in (accuracy, compute)]
    assert [*titles, *closings(answer)] == snapshot(name="tables") and "≥ 0.95" in compute
    assert max(map(len, answer.out.splitlines())) <= 80 and "…" not in answer.out


def test_a_second_run_finds_everything_in_the_store(
    studied: Cli, finished: tuple[Path, Answer], snapshot: SnapshotAssertion
) -> None:
    answer = ok(studied("run", "s.yaml"))
    assert closings(answer) == snapshot
    assert not [line for line in untimed(answer.err) if line.startswith("[")]
    assert answer.out.split("6 trials")[0] in finished[1].out.replace("6 of 6", "All 6")


def test_quiet_has_the_tables_alone(studied: Cli, snapshot: SnapshotAssertion) -> None:
    answer = studied("run", "s.yaml", "--quiet", "--set", "seeds=[3]", "--set", "strategies=[baseline]")
    assert answer.code == 0 and answer.err == ""
    assert closings(answer) == snapshot


def test_json_is_all_there_is_on_standard_output(studied: Cli) -> None:
    answer = studied("run", "s.yaml", "--json")
    said = json.loads(answer.out, parse_constant=pytest.fail)
    assert answer.code == 0 and answer.err == ""
    assert said["store"] == "runs" and len(said["trials"]) == 6
    assert said["failed"] == [] and said["interrupted"] is False
    assert [row["strategy"] for row in said["results"]] == ["baseline", "joint", "two-stage"]
    assert said["results"][0]["accuracy"].keys() == {"3"}
    assert said["results"][1]["accuracy"].keys() == {"1", "2", "3"}
    assert said["results"][1]["thresholds"][0]["threshold"] == 0.5


def test_the_number_of_workers_is_said_with_its_reason(
    studied: Cli, finished: tuple[Path, Answer], snapshot: SnapshotAssertion
) -> None:
    assert len([line for line in untimed(finished[1].err) if line.startswith("Workers: ")]) == 1
    assert workers(finished[1]) == snapshot(name="first")
    assert workers(studied("run", "s.yaml")) == snapshot(name="again")
    again = json.loads(studied("run", "s.yaml", "--json").out)
    assert again["workers"]["count"] == 1 and again["workers"]["plan"] == 0
    asked = ("--workers", "3", "--dry-run", "--set", "seeds=[7]")
    assert workers(studied("run", "s.yaml", *asked)) == snapshot(name="asked")
    assert json.loads(studied("run", "s.yaml", *asked, "--json").out)["workers"]["count"] == 3
    plain = ("--dry-run", "--execution", "plain")
    assert workers(studied("run", "s.yaml", *plain)) == snapshot(name="plain")


def test_one_seed_has_no_deviation(studied: Cli) -> None:
    answer = studied("run", "s.yaml", "--set", "seeds=[1]")
    assert "±" not in answer.out
    said = json.loads(studied("run", "s.yaml", "--set", "seeds=[1]", "--json").out)
    assert said["results"][0]["accuracy"]["3"]["sd"] is None  # not NaN, which is no JSON


@pytest.mark.usefixtures("studied")
def test_after_an_interruption_each_says_its_seeds(snapshot: SnapshotAssertion) -> None:
    store = Store(Path("runs"))
    some = [trial for trial in store.trials() if trial.startswith("joint") or "-s1-" in trial]
    table, _ = results.result_tables(by_strategy(store, some), 2)
    assert table.title == snapshot and table.columns[-1] == "seeds"
    told = {row[0]: row[-1] for row in table.rows}
    assert told == {"baseline": "1", "joint": "2", "two-stage": "1"}


def test_settings_change_one_run(studied: Cli) -> None:
    said = plan(studied, "--set", "recipe.epochs=3", "--set", "seeds=[42]", "--set", "exits=3")
    assert {node["epochs"] for node in said["nodes"]} == {3}
    assert {node["seed"] for node in said["nodes"]} == {42}
    assert {node["loss"] for node in said["nodes"] if node["phase"] == "backbone"} == {"CE(4)"}


def test_a_forecast_for_programs(cli: Cli) -> None:
    Path("s.yaml").write_text(STUDY)
    said = plan(cli, "--set", f"strategies=[{', '.join(PAPER)}]", "--set", "seeds=[42]")
    keys = [node["key"] for node in said["nodes"]]
    assert len(set(keys)) == len(keys)
    for node in said["nodes"]:
        assert {"key", "trains", "loss", "strategies", "seed", "macs", "needs"} <= node.keys()
        assert set(node["needs"]) <= set(keys[: keys.index(node["key"])])  # each after what it needs
        assert node["trains"] and set(node["strategies"]) <= set(PAPER) and node["macs"] > 0
    alone = [n for n in said["nodes"] if "head 3" in n["trains"] and len(n["trains"]) == 4]
    joint = [n for n in said["nodes"] if len(n["trains"]) == 6]
    assert len(alone) == len(joint) == 1  # one backbone, one joint phase
    assert said["totals"]["nodes"] == len(keys) and said["totals"]["trials"] == 9
    assert said["totals"]["macs"] == sum(node["macs"] for node in said["nodes"])
    assert not Path("runs").exists()


def plan(cli: Cli, *arguments: str) -> dict[str, Any]:
    answer = cli("run", "s.yaml", "--dry-run", "--json", *arguments)
    assert answer.code == 0 and answer.err == "", answer.err
    said: dict[str, Any] = json.loads(answer.out, parse_constant=pytest.fail)
    return said


def test_a_forecast_for_people(cli: Cli, snapshot: SnapshotAssertion) -> None:
    Path("s.yaml").write_text(STUDY)
    answer = ok(cli("run", "s.yaml", "--dry-run", "--set", f"strategies=[{', '.join(PAPER)}]"))
    data, table, work, *_ = answer.out.split("\n\n")
    title, counts = table.splitlines()[0], work.splitlines()[0]
    assert [*untimed(answer.err), " ".join(data.split()), title, counts] == snapshot
    assert "Nothing was started." in work
    assert max(map(len, answer.out.splitlines())) <= 80 and "…" not in answer.out
    assert not Path("runs").exists()


def test_a_forecast_knows_what_is_done(studied: Cli) -> None:
    before = sorted(path for path in Path("runs").rglob("*"))
    said = plan(studied, "--set", "seeds=[1, 3]")
    assert {n["seed"] for n in said["nodes"] if n["in_store"]} == {1}
    assert said["totals"]["nodes_in_store"] == said["totals"]["nodes"] / 2
    assert said["totals"]["macs_to_run"] == said["totals"]["macs"] / 2
    assert sorted(Path("runs").rglob("*")) == before
    assert "Left: nothing." in studied("run", "s.yaml", "--dry-run").out


def test_plain_execution_shares_nothing(studied: Cli) -> None:
    plain = plan(studied, "--execution", "plain")
    assert plain["totals"]["nodes"] == plain["totals"]["phases"] == 10
    assert plain["totals"]["share_of_written"] == 1
    assert plan(studied, "--execution", "derived")["totals"]["nodes"] == 8


def test_train_needs_no_file(cli: Cli, snapshot: SnapshotAssertion) -> None:
    of = ("--strategy", "joint", "--backbone", "digits-cnn", "--data", "digits")
    small = ("--set", "data.train_images=200", "--set", "recipe.epochs=1", "--set", "exits=1")
    answer = ok(cli("run", *of, *small, "--seed", 7, "--store", "mine"))
    assert "[1/1] seed 7 · joint · joint ·" in answer.err
    again = cli("run", *of, *small, "--seed", 7, "--store", "mine", "--json")
    assert len(json.loads(again.out)["trials"]) == 1
    once_more = cli("run", *of, *small, "--seed", 7, "--store", "mine")
    assert closings(answer) + closings(once_more) == snapshot


def test_what_fails_is_listed_at_the_end_and_the_rest_goes_on(
    cli: Cli, snapshot: SnapshotAssertion
) -> None:
    Path("s.yaml").write_text(STUDY)
    change = ("--set", f"strategies=[{DIVERGING}, baseline]", "--set", "seeds=[1]")
    answer = cli("run", "s.yaml", *change)
    assert answer.code == 1
    assert closings(answer) == snapshot(name="closing")
    assert re.search("^baseline ", answer.out, re.MULTILINE)
    last = untimed(answer.err)[-1]
    assert last == snapshot(name="last") and "Traceback" not in answer.err
    again = cli("run", "s.yaml", *change, "--json")
    (failure,) = json.loads(again.out)["failed"]
    assert again.code == 1 and again.err == ""
    assert failure["strategy"] == "wild" and failure["seed"] == 1 and "1e+30" in failure["reason"]


def test_a_damaged_node_is_named_and_made_anew(studied: Cli) -> None:
    (weights, *_) = sorted(Path("runs/nodes").glob("*/weights.safetensors"))
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + b"?")
    answer = studied("run", "s.yaml", "--quiet")
    assert answer.code == 0 and weights.read_bytes() == before
    assert str(weights) in answer.err and "computed again" in answer.err
    assert len(answer.err.splitlines()) == 1  # whole, though longer than the screen


def test_limits_of_caches_are_taken_and_said(studied: Cli) -> None:
    asked = ("run", "s.yaml", "--set", "seeds=[8]", "--set", "strategies=[two-stage]")
    none = studied(*asked, "--dry-run", "--cache-memory", "0", "--cache-disk", "0")
    assert "0 B of it caches" in none.out and "are not cached" in none.out
    assert max(map(len, none.out.splitlines())) <= 80
    some = studied(*asked, "--dry-run", "--json", "--cache-memory", "100 MB")
    totals = json.loads(some.out)["totals"]
    assert 0 < totals["cache_memory_bytes"] == totals["cache_bytes"] < totals["memory_bytes"]
    assert totals["cache_live_bytes"] == totals["cache_disk_bytes"] == 0
    answer = studied(*asked, "--cache-memory", "1kB", "--cache-disk", "0")
    assert answer.code == 0 and answer.err.count("too little") == 1
    (trial,) = Path("runs/trials").glob("two-stage-*s8*")
    execution = json.loads((trial / "trial.json").read_text())["manifest"]["execution"]
    assert (execution["cache_memory"], execution["cache_disk"]) == (1000, 0)


SHORT = STUDY.replace("epochs: 2", "epochs: 1").replace("seeds: [1, 2]", "seeds: [1]")


@pytest.fixture
def two(cli: Cli, tmp_path: Path) -> Cli:
    """A list of two studies, of which the second needs one node more than the first."""
    (tmp_path / "a.yaml").write_text(SHORT.replace(THREE, "[baseline]"))
    (tmp_path / "b.yaml").write_text(SHORT.replace(THREE, "[baseline, joint]"))
    (tmp_path / "all.yaml").write_text("studies: [a.yaml, b.yaml]\n")
    return cli


def test_a_list_is_forecast_as_a_whole(two: Cli) -> None:
    said = json.loads(two("run", "all.yaml", "--dry-run", "--speed", "2GFLOPS", "--json").out)
    totals, (a, b) = said["totals"], (one["totals"] for one in said["studies"])
    assert (totals["nodes"], totals["trials"]) == (2, 3)  # the baseline counts once
    assert totals["macs_written"] == a["macs_written"] + b["macs_written"]
    assert totals["macs"] == b["macs"] and totals["macs_to_run"] == totals["macs"]
    assert totals["seconds_at_given"] == pytest.approx(totals["macs_to_run"] / 1e9)
    assert 0 < totals["share_of_written"] < 1
    assert [one["workers"]["count"] for one in said["studies"]] == [1, 1]
    answer = two("run", "all.yaml", "--dry-run", "--speed", "2GFLOPS")
    assert "all.yaml: 2 studies" in answer.out and "at a steady 1 GMAC/s" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80 and not Path("runs").exists()


def test_a_list_runs_into_one_store(two: Cli, snapshot: SnapshotAssertion) -> None:
    answer = ok(two("run", "all.yaml"))
    assert "all.yaml" not in answer.err and "b.yaml, study 2 of 2" in answer.err
    assert closings(answer) == snapshot
    said = json.loads(two("run", "all.yaml", "--json").out)
    assert [len(one["trials"]) for one in said["studies"]] == [1, 2]


def test_what_fails_in_one_study_leaves_the_next(
    two: Cli, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    broken = SHORT.replace(THREE, "[joint]").replace("0.01", "1e30")
    (tmp_path / "a.yaml").write_text(broken)
    answer = two("run", "all.yaml")
    assert answer.code == 1
    assert [*closings(answer), untimed(answer.err)[-1]] == snapshot


def test_data_that_is_not_here_is_said_before_anything_trains(two: Cli, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(SHORT.replace("{name: digits, ", "{name: cifar10, root: x, "))
    refused(two("run", "all.yaml"), "b.yaml:5", "fetch")
    assert not Path("runs").exists()


def test_a_budget_in_which_nothing_is_learned_is_refused(
    two: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setattr(budget, "too_short", lambda *_: (WEAK, 2e12))
    words = ("run", "b.yaml", "--set", "recipe.epochs=1", "--budget", "900h")
    answer = two(*words)
    assert answer.code == 2 and answer.out == "" and not Path("runs").exists()
    assert answer.err.splitlines()[-1] == snapshot
    forced = ok(two(*words, "--anyway", "--json"))
    assert "is too short" in json.loads(forced.out)["unreliable"][0]


def test_a_budget_is_told_and_gives_an_ordinary_study(two: Cli, snapshot: SnapshotAssertion) -> None:
    answer = ok(two("run", "b.yaml", "--budget", "900h", "--dry-run"))
    assert untimed(answer.err) == snapshot(name="all fits")
    long = ("--set", "recipe.epochs=200000")
    answer = two("run", "b.yaml", *long, "--budget", "90s", "--dry-run", "--json")
    assert untimed(answer.err) == snapshot(name="settings")
    chosen = [word for word in answer.err.rstrip(".").split() if word[:6] in ("recipe", "data.t")]
    flags = [part for setting in chosen for part in ("--set", setting.rstrip(";,"))]
    plain = two("run", "b.yaml", *flags, "--dry-run", "--json")
    mine, theirs = (json.loads(one.out)["nodes"] for one in (answer, plain))
    assert [n["key"] for n in mine] == [n["key"] for n in theirs]


def test_an_interrupted_budget_goes_on_with_its_settings(
    two: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """Measured again it comes to others, and nothing that was trained is found again."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(display, "watch", interrupted)
    long = ("--set", "recipe.epochs=200000")
    answers = [
        two("run", "b.yaml", *long, "--budget", "90s", "--anyway"),
        two("run", "b.yaml", "--budget", "900h"),
        two("run", "b.yaml"),
    ]
    assert [answer.code for answer in answers] == [130] * 3
    assert [untimed(answer.err)[-1] for answer in answers] == snapshot
