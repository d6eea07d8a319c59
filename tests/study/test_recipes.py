"""The paper's recipes, and the study files that must say the same."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from longer import long_where
from offramp.api.train.recipes import snippet, study_yaml
from offramp.data import Data
from offramp.errors import OfframpError
from offramp.nets import ExitNetwork, build
from offramp.paper.recipes import OTHERS, RECIPES
from offramp.recipe import Recipe
from offramp.study.plan.plan import net_spec, plan_trials, read_data, without_weights
from offramp.study.spec import file as spec
from offramp.study.spec.file import members
from support import NUMERICS
from support import PAPER as NINE

STUDIES = Path(__file__).parents[2] / "studies"
PAPER = STUDIES / "paper"

# Section 5.3: optimizer, rate, epochs, batch.
SAID = {
    "mobilenetv1-cifar10": ("adam", 0.001, 200, 128),
    "resnet50-cifar10": ("sgd", 0.1, 200, 128),
    "vgg16-cifar10": ("sgd", 0.01, 200, 128),
    "mobilenetv1-cifar100": ("adam", 0.001, 300, 128),
    "resnet50-cifar100": ("sgd", 0.1, 300, 128),
    "vgg16-cifar100": ("sgd", 0.01, 300, 128),
    "resnet18-chestxray14": ("sgd", 0.1, 50, 128),
    "mobilenetv2-imagenet100": ("sgd", 0.05, 100, 64),
}


def test_the_table_is_the_papers() -> None:
    table = {name: (r.optimizer, r.learning_rate, r.epochs, r.batch_size) for name, r in RECIPES.items()}
    assert table == SAID
    assert {r.patience for n, r in RECIPES.items() if "chest" in n} == {10}
    assert {r.patience for n, r in RECIPES.items() if "chest" not in n} == {None}
    last = RECIPES["mobilenetv2-imagenet100"]
    assert (last.schedule, last.weight_decay, last.weights) == ("cosine", 1e-4, None)
    assert last.augment == ("resized_crop", "flip")
    assert {r.weights for r in RECIPES.values() if r is not last} == {"imagenet"}


@pytest.mark.parametrize("name", RECIPES)
def test_the_study_file_says_what_the_recipe_says(name: str) -> None:
    study = spec.read(PAPER / f"{name}.yaml")
    assert study.model_dump() == spec.parse(RECIPES[name].study).model_dump()
    assert study.model_dump() == spec.parse(yaml.safe_load(snippet(RECIPES[name]))).model_dump()
    labels = [s.label for s in study.strategies]
    assert set(labels[:-1]) == set(NINE) and labels[-1] == "distillation-shared"
    assert study.seeds == (42, 43, 44, 45, 46)


@pytest.mark.parametrize(
    "changed",
    [
        *({"learning_rate": 0.02}, {"epochs": 1}, {"momentum": 0.8}, {"patience": 3}, {"size": 96}),
        *({"weights": None}, {"augment": ("flip",)}, {"schedule": "cosine"}, {"batch_size": 64}),
    ],
    ids=str,
)
def test_a_study_file_that_says_something_else_is_noticed(changed: dict[str, Any]) -> None:
    other = replace(RECIPES["vgg16-cifar10"], **changed)
    study = spec.read(PAPER / "vgg16-cifar10.yaml")
    assert study.model_dump() != spec.parse(other.study).model_dump()


@pytest.mark.parametrize("name", RECIPES)
def test_costs_are_measured_as_written(name: str) -> None:
    full, cost = (spec.read(folder / f"{name}.yaml") for folder in (PAPER, PAPER / "cost"))
    assert cost.execution.mode == "plain" and not cost.execution.share
    assert len(cost.seeds) == 5 and cost.recipe.epochs <= 5 and cost.recipe.patience is None
    assert {s.label for s in cost.strategies} == set(NINE)
    for field in ("backbone", "exits", "data", "augment", "numerics"):
        assert getattr(cost, field) == getattr(full, field)
    assert replace(cost.recipe, epochs=full.recipe.epochs, patience=full.recipe.patience) == full.recipe


@pytest.mark.parametrize(
    ("name", "file"),
    [("airbench-cifar10", "cifar10"), ("airbench93-cifar10", "airbench93"), ("demo", "demo")],
)
def test_a_study_that_is_shipped_is_its_recipe(name: str, file: str) -> None:
    study, recipe = spec.read(STUDIES / f"{file}.yaml").model_dump(), OTHERS[name]
    assert study == spec.parse(recipe).model_dump()
    assert study == spec.parse(yaml.safe_load(study_yaml(recipe))).model_dump()
    changed = {**recipe, "recipe": {**recipe["recipe"], "epochs": 3}}
    assert study != spec.parse(changed).model_dump()


def test_recipes_show_every_option_of_short_trainings() -> None:
    studies = [spec.parse(yaml.safe_load(study_yaml(study))) for study in OTHERS.values()]
    recipes = [study.recipe for study in studies]
    assert {recipe.schedule for recipe in recipes} >= {"triangular", "one-cycle"}
    assert {recipe.average for recipe in recipes} >= {"ema", "lookahead"}
    usual = Recipe()
    for field in ("nesterov", "decoupled_decay", "norm_weight_decay", "norm_bias_rate_scale"):
        assert any(getattr(recipe, field) != getattr(usual, field) for recipe in recipes), field
    assert any(recipe.label_smoothing for recipe in recipes)
    assert any(study.augment and study.augment.alternating_flip for study in studies)
    assert any(study.test_time_flip for study in studies)


@pytest.mark.parametrize("folder", [PAPER, PAPER / "cost"])
def test_all_lists_every_study(folder: Path) -> None:
    names = [member.path.name for member in members(folder / "all.yaml")]
    assert names == [f"{name}.yaml" for name in RECIPES]


def costly(study: Path) -> bool:
    """Studies whose network others have too, but for more classes, seeds or pixels. That they can be
    read: test_task."""
    if "cost" in study.parts:
        return study.stem != "mobilenetv1-cifar10"
    larger = ("cifar100", "imagenette", "imagenette-scratch", "chest-xray")
    paper = ("mobilenetv1-cifar100", "resnet50-cifar100", "vgg16-cifar100", "resnet18-chestxray14")
    return study.stem in (*larger, *paper, "mobilenetv2-imagenet100")


@cache
def network(words: str, shape: tuple[int, int, int], classes: int) -> ExitNetwork:
    """A network of a study, its weights random, made once: `words` is the study's record of it."""
    study = spec.parse({"strategies": ["joint"], "data": "digits", **yaml.safe_load(words)})
    return build(net_spec(study, shape), shape, classes, 42)


