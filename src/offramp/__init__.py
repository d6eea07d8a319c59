"""offramp trains early-exit networks in every way the literature knows, and compares them.

    net = offramp.attach(module, taps=["layer1", "layer2"], input_shape=(3, 32, 32))
    fitted = offramp.fit(net, "two-stage", train=dataset)
    results = offramp.run("studies/demo.yaml", store="runs/demo")
    net = offramp.load(results.trials[0], store="runs/demo")
    answers = offramp.predictor(net, "policy.json")(images)

Names are imported on first use, so that `import offramp` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offramp.api import Fitted, Results, attach, fit, load, predictor, run
    from offramp.errors import OfframpError

__all__ = ["Fitted", "OfframpError", "Results", "attach", "fit", "load", "predictor", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'offramp' has no attribute '{name}'")
    module = "offramp.errors" if name == "OfframpError" else "offramp.api"
    return getattr(importlib.import_module(module), name)
