import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit import finish
from syrupy.assertion import SnapshotAssertion

from offramp.api.results.show import show
from offramp.data import normalize
from offramp.data_spec import HELD_OUT
from offramp.engine.fit import split_logits
from offramp.engine.passes import Images
from offramp.errors import OfframpError
from offramp.metrics import accuracy, auroc, cross_entropy
from offramp.nets import builder
from offramp.nets.network import exit_macs, inside
from offramp.store.store import Damaged, Store
from offramp.store.table import tidy
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run import trials
from offramp.study.spec import file as spec
from support import CPU, run_all, tiny_data, tiny_plan, tiny_study
from wording import refusal

INDEPENDENT = {"name": "distillation", "as": "independent", "students": "independent"}
STUDY: dict[str, Any] = {
    "seeds": [42],
    "strategies": ["joint", "separate", INDEPENDENT, "baseline", "joint-two-stage"],
    "backbone": "digits-cnn",
    "data": {"name": "digits", "train_images": 120, "test_images": 61},
    "recipe": {"epochs": 1, "batch_size": 32},
}

Finished = tuple[Plan, Store, dict[str, str]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study, and its trials by label."""
    plan = make_plan(spec.parse(STUDY), CPU)
    store, _ = finish(plan, tmp_path_factory.mktemp("store"))
    return plan, store, {t.label: t.id for t in plan.trials}


@pytest.mark.parametrize(
    ("label", "exits", "trunks"),
    [
        ("joint", [1, 2, 3, 4], 1),
        ("separate", [1, 2, 3, 4], 4),
        ("independent", [1, 2, 3, 4], 4),
        ("baseline", [4], 1),
        ("joint-two-stage", [1, 2, 3, 4], 1),
    ],
)
def test_a_loaded_network_gives_the_stored_logits(
    done: Finished, label: str, exits: list[int], trunks: int
) -> None:
    plan, store, ids = done
    net = trials.load_network(store, ids[label], CPU)
    assert len(inside(net).trunks) == trunks and not any(m.training for m in net.modules())
    arrays = store.trial_logits(ids[label])
    assert list(store.read_trial(ids[label]).exits) == exits
    images = Images(plan.data, CPU)
    for split in HELD_OUT:
        again = split_logits(net, images, split, exits, trials.EVALUATION_BATCH)
        assert np.array_equal(arrays[split], again), split
        assert np.array_equal(arrays[f"{split}_labels"], getattr(plan.data, split).labels.numpy())
    # By hand: normalize, call, look.
    data = plan.data
    mean, std = (torch.tensor(v) for v in (data.mean, data.std))
    with torch.no_grad():
        logits = net(normalize(data.test.images, mean, std))
    assert len(logits) == 4
    for column, exit in enumerate(exits):
        np.testing.assert_allclose(
            logits[exit - 1].numpy(), arrays["test"][:, column], rtol=1e-4, atol=1e-5
        )


def test_the_exits_of_separate_and_independent_networks_share_no_tensor(done: Finished) -> None:
    _, store, ids = done
    for label in ("separate", "independent"):
        net = trials.load_network(store, ids[label], CPU)
        addresses = [t.data_ptr() for t in (*net.parameters(), *net.buffers())]
        assert len(addresses) == len(set(addresses))
        assert sorted(inside(net).trunk_of) == [0, 1, 2, 3]


def test_loading_twice_gives_independent_networks_and_leaves_the_generator(done: Finished) -> None:
    _, store, ids = done
    state = torch.get_rng_state()
    first, other = (trials.load_network(store, ids["joint"], CPU) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert any(bool(p.any()) for p in other.parameters())


def test_the_manifest_says_what_the_arrays_say(done: Finished) -> None:
    plan, store, ids = done
    for label, trial in ids.items():
        manifest, arrays = store.read_trial(trial), store.trial_logits(trial)
        for split in HELD_OUT:
            logits, labels = arrays[split], arrays[f"{split}_labels"]
            assert logits.dtype == np.float32
            assert logits.shape == (len(labels), len(manifest.exits), 10)
            metrics = manifest.metrics[split]
            assert metrics.accuracy == tuple(accuracy(logits, labels))
            assert metrics.cross_entropy == tuple(cross_entropy(logits, labels))
        assert manifest.strategy == label and manifest.seed == 42
        assert len(manifest.macs) == len(manifest.parameters) == len(manifest.exits)
        assert list(manifest.macs) == sorted(manifest.macs)
        assert set(manifest.keys) <= set(store.nodes())
        assert manifest.mean == plan.data.mean


def test_macs_follow_the_path_of_an_image(done: Finished) -> None:
    plan, store, ids = done
    net = trials.load_network(store, ids["joint"], CPU)
    manifests = {label: store.read_trial(trial) for label, trial in ids.items()}
    full = manifests["joint"].backbone_macs
    heads = sum(net.macs(part) for part in plan.trials[0].resolved.nodes[0].trained) - full
    assert manifests["joint"].macs[-1] == full + heads
    assert manifests["baseline"].macs == (full,)
    separate = trials.load_network(store, ids["separate"], CPU)
    alone = [exit_macs(separate, [k]) for k in (1, 2, 3, 4)]  # a cascade of trunks adds them all up
    assert list(manifests["separate"].macs) == np.cumsum(alone).tolist()
    assert manifests["separate"].macs[-1] > manifests["joint"].macs[-1]
    assert manifests["separate"].parameters[-1] == sum(p.numel() for p in used(separate))
    assert manifests["joint"].parameters[-1] == sum(p.numel() for p in net.parameters())


def used(net: Any) -> list[torch.nn.Parameter]:
    """The parameters that some exit runs."""
    from offramp.parts import path

    parts = {}
    for exit in range(1, net.exits + 1):
        for part in path(exit):
            for parameter in inside(net).parameters_of(part, inside(net).trunk_of[exit - 1]):
                parts[id(parameter)] = parameter
    return list(parts.values())


def test_a_trial_whose_node_is_gone_or_damaged_is_named(done: Finished, tmp_path: Path) -> None:
    _, store, ids = done
    root = tmp_path / "store"
    shutil.copytree(store.root, root)
    copy = Store(root)
    (key,) = copy.read_trial(ids["joint"]).keys
    weights = root / "nodes" / key / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(Damaged, match=r"weights\.safetensors"):
        trials.load_network(copy, ids["joint"], CPU)
    copy.discard_node(key)
    with pytest.raises(Damaged, match=r"node\.json is missing"):
        trials.load_network(copy, ids["joint"], CPU)


NET = """
from torch import nn

def make_net(classes):
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )
"""


def test_a_network_of_ones_own_that_changed_since_cannot_be_loaded(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    file = tmp_path / "my_net.py"
    file.write_text(NET.replace("WIDTH", "4"))
    study = STUDY | {
        "strategies": ["two-stage"],
        "backbone": f"{file}:make_net",
        "exits": {"taps": ["1"], "head": "linear"},
        "recipe": {"epochs": 1},
    }
    plan = make_plan(spec.parse(study), CPU)
    store, _ = finish(plan, tmp_path / "store")
    (trial,) = store.trials()
    with pytest.raises(OfframpError, match=r"my_net.py \(SHA-256 [0-9a-f]{12}\);.*--trust-code"):
        trials.load_network(store, trial, CPU)
    net = trials.load_network(store, trial, CPU, trust_code=True)
    again = split_logits(net, Images(plan.data, CPU), "test", [1, 2], trials.EVALUATION_BATCH)
    assert np.array_equal(store.trial_logits(trial)["test"], again)

    mark = tmp_path / "ran"
    file.write_text(f"open({str(mark)!r}, 'w').close()\n" + NET.replace("WIDTH", "4"))
    with pytest.raises(OfframpError, match=r"my_net.py \(SHA-256 .*not what"):
        trials.load_network(store, trial, CPU, trust_code=True)
    assert not mark.exists()
    file.unlink()
    assert refusal(trials.load_network, store, trial, CPU, trust_code=True) == snapshot


CHOICE = """
from torch import nn

