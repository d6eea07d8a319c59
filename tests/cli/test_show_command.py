"""`offramp show`: of a trial, and of a node what it reads and why it is not reused."""

from pathlib import Path

import pytest
from command import Cli, data, keys, narrow, refusal
from syrupy.assertion import SnapshotAssertion

from offramp.store.archive import Archive
from offramp.store.manifest import Provenance
from offramp.store.store import Store
from records import changed, remade
from wording import unhashed

TRIAL = "two-stage-digits-cnn-digits-s1"
CLOSE = "joint-digits-cnn-digit-s1"  # to one that there is
DEVICE = "A processor whose maker gave it one of the longest names there are, at 2.25GHz"
LIST = "studies: [s.yaml, other.yaml]"


def test_show(studied: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Archive.read_trial
    monkeypatch.setattr(
        Archive,
        "read_trial",
        lambda store, id: changed(read(store, id), "provenance", device=DEVICE),
    )
    text = narrow(studied("show", TRIAL))
    assert "blocks.0" in text and "backbone" in text and "exit 2" in text and "Made with torch" in text
    said = data(studied("show", TRIAL, "--json"))
    assert said["trial"].startswith(f"{TRIAL}-")
    assert said["exits"] == [1, 2, 3] and said["seed"] == 1 and said["seconds"]["measured"] is False
    assert [phase["name"] for phase in said["phases"]] == ["backbone", "exit 1", "exit 2"]
    (phases,) = [part for part in text.split("\n\n") if "kept" in part and "backbone" in part]
    assert all(word in phases for word in ("train", "check", "data", "other", "all"))
    kinds = {"preparation", "train", "validation", "data", "evaluation"}
    assert all(kinds <= set(phase["seconds"]) for phase in said["phases"])


def test_show_reads_records_whose_time_of_data_was_not_told_apart(studied: Cli) -> None:
    told = data(studied("show", TRIAL, "--json"))
    key = told["phases"][0]["node"]
    remade(Store(Path("runs")), key, without=("data",))
    later = data(studied("show", TRIAL, "--json"))
    assert "data" not in later["phases"][0]["seconds"] and "data" in later["phases"][1]["seconds"]
    spent = [sum(phase["seconds"].values()) for phase in later["phases"]]
    assert later["seconds"]["executed"] == pytest.approx(sum(spent))
    line = next(row for row in studied("show", TRIAL).out.splitlines() if key[:12] in row)
    assert " - " in line


def test_show_reads_records_that_do_not_say_when_they_were_made(
    studied: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """It ended in a KeyError."""
    read = Archive.read_trial
    known = Provenance(torch="2.9.0")
    monkeypatch.setattr(
        Archive, "read_trial", lambda store, id: changed(read(store, id), provenance=known)
    )
    assert narrow(studied("show", TRIAL)).splitlines()[-1] == snapshot


def test_show_asks_for_more_of_an_id(studied: Cli, snapshot: SnapshotAssertion) -> None:
    several = studied("show", "joint")
    assert unhashed(refusal(several)) == snapshot(name="several")
    trial = several.err.split()[-1]
    ending = trial.rpartition("-")[2]
    assert studied("show", ending).out.startswith(f"{trial}\n")
    assert data(studied("show", ending, "--json"))["trial"] == trial
    unknown = [refusal(studied("show", name)) for name in ("joined", CLOSE)]
    assert list(map(unhashed, unknown)) == snapshot(name="unknown")


def test_a_node_that_is_in_the_store(studied: Cli, snapshot: SnapshotAssertion) -> None:
    key = data(studied("show", TRIAL, "--json"))["phases"][0]["node"]
    text = narrow(studied("show", key[:10]))
    assert text.startswith(f"{key}\n") and "learning_rate: 0.01" in text
    what, *_, nearest = text.split("\n\n")
    assert unhashed(f"{what}\n\n{nearest}") == snapshot
    said = data(studied("show", key, "--json"))
    assert said["key"] == key and said["in_store"] is True
    assert said["reads"]["recipe"]["learning_rate"] == 0.01 and said["nearest"] in keys()


def test_why_a_node_is_not_reused(studied: Cli, snapshot: SnapshotAssertion) -> None:
    change = ("--set", "recipe.learning_rate=0.02", "--set", "seeds=[1]")
    planned = data(studied("run", "s.yaml", "--dry-run", "--json", *change))["nodes"]
    backbone = next(node["key"] for node in planned if node["phase"] == "backbone")
    text = narrow(studied("show", backbone[:8], "--study", "s.yaml", *change))
    what, *_, nearest = text.split("\n\n")
    assert unhashed(f"{what}\n\n{nearest}") == snapshot
    said = data(studied("show", backbone, "--study", "s.yaml", *change, "--json"))
    assert said["in_store"] is False
    assert said["differences"] == {"recipe.learning_rate": [0.02, 0.01]}


def test_every_study_of_a_list_is_looked_into(studied: Cli) -> None:
    Path("other.yaml").write_text(Path("s.yaml").read_text().replace("seeds: [1, 2]", "seeds: [9]"))
    Path("all.yaml").write_text(LIST)
    planned = data(studied("run", "other.yaml", "--dry-run", "--json"))["nodes"]
    said = data(studied("show", planned[0]["key"], "--study", "all.yaml", "--json"))
    assert said["in_store"] is False and said["reads"]["seed"] == 9
    assert data(studied("show", keys()[0], "--study", "all.yaml", "--json"))["in_store"] is True
