"""Training that starts from given weights, and heads on a backbone that is kept as it came."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from offramp.data import normalize
from offramp.engine.settings import applied, placed
from offramp.nets import NetSpec, attach, build
from offramp.nets.network import identified, inside
from offramp.store.store import Store
from offramp.store.table import by_strategy, tidy
from offramp.study.plan.plan import Plan, plan_trials
from offramp.study.run.trials import EVALUATION_BATCH, load_network
from offramp.study.spec import file as spec
from support import CPU, NUMERICS, run_all, tiny_data, tiny_study
from wording import refusal

KEPT = (
    {"name": "two-stage", "backbone": "kept", "as": "kept"},
    {"name": "distillation", "backbone": "kept", "as": "taught"},
    {"name": "distillation", "students": "independent", "backbone": "kept", "as": "own"},
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small network that was trained before."""
    store = run_all(plan(("baseline",)), tmp_path_factory.mktemp("before"))[0]
    net = load_network(store, store.trials()[0], CPU)
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(inside(net).trunks[0].module.state_dict(), path)
    return path


def plan(strategies: Any, weights: Path | None = None, classes: int = 3, **more: Any) -> Plan:
    backbone: Mapping[str, Any] = {"name": "digits-cnn"}
    if weights is not None:
        backbone = {**backbone, "weights": str(weights)}
    study = tiny_study(strategies, backbone, **more)  # type: ignore[arg-type]
    data = tiny_data(classes=classes)
    net = build(NetSpec("digits-cnn", weights=study.backbone.weights), data.shape, classes, 42)
    return plan_trials(study, data, net, NUMERICS)


@pytest.fixture(scope="module")
def frozen(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    short = plan(KEPT, weights, recipe={"epochs": 1})
    return run_all(short, tmp_path_factory.mktemp("kept"))[0]


@pytest.mark.parametrize("label", ["kept", "taught", "own"])
def test_the_final_answer_is_the_checkpoints_to_the_bit(
    frozen: Store, weights: Path, label: str
) -> None:
    trial = frozen.find_trial(f"{label}-")
    manifest, logits = frozen.read_trial(trial), frozen.trial_logits(trial)["test"]
    assert manifest.exits == (1, 2, 3, 4)
    module = inside(build(NetSpec("digits-cnn"), (1, 8, 8), 3, 0)).trunks[0].module
    state = torch.load(weights, weights_only=True)
    module.load_state_dict(state)
    data = tiny_data()
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    x = normalize(data.test.images, mean, std)
    assert len(x) <= EVALUATION_BATCH
    padded = torch.cat([x, x[-1:].expand(EVALUATION_BATCH - len(x), -1, -1, -1)])
    placed(module, CPU)  # another memory layout or number of threads is another last bit
    with torch.no_grad(), applied(NUMERICS):
        expected = module.eval()(padded.contiguous(memory_format=torch.channels_last))[: len(x)]
    assert np.array_equal(logits[:, -1], expected.numpy())
    net = load_network(frozen, trial, CPU)
    final = inside(net).trunks[inside(net).trunk_of[-1]].module.state_dict()
    assert all(torch.equal(final[name], tensor) for name, tensor in state.items())
    trained = {name for key in manifest.keys for name in frozen.node_weights(key)}
    if label != "own":
        assert all(name.startswith("exits.") for name in trained)
    assert (logits[:, 0] != logits[:, -1]).any()


def test_tables_show_the_final_exit_too(frozen: Store) -> None:
    assert all(set(line.accuracy) == {1, 2, 3, 4} for line in by_strategy(frozen, frozen.trials()))
    table = tidy(frozen, frozen.trials())
    final = table[(table.exit == 4) & (table.split == "test") & (table.metric == "accuracy")]
    assert final.value.nunique() == 1 and len(final) == 3


def test_training_begins_from_the_weights(weights: Path, tmp_path: Path) -> None:
    """One tiny step leaves them nearly as they were; drawn weights are far away."""
    small = {"epochs": 1, "learning_rate": 1e-6}
    state = torch.load(weights, weights_only=True)
    far = {}
    for name, source in (("source", weights), ("drawn", None)):
        store = run_all(plan(("baseline",), source, recipe=small), tmp_path / name)[0]
        trunk = inside(load_network(store, store.trials()[0], CPU)).trunks[0].module
        far[name] = max(float((p - state[n]).abs().max()) for n, p in trunk.named_parameters())
        assert store.read_trial(store.trials()[0]).initial == (
            None if source is None else f"{len(state)} tensors loaded"
        )
    assert far["source"] < 1e-3 < far["drawn"]


def test_the_content_of_the_file_is_in_every_key(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    (tmp_path / "same.ckpt").write_bytes(b"")
    torch.save({"state_dict": state}, tmp_path / "same.ckpt")
    other = {name: tensor.clone() for name, tensor in state.items()}
    next(iter(other.values()))[0] += 1
    torch.save(other, tmp_path / "other.pth")
    keys = [
        set(plan(("joint", *KEPT), path).nodes)
        for path in (weights, tmp_path / "same.ckpt", tmp_path / "other.pth")
    ]
    assert keys[0] == keys[1] and not keys[0] & keys[2]
    assert not set(plan(("joint",)).nodes) & keys[0]


def test_weights_that_are_gone_are_named(
    weights: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    mine = tmp_path / "mine.pth"
    mine.write_bytes(weights.read_bytes())
    store = run_all(plan(KEPT[:1], mine), tmp_path / "runs")[0]
    mine.unlink()
    assert refusal(load_network, store, store.trials()[0], CPU) == snapshot


@pytest.mark.parametrize("strategy", KEPT[:2])
def test_random_weights_are_not_kept(weights: Path, strategy: Any, snapshot: SnapshotAssertion) -> None:
    assert refusal(plan, (strategy,)) == snapshot
    assert refusal(plan, (strategy,), weights, classes=4) == snapshot


def test_an_attached_network_can_be_kept() -> None:
    module = inside(build(NetSpec("digits-cnn"), (1, 8, 8), 3, 3)).trunks[0].module
    net = identified(attach(module, ["blocks.0"], (1, 8, 8)))
    study = tiny_study(KEPT[:1], "attached")
    plan = plan_trials(study, tiny_data(), net, NUMERICS)
    assert list(plan.trials[0].resolved.final) == [1, 2]


def test_where_the_study_file_is_wrong(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    from offramp.study.plan.plan import make_plan

    file = tmp_path / "s.yaml"
    file.write_text(
        "strategies: [joint]\nbackbone:\n  name: digits-cnn\n  weights: lost.pth\ndata: digits\n"
    )
    assert refusal(make_plan, spec.read(file)) == snapshot