class Choice(nn.Sequential):
    def forward(self, x):
        return super().forward(x if x.sum() > -1e9 else -x)

def make_net(classes):
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3)
    return nn.Sequential(Choice(*layers[:2]), *layers[2:], nn.Flatten(), nn.Linear(128, classes))
"""


@pytest.mark.parametrize(
    ("text", "exits"),
    [
        (NET.replace("WIDTH", "4"), 1),
        (NET.replace("WIDTH", "4"), ["20%"]),
        (CHOICE, [["0", "1"], ["2", "3"], ["4", "5"]]),
    ],
    ids=["number", "share", "lists"],
)
def test_a_trial_keeps_the_exits_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, exits: Any
) -> None:
    file = tmp_path / "net.py"
    file.write_text(text)
    study = STUDY | {"strategies": ["two-stage"], "backbone": f"{file}:make_net", "exits": exits}
    plan = make_plan(spec.parse(study | {"recipe": {"epochs": 1}}), CPU)
    assert plan.net.exits == 2
    assert inside(plan.net).head_specs[0].kind == ("paper" if text == CHOICE else "mlp")
    store, _ = finish(plan, tmp_path / "store")
    (trial,) = store.trials()
    monkeypatch.setattr(builder, "_lighter", None)
    monkeypatch.setattr("offramp.nets.cut.spread.spread", None)
    net = trials.load_network(store, trial, CPU, trust_code=True)
    got = split_logits(net, Images(plan.data, CPU), "test", range(1, net.exits + 1), 128)
    assert np.array_equal(store.trial_logits(trial)["test"], got)


def test_uneven_classes_are_measured_beyond_accuracy(tmp_path: Path) -> None:
    study = tiny_study(["baseline"], recipe={"epochs": 1})
    plan = tiny_plan(study, tiny_data(classes=2))
    store, _ = run_all(plan, tmp_path / "store")
    (trial,) = store.trials()
    metrics = store.read_trial(trial).metrics["test"].by_name
    arrays = store.trial_logits(trial)
    assert metrics["auroc"] == tuple(auroc(arrays["test"], arrays["test_labels"]))
    table = tidy(store, [trial])
    final = table[(table["phase"] == "final") & (table["split"] == "test")]
    assert set(final["metric"]) == {"accuracy", "cross_entropy", "balanced_accuracy", "auroc", "f1"}
    assert "AUROC" in repr(show(trial, store.root))
    even = tiny_plan(study)
    store, _ = run_all(even, tmp_path / "even")
    (trial,) = store.trials()
    assert store.read_trial(trial).metrics["test"].by_name.keys() == {"accuracy", "cross_entropy"}
    assert "AUROC" not in repr(show(trial, store.root))


def test_images_are_mirrored_at_test_time_where_the_study_says_so(tmp_path: Path) -> None:
    usual, other = (tiny_plan(tiny_study(["two-stage"], test_time_flip=flip)) for flip in (False, True))
    assert set(usual.nodes) == set(other.nodes) and usual.trials[0].id != other.trials[0].id
    store, _ = run_all(usual, tmp_path)
    run_all(other, tmp_path)
    plain, mirrored = (store.read_trial(plan.trials[0].id).metrics["test"] for plan in (usual, other))
    assert "accuracy_flipped" not in plain.by_name and plain.accuracy == mirrored.accuracy
    net = trials.load_network(store, other.trials[0].id, CPU)
    test = other.data.test
    mean, std = (torch.tensor(value) for value in (other.data.mean, other.data.std))
    images = normalize(test.images, mean, std)
    with torch.no_grad():
        both = [torch.stack(net(x)) for x in (images, images.flip(3))]
    right = ((both[0] + both[1]) / 2).argmax(-1) == test.labels
    assert mirrored.by_name["accuracy_flipped"] == pytest.approx(right.float().mean(1).tolist())
    assert not torch.allclose(both[0], both[1])
    assert "test, flipped" in repr(show(other.trials[0].id, store.root))
