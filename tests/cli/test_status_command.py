"""`offramp status`."""

from __future__ import annotations

from pathlib import Path

from command import Cli, data, narrow, remade

TWO = ("two-stage", "joint")


def test_status(studied: Cli) -> None:
    said = data(studied("status", "--json"))
    assert said["trials"] == 6 and said["nodes"] == 8 and said["checkpoints"] == []
    assert said["unfinished"] == [] and said["bytes"] > 0
    of = {"backbone": "digits-cnn", "data": "digits", "trials": 2}
    assert {"strategy": "joint", **of} in said["strategies"] and len(said["strategies"]) == 3
    text = narrow(studied("status"))
    assert "two-stage  digits-cnn  digits       2" in text
    assert "6 trials finished, 0 begun; 8 nodes, 0 checkpoints" in text


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


def test_a_damaged_trial_is_named(studied: Cli) -> None:
    (manifest, *_) = sorted(Path("runs/trials").glob("joint-*/trial.json"))
    manifest.write_text(manifest.read_text().replace("joint", "jolly"))
    for command in (["status"], ["show", "joint-digits-cnn-digits-s1"], ["compare", "joint", "joint"]):
        answer = studied(*command)
        assert answer.code == 2 and answer.out == ""
        assert str(manifest) in answer.err and "run its study again" in answer.err
    assert studied("run", "s.yaml", "--quiet").code == 0
    assert data(studied("status", "--json"))["trials"] == 6
