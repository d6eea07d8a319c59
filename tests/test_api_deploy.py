"""What a fitted network is good for: a policy, times and a bundle, without a store."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from torch import nn

import offramp
from longer import long
from offramp import Fitted, OfframpError, Policy
from offramp.api.fit import _pixels_to
from offramp.bundle.runtime import Bundle, measure
from offramp.data import normalize
from offramp.data.load import NORMALIZED
from offramp.infer import torch_timing
from offramp.infer.timing import Effort
from offramp.study import build as study_build
from records import changed
from refusal import refuses
from test_api import Tensors, attached
from wording import refusal

RECIPE = {"epochs": 6, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.01}
IMAGES = torch.stack([Tensors(60, seed=1)[i][0] for i in range(60)])


@pytest.fixture(scope="module", params=["joint", *long("separate")])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    with torch.random.fork_rng():
        return offramp.fit(attached(), request.param, train=Tensors(300), recipe=RECIPE)


def test_calibration_images_that_were_trained_on_are_said(
    fitted: Fitted, snapshot: SnapshotAssertion
) -> None:
    """Half of them and more `fit` refuses."""
    read = {"duplicates": {"calibration in train": 20}}
    other = replace(fitted, _manifest=changed(fitted._manifest, "data.provenance", **read))
    assert refusal(other.calibrate, max_mean_macs="99%") == snapshot
    assert not fitted._trained.doubts


def test_a_bundle_answers_as_the_fitted_network(
    fitted: Fitted, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    policy = fitted.calibrate(max_accuracy_loss=0.1, anyway=True)
    done = fitted.export(tmp_path / "bundle", policy, measure=False, anyway=True)
    assert done.card["network"]["backbone"] == "Net"
    assert (done.folder / "card.md").read_text().splitlines()[0] == snapshot
    assert done.card["check"]["what"] == snapshot
    assert done.card["calibration"]["statement"] == policy.calibration.statement
    found = Bundle(done.folder).predict(IMAGES.permute(0, 2, 3, 1).numpy())
    made = fitted.predict(IMAGES, policy)
    assert (found.exits == made.exits.numpy()).all() and (found.classes == made.classes.numpy()).all()
    assert repr(made).startswith(f"Prediction of {len(IMAGES)} images: ") and "logits" not in repr(made)
    assert repr(fitted.predict(IMAGES[:0], policy)) == snapshot
    assert repr(done) == f"Exported(folder={done.folder!r})"


def test_one_exit_alone_goes_from_calibration_to_the_card(
    fitted: Fitted, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    """With answers that all exits get right on validation and calibration, and few on test."""
    answers = {}
    for split in ("validation", "calibration", "test"):
        labels = fitted.logits[f"{split}_labels"]
        classes, exits = fitted.logits[split].shape[2], fitted.logits[split].shape[1]
        sure = 9 * np.eye(classes, dtype=np.float32)[labels]
        answers |= {split: np.stack([sure] * exits, axis=1), f"{split}_labels": labels}
    answers["test"][: len(answers["test"]) // 2, 0] *= -1
    other = replace(fitted, logits=answers)
    with pytest.warns(offramp.OfframpWarning) as heard:
        policy = other.calibrate(max_accuracy_loss=0.05)
    assert [str(one.message) for one in heard] == snapshot
    assert policy.score == "fixed"
    assert policy.calibration.statement == snapshot
    assert set(other.predict(IMAGES, policy).exits.tolist()) == {1}
    done = other.export(tmp_path / "bundle", policy, check=False, measure=False)
    assert (
        done.card["unreliable"] == [] and [e["in_bundle"] for e in done.card["exits"]][1:] == [False] * 2
    )
    above, alone = done.card["notes"]
    assert [above, alone] == snapshot
    text = (done.folder / "card.md").read_text()
    assert f"**{above}.**" in text and "Unreliable" not in text
    assert Bundle(done.folder).predict(IMAGES.permute(0, 2, 3, 1).numpy()).exits.tolist() == [1] * 60


@pytest.mark.long
@pytest.mark.parametrize("fitted", ["separate"], indirect=True)
def test_int8_and_a_device_from_python(
    fitted: Fitted, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    every = Policy("confidence", (1, 2, 3), (0.9, 0.9, None))
    done = fitted.export(tmp_path / "bundle", every, measure=False, anyway=True, int8=0.2)
    bundle = Bundle(done.folder)
    assert bundle.precision == "int8" and done.card["int8"]["lost"] <= 0.2
    found = bundle.predict(IMAGES.permute(0, 2, 3, 1).numpy())
    assert (found.classes == fitted.predict(IMAGES, every).classes.numpy()).mean() > 0.8

    (tmp_path / "times.json").write_text(json.dumps(measure(bundle, repeats=2, device="Pi 5")))
    asked: Any = {"stage_times": tmp_path / "times.json", "anyway": True}
    timed = fitted.calibrate(max_p95_latency=600.0, **asked)
    assert "Solved for Pi 5" in timed.calibration.statement
    briefly = {"measure": False, "check": False}
    reasons = refusal(fitted.export, tmp_path / "floats", timed, **briefly)
    assert re.findall(r"the times .*? there", reasons) == snapshot
    done = fitted.export(tmp_path / "ints", timed, int8=0.2, anyway=True, **briefly)
    assert not any("Pi 5 are of" in reason for reason in done.card["unreliable"])
    assert refusal(fitted.calibrate, max_p95_latency=1.0) == snapshot


def test_a_policy_set_by_hand_is_timed_and_exported_too(
    fitted: Fitted, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    by_hand = Policy("confidence", (1, 2, 3), (0.0, 0.5, None))
    times = fitted.benchmark(by_hand, batches=[4], repeats=2, seconds=0.1)
    assert {"plain", "nothing leaves", "policy", "segment 1"} <= set(times["what"])
    assert times.attrs["machine"]["device"] and set(times["batch"]) == {4}
    rows = times.set_index("what")
    assert rows["speedup"]["plain"] == 1
    assert rows["speedup"]["policy"] == rows["rate"]["policy"] / rows["rate"]["plain"]
    assert not times.isna().all().any()  # such as joules that nothing here can read
    briefly = {"measure": False, "check": False}
    assert refusal(fitted.export, tmp_path / "bundle", by_hand, **briefly) == snapshot
    done = fitted.export(tmp_path / "bundle", by_hand, anyway=True, **briefly)
    assert len(done.card["unreliable"]) == 1
    made = done.card["calibration"]
    assert made["chosen"]["leaving"] == [1.0, 0.0, 0.0] and "set by hand" in made["statement"]


def test_what_does_not_fit_is_refused(
    fitted: Fitted, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    policy = fitted.calibrate(risk=0.5, on_average=True, anyway=True)
    other = replace(policy, calibration=replace(policy.calibration, trial_hash="0" * 64))
    unmade: Any = None
    for wrong in (other, Policy("confidence", (1, 3), (0.5, None)), unmade):
        refuses("policy", fitted.export, tmp_path / "bundle", wrong)
    for wrong in (other, unmade, "nowhere.json"):
        refuses("policy", fitted.predict, IMAGES, wrong)
    assert refusal(fitted.calibrate) == snapshot
    assert not list(tmp_path.iterdir())
    policy.save(tmp_path / "policy.json")
    found = (fitted.predict(IMAGES, rule).exits for rule in (policy, str(tmp_path / "policy.json")))
    assert torch.equal(*found)


NO_LIMITS: dict[str, dict[str, Any]] = {
    "a name cut short": {"max_acc": 0.01},
    "two, one misspelled": {"maxaccloss": 1, "risk": 0.1},
    "words": {"max_mean_macs": "lots"},
    "a share as a number": {"max_mean_macs": 0.4},
    "a list": {"risk": [1]},
    "no image at once": {"max_accuracy_loss": 0.1, "batch": 0},
}


@pytest.mark.parametrize("limits", NO_LIMITS.values(), ids=NO_LIMITS)
def test_a_limit_that_is_none(fitted: Fitted, limits: Any, snapshot: SnapshotAssertion) -> None:
    assert refusal(fitted.calibrate, **limits) == snapshot


def test_a_limit_may_be_text(fitted: Fitted) -> None:
    pairs: Any = ({"max_accuracy_loss": "2%"}, {"max_accuracy_loss": 0.02})
    text, number = (fitted.calibrate(**limits, anyway=True) for limits in pairs)
    assert text == number
    plain = fitted.net.plain_macs
    text, number = (fitted.calibrate(max_mean_macs=m, anyway=True) for m in ("80%", 0.8 * plain))
    assert text == number


UNUSABLE: dict[str, Callable[[Fitted, Policy], object]] = {
    "a picture": lambda f, p: f.predict(Image.new("L", (8, 8)), p),
    "tensors in a list": lambda f, p: f.predict([IMAGES[0]], p),
    "a picture of another size": lambda f, p: f.predict([Image.new("L", (8, 9))], p),
    "one image": lambda f, p: f.predict(IMAGES.numpy()[0], p),
    "whole numbers": lambda f, p: f.predict(IMAGES.numpy().astype(int), p),
    "words": lambda f, p: f.predict(np.array(["a"]), p),
    "doubles": lambda f, p: f.predict(f.normalize(IMAGES).double(), p),
    "pixels to 1": lambda f, p: f.predict(IMAGES / 255, p),
    "pixels to 255": lambda f, p: f.predict(IMAGES.float(), p),
    "what was fitted": lambda f, p: offramp.predictor(f, p),
    "a layer": lambda _, p: offramp.predictor(nn.Linear(1, 1), p),
    "what was fitted, loaded": lambda f, _: offramp.load(f),
    "no batches": lambda f, p: f.benchmark(p, batches=[]),
    "batches of nothing": lambda f, p: f.benchmark(p, batches=0),
    "no rounds": lambda f, p: f.benchmark(p, repeats=0),
    "threads below 0": lambda f, p: f.benchmark(p, threads=-1),
}


@pytest.mark.parametrize("call", UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used(fitted: Fitted, call: Any, snapshot: SnapshotAssertion) -> None:
    assert refusal(call, fitted, Policy("confidence", (1, 2, 3), (0.5, 0.5, None))) == snapshot


def test_what_is_not_here(fitted: Fitted) -> None:
    """A store's trial, and a compiler of torch, of which versions have others."""
    refuses("compiler 'foo'", fitted.benchmark, backend="foo")
    refuses(f"no trial '{fitted.trial}'", offramp.load, fitted.trial, net=nn.Linear(1, 1))


