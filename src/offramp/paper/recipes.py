"""What the paper trains, on what, and how: its section 5.3, a line a network and data set.

A declaration, so that it can be shown, turned into a study and held against the study files. Where
the paper says nothing, docs/readings.md tells what is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEEDS = (42, 43, 44, 45, 46)
STRATEGIES: tuple[str | dict[str, str], ...] = (
    "baseline",
    "joint",
    "separate",
    "branch-wise",
    "two-stage",
    "distillation",
    "joint-branch",
    "joint-two-stage",
    "pretrained-branch",
    {"name": "distillation", "as": "distillation-shared", "students": "shared"},
)
"""The nine, and distillation with students that train together: heads-only distillation and two-stage
have one and the same final exit by construction, so a tenth row shows what distilling a trunk does."""


@dataclass(frozen=True)
class PaperRecipe:
    """One line of the table; fields that `Recipe` has as well mean the same."""

    network: str  # as the paper calls it
    backbone: str
    data: str
    optimizer: str
    learning_rate: float
    epochs: int
    batch_size: int
    momentum: float | None = None
    weight_decay: float = 0.0
    schedule: str = "constant"
    patience: int | None = None
    weights: str | None = "imagenet"  # `imagenet`, or None for a random start
    size: int | None = None  # pixels a side to which images are brought; None leaves them
    augment: tuple[str, ...] = ()  # as in a study file, or nothing
    precision: str = "float32"  # of the numerics profile
    source: str = "5.1, 5.3"  # sections of the paper
    readings: str = "no schedule, no decay"  # what it leaves open, and what is taken

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.data}"

    @property
    def study(self) -> dict[str, Any]:
        """The study, in the types of YAML: what `studies/paper/NAME.yaml` says."""
        stem = {} if self.backbone == "vgg16" else {"stem": "imagenet"}  # it has no other
        weights = {"weights": self.weights} if self.weights else {}
        backbone = {"name": self.backbone, **weights, **stem} if weights or stem else self.backbone
        data = {"name": self.data, "size": self.size} if self.size else self.data
        recipe: dict[str, Any] = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
        }
        recipe |= {} if self.momentum is None else {"momentum": self.momentum}
        recipe |= {"weight_decay": self.weight_decay, "schedule": self.schedule}
        recipe |= {} if self.patience is None else {"patience": self.patience}
        return {
            "name": self.name,
            "seeds": list(SEEDS),
            "strategies": [dict(s) if isinstance(s, dict) else s for s in STRATEGIES],
            "backbone": backbone,
            "data": data,
            **({"augment": list(self.augment)} if self.augment else {}),
            "recipe": recipe,
        }


_SGD: Mapping[str, Any] = {"optimizer": "sgd", "momentum": 0.9}
_MOBILENET: Mapping[str, Any] = {"optimizer": "adam", "learning_rate": 0.001}
_RESNET: Mapping[str, Any] = {**_SGD, "learning_rate": 0.1}
_VGG: Mapping[str, Any] = {**_SGD, "learning_rate": 0.01}
_CIFAR10: Mapping[str, Any] = {"data": "cifar10", "epochs": 200, "batch_size": 128}
_CIFAR100: Mapping[str, Any] = {"data": "cifar100", "epochs": 300, "batch_size": 128}

CLASSES: Mapping[str, int] = {"cifar10": 10, "cifar100": 100, "imagenet100": 100, "chestxray14": 2}
"""Of the paper's data sets."""

