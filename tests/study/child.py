"""A process that runs tiny studies, each in a fork, so that it can be killed. Orders are lines of JSON:

store: the folder.  study: arguments of `support.tiny_study`.  conduct: fields of `RunConfig`.
kill: [target, n]: the process kills itself with SIGKILL when `target` (module:attribute) is called
for the n-th time.  pause: after the first event of that kind the process says its id and waits to be
killed.  gate: a FIFO; the run starts when somebody opens it to write.
"""

import functools
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from forks import in_fork
from offramp.store.store import Store
from offramp.study.plan import caching
from offramp.study.run.run import RunConfig, run
from support import CPU, tiny_plan, tiny_study

torch.set_num_threads(1)
caching.IN_MEMORY = ()  # as in the tests that start this (conftest.py)


def arm(target: str, call: int) -> None:
    module, _, name = target.partition(":")
    *owners, attribute = name.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    original: Callable[..., Any] = getattr(owner, attribute)
    calls = 0

    @functools.wraps(original)
    def fatal(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, attribute, fatal)


def obey(order: dict[str, Any]) -> None:
    root = Path(order["store"])
    plan = tiny_plan(tiny_study(**order["study"]))
    if "kill" in order:
        arm(*order["kill"])
    if "gate" in order:
        print(json.dumps(["Ready", []]), flush=True)
        Path(order["gate"]).open().close()  # a FIFO: until somebody opens it to write
    conduct = RunConfig(CPU, root / "caches", **order.get("conduct", {}))
    for event in run(plan, Store(root), conduct):
        kind = type(event).__name__
        keys = [event.key] if hasattr(event, "key") else list(getattr(event, "keys", ()))
        print(json.dumps([kind, keys]), flush=True)
        if kind == order.get("pause"):
            print(json.dumps(["Paused", [os.getpid()]]), flush=True)
            signal.pause()


def prepare() -> None:
    """What is made here, forks have."""
    tiny_plan(tiny_study(("joint",)))


def main() -> None:
    for line in sys.stdin:
        ended = in_fork(functools.partial(obey, json.loads(line)))
        print(json.dumps(["Ended", ended]), flush=True)
