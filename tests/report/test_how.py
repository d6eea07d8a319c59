"""What the report says of how runs were made, and of where they depart from the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from syrupy.assertion import SnapshotAssertion
from table_evidence import TabledTrial, evidence

import records
from offramp.paper.departures import departures
from offramp.report.evidence import Evidence
from offramp.report.page.how import facts
from offramp.store.manifest import Manifest, SearchRecord
from offramp.store.record import TrialRecord

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
    built = (replace(t, manifest=manifest.model_copy(update={"seed": t.seed})) for t in whole.trials)
    return replace(whole, trials=tuple(built))


def departures_text(whole: Evidence) -> str:
    return " | ".join(departures(whole))


def test_the_papers_own_way_departs_only_where_test_images_are_kept_apart() -> None:
    assert [text[:10] for text in departures(runs_of())] == ["everywhere"]
    assert "test images are used once" in departures_text(runs_of())


def test_validation_on_test_images_is_not_told_as_held_out() -> None:
    """Nor counted among the training images, which hid that a part of them was used."""
    actual, trials = runs_of(), list[TrialRecord]()
    for trial in actual.trials:
        data = trial.manifest.data
        images = {"train": 30_000, "validation": 10_000, "calibration": 10_000, "test": 10_000}
        counts = data.provenance.model_copy(update={"images": images, "available": {"train": 50_000}})
        data = data.model_copy(update={"provenance": counts, "validation": data.test})
        trials.append(replace(trial, manifest=trial.manifest.model_copy(update={"data": data})))
    text = departures_text(replace(actual, trials=tuple(trials)))
    assert "40,000 of the 50,000 training images" in text and "test images are used once" not in text
    mixed = departures_text(replace(actual, trials=(*trials[:1], *actual.trials[1:])))
    assert "some trials: validation and calibration images are held out" in mixed


def test_settings_that_are_not_at_their_default_are_told() -> None:
    def training(**recipe: Any) -> str:
        return next(fact for fact in facts(runs_of(recipe)) if fact.name == "Training").values[0]

    text = training(label_smoothing=0.1, average="ema", schedule="step", step_at=[0.3, 0.6])
    for words in ("label smoothing 0.1", "average ema", "step at 0.3, 0.6"):
        assert words in text
    assert training(label_smoothing=0.0, step_at=[0.5, 0.75]) == training()


def test_another_recipe_is_named_beside_the_papers() -> None:
    text = departures_text(runs_of({"optimizer": "adam", "learning_rate": 0.001, "epochs": 8}))
    assert "optimizer adam (the paper: sgd)" in text
    assert "learning rate 0.001 (the paper: 0.1)" in text
    assert "8 epochs a phase (the paper: 200)" in text
    assert "batches" not in text and "schedule" not in text


def test_augmentation_is_named_and_hides_no_other_departure() -> None:
    augment = {"crop": 4, "flip": True, "label": "crop 4, flip"}
    text = departures_text(runs_of({"epochs": 8}, augment))
    assert "augmentation crop 4, flip (the paper: none)" in text
    assert "8 epochs a phase (the paper: 200)" in text
    assert "a data set that the paper does not have" not in text
    usual = {"resized_crop": [0.08, 1.0], "flip": True, "label": "resized crop, flip"}
    large: dict[str, Any] = {"model": "mobilenetv2", "name": "imagenet100"}
    assert "augmentation" not in departures_text(runs_of(augment=usual, **large))
    assert "augmentation none (the paper: resized_crop and flip)" in departures_text(runs_of(**large))


def test_derived_execution_departs_from_the_paper() -> None:
    assert "everywhere: derived execution" in departures_text(runs_of(execution="derived"))
    assert "derived" not in departures_text(runs_of())


def test_other_networks_data_and_seeds_are_named() -> None:
    assert "resnet18 on cifar10: a network that the paper does not train" in departures_text(
        runs_of(model="resnet18")
    )
    slower = departures_text(runs_of({"learning_rate": 0.05, "batch_size": 64}, model="resnet18"))
    assert "learning rate 0.05 (the paper on chestxray14: 0.1)" in slower and "batches" not in slower
    assert "digits: a data set that the paper does not have" in departures_text(runs_of(name="digits"))
    assert "3 seeds (the paper: 5)" in departures_text(runs_of(seeds=3))


def test_other_classes_and_weights_are_named() -> None:
    """Ten classes read as ImageNet-100, from weights that have seen them."""
    text = departures_text(runs_of(name="imagenet100", model="mobilenetv2"))
    assert "10 classes (the paper: 100)" in text
    assert "networks start from given weights (the paper: from random weights)" in text
    assert "networks start from random weights (the paper: from given weights)" in departures_text(
        runs_of(weights=None)
    )


def averages(own_splits: bool = False, same_test: bool = True, search: str | None = "none") -> str:
    """What the page says that means are over."""
    whole, trials = runs_of(seeds=3), list[TrialRecord]()
    for trial in whole.trials:
        data = trial.manifest.data
        own = {"train": f"{trial.seed}", **({} if same_test else {"test": f"{trial.seed}"})}
        data = data.model_copy(update=own if own_splits else {})
        over = {"recipe.learning_rate": "log(0.01, 1)"}
        record = SearchRecord(over=over, trials=9, per=search, found={"recipe.learning_rate": 0.1})
        changed = {"data": data, **({} if search == "none" else {"search": record})}
        trials.append(replace(trial, manifest=trial.manifest.model_copy(update=changed)))
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
