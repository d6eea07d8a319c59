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

if _typing.TYPE_CHECKING:  # `as`, since a checker takes the name for private without it
    from offramp.api.build import Built as Built
    from offramp.api.build import build as build
    from offramp.api.chart import Chart as Chart
    from offramp.api.fit import Fitted as Fitted
    from offramp.api.fit import fit as fit
    from offramp.api.load import load as load
    from offramp.api.load import predictor as predictor
    from offramp.api.run import Results as Results
    from offramp.api.run import run as run
    from offramp.augment import Augment as Augment
    from offramp.bundle.export import Exported as Exported
    from offramp.errors import OfframpError as OfframpError
    from offramp.errors import OfframpWarning as OfframpWarning
    from offramp.infer.predictor import Prediction as Prediction
    from offramp.infer.predictor import Predictor as Predictor
    from offramp.nets import ExitNetwork as ExitNetwork
    from offramp.nets import attach as attach
    from offramp.parts import backbone as backbone
    from offramp.parts import head as head
    from offramp.parts import heads as heads
    from offramp.parts import segment as segment
    from offramp.parts import segments as segments
    from offramp.phase import BEFORE as BEFORE
    from offramp.phase import CE as CE
    from offramp.phase import EWC as EWC
    from offramp.phase import KD as KD
    from offramp.phase import LIVE as LIVE
    from offramp.phase import MSE as MSE
    from offramp.phase import Features as Features
    from offramp.phase import Gated as Gated
    from offramp.phase import Gates as Gates
    from offramp.phase import Init as Init
    from offramp.phase import Phase as Phase
    from offramp.phase import Survivors as Survivors
    from offramp.phase import Unsolved as Unsolved
    from offramp.policy.calibration import Calibration as Calibration
    from offramp.policy.policy import Policy as Policy
    from offramp.recipe import Recipe as Recipe

    __version__: str

# The same names once more, by where they are; a test compares.
_HOMES = {
    "api.build": ("Built", "build"),
    "api.chart": ("Chart",),
    "api.fit": ("Fitted", "fit"),
    "api.load": ("load", "predictor"),
    "api.run": ("Results", "run"),
    "augment": ("Augment",),
    "bundle.export": ("Exported",),
    "errors": ("OfframpError", "OfframpWarning"),
    "infer.predictor": ("Prediction", "Predictor"),
    "nets": ("ExitNetwork", "attach"),
    "parts": ("backbone", "head", "heads", "segment", "segments"),
    "phase": (
        "Phase",
        "CE",
        "KD",
        "MSE",
        "Features",
        "Gates",
        "EWC",
        "Init",
        "Survivors",
        "Unsolved",
        "Gated",
        "BEFORE",
        "LIVE",
    ),
    "policy.calibration": ("Calibration",),
    "policy.policy": ("Policy",),
    "recipe": ("Recipe",),
}

if not _typing.TYPE_CHECKING:  # a type checker would take __getattr__ for a promise of any name
    __all__ = sorted(name for names in _HOMES.values() for name in names)

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

    def __dir__():
        return [*__all__, "__version__"]
