"""Where phases ran; times of unlike machines are not compared."""

from pathlib import Path

import pytest

from offramp.report import evidence
from offramp.report.page.how import facts
from offramp.report.select import ran
from offramp.store.store import Store
from records import remade
from support import run_all, tiny_plan, tiny_study


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials that ran plain, each phase alone: their times are results."""
    root = tmp_path_factory.mktemp("plain") / "runs"
    study = tiny_study(["baseline", "joint"], execution={"mode": "plain"}, recipe={"epochs": 1})
    run_all(tiny_plan(study), root)
    return root


def test_times_of_one_machine_are_measured(root: Path) -> None:
    whole = evidence.from_store(root)
    assert all(trial.comparable for trial in whole.trials)
    assert not [note for note in whole.missing if "unlike machines" in note]
    (where,) = ran(whole.trials)
    assert where.endswith("2 phases")
    assert where in next(fact for fact in facts(whole) if fact.name == "Machine").values


def test_times_of_unlike_ones_are_estimates_and_said_to_be(root: Path) -> None:
    store = Store(root)
    remade(store, store.nodes()[0], machine="other", device="CPU 7", cores=96)
    whole = evidence.from_store(root)
    assert not any(trial.comparable for trial in whole.trials)
    (text,) = (note for note in whole.missing if "unlike machines" in note)
    words = "CPU 7, 96 cores"
    assert words in text
    costs = whole.table[(whole.table["phase"] != "final") & whole.table["epoch"].isna()]
    assert len(costs) and not costs["measured"].any()
    assert whole.table[whole.table["phase"] == "final"]["measured"].all()
    assert f"other ({words}): 1 phase" in ran(whole.trials)
    joined = evidence.join([whole, evidence.from_store(root)])
    assert [note for note in joined.missing if "unlike machines" in note] == [text]
