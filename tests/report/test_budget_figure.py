"""The order of strategies against how long they trained."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from altair.utils.schemapi import validate_jsonschema
from altair.vegalite.v6.schema.core import load_schema
from handmade import HandTrial, evidence, simple
from syrupy.assertion import SnapshotAssertion

from offramp.api.keep.store import pack
from offramp.report.evidence import Evidence, join, of_strategies
from offramp.report.evidence import open as opened
from offramp.report.figures import draw
from offramp.report.page.folder import lead
from offramp.report.page.how import facts
from offramp.report.render.charts import rendered
from offramp.store.pack import write

# Right answers of 4 images, by epochs: joint leads early, separate late.
RIGHT = {
    1: {"joint": 3, "separate": 1, "two-stage": 2},
    2: {"joint": 3, "separate": 2, "two-stage": 1},
    4: {"joint": 2, "separate": 4, "two-stage": 3},
}


def trained(epochs: int, strategy: str, seed: int, study: str = "made", **recipe: Any) -> HandTrial:
    hits = [image < RIGHT[epochs][strategy] for image in range(4)]
    return simple(
        strategy,
        seed,
        study=study,
        right=dict.fromkeys((1, 2, 3), hits),
        recipe={"epochs": epochs, **recipe},
    )


def budget(epochs: int) -> list[HandTrial]:
    return [trained(epochs, strategy, seed) for strategy in RIGHT[epochs] for seed in (1, 2)]


@pytest.fixture(scope="module")
def three() -> Evidence:
    return evidence([trial for epochs in RIGHT for trial in budget(epochs)])


def drawn(whole: Evidence) -> pd.DataFrame:
    (figure,) = draw(whole, ["budget"]).figures
    validate_jsonschema(dict(figure.spec), {"$ref": "#/definitions/TopLevelSpec"}, load_schema())
    frames = [pd.read_csv(io.StringIO(text)) for text in figure.spec["datasets"].values()]
    (ranks,) = (frame for frame in frames if "rank" in frame)
    return ranks.pivot(index="epochs", columns="strategy", values="rank")


def test_ranks_are_those_of_the_accuracies(three: Evidence, snapshot: SnapshotAssertion) -> None:
    actual = drawn(three)
    for epochs, right in RIGHT.items():
        order = sorted(right, key=lambda s: -right[s])
        assert actual.loc[epochs].to_dict() == {s: order.index(s) + 1 for s in right}
    (figure,) = draw(three, ["budget"]).figures
    assert figure.alt == snapshot
    assert "2 seeds" in figure.caption


def test_strategies_without_a_seed_in_common_have_no_ranks(snapshot: SnapshotAssertion) -> None:
    """They were told from best to worst all the same."""
    apart = [trained(4, "joint", 3), trained(4, "separate", 4)]
    (figure,) = draw(evidence([*budget(1), *apart]), ["budget"]).figures
    assert figure.alt == snapshot
    assert "4 epochs" not in figure.alt


def test_the_longest_is_what_all_else_is_about(three: Evidence, snapshot: SnapshotAssertion) -> None:
    assert {t.manifest.recipe.epochs for t in three.trials} == {4}
    assert [{t.manifest.recipe.epochs for t in e.trials} for e in three.budgets] == [{2}, {1}]
    assert three.missing == ()  # nothing is: they are in another figure
    assert [(f.name, f.values) for f in facts(three) if "budget" in f.name] == snapshot
    assert [lead(three), lead(evidence(budget(4)))] == snapshot


def test_parts_join(three: Evidence) -> None:
    """Packs by seed and by budget, in any order, are the same as one store."""
    every = [trial for epochs in RIGHT for trial in budget(epochs)]
    parts = [evidence([t for t in every if t.seed == seed]) for seed in (2, 1)]
    by_budget = [evidence(budget(epochs)) for epochs in (2, 1, 4)]
    for actual in (join(parts), join(by_budget), join([join(by_budget[:2]), by_budget[2]])):
        assert drawn(actual).equals(drawn(three))


def test_what_one_part_left_out_may_be_what_is_compared_of_all() -> None:
    """Of two settings the one with most trials is compared, wherever they were read."""
    first = [trained(4, strategy, 1) for strategy in RIGHT[4]]
    other = [trained(4, strategy, 1, learning_rate=0.5) for strategy in ("joint", "separate")]
    more = [trained(4, strategy, 2, learning_rate=0.5) for strategy in ("joint", "separate")]
    whole, parts = evidence([*first, *other, *more]), [evidence([*first, *other]), evidence(more)]
    assert [len(part.trials) for part in (*parts, whole)] == [3, 2, 4]
    for actual in (join(parts), join(parts[::-1]), join([join(parts)])):
        assert [t.id for t in actual.trials] == [t.id for t in whole.trials]
        assert actual.missing == whole.missing


def test_a_pack_has_all_numbers_of_epochs(three: Evidence, tmp_path: Path) -> None:
    write(tmp_path / "whole", three.gathered.records, *three.packed, three.missing)
    pack([tmp_path / "whole"], out=tmp_path / "again")
    whole = opened(tmp_path / "again")
    assert drawn(whole).equals(drawn(three)) and whole.missing == three.missing
    assert [t.id for t in whole.trials] == [t.id for t in three.trials]


def test_some_strategies_keep_their_numbers_of_epochs(three: Evidence) -> None:
    some = of_strategies(three, ["joint", "separate"])
    assert [{t.strategy for t in first.trials} for first in some.budgets] == [{"joint", "separate"}] * 2
    assert some.missing == tuple(note.replace("6 trials", "4 trials") for note in three.missing)


def test_another_recipe_is_no_budget(snapshot: SnapshotAssertion) -> None:
    other = [trained(2, "joint", seed, learning_rate=0.5) for seed in (1, 2)]
    whole = evidence([*budget(4), *other])
    assert whole.budgets == ()
    assert draw(whole, ["budget"]).missing == snapshot


def test_it_can_be_drawn(three: Evidence) -> None:
    (figure,) = draw(three, ["budget"]).figures
    assert rendered(figure, ["svg"])["svg"].startswith(b"<svg")
