"""Figures, tables, claims and guidelines of a user's own; the paper's come by the same doors."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
from handmade import evidence, simple
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp.analysis.measures import MEASURES, find_measure
from offramp.errors import OfframpError
from offramp.paper.guidelines import guidelines
from offramp.report.claims import read
from offramp.report.evidence import Evidence
from offramp.report.figures import draw
from offramp.report.model import Column, Table
from offramp.report.registry import PUBLICATIONS
from offramp.report.runs import Runs
from offramp.report.tables import make
from wording import refusal

OWN = '''
import pandas as pd

from offramp.report.figures.chart import figure, marks, number, panel, word
from offramp.report.model import Column, Table


def seeds(runs):
    """Seeds of every strategy."""
    rows = [(s, len(runs.of(s))) for s in runs.strategies]
    frame = pd.DataFrame(rows, columns=["strategy", "seeds"])
    bars = marks(frame, {"type": "bar"}, x=number("seeds"), y=word("strategy"))
    return figure(runs, "seeds", "more", "Seeds", "How many.", "Bars.", panel([bars], 200, 100))


def trials(evidence):
    frame = pd.DataFrame({"trials": [len(evidence.trials)]})
    columns = [Column("trials", "trials", "integer")]
    return [Table("trials", "more", "Trials", "How many.", frame, columns)]


def main(runs):
    return make_nothing(runs)


def other(things):
    return []


def wrong(runs):
    return ["a figure"]


def claims():
    return {"claims": [{"id": "one", "section": "1", "question": "more", "text": "Joint is better.",
                        "measure": "accuracy-test", "is": "higher", "strategies": "joint",
                        "against": "core"}]}


def advice():
    return {"guidelines": [{"goals": ["accuracy"], "strategies": ["joint"], "heads_only": False,
                            "text": "where it matters", "section": "ours"}]}


def nothing():
    return {}


def odd():
    import numpy as np
    return {"claims": [{"id": "joint", "margin": np.float64(1)}]}
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


@pytest.fixture(scope="module")
def two() -> Evidence:
    return evidence([simple(s, seed) for s in ("joint", "separate") for seed in (1, 2)])


def test_a_function_of_a_file_is_a_figure_or_a_table(own: str, two: Evidence) -> None:
    drawn = draw(two, [f"{own}:seeds"])
    assert [f.name for f in drawn.figures] == ["seeds-net-images"] and not drawn.missing
    (table,) = make(two, [f"{own}:trials"])
    assert table.frame["trials"].tolist() == [4]
    assert [t.name for t in make(two, ["pairs", f"{own}:trials"])][-1] == "trials"


def test_guides_show_a_figure_and_a_table_that_can_be_made(tmp_path: Path, two: Evidence) -> None:
    for guide in ("figures", "tables"):
        text = (Path(__file__).parents[2] / "docs" / f"{guide}.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        (tmp_path / f"{guide}.py").write_text(block)
    (bars,) = draw(two, [f"{tmp_path}/figures.py:seeds"]).figures
    (table,) = make(two, [f"{tmp_path}/tables.py:seeds"])
    assert bars.name == table.name == "seeds-net-images" and table.frame["seeds"].tolist() == [2, 2]


def test_so_is_a_function_of_python(two: Evidence) -> None:
    def exits(runs: Runs) -> list[Table]:
        frame = two.table.head(1)[["trial"]].assign(exits=len(runs.exits))
        return [Table(runs.name("exits-of"), "more", "Exits", "", frame, [Column("exits", "exits")])]

    (table,) = make(two, [exits])
    assert table.frame["exits"].tolist() == [3]


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("main", "main failed at line .*make_nothing"),
        ("other", "its first parameter is 'things'; call it runs"),
        ("wrong", "it must return a list of Tables"),
        ("trial", "has no function 'trial'.*trials"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_line(
    name: str, facts: str, own: str, two: Evidence
) -> None:
    with pytest.raises(OfframpError, match=facts):
        make(two, [f"{own}:{name}"])


def test_two_of_one_name_are_refused(two: Evidence, snapshot: SnapshotAssertion) -> None:
    def again(runs: Runs) -> list[Table]:
        return [t for t in make(two, ["main"]) if runs.about == t.about]

    assert refusal(make, two, ["main", again]) == snapshot


def test_one_name_for_two_networks_is_refused(snapshot: SnapshotAssertion) -> None:
    """One file would replace the other."""

    def seeds(runs: Runs) -> list[Table]:
        return [t for t in make(runs.evidence, ["main"]) if runs.about == t.about]

    def same(runs: Runs) -> list[Table]:
        return [replace(table, name="seeds") for table in seeds(runs)]

    both = evidence([simple("joint", 1, model=model) for model in ("one", "other")])
    assert len({table.name for table in make(both, [seeds])}) == 2
    assert refusal(make, both, [same]) == snapshot


def test_figures_and_tables_show_any_measure(two: Evidence, snapshot: SnapshotAssertion) -> None:
    loss = find_measure("loss-test")
    names = ["accuracy-by-exit", "significance"]
    figures = {f.name: f for f in draw(two, names, loss).figures}
    assert set(figures) == {"accuracy-by-exit-loss-test-net-images"} | {
        "significance-core-loss-test-net-images"
    }
    assert "cross-entropy" in figures["accuracy-by-exit-loss-test-net-images"].title
    tables = make(two, ["pairs"], MEASURES["f1-test"])
    assert tables[0].name == "pairs-f1-test-net-images-overall"
    assert refusal(draw, two, ["curves"], loss) == snapshot


def test_claims_and_guidelines_come_from_functions(own: str, two: Evidence) -> None:
    (claim,) = read(f"{own}:claims")
    (judgment,) = two.judge([claim])
    assert judgment.compared == 1  # core stands for the paper's, of which separate is here
    (guideline,), more = guidelines("accuracy", source=f"{own}:advice")
    assert guideline.strategies == ("joint",) and more == ()
    assert guidelines("memory", source=f"{own}:advice") == ((), ())
    with pytest.raises(OfframpError, match="gives no guidelines"):
        guidelines("accuracy", source=f"{own}:nothing")
    with pytest.raises(OfframpError, match=r"odd.*cannot represent"):
        read(f"{own}:odd")


def test_nothing_but_the_top_and_one_line_names_the_paper() -> None:
    """Its tables, claims, families and recipes are taken away by one word in the registry."""
    source = Path(offramp.__file__).parent
    naming = set()
    for path in source.rglob("*.py"):
        place = path.relative_to(source)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += (
                [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            )
            if any(name.startswith("offramp.paper") for name in names) and place.parts[0] != "paper":
                naming.add(place.parts[0] if place.parts[0] in ("api", "cli") else place.as_posix())
    assert naming <= {"api", "cli", "report/registry.py"} and "report/registry.py" in naming
    assert PUBLICATIONS == ("offramp.paper",)
