"""`offramp show` of a node: what it reads, and why it is not reused."""

from __future__ import annotations

from pathlib import Path

from command import Cli, data, keys, narrow


def test_a_node_that_is_in_the_store(studied: Cli) -> None:
    key = keys()[0]
    text = narrow(studied("show", key[:10]))
    assert text.startswith(f"{key}\nin the store: phase '") and "learning_rate: 0.01" in text
    assert "Nearest other node" in text
    said = data(studied("show", key, "--json"))
    assert said["key"] == key and said["in_store"] is True
    assert said["reads"]["recipe"]["learning_rate"] == 0.01 and said["nearest"] in keys()


def test_why_a_node_is_not_reused(studied: Cli) -> None:
    change = ("--set", "recipe.learning_rate=0.02", "--set", "seeds=[1]")
    planned = data(studied("run", "s.yaml", "--dry-run", "--json", *change))["nodes"]
    backbone = next(node["key"] for node in planned if node["phase"] == "backbone")
    text = narrow(studied("show", backbone[:8], "--study", "s.yaml", *change))
    assert "not in the store: it would be trained" in text
    assert "recipe.learning_rate: 0.02 here, 0.01 there" in text
    said = data(studied("show", backbone, "--study", "s.yaml", *change, "--json"))
    assert said["in_store"] is False
    assert said["differences"] == {"recipe.learning_rate": [0.02, 0.01]}


def test_every_study_of_a_list_is_looked_into(studied: Cli) -> None:
    Path("other.yaml").write_text(Path("s.yaml").read_text().replace("seeds: [1, 2]", "seeds: [9]"))
    Path("all.yaml").write_text("studies: [s.yaml, other.yaml]")
    planned = data(studied("run", "other.yaml", "--dry-run", "--json"))["nodes"]
    said = data(studied("show", planned[0]["key"], "--study", "all.yaml", "--json"))
    assert said["in_store"] is False and said["reads"]["seed"] == 9
    assert data(studied("show", keys()[0], "--study", "all.yaml", "--json"))["in_store"] is True
