"""The packs of docs/results: what reports draw of real runs, and that their pages say what they say."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from longer import long
from offramp.report import evidence
from offramp.report.figures import draw
from offramp.report.model import Table
from offramp.report.registry import made_of
from offramp.report.tables import TABLES

DOCS = Path(__file__).parents[2] / "docs" / "results"
# What the runs lack: several networks or data sets, and other numbers of epochs.
LACKING = {"cifar10": {"table overall"}, "imagenette": {"table overall", "figure budget"}}
SOME = ("baseline", "joint", "two-stage", "joint-two-stage")


@pytest.mark.parametrize("study", ["imagenette", *long("cifar10")])
def test_every_figure_and_every_table(study: str) -> None:
    """A new one that these runs cannot make is named in LACKING."""
    results = evidence.of_strategies(evidence.open(DOCS / study), SOME)
    if study == "cifar10":
        results = evidence.open(DOCS / study)
    empty = {name for name, items in made_of(TABLES, results, Table) if not items}
    missing = draw(results).missing
    assert {f"table {name}" for name in empty} | {
        " ".join(text.split()[1:3]) for text in missing
    } == LACKING[study]


PAGES = yaml.safe_load((DOCS / "studies.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name", ["chest-xray", *long(*(name for name in PAGES if name != "chest-xray"))]
)
def test_a_page_is_what_its_packs_say(name: str) -> None:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    text = generate.page(PAGES[name]["title"], PAGES[name]["studies"])
    assert text == (DOCS / f"{name}.md").read_text(encoding="utf-8")
