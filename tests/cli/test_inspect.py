"""Commands that look into a store or explain: what they say, to people and to programs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import Answer, Cli

from offramp.cli.app import app
from offramp.store.store import Store
from offramp.strategies import STRATEGIES

TWO = ("two-stage", "joint")


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


def keys() -> list[str]:
    return sorted(path.name for path in Path("runs/nodes").iterdir())


def test_status(studied: Cli) -> None:
    said = data(studied("status", "--json"))
    assert said["trials"] == 6 and said["nodes"] == 8 and said["checkpoints"] == []
    assert said["unfinished"] == [] and said["bytes"] > 0
    of = {"backbone": "digits-cnn", "data": "digits", "trials": 2}
    assert {"strategy": "joint", **of} in said["strategies"] and len(said["strategies"]) == 3
    text = narrow(studied("status"))
    assert "two-stage  digits-cnn  digits       2" in text
    assert "6 trials finished, 0 begun; 8 nodes, 0 checkpoints" in text


def remade(key: str, without: tuple[str, ...] = (), **provenance: str) -> None:
    """A node as if it had been made elsewhere. without: kinds of seconds that are not in its record."""
    store = Store(Path("runs"))
    node, weights = store.read_node(key), store.node_weights(key)
    history, cost = store.node_history(key), store.node_cost(key)
    seconds = {kind: spent for kind, spent in cost.seconds.items() if kind not in without}
    cost = cost.model_copy(update={"seconds": seconds})
    store.discard_node(key)
    made = node.model_copy(update={"provenance": {**node.provenance, **provenance}})
    store.write_node(made, weights, history, cost)


def test_status_warns_of_mixed_libraries_and_devices(studied: Cli) -> None:
    assert "Warning" not in studied("status").out
    (phase, *_) = data(studied("show", "two-stage-digits-cnn-digits-s1", "--json"))["phases"]
    remade(phase["node"], timm="0.1", device="an abacus", git="f00")
    (warning,) = [line for line in studied("status").out.splitlines() if "Warning" in line]
    assert "timm (0.1, " in warning and "an abacus" in warning
    assert "torch" not in warning and "f00" not in warning  # not mixed; changes no bit
    assert data(studied("status", "--json"))["made_with"]["timm"][0] == "0.1"
    made = [data(studied("show", f"{s}-digits-cnn-digits-s1", "--json"))["made_with"] for s in TWO]
    assert "f00" in made[0]["git"] and "f00" not in made[1]["git"]


def test_show(studied: Cli) -> None:
    text = narrow(studied("show", "two-stage-digits-cnn-digits-s1"))
    assert "blocks.0" in text and "backbone" in text and "exit 2" in text and "Made with torch" in text
    said = data(studied("show", "two-stage-digits-cnn-digits-s1", "--json"))
    assert said["trial"].startswith("two-stage-digits-cnn-digits-s1-")
    assert said["exits"] == [1, 2, 3] and said["seed"] == 1 and said["seconds"]["measured"] is False
    assert [phase["name"] for phase in said["phases"]] == ["backbone", "exit 1", "exit 2"]
    (phases,) = [part for part in text.split("\n\n") if "kept" in part and "backbone" in part]
    assert all(word in phases for word in ("train", "check", "data", "other", "all"))
    kinds = {"preparation", "train", "validation", "data", "evaluation"}
    assert all(kinds <= set(phase["seconds"]) for phase in said["phases"])


def test_show_reads_records_whose_time_of_data_was_not_told_apart(studied: Cli) -> None:
    trial = "two-stage-digits-cnn-digits-s1"
    told = data(studied("show", trial, "--json"))
    key = told["phases"][0]["node"]
    remade(key, without=("data",))
    later = data(studied("show", trial, "--json"))
    assert "data" not in later["phases"][0]["seconds"] and "data" in later["phases"][1]["seconds"]
    spent = [sum(phase["seconds"].values()) for phase in later["phases"]]
    assert later["seconds"]["executed"] == pytest.approx(sum(spent))
    line = next(row for row in studied("show", trial).out.splitlines() if key[:12] in row)
    assert " - " in line


def test_show_asks_for_more_of_an_id(studied: Cli) -> None:
    several = studied("show", "joint")
    assert several.code == 2 and "begins 2 trials; give more" in several.err
    none = studied("show", "joined")
    assert none.code == 2 and "no trial 'joined' in runs; it holds 6, such as baseline-" in none.err
    near = studied("show", "joint-digits-cnn-digit-s1")
    assert near.code == 2 and "did you mean 'joint-digits-cnn-digits-s1-" in near.err


def test_compare_strategies_seed_by_seed(studied: Cli) -> None:
    said = data(studied("compare", "joint", "two-stage", "--json"))
    assert said["paired_by"] == "seed" and [row["exit"] for row in said["exits"]] == [1, 2, 3]
    assert {row["pairs"] for row in said["exits"]} == {2}
    other = data(studied("compare", "two-stage", "joint", "--json"))
    for row, turned in zip(said["exits"], other["exits"], strict=True):
        assert row["mean"] == -turned["mean"] and row["low"] <= row["mean"] <= row["high"]
    assert "paired by seed" in narrow(studied("compare", "joint", "two-stage"))
    # The baseline has the final exit alone.
    assert [r["exit"] for r in data(studied("compare", "baseline", "joint", "--json"))["exits"]] == [3]


def test_compare_trials_image_by_image(studied: Cli) -> None:
    pair = ("joint-digits-cnn-digits-s1", "joint-digits-cnn-digits-s2")
    said = data(studied("compare", *pair, "--json"))
    assert said["paired_by"] == "image" and {row["pairs"] for row in said["exits"]} == {100}
    one, other = (data(studied("show", trial, "--json")) for trial in pair)
    for i, row in enumerate(said["exits"]):
        a, b = (trial["metrics"]["test"]["accuracy"][i] for trial in (one, other))
        assert row["mean"] == pytest.approx(a - b)
    assert "paired by image" in narrow(studied("compare", *pair))


def test_compare_pairs_trials_of_several_studies(studied: Cli) -> None:
    """A setting that neither strategy reads, and other taps: trunk, data and seed are the same."""
    other = ("--set", "strategies=[separate]", "--set", "recipe.temperature=4")
    assert studied("run", "s.yaml", "--quiet", *other, "--set", "exits.taps=[blocks.2]").code == 0
    rows = data(studied("compare", "joint", "separate", "--json"))["exits"]
    assert [(row["exit"], row["pairs"]) for row in rows] == [(2, 2), (3, 2)]
    turned = data(studied("compare", "separate", "joint", "--json"))["exits"]
    assert [(row["exit"], row["mean"]) for row in turned] == [
        (1, -rows[0]["mean"]),
        (2, -rows[1]["mean"]),
    ]


def test_compare_does_not_choose_between_trials(studied: Cli) -> None:
    change = ("--set", "strategies=[joint]", "--set", "recipe.epochs=1", "--set", "seeds=[1]")
    assert studied("run", "s.yaml", "--quiet", *change).code == 0
    answer = studied("compare", "two-stage", "joint")
    assert answer.code == 2 and len(answer.err.splitlines()) == 1
    for trial in Path("runs/trials").glob("joint-*-s1-*"):
        assert trial.name in answer.err
    assert "'joint' has two trials" in answer.err and "compare trial ids" in answer.err
    assert studied("compare", "two-stage", "baseline").code == 0  # has nothing to do with it


def test_compare_with_one_seed_has_no_interval(studied: Cli) -> None:
    for trial in Path("runs/trials").glob("*-s2-*"):
        trial.rename(Path(trial.name))
    text = narrow(studied("compare", "joint", "two-stage"))
    assert "–" in text and "One seed allows no interval" in text
    assert data(studied("compare", "joint", "two-stage", "--json"))["exits"][0]["low"] is None


def test_compare_names_what_is_not_there(studied: Cli) -> None:
    answer = studied("compare", "joint", "two-stag")
    assert answer.code == 2 and "'two-stag' is no strategy of runs; did you mean" in answer.err
    answer = studied("compare", "no", "nothing")
    assert answer.code == 2 and "no trial 'no' in runs" in answer.err


def test_why_a_node_that_is_there(studied: Cli) -> None:
    key = keys()[0]
    text = narrow(studied("why", key[:10]))
    assert text.startswith(f"{key}\nin the store: phase '") and "learning_rate: 0.01" in text
    assert "Nearest other node" in text
    said = data(studied("why", key, "--json"))
    assert said["key"] == key and said["in_store"] is True
    assert said["reads"]["recipe"]["learning_rate"] == 0.01 and said["nearest"] in keys()


def test_why_a_node_was_not_reused(studied: Cli) -> None:
    change = ("--set", "recipe.learning_rate=0.02", "--set", "seeds=[1]")
    planned = data(studied("run", "s.yaml", "--dry-run", "--json", *change))["nodes"]
    backbone = next(node["key"] for node in planned if node["phase"] == "backbone")
    text = narrow(studied("why", backbone[:8], "--study", "s.yaml", *change))
    assert "not in the store: it would be trained" in text
    assert "recipe.learning_rate: 0.02 here, 0.01 there" in text
    said = data(studied("why", backbone, "--study", "s.yaml", *change, "--json"))
    assert said["in_store"] is False
    assert said["differences"] == {"recipe.learning_rate": [0.02, 0.01]}


def test_why_looks_into_every_study_of_a_list(studied: Cli) -> None:
    Path("other.yaml").write_text(Path("s.yaml").read_text().replace("seeds: [1, 2]", "seeds: [9]"))
    Path("all.yaml").write_text("studies: [s.yaml, other.yaml]")
    planned = data(studied("run", "other.yaml", "--dry-run", "--json"))["nodes"]
    said = data(studied("why", planned[0]["key"], "--study", "all.yaml", "--json"))
    assert said["in_store"] is False and said["reads"]["seed"] == 9
    assert data(studied("why", keys()[0], "--study", "all.yaml", "--json"))["in_store"] is True


def test_why_asks_for_one_node(studied: Cli) -> None:
    every = studied("why", "")
    assert every.code == 2 and "8 nodes begin with ''; give more" in every.err
    none = studied("why", "xyz")
    assert none.code == 2 and "no node begins with 'xyz'; offramp show TRIAL" in none.err


def test_a_damaged_trial_is_named(studied: Cli) -> None:
    (manifest, *_) = sorted(Path("runs/trials").glob("joint-*/trial.json"))
    manifest.write_text(manifest.read_text().replace("joint", "jolly"))
    for command in (["status"], ["show", "joint-digits-cnn-digits-s1"], ["compare", "joint", "joint"]):
        answer = studied(*command)
        assert answer.code == 2 and answer.out == ""
        assert str(manifest) in answer.err and "run its study again" in answer.err
    assert studied("run", "s.yaml", "--quiet").code == 0
    assert data(studied("status", "--json"))["trials"] == 6


def test_gc_takes_what_no_trial_needs(studied: Cli) -> None:
    for trial in Path("runs/trials").glob("joint-*-s1-*"):
        trial.rename(Path(trial.name))
    before = keys()
    would = data(studied("gc", "--dry-run", "--json"))
    (node,) = [path for path in would["paths"] if "/nodes/" in path]
    assert would["removed"] is False and would["bytes"] > 0 and keys() == before
    text = narrow_enough(studied("gc", "--dry-run"))
    assert node in text and "Would free" in text and ".lock" not in text
    assert data(studied("gc", "--json"))["removed"] is True
    assert keys() == sorted(set(before) - {Path(node).name})
    assert "Freed 0 B." in studied("gc").out


def narrow_enough(answer: Answer) -> str:
    assert answer.code == 0 and answer.err == ""
    return answer.out


def test_gc_keeps_unfinished_work_unless_told(studied: Cli) -> None:
    for trial in Path("runs/trials").glob("joint-*-s1-*"):
        nodes = json.loads((trial / "trial.json").read_text())["manifest"]["phases"]
        Store(Path("runs")).plan_trial(trial.name, [node["node"] for node in nodes])
        trial.rename(Path(trial.name))
    before = keys()
    assert data(studied("status", "--json"))["unfinished"]
    studied("gc")
    assert keys() == before
    studied("gc", "--abandon")
    assert len(keys()) == len(before) - 1


def test_export_table(studied: Cli) -> None:
    said = data(studied("export-table", "--out", "t.parquet", "--json"))
    frame = pd.read_parquet("t.parquet")
    assert said == {"out": "t.parquet", "rows": len(frame), "trials": 6}
    columns = ["trial", "strategy", "model", "data", "seed"]
    columns += ["phase", "exit", "split", "epoch", "metric", "value", "source", "measured"]
    assert list(frame.columns) == columns
    assert f"{len(frame)} rows of 6 trials" in narrow(studied("export-table", "--out", "t.csv"))
    with Path("t.csv").open() as file:
        assert next(csv.reader(file)) == columns and sum(1 for _ in file) == len(frame)


def test_export_table_says_where_it_cannot_write(studied: Cli) -> None:
    for out, words in (("t.txt", ".parquet or .csv"), ("no/t.csv", "no folder no"), (".csv", ".csv")):
        answer = studied("export-table", "--out", out)
        assert answer.code == 2 and words in answer.err and len(answer.err.splitlines()) == 1
    Path("t.csv").mkdir()
    answer = studied("export-table", "--out", "t.csv")
    assert answer.code == 2 and "t.csv cannot be written" in answer.err
    assert not Path("no").exists() and not list(Path().glob("*.tmp"))


def test_strategies(cli: Cli) -> None:
    text = narrow(cli("strategies"))
    assert [line.split()[0] for line in text.splitlines() if line[:1].isalpha()][1:10] == [*STRATEGIES]
    said = data(cli("strategies", "--json"))
    assert [row["name"] for row in said] == [*STRATEGIES] and all(row["summary"] for row in said)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_explained(cli: Cli, name: str) -> None:
    for exits in (1, 4, 6):
        text = narrow(cli("strategies", name, "--exits", exits))
        assert f"strategies/{name.replace('-', '_')}.py" in text.replace("\n", "")
        said = data(cli("strategies", name, "--exits", exits, "--json"))
        assert said["phases"] and f"head {exits}" in said["phases"][-1]["trains"] + [f"head {exits}"]
        assert not any(set(p["trains"]) & set(p["frozen"]) for p in said["phases"])


def test_a_strategy_of_ones_own_is_explained(cli: Cli) -> None:
    Path("mine.py").write_text(
        '"""Mine."""\nfrom offramp.phase import CE, Phase\nfrom offramp.parts import heads, segments\n'
        "def last(exits, *, weight: float = 1.0):\n"
        '    """Only the last exit."""\n'
        "    all = segments(1, exits) | heads(exits, exits)\n"
        '    return (Phase("all", all, (CE(exits, weight),)),)\n'
    )
    answer = cli("strategies", "mine.py:last")  # the path of the file may be a long one
    text = answer.out
    assert answer.code == 0
    assert "Only the last exit." in text and "weight = 1.0" in text
    assert "mine.py" in text


def test_taps(cli: Cli) -> None:
    text = narrow(cli("taps", "digits-cnn", "--input", "1x8x8"))
    starred = [line.split()[1] for line in text.splitlines() if line.startswith("*  ")]
    assert starred == ["blocks.0", "blocks.2", "blocks.4"]
    said = data(cli("taps", "digits-cnn", "--input", "1x8x8", "--json"))
    assert [row["name"] for row in said if row["default"]] == starred
    assert all(0 < row["share"] <= 1 for row in said) and said[0]["shape"] == [4, 8, 8]
    assert [row["macs"] for row in said] == sorted(row["macs"] for row in said)


@pytest.mark.parametrize("model", ["resnet18", "timm/convnext_atto"])
def test_taps_of_deep_networks_fit_the_screen(cli: Cli, model: str) -> None:
    narrow(cli("taps", model))


def test_help_teaches(cli: Cli) -> None:
    whole = narrow(cli("--help"))
    assert "..." not in whole.split("Commands:")[1]  # no summary is cut
    assert narrow(cli("-h")) == whole
    commands = [line.split()[0] for line in whole.split("Commands:")[1].splitlines() if line.strip()]
    assert len(commands) == len(app.registered_commands) + len(app.registered_groups)
    inner = [("data", "describe"), ("data", "check")]
    for command in [*((name,) for name in commands if name != "data"), *inner]:
        text = narrow(cli(*command, "--help"))
        assert "--json" in text and text.count("\n") > 8, command
        assert command[0] in ("status", "gc", "doctor") or "Example" in text, command


def test_version(cli: Cli) -> None:
    assert narrow(cli("--version")).startswith("offramp 0.")
