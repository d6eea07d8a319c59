"""`build --control` and `fit(control=…)`: a smaller plain network is trained as well."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import Cli, ok
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

import offramp
from offramp.api.fit import _smaller
from offramp.bundle.runtime import Bundle
from offramp.policy.policy import Policy
from offramp.study.build import BuildOptions, _with_members, choose
from offramp.study.plan import forecast
from offramp.study.spec.models import ControlSpec
from refusal import refuses

NET = """
from torch import nn

def make(classes, width=16):
    '''Whose first exit reads a few averages, and so knows little.'''
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(8, width, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(16 * width, classes)),
    )
"""
SETTINGS = {
    "recipe.epochs": "8",
    "recipe.learning_rate": "0.005",
    "data.train_images": "600",
    "data.test_images": "200",
    "exits.head.kind": "mlp",
    "exits.taps": "['0']",
}


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "net.py").write_text(NET)
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    named = ("--backbone", "net.py:make", "--data", "digits", "--strategy", "joint")
    return ("build", *named, "--out", "bundle", *settings)


@pytest.mark.long
def test_a_build_may_end_in_a_plain_network(cli: Cli, words: tuple[str, ...], tmp_path: Path) -> None:
    """Half of the images must leave where little is known, and a narrower network costs as little."""
    plan = cli(*words, "--dry-run")
    assert "control (--control) trains" in " ".join(plan.out.split())
    answer = ok(cli(*words, "--max-mean-macs", "60%", "--control", "--no-measure", "--json", "--anyway"))
    card = json.loads(answer.out)["card"]
    assert card["beside"]["ship"] == "plain network" and card["trial"] == card["beside"]["plain"]
    assert [exit["exit"] for exit in card["exits"]] == [2] and card["training"]["strategy"] == "baseline"
    policy, whole, plain = (line["macs"] for line in card["beside"]["networks"])
    assert plain < whole and policy < 0.65 * whole and card["test"]["mean_macs"] == plain < 0.6 * whole
    epochs = card["training"]["recipe"]["epochs"]
    assert epochs > 8  # for as much training
    text = (tmp_path / "bundle" / "card.md").read_text()
    assert "a smaller plain network" in text and "Ship the plain" in text
    images = load_digits().images[:5] * 15
    bundle = Bundle(tmp_path / "bundle")
    pictures = [Image.fromarray(image.astype("uint8")) for image in images]
    assert len(bundle.predict(pictures).labels) == 5
    again = ("export", card["trial"][-8:], "--store", "runs/build", "--out", "again", "--no-measure")
    assert cli(*again, "--trust-code").code == 0


def test_a_time_is_for_both_trainings(
    cli: Cli, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "measured", lambda *_: 1e9)
    plans = [
        json.loads(ok(cli(*words, "--set", "recipe.epochs=90", "--dry-run", "--json", *more)).out)
        for more in (("--budget", "1s"), ("--budget", "2s", "--control"))
    ]
    one, both = (plan["study"]["recipe"]["epochs"] for plan in plans)
    assert one == both < 90


def test_a_control_of_another_size_reads_images_of_that_size() -> None:
    settings = ("data.train_images=300", "recipe.epochs=1", "controls=[{size: 16, epochs: 1}]")
    chosen = choose(BuildOptions("digits-cnn", "digits", strategy="joint", settings=settings))
    policy = Policy("confidence", (chosen.plan.net.exits,), (None,))
    control = chosen.control(policy, torch.device("cpu"))
    assert chosen.plan.data.shape == (1, 8, 8) and control.data.shape == (1, 16, 16)
    assert control.data.test.labels.equal(chosen.plan.data.test.labels)


def test_frozen_weights_have_no_smaller_network() -> None:
    wish = BuildOptions("digits-cnn", "digits", strategy="joint")
    chosen = choose(wish)
    for control in (True, False):
        study = chosen.plan.study.model_copy(
            update={"controls": () if control else (ControlSpec(options={"width": 1}),)}
        )
        named = replace(chosen, plan=replace(chosen.plan, study=study))
        refuses("frozen", _with_members, replace(wish, keep_frozen=True, control=control), named)


def test_no_control_may_be_written_as_none() -> None:
    """As it is read of what was fitted without one."""
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 9))
    net = offramp.attach(module, exits=["0"], input_shape=(1, 8, 8))
    assert _smaller(net, None) is None


def digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [count, 1, 8, 8] uint8, and their labels."""
    given = load_digits()
    images = torch.tensor(given.images[:count] * 15).to(torch.uint8)[:, None]
    return images, torch.tensor(given.target[:count])


@pytest.fixture(scope="module")
def fitted() -> offramp.Fitted:
    make: dict[str, object] = {}
    exec(NET, make)
    module = make["make"](10)  # type: ignore[operator]
    net = offramp.attach(module, exits=["0"], input_shape=(1, 8, 8), head="mlp")
    recipe = offramp.Recipe(epochs=4, optimizer="adam", learning_rate=0.005, batch_size=32)
    given = {"train": digits(600), "recipe": recipe, "watch": False}
    with pytest.raises(offramp.OfframpError, match="give a smaller module: control=SmallNet"):
        offramp.fit(net, "joint", control=True, **given)  # type: ignore[arg-type]
    return offramp.fit(net, "joint", control=make["make"](10, 6), **given)  # type: ignore


def test_fit_trains_a_smaller_module_as_well(fitted: offramp.Fitted) -> None:
    assert fitted.control is not None and list(fitted.control.accuracy) == [1]
    policy = fitted.calibrate(max_mean_macs="50%")
    own = fitted.beside(policy)
    assert own.ship == "plain network" and own.plain == fitted.control.trial
    refuses("no smaller plain", fitted.control.beside, policy)
    refuses("give a policy", fitted.export, "other")


def test_fit_finds_a_smaller_member_of_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`control=True`: of a network with a name. Its trial can be made anew from its record."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    net = offramp.attach("net.py:make", ["0"], (1, 8, 8), classes=10, head="mlp")
    fitted = offramp.fit(
        net,
        "joint",
        train=digits(900),
        recipe={"epochs": 3, "warmup_epochs": 2, "optimizer": "adam", "learning_rate": 0.005},
        store="runs",
        control=True,
        watch=False,
    )
    assert fitted.control is not None and list(fitted.control.accuracy) == [1]
    own = fitted.beside(fitted.calibrate(max_mean_macs="50%"))
    _, whole, plain = own.networks
    assert "width" in plain.network and plain.macs < whole.macs and own.plain == fitted.control.trial
    assert fitted.control.history["epoch"].max() > 3  # for as much training
    again = offramp.load(fitted.control.trial, store="runs", trust_code=True)
    assert [tuple(logits.shape) for logits in again(torch.zeros(3, 1, 8, 8))] == [(3, 10)]


@pytest.mark.long
def test_either_can_be_exported(fitted: offramp.Fitted, tmp_path: Path) -> None:
    assert fitted.control is not None
    policy = fitted.calibrate(max_mean_macs="50%")
    card = fitted.export(tmp_path / "exits", policy, measure=False, check=False).card
    assert card["beside"]["ship"] == "plain network"
    plain = fitted.control.export(tmp_path / "plain", measure=False, check=False).card
    assert "beside" not in plain and len(plain["exits"]) == 1