RECIPES: Mapping[str, PaperRecipe] = {
    recipe.name: recipe
    for recipe in (
        PaperRecipe("E-MobileNet", "mobilenetv1", **_MOBILENET, **_CIFAR10),
        PaperRecipe("E-ResNet", "resnet50", **_RESNET, **_CIFAR10),
        PaperRecipe("E-VGG", "vgg16", **_VGG, **_CIFAR10),
        PaperRecipe("E-MobileNet", "mobilenetv1", **_MOBILENET, **_CIFAR100),
        PaperRecipe("E-ResNet", "resnet50", **_RESNET, **_CIFAR100),
        PaperRecipe("E-VGG", "vgg16", **_VGG, **_CIFAR100),
        PaperRecipe(
            "E-ResNet-18",
            "resnet18",
            "chestxray14",
            **_RESNET,
            epochs=50,
            batch_size=128,
            patience=10,
            size=224,
            source="5.2, 5.3, 7",
            readings="optimizer as E-ResNet's; split by patient",
        ),
        PaperRecipe(
            "E-MobileNetV2",
            "mobilenetv2",
            "imagenet100",
            **_SGD,
            learning_rate=0.05,
            epochs=100,
            batch_size=64,
            weight_decay=1e-4,
            schedule="cosine",
            weights=None,
            augment=("resized_crop", "flip"),
            source="5.2, 5.3, 7",
            readings="from scratch; 0.05 is the rate as used",
        ),
    )
}

AIRBENCH: Mapping[str, Any] = {
    "name": "cifar10",
    "seeds": list(SEEDS),
    "strategies": list(STRATEGIES[:9]),
    "backbone": {"name": "airbench", "width": "medium"},
    "data": "cifar10",
    "augment": {"alternating_flip": True, "crop": 2, "pad": "reflect"},
    "recipe": {
        **{"epochs": 8, "batch_size": 128, "learning_rate": 0.1875, "momentum": 0.85, "nesterov": True},
        **{"weight_decay": 0.0089, "decoupled_decay": True, "norm_bias_rate_scale": 16},
        **{"schedule": "triangular", "peak_at": 0.23, "start_factor": 0.2, "end_factor": 0.07},
        **{"label_smoothing": 0.2, "average": "lookahead", "average_every": 5},
        **{"average_decay": 0.968, "average_ramp": 3},
    },
}
"""Not the paper's: Jordan's recipe (arXiv 2404.00498) at batches of 128, as `studies/cifar10.yaml`."""

AIRBENCH93: Mapping[str, Any] = {
    "name": "airbench93",
    "seeds": [42],
    "strategies": ["baseline"],
    "backbone": {"name": "airbench", "width": "93"},
    "data": {"name": "cifar10", "validation": "test", "held_out_images": 10},
    "augment": AIRBENCH["augment"],
    "test_time_flip": True,
    "recipe": {
        **AIRBENCH["recipe"],
        **{"epochs": 11, "batch_size": 1024, "learning_rate": 1.5, "norm_bias_rate_scale": 64},
        **{"average_decay": 0.774},
    },
}
"""Jordan's own, of the plain network, as `studies/airbench93.yaml`."""

RESNET20: Mapping[str, Any] = {
    "name": "resnet20",
    "seeds": list(SEEDS),
    "strategies": list(STRATEGIES[:9]),
    "backbone": "resnet20",
    "data": "cifar10",
    "augment": {"flip": True, "crop": 4},
    "recipe": {
        **{"epochs": 16, "batch_size": 128, "learning_rate": 0.4, "momentum": 0.9, "nesterov": True},
        **{"weight_decay": 5e-4, "norm_weight_decay": 0.0, "schedule": "one-cycle", "peak_at": 0.3},
        **{"start_factor": 0.04, "end_factor": 0.0, "label_smoothing": 0.1},
        **{"average": "ema", "average_every": 5, "average_decay": 0.98},
    },
}
"""A short training of the CIFAR-size ResNet of He et al. (arXiv 1512.03385): one cycle of the rate, no
decay of normalization layers, and an average of the weights."""

DEMO: Mapping[str, Any] = {
    "name": "demo",
    "seeds": [42, 43],
    "strategies": list(STRATEGIES[:9]),
    "backbone": "digits-cnn",
    "data": "digits",
    "recipe": {"epochs": 20, "batch_size": 64, "optimizer": "adam", "learning_rate": 1e-3},
}
"""All nine strategies on data that comes with scikit-learn, as `studies/demo.yaml`."""

OTHERS: Mapping[str, Mapping[str, Any]] = {
    "demo": DEMO,
    "airbench-cifar10": AIRBENCH,
    "airbench93-cifar10": AIRBENCH93,
    "resnet20-cifar10": RESNET20,
}
"""Studies by other recipes than the paper's, by name."""
