"""offramp trains early-exit networks in twenty ways, and compares them.

    net = offramp.attach(module, exits=["layer1", "layer2"], input_shape=(3, 32, 32))
    fitted = offramp.fit(net, "two-stage", train=dataset)
    policy = fitted.calibrate(max_accuracy_loss=0.01)
    fitted.predict(images, policy), fitted.benchmark(policy), fitted.export("bundle", policy)

    results = offramp.run("studies/demo.yaml", store="runs/demo")
    results.table(), results.figure("accuracy-compute")
    net = offramp.load(results.trials[0], store="runs/demo")
    offramp.build("resnet18", "folder:photos", "bundle", max_accuracy_loss=0.01)

Names are imported on first use, so that `import offramp` is quick.
"""

from __future__ import annotations

import typing as _typing
from os import environ as _environ

# cuBLAS is deterministic so. Torch looks once, at the first product of a process on a GPU, which may be
# the user's own: when training begins is too late.
_environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

if _typing.TYPE_CHECKING:
    from offramp.api.build import Built, build
    from offramp.api.chart import Chart
    from offramp.api.fit import Fitted, fit
    from offramp.api.load import load, predictor
    from offramp.api.run import Results, run
    from offramp.augment import Augment
    from offramp.bundle.export import Exported
    from offramp.errors import OfframpError
    from offramp.infer.predictor import Prediction, Predictor
    from offramp.nets import ExitNetwork, attach
    from offramp.parts import backbone, head, heads, segment, segments
    from offramp.phase import (
        BEFORE,
        CE,
        EWC,
        KD,
        LIVE,
        MSE,
        Features,
        Gated,
        Gates,
        Init,
        Phase,
        Survivors,
        Unsolved,
    )
    from offramp.policy.policy import Calibration, Policy
    from offramp.recipe import Recipe

    __version__: str

__all__ = [
    "BEFORE",
    "CE",
    "EWC",
    "KD",
    "LIVE",
    "MSE",
    "Augment",
    "Built",
    "Calibration",
    "Chart",
    "ExitNetwork",
    "Exported",
    "Features",
    "Fitted",
    "Gated",
    "Gates",
    "Init",
    "OfframpError",
    "Phase",
    "Policy",
    "Prediction",
    "Predictor",
    "Recipe",
    "Results",
    "Survivors",
    "Unsolved",
    "attach",
    "backbone",
    "build",
    "fit",
    "head",
    "heads",
    "load",
    "predictor",
    "run",
    "segment",
    "segments",
]

_HOMES = {
    "api.build": ("Built", "build"),
    "api.chart": ("Chart",),
    "api.fit": ("Fitted", "fit"),
    "api.load": ("load", "predictor"),
    "api.run": ("Results", "run"),
    "augment": ("Augment",),
    "bundle.export": ("Exported",),
    "errors": ("OfframpError",),
    "infer.predictor": ("Prediction", "Predictor"),
    "nets": ("ExitNetwork", "attach"),
    "parts": ("backbone", "head", "heads", "segment", "segments"),
    "phase": (
        "BEFORE",
        "CE",
        "EWC",
        "KD",
        "LIVE",
        "MSE",
        "Features",
        "Gated",
        "Gates",
        "Init",
        "Phase",
        "Survivors",
        "Unsolved",
    ),
    "policy.policy": ("Calibration", "Policy"),
    "recipe": ("Recipe",),
}

if not _typing.TYPE_CHECKING:  # a type checker would take it for a promise that any name is there

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            return version("offramp")
        from importlib import import_module

        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"offramp.{home}"), name)
        from offramp.errors import nearest

        hint = nearest(name, __all__) if not name.startswith("_") else ""
        raise AttributeError(f"module 'offramp' has no attribute '{name}'{hint}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