def test_images_of_any_kind_have_the_same_answers(fitted: Fitted) -> None:
    policy, array = Policy("confidence", (1, 2, 3), (0.5, 0.5, None)), IMAGES.numpy()
    pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in array]
    wanted = fitted.predict(IMAGES, policy)
    with torch.no_grad():
        logits = torch.stack(fitted.net(fitted.normalize(IMAGES)), dim=1)
    assert torch.equal(wanted.exits, policy.leaves(logits) + 1) and set(wanted.exits.tolist()) != {3}
    for images in (array, array.transpose(0, 2, 3, 1), pictures, fitted.normalize(IMAGES)):
        found = fitted.predict(images, policy)
        assert torch.equal(found.logits, wanted.logits) and torch.equal(found.exits, wanted.exits)


def test_time_is_limited_by_what_is_measured_here(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_timing, "Effort", lambda *_: Effort(50, 10.0))  # a few rounds
    policy = fitted.calibrate(max_mean_latency=10.0, anyway=True)
    made = policy.calibration.chosen
    assert made is not None and made.stages is not None and made.stages["batch"] == 1


def test_images_that_came_normalized_make_no_bundle(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    images, labels = IMAGES.float() / 100, torch.arange(60) % 3
    fitted = offramp.fit(attached(), "joint", train=(images, labels), recipe={"epochs": 1})
    refuses(r"than chance .*anyway=", fitted.calibrate, max_disagreement=0.5)
    policy = fitted.calibrate(max_disagreement=0.5, anyway=True)
    assert fitted.predict(images, policy).classes.shape == (60,)
    assert refusal(fitted.export, tmp_path / "bundle", policy) == snapshot


def test_pixels_normalized_by_0_and_1_are_not_taken_for_floats(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    train = IMAGES, torch.arange(60) % 3
    net = attached(exits=("middle",))
    fitted = offramp.fit(net, "joint", train=train, normalize="unit", recipe={"epochs": 1})
    torch.testing.assert_close(fitted.normalize(IMAGES).cpu(), IMAGES / 255)
    policy = Policy("confidence", (1, 2), (0.4, None))
    done = fitted.export(tmp_path / "bundle", policy, measure=False, anyway=True)
    found = Bundle(done.folder).predict(
        [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in IMAGES]
    )
    answers = fitted.predict(IMAGES, policy)
    assert (found.classes == answers.classes.numpy()).all()
    assert torch.equal(fitted.predict(fitted.normalize(IMAGES), policy).logits, answers.logits)
    assert refusal(fitted.predict, IMAGES.float(), policy) == snapshot


def test_a_fitted_network_answers_until_it_is_told_to_train(fitted: Fitted) -> None:
    net, images = copy.deepcopy(fitted.net), fitted.normalize(IMAGES[:8])
    assert not any(logits.requires_grad for logits in net(images))
    net.requires_grad_(True).train()
    torch.nn.functional.cross_entropy(net(images)[-1], torch.zeros(8, dtype=torch.int64)).backward()
    assert net.backbone.out.weight.grad is not None
    assert not any(p.requires_grad for p in fitted.net.parameters())


HOW = {**NORMALIZED, "bright": ((0.5,) * 3, (0.25,) * 3), "dark": ((0.01,) * 3, (0.004,) * 3)}


@pytest.mark.parametrize("name", HOW)
def test_pictures_that_were_normalized_are_never_taken_for_pixels(name: str) -> None:
    mean, std = HOW[name]
    draw = torch.Generator().manual_seed(0)
    for low, high in ((0, 256), (0, 2), (128, 192), (130, 180), (0, 30), (200, 256), (255, 256)):
        images = torch.randint(low, high, (4, 3, 8, 8), generator=draw).to(torch.uint8)
        made = normalize(images, torch.tensor(mean), torch.tensor(std))
        assert _pixels_to(made, (mean, std)) is None
        assert _pixels_to(made[:0], (mean, std)) is None
        smooth = torch.nn.functional.avg_pool2d(made, 3)  # as scaled afterwards
        assert _pixels_to(smooth, (mean, std)) is None


@pytest.mark.parametrize("name", HOW)
def test_pixels_are_told_where_it_is_sure(name: str) -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8)).to(torch.uint8)
    ones = images / 255
    assert _pixels_to(images.float(), HOW[name]) == 255
    assert _pixels_to(ones, HOW[name]) == (None if name == "unit" else 1)
    assert _pixels_to(ones, None) is None and _pixels_to(images.float(), None) == 255
    assert _pixels_to(torch.randn(4, 3, 8, 8), HOW[name]) is None
    if name != "dark":  # whose white is at 248
        assert _pixels_to(images * 0.97, HOW[name]) == 255


def test_a_terminal_and_a_notebook_show_the_exits(fitted: Fitted, snapshot: SnapshotAssertion) -> None:
    rows = repr(fitted).splitlines()
    assert len(rows) == 1 + 2 + 3 and rows[0].replace(fitted.trial, "TRIAL") == snapshot
    assert rows[1].split()[:3] == ["exit", "place", "MACs"] and rows[2].startswith("───")
    assert fitted._repr_html_().count("<tr") == 1 + 3
    shown = f"{100 * fitted.accuracy[3]:.1f} %"
    assert shown in rows[-1] and shown in fitted._repr_html_()
    assert np.isclose(fitted.table().loc[3, "accuracy"], fitted.accuracy[3])


def test_build_plans_for_the_device_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a machine with a GPU, `device="cpu"` took the numerics of CUDA."""

    def chosen(wish: Any) -> Any:
        raise OfframpError(f"for {wish.device}")

    monkeypatch.setattr(study_build, "choose", chosen)
    for device in ("cpu", torch.device("cpu")):
        with pytest.raises(OfframpError, match=r"^for cpu$"):
            offramp.build("digits-cnn", "digits", tmp_path / "b", device=device, max_accuracy_loss=0.1)
