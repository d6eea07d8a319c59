"""offramp trains early-exit networks in every way the literature knows, and compares them.

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

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offramp.api.build import Built, build
    from offramp.api.chart import Chart
    from offramp.api.fit import Fitted, fit
    from offramp.api.load import load, predictor
    from offramp.api.run import Results, run
    from offramp.augment import Augment
    from offramp.errors import OfframpError
    from offramp.nets import ExitNetwork, attach
    from offramp.parts import backbone, head, heads, segment, segments
    from offramp.phase import BEFORE, CE, KD, Init, Phase
    from offramp.policy.policy import Calibration, Policy
    from offramp.recipe import Recipe

    __version__: str

__all__ = [
    "BEFORE",
    "CE",
    "KD",
    "Augment",
    "Built",
    "Calibration",
    "Chart",
    "ExitNetwork",
    "Fitted",
    "Init",
    "OfframpError",
    "Phase",
    "Policy",
    "Recipe",
    "Results",
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
    "errors": ("OfframpError",),
    "nets": ("ExitNetwork", "attach"),
    "parts": ("backbone", "head", "heads", "segment", "segments"),
    "phase": ("BEFORE", "CE", "KD", "Init", "Phase"),
    "policy.policy": ("Calibration", "Policy"),
    "recipe": ("Recipe",),
}

if not TYPE_CHECKING:  # a type checker would take it for a promise that any name is there

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            return version("offramp")
        for home, names in _HOMES.items():
            if name in names:
                return getattr(importlib.import_module(f"offramp.{home}"), name)
        raise AttributeError(f"module 'offramp' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
