"""What the report says of how runs were made, and of where they depart from the paper."""

from dataclasses import replace
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from table_evidence import TabledTrial, evidence

import records
from offramp.paper.departures import departures
from offramp.report.evidence import Evidence
from offramp.report.page.how import facts
from offramp.store.manifest import Manifest, SearchRecord
from offramp.store.record import TrialRecord
from records import changed

PAPER = {
    **{"epochs": 200, "optimizer": "sgd", "learning_rate": 0.1, "batch_size": 128},
    **{"schedule": "constant", "weight_decay": 0.0},
}


def runs_of(
    recipe: dict[str, Any] | None = None,
    augment: dict[str, Any] | None = None,
    execution: str = "plain",
    name: str = "cifar10",
    model: str = "resnet50",
    seeds: int = 5,
    classes: int = 10,
    weights: str | None = "imagenet",
) -> Evidence:
    """Trials of joint training, as the paper's on CIFAR-10 but for what is given."""
    whole = evidence([TabledTrial("joint", s, {1: 0.5}, model=model) for s in range(seeds)])
    usual = records.manifest(network={"backbone": model, "taps": None}).as_json()
    usual["data"] |= {"name": name, "augment": augment}
    usual["classes"] = [f"class {k}" for k in range(classes)]
    usual["network"]["weights"] = weights
    usual["execution"]["mode"] = execution
    usual["recipe"] |= {**PAPER, **(recipe or {})}
    manifest = Manifest.model_validate(usual)
    built = (replace(t, manifest=changed(manifest, seed=t.seed)) for t in whole.trials)
    return replace(whole, trials=tuple(built))


EPOCHS_8 = {"epochs": 8}
LARGE: dict[str, Any] = {"model": "mobilenetv2", "name": "imagenet100"}
CROPPED = {"resized_crop": [0.08, 1.0], "flip": True, "label": "resized crop, flip"}
CASES: dict[str, dict[str, Any]] = {
    "the paper's own way": {},
    "another recipe": {"recipe": {"optimizer": "adam", "learning_rate": 0.001, **EPOCHS_8}},
    "augmentation": {"recipe": EPOCHS_8, "augment": {"crop": 4, "flip": True, "label": "crop 4, flip"}},
    "the paper's augmentation": {**LARGE, "augment": CROPPED},
    "no augmentation": LARGE,
    "derived": {"execution": "derived"},
    "another network": {"model": "resnet18"},
    "its recipe": {"model": "resnet18", "recipe": {"learning_rate": 0.05, "batch_size": 64}},
    "other data": {"name": "digits"},
    "fewer seeds": {"seeds": 3},
    "random weights": {"weights": None},
}


@pytest.mark.parametrize("case", CASES)
def test_departures_from_the_paper(case: str, snapshot: SnapshotAssertion) -> None:
    """Each is named, hides no other, and is said of nothing else. Test images are always kept apart."""
    assert departures(runs_of(**CASES[case])) == snapshot


def test_validation_on_test_images_is_not_told_as_held_out(snapshot: SnapshotAssertion) -> None:
    """Nor counted among the training images, which hid that a part of them was used."""
    actual = runs_of()
    images = {"train": 30_000, "validation": 10_000, "calibration": 10_000, "test": 10_000}
    counts = {"images": images, "available": {"train": 50_000}}
    counted = [changed(trial, "manifest.data.provenance", **counts) for trial in actual.trials]
    own = tuple(changed(t, "manifest.data", validation=t.manifest.data.test) for t in counted)
    mixed = (*own[:1], *actual.trials[1:])
    assert [departures(replace(actual, trials=each)) for each in (own, mixed)] == snapshot


def test_settings_that_are_not_at_their_default_are_told() -> None:
    def training(**recipe: Any) -> str:
        return next(fact for fact in facts(runs_of(recipe)) if fact.name == "Training").values[0]

    text = training(label_smoothing=0.1, average="ema", schedule="step", step_at=[0.3, 0.6])
    for words in ("label smoothing 0.1", "average ema", "step at 0.3, 0.6"):
        assert words in text
    assert training(label_smoothing=0.0, step_at=[0.5, 0.75]) == training()


def averages(own_splits: bool = False, same_test: bool = True, search: str | None = "none") -> str:
    """What the page says that means are over."""
    whole, trials = runs_of(seeds=3), list[TrialRecord]()
    for trial in whole.trials:
        own = {"train": f"{trial.seed}", **({} if same_test else {"test": f"{trial.seed}"})}
        split = changed(trial, "manifest.data", **(own if own_splits else {}))
        over = {"recipe.learning_rate": "log(0.01, 1)"}
        record = SearchRecord(over=over, trials=9, per=search, found={"recipe.learning_rate": 0.1})
        trials.append(split if search == "none" else changed(split, "manifest", search=record))
    details = facts(replace(whole, trials=tuple(trials)))
    (text,) = next(fact for fact in details if fact.name == "Averages").values
    return text


def test_what_means_are_over_is_said(snapshot: SnapshotAssertion) -> None:
    """Weights, order, splits and test images where these differ; and settings are never."""
    texts = {
        "one split": averages(),
        "own splits, one test set": averages(own_splits=True),
        "own splits, own test images": averages(own_splits=True, same_test=False),
        "searched together": averages(search=None),
        "searched for each strategy": averages(search="strategy"),
    }
    assert texts == snapshot
    assert "the splits" not in texts["one split"].partition("not over")[0]
    assert "the splits" in texts["own splits, one test set"].partition("not over")[0]
