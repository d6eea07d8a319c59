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

from os import environ as _environ
from pathlib import Path as _Path
from types import FunctionType as _Function

# cuBLAS is deterministic so. Torch looks once, at the first product of a process on a GPU, which may be
# the user's own: when training begins is too late.
_environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

_LINES = map(str.split, _Path(__file__).with_suffix(".pyi").read_text("utf-8").splitlines())
_HOMES = {words[3]: words[1] for words in _LINES if words[:1] == ["from"]}  # modules, by name
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name == "__version__":
        from importlib.metadata import version

        return version("offramp")
    if name in _HOMES:
        from importlib import import_module

        from offramp.process import prepared

        with prepared():  # imports torch
            value = getattr(import_module(_HOMES[name]), name)
            home = _HOMES[name].startswith(("offramp.api.", "offramp.data", "offramp.nets"))
            if not (home and isinstance(value, _Function)):
                return value
            from offramp.api.checked import checked

            return checked(value)
    from offramp.errors import nearest

    hint = nearest(name, __all__) if not name.startswith("_") else ""
    raise AttributeError(f"module 'offramp' has no attribute '{name}'{hint}")


def __dir__():
    return [*__all__, "__version__"]
