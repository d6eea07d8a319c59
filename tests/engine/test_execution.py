"""However the work is arranged, the same bits come out: plain execution is the oracle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_runs import split_data

import offramp.engine.cache
import offramp.engine.values
from longer import long, long_where
from offramp.engine.resolve import Node
from offramp.engine.values import Point
from offramp.nets.clock import Clock
from offramp.nets.network import inside
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Event, Failed, GroupStarted
from support import network, run_all, tiny_plan, tiny_study

MINE = '''
from offramp.parts import backbone, head, heads, segment, segments
from offramp.phase import CE, KD, Init, Phase


def odd(exits: int, *, rounds: int = 2):
    """What no registered strategy does: frozen parts above trained ones, cuts at several depths, an
    exit with nothing of its own to train, rates of parts, a trunk that goes its own way, a teacher in
    mid-program."""
    every = tuple(CE(k) for k in range(1, exits + 1))
    return (
        Phase("start", train=segments(1, exits) | heads(1, exits), loss=every),
        *(
            Phase(f"middle {n}", train=segment(2) | head(exits), loss=every, recipe=(("epochs", 1),))
            for n in range(rounds)
        ),
        Phase(
            "own",
            trunk=2,
            train=segment(2) | head(2),
            loss=(CE(2),),
            init=((segment(2), Init.FRESH),),
        ),
        Phase(
            "taught",
            train=head(1) | segment(3),
            loss=(CE(1, 0.5), KD(3, teacher_exit=2), KD(1, teacher_exit=exits)),
            init=((head(1), Init.INITIAL),),
            teacher="start",
            rates={segment(3): 0.5},
        ),
    )
'''

# Whose phases the variants start from; all strategies: tests/contract.
NAMED = ("baseline", "joint", "branch-wise", "two-stage", "distillation")
VARIANTS: tuple[Mapping[str, Any], ...] = (
    {"name": "distillation", "as": "independent", "students": "independent"},
    {"name": "distillation", "as": "shared", "students": "shared"},
    {"name": "joint-branch", "as": "joint-branch segment", "scope": "segment"},
    {"name": "joint-branch", "as": "joint-branch final", "refine_final": True},
    {"name": "joint-two-stage", "as": "joint-two-stage final", "refine_final": True},
    {"name": "pretrained-branch", "as": "pretrained-branch head", "scope": "head"},
)

# Phases of every kind: frozen trunks and segments, teachers, heads that are fused.
SOME = ("two-stage", "distillation", "branch-wise", "my own")
EVERY = "as it comes, all of them"
ARRANGEMENTS: dict[str, Mapping[str, Any]] = {
    "as it comes": {},
    EVERY: {},
    "no cache": {"cache": False},
    "no fusing": {"fuse": False},
    "neither": {"cache": False, "fuse": False},
    "cache on disk": {"cache_memory": 0},
    "no room for a cache": {"cache_memory": 0, "cache_disk": 0},
    "room for some values": {"cache_memory": 40_000, "cache_disk": 0},
    "some in memory, some on disk": {"cache_memory": 40_000, "cache_disk": 40_000},
    "nothing shared": {"share": False},
}


@pytest.fixture(scope="module")
def own_strategy(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("own") / "my_strategy.py"
    path.write_text(MINE)
    return f"{path}:odd"


def studied(own: str, mode: str, labels: Sequence[str] = (), **more: Any) -> Plan:
    """Of phases in every arrangement, or of some; tests/contract runs all strategies both ways."""
    named = [{"name": name} for name in NAMED]
    every = [*named, *VARIANTS, {"name": own, "as": "my own"}]
    strategies = [s for s in every if not labels or s.get("as", s["name"]) in labels]
    return tiny_plan(tiny_study(strategies, execution={"mode": mode, **more}))


@pytest.fixture(scope="module")
def oracle(own_strategy: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    plan = studied(own_strategy, "plain", SOME)
    return plan, finished(plan, tmp_path_factory.mktemp("plain"))[0]


@pytest.fixture(scope="module")
def whole_oracle(own_strategy: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """Of all that the variants start from and end in."""
    plan = studied(own_strategy, "plain")
    return plan, finished(plan, tmp_path_factory.mktemp("whole"))[0]


def finished(plan: Plan, folder: Path, **conduct: Any) -> tuple[Store, list[Event]]:
    store, events = run_all(plan, folder, **conduct)
    assert not [e for e in events if isinstance(e, Failed)]
    assert not list(folder.glob("caches/*")), "a cache was left behind"
    return store, events


def differences(run: tuple[Plan, Store], reference: tuple[Plan, Store]) -> list[str]:
    """Phases and trials of the other whose weights, histories or logits are not the same bits."""
    names = []
    trials = {trial.label: trial for trial in run[0].trials}
    for a, b in ((trials[b.label], b) for b in reference[0].trials):
        for x, y in zip(a.resolved.nodes, b.resolved.nodes, strict=True):
            mine, theirs = run[1].node_weights(x.key), reference[1].node_weights(y.key)
            assert mine.keys() == theirs.keys()
            if not all(torch.equal(mine[name], theirs[name]) for name in mine):
                names.append(f"{a.label}: weights of {x.name}")
            histories = run[1].node_history(x.key), reference[1].node_history(y.key)
            if not histories[0].equals(histories[1]):
                names.append(f"{a.label}: history of {x.name}")
        logits = run[1].trial_logits(a.id), reference[1].trial_logits(b.id)
        if not all(np.array_equal(logits[0][name], logits[1][name]) for name in logits[0]):
            names.append(f"{a.label}: logits")
    return names


@pytest.mark.parametrize(
    "arrangement",
    long_where(ARRANGEMENTS, lambda name: name.startswith(("no ", "neither", "room ", "cache ", EVERY))),
)
def test_no_arrangement_changes_a_bit(
    arrangement: str, own_strategy: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = arrangement == EVERY
    oracle: tuple[Plan, Store] = request.getfixturevalue("whole_oracle" if whole else "oracle")
    plan = studied(own_strategy, "derived", () if whole else SOME, **ARRANGEMENTS[arrangement])
    assert len(plan.trials) == len(oracle[0].trials)
    assert not differences(oracle, (plan, finished(plan, tmp_path)[0]))


def test_heads_of_these_runs_have_dropout() -> None:
    """Else the tests above would not see whether masks depend on the arrangement."""
    assert {spec.dropout for spec in inside(network("digits-cnn")).head_specs} == {0.5}


def test_groups_share_a_pass_unless_told_not_to(tmp_path: Path) -> None:
    for fuse, sizes in ((True, {1, 3}), (False, {1})):
        plan = tiny_plan(tiny_study(["two-stage"], execution={"fuse": fuse}))
        _, events = finished(plan, tmp_path / str(fuse))
        assert {len(e.keys) for e in events if isinstance(e, GroupStarted)} == sizes


@pytest.mark.parametrize("mode", ["derived", *long("plain")])
def test_phases_that_stop_at_different_epochs_do_not_disturb_each_other(
    mode: str, tmp_path: Path
) -> None:
    """With early stopping, heads leave a fused group one after another."""
    recipe = {"epochs": 8, "patience": 1, "learning_rate": 0.2}
    executions = {"alone": {"fuse": False, "cache": False}, "other": {"mode": mode}}
    runs = {}
    for name, execution in executions.items():
        plan = tiny_plan(tiny_study(["two-stage"], recipe=recipe, execution=execution))
        runs[name] = plan, finished(plan, tmp_path / name)[0]
    assert not differences(runs["alone"], runs["other"])
    plan, store = runs["alone"]
    epochs = {store.read_node(key).summary.epochs for key in plan.nodes}
    assert len(epochs) > 1 and min(epochs) < 8, "the recipe of this test stops nothing early"


def test_a_batch_larger_than_the_frozen_batch(tmp_path: Path) -> None:
    """65 images in batches of 64: one step of 65 rows, of which frozen parts see two pieces."""
    runs = []
    for mode in ("plain", "derived"):
        study = tiny_study(["branch-wise"], recipe={"batch_size": 64}, execution={"mode": mode})
        plan = tiny_plan(study, split_data(65))
        runs.append((plan, finished(plan, tmp_path / mode)[0]))
    assert not differences(*runs)


# Controls: what the comparison above is there to find.


def test_a_cut_one_point_too_deep_is_found(
    oracle: tuple[Plan, Store], own_strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = offramp.engine.values.cut

    def too_deep(node: Node, exit: int) -> Point:
        point = right(node, exit)
        return Point("tap", point.index + 1) if point.kind == "tap" and point.index < exit else point

    monkeypatch.setattr(offramp.engine.values, "cut", too_deep)
    labels = ("branch-wise", "my own")
    plan = studied(own_strategy, "derived", labels)
    changed = differences(oracle, (plan, finished(plan, tmp_path)[0]))
    for label in labels:
        assert any(f.startswith(f"{label}: weights") for f in changed), label


def test_masks_that_depend_on_who_else_runs_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "reseed", lambda *_: None)
    runs = []
    for fuse in (True, False):
        torch.manual_seed(0)
        plan = tiny_plan(tiny_study(["two-stage"], execution={"fuse": fuse}))
        runs.append((plan, finished(plan, tmp_path / str(fuse))[0]))
    changed = differences(*runs)
    assert any("weights of exit 2" in f for f in changed)


def test_a_stale_cached_row_is_found(
    oracle: tuple[Plan, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = offramp.engine.cache.Cache.filled

    def spoilt(self: Any, key: Any) -> None:
        right(self, key)
        self.get(key)[0][0] += 1e-3

    monkeypatch.setattr(offramp.engine.cache.Cache, "filled", spoilt)
    plan = tiny_plan(tiny_study(["two-stage"]))
    changed = differences(oracle, (plan, finished(plan, tmp_path)[0]))
    assert any("weights of exit 1" in f for f in changed)
