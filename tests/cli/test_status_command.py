"""`offramp status`."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import STUDY, Cli, data, keys, narrow, refused, remade

from offramp.store.store import Store

TWO = ("two-stage", "joint")


def test_status(studied: Cli) -> None:
    said = data(studied("status", "--json"))
    assert said["trials"] == 6 and said["nodes"] == 8 and said["checkpoints"] == []
    assert said["unfinished"] == [] and said["bytes"] > 0
    of = {"backbone": "digits-cnn", "data": "digits", "trials": 2}
    assert {"strategy": "joint", **of} in said["strategies"] and len(said["strategies"]) == 3
    text = narrow(studied("status"))
    assert "two-stage  digits-cnn  digits       2" in text
    assert "6 trials finished, 0 unfinished; 8 nodes, 0 checkpoints" in text


def test_status_warns_of_mixed_libraries_and_devices(studied: Cli) -> None:
    assert "Warning" not in studied("status").out
    (phase, *_) = data(studied("show", "two-stage-digits-cnn-digits-s1", "--json"))["phases"]
    remade(phase["node"], timm="0.1", device="an abacus", git="f00")
    _, warning = " ".join(studied("status").out.split()).split("Warning: ")
    assert "timm (0.1, " in warning and "an abacus" in warning
    assert "torch" not in warning and "f00" not in warning  # not mixed; changes no bit
    said = data(studied("status", "--json"))
    assert said["made_with"]["timm"][0] == "0.1" and said["mixed"] == ["timm", "device"]
    made = [data(studied("show", f"{s}-digits-cnn-digits-s1", "--json"))["made_with"] for s in TWO]
    assert "f00" in made[0]["git"] and "f00" not in made[1]["git"]


def test_a_damaged_trial_is_named(studied: Cli) -> None:
    (manifest, *_) = sorted(Path("runs/trials").glob("joint-*/trial.json"))
    manifest.write_text(manifest.read_text().replace("joint", "jolly"))
    for command in (["status"], ["show", "joint-digits-cnn-digits-s1"], ["compare", "joint", "joint"]):
        refused(studied(*command), str(manifest), "run its study again")
    assert studied("run", "s.yaml", "--quiet").code == 0
    assert data(studied("status", "--json"))["trials"] == 6


def test_trials_with_a_phase_that_failed(cli: Cli) -> None:
    """Until the phase is trained: then nothing is said of it."""
    wild = "{name: joint, as: wild, phases: {joint: {learning_rate: 1e30}}}"
    Path("s.yaml").write_text(STUDY.replace("[baseline, joint, two-stage]", f"[baseline, {wild}]"))
    assert cli("run", "s.yaml", "--quiet", "--set", "seeds=[1]").code == 1
    (failed,) = data(cli("status", "--trials", "--failed", "--json"))["trials"]
    assert failed["trial"].startswith("wild-") and "learning rate 1e+30" in failed["failed"]
    words = " ".join(narrow(cli("status", "--trials", "--failed")).split())
    assert "the loss of phase 'joint' is not finite" in words
    (note,) = Path("runs/failures").glob("*.json")
    note.write_text(note.read_text().replace("finite", "infinite"))  # altered: not believed
    assert data(cli("status", "--trials", "--failed", "--json"))["trials"] == []


@pytest.mark.usefixtures("studied")
def test_a_phase_that_is_trained_after_all_has_not_failed() -> None:
    store, key = Store(Path("runs")), keys()[0]
    node, weights = store.read_node(key), store.node_weights(key)
    history, cost = store.node_history(key), store.node_cost(key)
    store.note_failure(key, "no memory")
    assert store.archive.failures() == {key: "no memory"}
    store.write_node(node, weights, history, cost)
    assert store.archive.failures() == {}
