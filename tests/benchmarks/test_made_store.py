"""A store made without training is what a run would have left."""

from pathlib import Path

import pytest
from benchmarks.made_store import make_store

from offramp.store.store import Store
from offramp.store.table import by_strategy, tidy
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run.events import Reused, TrialDone
from offramp.study.run.run import RunConfig, run
from offramp.study.spec import file as spec
from support import CPU

STUDY = Path(__file__).parents[2] / "studies" / "demo.yaml"
SETTINGS = ("seeds=[1, 2]", "strategies=[joint, two-stage]", "recipe.epochs=3")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(spec.read(STUDY, SETTINGS))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("made") / "store", STUDY, SETTINGS)


def test_every_node_and_trial_of_the_study_is_there_and_whole(store: Store, plan: Plan) -> None:
    assert store.nodes() == sorted(plan.nodes)
    assert store.trials() == sorted(trial.id for trial in plan.trials)
    for key in plan.nodes:
        store.verify_node(key)


def test_its_numbers_can_be_told(store: Store) -> None:
    assert [line.seeds for line in by_strategy(store, store.trials())] == [(1, 2), (1, 2)]
    table = tidy(store, store.trials())
    assert table["epoch"].max() == 3
    drawn = table.loc[table["metric"] == "accuracy", "value"]
    assert drawn.between(0, 1).all() and drawn.nunique() > 10


def test_a_run_finds_nothing_to_train(store: Store, plan: Plan, tmp_path: Path) -> None:
    events = list(run(plan, store, RunConfig(CPU, tmp_path)))
    assert {type(event) for event in events} == {Reused, TrialDone}
    assert all(event.reused for event in events if isinstance(event, TrialDone))