@cache
def data_of(words: str) -> Data:
    """Data of studies as they are declared, split once: `words` is the studies' record of them."""
    study = spec.parse(
        {"strategies": ["joint"], "seeds": [42], "backbone": "digits-cnn", **yaml.safe_load(words)}
    )
    return read_data(study, provisional=True)


@pytest.mark.parametrize(
    "path",
    long_where(sorted(STUDIES.rglob("*.yaml")), costly),
    ids=lambda p: str(p.relative_to(STUDIES)),
)
def test_every_study_can_be_planned(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    if path.name == "all.yaml":  # its studies stand beside it
        assert members(path)
        return
    study = without_weights(spec.read(path))
    study = study.model_copy(update={"seeds": study.seeds[:2]})  # of the others, more of the same
    if study.data.name == "folder" or dict(study.data.options).get("wnids") == "all":
        with pytest.raises(OfframpError, match="needs its folder"):  # nobody knows what is in there
            read_data(study, provisional=True)
        study = study.model_copy(update={"data": spec.read(STUDIES / "cifar10.yaml").data})
    dumped = study.model_dump(mode="json", exclude_defaults=True, include={"data"})
    data = replace(data_of(yaml.safe_dump(dumped)), augment=study.augment)
    record = study.model_dump(mode="json", exclude_defaults=True, include={"exits"})
    backbone = {"name": study.backbone.name, **study.backbone.options}
    words = yaml.safe_dump({**record, "backbone": backbone})
    plan = plan_trials(study, data, network(words, data.shape, len(data.classes)), NUMERICS)
    assert len(plan.trials) == len(study.strategies) * len(study.seeds) and plan.executed > 0
