"""Networks that were trained elsewhere: what `adopt` makes of them is what `fit` would return."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

import offramp
from longer import long
from nets.published import BranchyNet, MSDNet, RANet, TokenViT
from offramp import Fitted
from offramp.bundle.runtime import Bundle
from refusal import refuses
from test_api import Net, Pictures, Tensors, attached, unnumbered
from wording import refusal

RECIPE = {"epochs": 4, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.01}
LIMITS: list[dict[str, Any]] = [
    {"max_accuracy_loss": 0.1},
    {"max_mean_macs": "60%"},
    {"risk": 0.2, "training_shares": True},
    {"max_accuracy_loss": 0.1, "score": "gate"},
]


@cache
def trained(strategy: str = "joint") -> Fitted:
    with torch.random.fork_rng():
        return offramp.fit(attached(), strategy, train=Tensors(300), recipe=RECIPE)


def images_of(fitted: Fitted) -> dict[str, tuple[Tensor, Tensor]]:
    """The splits that `fit` trained and held out."""
    splits: Mapping[str, Any] = fitted._data.splits
    return {name: (split.images, split.labels) for name, split in splits.items()}


def adopted(fitted: Fitted, **more: Any) -> Fitted:
    """The same weights, by way of `adopt`."""
    how = {"normalize": (fitted.mean, fitted.std), "classes": fitted._data.classes}
    return offramp.adopt(fitted.net, **{**images_of(fitted), **how, **more})


# `boosted` carries answers, `separate` has a trunk an exit, `gated` has gates, `two-stage` plain heads.
@pytest.mark.parametrize("strategy", ["two-stage", "boosted", "separate", "gated"])
def test_the_same_weights_are_the_same_network(strategy: str, tmp_path: Path) -> None:
    """By way of `fit` and of `adopt`: logits, policies, predictions and bundles, byte for byte, but for
    where they come from."""
    fit = trained(strategy)
    own = adopted(fit)
    for name in fit.logits:
        np.testing.assert_array_equal(own.logits[name], fit.logits[name])
    assert (own.accuracy, own.mean, own.std) == (fit.accuracy, fit.mean, fit.std)
    assert own.table().equals(fit.table())
    images = Tensors(50, seed=9)
    pixels = torch.stack([images[i][0] for i in range(50)])
    for limit in LIMITS:
        policies = [each.calibrate(anyway=True, **limit) for each in (fit, own)]
        assert policies[0] == policies[1]
        assert policies[0].calibration.chosen == policies[1].calibration.chosen
        first, second = (
            each.predict(pixels, policy) for each, policy in zip((fit, own), policies, strict=True)
        )
        assert torch.equal(first.logits, second.logits) and torch.equal(first.exits, second.exits)
    folders = [tmp_path / "fit", tmp_path / "adopt"]
    for each, policy, folder in zip((fit, own), policies, folders, strict=True):
        each.export(folder, policy, measure=False, anyway=True)
    files = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in folders]
    differing = {str(path) for path in files[0].keys() | files[1].keys()} - {
        str(path) for path in files[0] if files[0][path] == files[1].get(path)
    }
    assert differing == {"card.json", "card.md", "policy.json"}
    cards = [json.loads((folder / "card.json").read_text()) for folder in folders]
    assert {key for key in cards[0] if cards[0][key] != cards[1][key]} == {
        *("trial", "trial_hash", "training", "data")
    }
    assert "elsewhere" in (folders[1] / "card.md").read_text()


def test_other_weights_are_another_network(snapshot: SnapshotAssertion) -> None:
    """The negative control of the above."""
    fit = trained("two-stage")
    own = adopted(fit)
    with torch.no_grad():
        fit.net.head_parameters()[0].mul_(0.9)
    other = adopted(fit)
    with torch.no_grad():
        fit.net.head_parameters()[0].div_(0.9)
    assert other.trial != own.trial
    assert not np.array_equal(other.logits["test"][:, 0], own.logits["test"][:, 0])
    policy = own.calibrate(max_mean_macs="90%", anyway=True)
    image = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    assert unnumbered(refusal(other.predict, image, policy)) == snapshot


def test_numbers_alone_give_the_policy_of_the_network() -> None:
    fit = trained("two-stage")
    splits = {name: (fit.logits[name], fit.logits[f"{name}_labels"]) for name in ("validation", "test")}
    for limit in (LIMITS[0], LIMITS[1], LIMITS[3]):
        numbers: dict[str, Any] = {
            "logits": fit.logits["calibration"],
            "labels": fit.logits["calibration_labels"],
            "validation": splits["validation"],
            "costs": fit._trained.costs,
            "anyway": True,
            **limit,
        }
        if "max_mean_macs" in limit:  # shares are of the full network, and here of the plain one
            numbers["max_mean_macs"] = 0.6 * fit._manifest.backbone_macs
        assert offramp.calibrate(**numbers) == fit.calibrate(anyway=True, **limit)


def test_what_lacks_is_held_out_of_calibration(snapshot: SnapshotAssertion) -> None:
    fit = trained("two-stage")
    pool = Tensors(400, seed=5)
    own = offramp.adopt(fit.net, pool, normalize=(fit.mean, fit.std))
    counts = own._manifest.data.provenance.images
    assert counts["train"] == 0 and sum(counts.values()) == 400
    assert counts["calibration"] >= 2 * counts["validation"] > 0 and counts["test"] > 0
    assert own._manifest.classes == pool.classes
    line = refusal(own.calibrate, max_accuracy_loss=0.1, training_shares=True)
    assert unnumbered(line) == snapshot
    assert own.calibrate(max_accuracy_loss=0.1, anyway=True).exits == (1, 2, 3)


def test_a_store_keeps_it_for_load_and_the_command_line(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    """`load` fills a network that was attached with any weights; `calibrate` and `show` read it."""
    fit = trained("two-stage")
    own = adopted(fit, store=tmp_path, name="theirs", seed=3)
    again = adopted(fit, store=tmp_path, name="theirs", seed=3)
    assert own.trial == again.trial and own.trial.startswith("theirs-net-given-s3-")
    net = offramp.load(own.trial, store=tmp_path, net=attached())
    x = torch.randn(4, 3, 12, 12)
    for here, there in zip(net(x), own.net(x), strict=True):
        assert torch.equal(here, there)
    narrower = offramp.attach(Net(4), ["stem"], (3, 12, 12))
    assert unnumbered(refusal(offramp.load, own.trial, store=tmp_path, net=narrower)) == snapshot
    report = offramp.calibrate(
        own.trial, tmp_path, out=None, max_accuracy_loss=0.1, anyway=True, score="entropy"
    )
    assert report.policy == own.calibrate(max_accuracy_loss=0.1, anyway=True, score="entropy")
    assert report.test.images == len(own.logits["test"])
    shown = repr(offramp.show(own.trial, tmp_path))
    assert "theirs" in shown and "Trained elsewhere" in shown and "epochs" not in shown


def test_what_is_read_another_way_is_another_trial(tmp_path: Path) -> None:
    fit = trained("two-stage")
    own = adopted(fit, store=tmp_path)
    fewer = {"validation": tuple(part[:-1] for part in images_of(fit)["validation"])}
    others = [adopted(fit, store=tmp_path, **more) for more in ({"normalize": "half"}, fewer)]
    assert len({each.trial for each in (own, *others)}) == 3
    assert {path.name for path in (tmp_path / "trials").iterdir()} == {
        each.trial for each in (own, *others)
    }
    for each in others:  # each is read back as it was
        report = offramp.calibrate(each.trial, tmp_path, out=None, max_mean_macs="95%", anyway=True)
        assert report.policy == each.calibrate(max_mean_macs="95%", anyway=True)


def test_a_report_of_several(tmp_path: Path) -> None:
    for strategy in ("two-stage", "joint"):
        adopted(trained(strategy), store=tmp_path / "store", name=f"{strategy} elsewhere")
    offramp.write_report(tmp_path / "store", out=tmp_path / "page", formats="none")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "joint elsewhere" in page and "two-stage elsewhere" in page
    assert "adopted with" in page and "epochs a phase" not in page


def poisoned() -> Any:
    net = attached()
    net.head_parameters()[-1].data.fill_(float("nan"))
    return net


LAST = (torch.zeros(60, 12, 12, 3, dtype=torch.uint8), torch.arange(60) % 3)
FLOATS = (torch.rand(100, 3, 12, 12) / 2, torch.arange(100) % 3)
REFUSED: dict[str, dict[str, Any]] = {
    "one-exit": {"net": Net(), "input_shape": (3, 12, 12)},
    "no-shape": {"net": Net()},
    "no-normalization": {"normalize": None},
    "normalization-of-images-that-are-not-there": {"normalize": "train"},
    "normalized-floats": {"calibration": FLOATS, "normalize": "imagenet"},
    "pixels-as-floats": {"calibration": (FLOATS[0] * 2, FLOATS[1]), "normalize": None},
    "the-same-images-twice": {"test": Tensors(300, seed=7)},
    "calibrated-on-what-it-was-trained-on": {"train": Tensors(300, seed=7)},
    "another-size": {"calibration": (torch.zeros(60, 3, 8, 8, dtype=torch.uint8), torch.arange(60) % 3)},
    "more-classes": {"classes": ("a", "b", "c", "d")},
    "NaN": {"net": poisoned},
    "nothing": {"calibration": None},
    "gray-normalization": {"normalize": ((0.5,), (0.25,))},
    "channels-last": {"calibration": LAST},
    "channels-last-of-a-module": {"net": BranchyNet, "calibration": LAST},
    "outputs-out-of-range": {"net": BranchyNet, "input_shape": (3, 16, 16), "outputs": ["branch", "x"]},
}


@pytest.mark.parametrize("changed", REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::offramp.OfframpWarning")
def test_what_cannot_be_adopted(changed: dict[str, Any], snapshot: object) -> None:
    arguments: dict[str, Any] = {
        "net": attached,
        "calibration": Tensors(300, seed=7),
        "normalize": "imagenet",
        **changed,
    }
    net = arguments.pop("net")
    net = net() if callable(net) and not isinstance(net, nn.Module) else net
    assert refusal(offramp.adopt, net, **arguments) == snapshot


@pytest.mark.filterwarnings("ignore::offramp.OfframpWarning")
def test_a_network_at_chance_is_adopted_and_not_calibrated() -> None:
    net = attached()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    own = offramp.adopt(net, Tensors(300, seed=7), normalize="half")
    refuses("better than chance", own.calibrate, max_mean_macs="90%")
    assert net.training and all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_names_of_classes_have_the_order_of_answers(snapshot: SnapshotAssertion) -> None:
    """Labels that are words are numbered as `classes` says, or with a warning by the alphabet."""
    fit = trained("two-stage")
    words = [Pictures.classes[label] for label in Tensors(300, seed=5).labels]
    pixels = torch.stack([Tensors(300, seed=5)[i][0] for i in range(300)])
    how: dict[str, Any] = {"normalize": (fit.mean, fit.std)}
    right = offramp.adopt(fit.net, (pixels, words), classes=Pictures.classes, **how)
    assert right.accuracy[3] > 0.9
    with pytest.warns(offramp.OfframpWarning) as heard:
        wrong = offramp.adopt(fit.net, (pixels, words), **how)
    assert [str(one.message) for one in heard if "alphabet" in str(one.message)] == snapshot
    assert wrong.accuracy[3] < 0.5


def test_numbers_count_from_the_networks_first_class_also_where_no_image_shows_it() -> None:
    fit, data = trained("two-stage"), Tensors(300, seed=5)
    rows = torch.tensor([i for i, label in enumerate(data.labels) if label])
    pixels = torch.stack([data[i][0] for i in rows.tolist()])
    numbers = torch.tensor(data.labels)[rows]
    alone = offramp.adopt(fit.net, (pixels, numbers), normalize=(fit.mean, fit.std))
    assert set(numbers.tolist()) == {1, 2} and alone.accuracy[3] > 0.9
    from_one = offramp.adopt(
        fit.net,
        (torch.cat([pixels, data[0][0][None]]), torch.cat([numbers + 1, torch.ones(1).long()])),
        normalize=(fit.mean, fit.std),
    )
    assert from_one.accuracy[3] > 0.9


def test_arrays_with_channels_last_are_turned() -> None:
    """As `fit` turns them, of an attached network and of a module; a tensor is refused."""
    images, labels = larger(90, 5)
    arrays = (images.permute(0, 2, 3, 1).numpy(), labels)
    module = BranchyNet()
    first, last = (offramp.adopt(module, data, normalize="unit") for data in ((images, labels), arrays))
    np.testing.assert_array_equal(first.logits["test"], last.logits["test"])
    assert offramp.adopt(last.net, arrays, normalize="unit").accuracy == last.accuracy


def learned(module: nn.Module, steps: int = 60) -> nn.Module:
    """The module after some steps of a loop of one's own, in eval mode."""
    images = torch.stack([Tensors(300)[i][0] for i in range(300)]) / 255
    labels = torch.tensor(Tensors(300).labels)
    images = nn.functional.interpolate(images, 16)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for step in range(steps):
        rows = torch.arange(30) + 30 * (step % 10)
        returned: Any = module.train()(images[rows])
        answers = returned.values() if isinstance(returned, dict) else returned
        loss = torch.stack([nn.functional.cross_entropy(a, labels[rows]) for a in answers]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def larger(count: int, seed: int) -> tuple[Tensor, list[int]]:
    """Images of 16 px, and labels."""
    rows = Tensors(count, seed=seed)
    images = torch.stack([rows[i][0] for i in range(count)]).float()
    return nn.functional.interpolate(images, 16).to(torch.uint8), rows.labels


@pytest.mark.journey
@pytest.mark.parametrize("kind", [MSDNet, *long(RANet, BranchyNet, TokenViT)])
def test_published_networks_are_calibrated_answer_and_ship(
    kind: type[nn.Module], tmp_path: Path
) -> None:
    """By their own forward: the same answers, and images that leave run nothing more."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = learned(kind())
    own = offramp.adopt(module, larger(600, 5), normalize="unit", store=tmp_path / "store")
    assert min(own.accuracy.values()) > 0.8
    policy = own.calibrate(max_accuracy_loss=0.05, anyway=True)
    images, labels = larger(60, 6)
    answers = own.predict(images, policy)
    with torch.no_grad():
        returned: Any = module(images / 255)
    logits = torch.stack([*(returned.values() if isinstance(returned, dict) else returned)], 1)
    torch.testing.assert_close(
        answers.logits, logits[torch.arange(60), answers.exits - 1], rtol=1e-3, atol=1e-4
    )
    assert (answers.classes == torch.tensor(labels)).float().mean() > 0.8
    done = own.export(tmp_path / "bundle", policy, measure=False, anyway=True)
    assert done.card["network"]["backbone"] == kind.__name__ and done.card["check"]["images"] > 0
    shipped = Bundle(done.folder).predict(images.permute(0, 2, 3, 1).numpy())
    assert (shipped.exits == answers.exits.numpy()).all()
    if kind is not RANet:  # some of it is read by some exits only, and trains in no loop of phases
        again = offramp.load(own.trial, tmp_path / "store", net=offramp.multi_exit(kind(), (3, 16, 16)))
    else:
        again = offramp.load(own.trial, tmp_path / "store", net=kind())
    torch.testing.assert_close(again(images / 255)[0], logits[:, 0])


@pytest.mark.long
def test_a_published_network_in_int8_and_timed(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = offramp.adopt(learned(MSDNet()), larger(600, 5), normalize="unit")
    by_hand = offramp.Policy("confidence", (1, 2, 3), (0.97, 0.9, None))
    done = own.export(tmp_path / "bundle", by_hand, measure=False, anyway=True, int8=0.2)
    assert done.card["int8"]["lost"] <= 0.2
    times = own.benchmark(by_hand, batches=[4], repeats=2, seconds=0.1)
    assert {"plain", "policy", "segment 3", "head 2"} <= set(times["what"])


def test_a_network_that_a_loop_of_phases_trained() -> None:
    """`program` trains it, `adopt` takes it."""
    net = attached()
    torch.manual_seed(1)  # of dropout: else it is decided by the tests before
    images, labels = Tensors(300), torch.tensor(Tensors(300).labels)
    pixels = torch.stack([images[i][0] for i in range(300)]) / 255
    for phase in offramp.program(net, "two-stage"):
        with phase:
            optimizer = torch.optim.Adam(phase.parameters(), lr=0.01)
            for step in range(40):
                rows = torch.arange(30) + 30 * (step % 10)
                loss = phase.module(pixels[rows], labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    own = offramp.adopt(net, Tensors(500, seed=5), train=images, normalize="unit")
    assert own.accuracy[3] > 0.8, own.accuracy
    assert own.calibrate(max_accuracy_loss=0.05, training_shares=True, anyway=True).exits == (1, 2, 3)
