"""The results in docs/results: every figure and table that their data allow comes out of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from offramp.report import evidence
from offramp.report.evidence import Evidence
from offramp.report.figures import FIGURES, draw
from offramp.report.render.markdown import markdown
from offramp.report.tables import TABLES, make
from offramp.study.spec import file as spec

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DOCS, STUDIES = ROOT / "docs" / "results", ROOT / "studies"


@pytest.fixture(scope="module")
def cifar() -> Evidence:
    return evidence.open(DOCS / "cifar10-quick")


def test_every_figure(cifar: Evidence) -> None:
    drawn = draw(cifar)
    for name in FIGURES:
        if name != "curves":  # they are named after what they show
            assert any(f.name.startswith(name) for f in drawn.figures), name
    assert drawn.missing == ()


def test_every_table(cifar: Evidence) -> None:
    made = {table.name for table in make(cifar, [])}
    for name in TABLES:
        assert any(found.startswith(name) for found in made), name


@pytest.mark.parametrize("name", sorted(p.name for p in DOCS.glob("*-quick")))
def test_numbers_on_the_page_are_those_of_the_files(name: str) -> None:
    """Each accuracy in docs/results/README.md, from the tidy table; deviations and marks, from the main
    one, which rounds."""
    page = (DOCS / "README.md").read_text()
    section = page[page.index(f"quick ([{name}]") :].partition("\n## ")[0]
    results = evidence.open(DOCS / name)
    study = spec.read(STUDIES / f"{name}.yaml")
    assert results.missing == ()
    assert {(t.strategy, t.seed) for t in results.trials} == {
        (strategy.label, seed) for strategy in study.strategies for seed in study.seeds
    }
    told = rows(section, results.strategies)
    (main,) = make(results, ["main"])
    assert told == rows(markdown(main), results.strategies)
    table = results.table
    final = table[(table["phase"] == "final") & (table["split"] == "test")]
    means = final[final["metric"] == "accuracy"].groupby(["strategy", "exit"])["value"]
    shown = 0
    for (strategy, exit), value in means.mean().items():
        assert f"{100 * value:.1f} ±" in told[strategy][exit - 1]
        shown += 1
    assert shown == 33


def rows(text: str, strategies: Sequence[str]) -> dict[str, list[str]]:
    """What a Markdown table says of each strategy's four exits."""
    found = {}
    for strategy in strategies:
        cells = re.search(rf"^\| {strategy} +\|(.*)\|$", text, re.MULTILINE)
        assert cells is not None
        found[strategy] = [cell.strip() for cell in cells[1].split("|")[:4]]
    return found
