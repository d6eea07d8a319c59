"""Does a call from Python cost what the command costs? Processor seconds of whole processes, in turns.

The command trains a study of the digits, one network, or builds a bundle; `run`, `fit` and `build` in
Python do the same, with torch imported after offramp or before. First on a machine that does nothing
else, then beside a process that keeps a core busy.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from benchmarks.contest import BARE, Result, against, in_turns, neighbor

BAR = 1.1
ORDERS = {"after offramp": "import offramp, torch", "before offramp": "import torch, offramp"}
STUDY = {
    "seeds": [42],
    "strategies": ["baseline", "two-stage", "joint"],
    "backbone": "digits-cnn",
    "data": "digits",
}
BUILD = ("recipe.epochs=4", "data.train_images=400")


def measure(quick: bool) -> Iterator[Result]:
    recipe = {"epochs": 3 if quick else 20, "optimizer": "adam", "learning_rate": 1e-3}
    study = {**STUDY, "recipe": recipe}
    with tempfile.TemporaryDirectory(prefix="offramp-python-") as folder:
        place = Path(folder)
        (place / "study.yaml").write_text(json.dumps(study))  # which YAML reads
        jobs = {"run": run_ways(study), "fit": fit_ways(recipe), "build": build_ways()}
        for name, ways in jobs.items():
            for machine in ("quiet", "beside a busy process"):
                with nullcontext() if machine == "quiet" else neighbor():
                    asked = {way: partial(seconds, words, place) for way, words in ways.items()}
                    turns = 1 if quick else 5
                    times = in_turns(asked, turns)
                for way in ORDERS:
                    title = (
                        f"python: {name}, torch imported {way}, {machine}, processor seconds / command"
                    )
                    best = f"{min(times[way]):.1f} s against {min(times['command']):.1f} s"
                    yield against(title, times[way], times["command"], bar=BAR, note=best)


def run_ways(study: Mapping[str, object]) -> Mapping[str, Sequence[str]]:
    """What follows `python`, for each way of running a study into `STORE`."""
    code = f"if __name__ == '__main__': offramp.run({study!r}, store='STORE', workers=1)"
    command = ("-m", "offramp", "run", "study.yaml", "--store", "STORE", "--workers", "1")
    return {"command": command, **in_python(code)}


def fit_ways(recipe: Mapping[str, object]) -> Mapping[str, Sequence[str]]:
    """One network, which the command trains from the registry and the digits, and `fit` from what it is
    given: the same network and the same images, of which it holds out as many."""
    code = f"""
from offramp.data.sources.digits import digits
from offramp.nets import NetSpec, build
train, test = ((split.images, split.labels) for split in (digits().train, digits().test))
net = build(NetSpec('digits-cnn'), (1, 8, 8), 10, 42)
offramp.fit(net, 'joint', train=train, test=test, recipe={recipe!r}, store='STORE')"""
    words = ("--strategy", "joint", "--backbone", "digits-cnn", "--data", "digits", "--workers", "1")
    settings = (word for name, value in recipe.items() for word in ("--set", f"recipe.{name}={value}"))
    command = ("-m", "offramp", "run", *words, "--store", "STORE", *settings)
    return {"command": command, **in_python(code)}


def build_ways() -> Mapping[str, Sequence[str]]:
    code = "offramp.build('digits-cnn', 'digits', 'STORE/bundle', store='STORE/runs', exits=1, "
    code += f"measure=False, max_accuracy_loss=0.05, anyway=True, settings={BUILD!r})"
    words = ("--backbone", "digits-cnn", "--data", "digits", "--out", "STORE/bundle", "--no-measure")
    words += ("--store", "STORE/runs", "--exits", "1", "--max-accuracy-loss", "0.05", "--anyway")
    settings = tuple(word for setting in BUILD for word in ("--set", setting))
    return {"command": ("-m", "offramp", "build", *words, *settings), **in_python(code)}


def in_python(code: str) -> dict[str, Sequence[str]]:
    return {way: ("-c", f"{first}\n{code}") for way, first in ORDERS.items()}


def seconds(words: Sequence[str], folder: Path) -> float:
    """Processor seconds of a process and of those that it starts. Raises RuntimeError where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in BARE}
    with tempfile.TemporaryDirectory(dir=folder) as store:
        named = [word.replace("STORE", store) for word in words]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = subprocess.run(
            [sys.executable, *named], cwd=folder, env=environment, capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if answer.returncode:
        raise RuntimeError(f"{' '.join(named)[:80]} failed: {answer.stderr[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
