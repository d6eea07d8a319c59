"""Times a bundle in onnxruntime, in a process of its own: torch and onnxruntime in one process take
each other's cores. Run as `python -m offramp.infer.bundle_timing`, with what to do as JSON on standard
input; answers with JSON, or with one line on standard error and exit code 2.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import OfframpError
from offramp.infer.timing import Timing, interleaved, mixture, places, timing
from offramp.policy import scoring

ENGINE = "onnxruntime"
NEVER, ALWAYS = float("inf"), float("-inf")


@dataclass(frozen=True)
class BundleTask:
    """bundle: its folder.  plain: a graph of the backbone without exits, or None.  shares: of images
    that leave at each of the bundle's stages."""

    bundle: str
    plain: str | None
    shares: tuple[float, ...]
    batches: tuple[int, ...]
    threads: int
    repeats: int
    seconds: float


@dataclass(frozen=True)
class BundleTimes:
    """version: of onnxruntime.  unreliable: why the bundle's answers are not to be trusted, if so."""

    lines: tuple[Timing, ...]
    version: str
    unreliable: tuple[str, ...]


def measure(asked: BundleTask) -> BundleTimes:
    """Ask a new process. Raises OfframpError with what it said, such as a changed file's name."""
    command = [sys.executable, "-m", "offramp.infer.bundle_timing"]
    done = subprocess.run(command, input=json.dumps(asdict(asked)), capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise OfframpError(said[-1] if said else f"measuring {asked.bundle} failed without a word")
    answer = json.loads(done.stdout)
    lines = tuple(Timing(**each) for each in answer["lines"])
    return BundleTimes(lines, answer["version"], tuple(answer["unreliable"]))


def _measured(asked: BundleTask) -> dict[str, Any]:
    import onnxruntime

    from offramp.bundle import runtime

    bundle = runtime.Bundle(asked.bundle, asked.threads)
    if len(asked.shares) != len(bundle.stages):
        raise runtime.BundleError(f"{asked.bundle} has {len(bundle.stages)} stages; give as many shares")
    plain = None if asked.plain is None else runtime.session(Path(asked.plain), asked.threads)
    lines: list[Timing] = []
    for batch in asked.batches:
        lines += _batch(bundle, plain, batch, asked)
    about = {"version": onnxruntime.__version__, "unreliable": bundle.unreliable}
    return {"lines": [asdict(each) for each in lines], **about}


def _batch(bundle: Any, plain: Any, batch: int, asked: BundleTask) -> list[Timing]:
    height, width = bundle.preprocessing.size
    shape = (batch, bundle.preprocessing.channels, height, width)
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    stays = _ruled(bundle, [NEVER] * len(bundle.stages))
    runs: dict[str, Callable[[], object]] = {"nothing leaves": partial(stays.run, noise)}
    if plain is not None:
        runs["plain"] = partial(plain.run, None, {plain.get_inputs()[0].name: noise})
    early = any(share > 0 for share in asked.shares[:-1])
    mean = None
    if batch == 1 and early:
        for at in _seen(asked):
            alone = [ALWAYS if i == at else NEVER for i in range(len(bundle.stages))]
            runs[f"policy {at}"] = partial(_ruled(bundle, alone).run, noise)
    elif early:
        policy = _with_shares(bundle, noise, asked.shares)
        runs["policy"] = partial(policy.run, noise)
        mean = float(policy.run(noise).compute.mean()) * bundle._plain_macs
    runs |= _stage_runs(bundle, noise)
    found = interleaved(runs, lambda: None, asked.repeats, asked.seconds)
    spent = [stage.macs for stage in bundle.stages]
    lines = [timing(ENGINE, "nothing leaves", batch, found["nothing leaves"], spent[-1])]
    if plain is not None:
        lines.insert(0, timing(ENGINE, "plain", batch, found["plain"], bundle._plain_macs))
    if batch == 1 and early:
        parts = [found[f"policy {at}"] for at in _seen(asked)]
        shares = [asked.shares[at] for at in _seen(asked)]
        mean = sum(asked.shares[at] * spent[at] for at in _seen(asked))
        lines.append(mixture(ENGINE, batch, parts, shares, mean))
    elif early:
        lines.append(timing(ENGINE, "policy", batch, found["policy"], mean))
    for at, stage in enumerate(bundle.stages):
        own, name = spent[at] - (spent[at - 1] if at else 0), f"stage {stage.exit}"
        lines.append(timing(ENGINE, name, batch, found[name], own))
    return lines


def _seen(asked: BundleTask) -> list[int]:
    return [at for at, share in enumerate(asked.shares) if share > 0]


def _stage_runs(bundle: Any, noise: Any) -> dict[str, Callable[[], object]]:
    held: dict[int | None, list[Any]] = {None: [noise]}
    runs: dict[str, Callable[[], object]] = {}
    for at, stage in enumerate(bundle.stages):
        runs[f"stage {stage.exit}"] = partial(stage.run, held[stage.after])
        _, *held[at] = stage.run(held[stage.after])
    return runs


def _ruled(bundle: Any, thresholds: Sequence[float]) -> Any:
    """The same sessions under other thresholds. Scores that count, or say nothing, cannot be cut where
    one likes, so confidence stands for them."""
    twin = copy.copy(bundle)
    pairs = zip(bundle.stages, thresholds, strict=True)
    twin.stages = tuple(replace(stage, threshold=threshold) for stage, threshold in pairs)
    score = scoring.SCORES.get(bundle.score)  # the bundle's own may be one that is not here any more
    alone = score is not None and score.graded and not score.history
    twin.score = bundle.score if alone else "confidence"
    return twin


def _with_shares(bundle: Any, noise: Any, shares: Sequence[float]) -> Any:
    """Thresholds that let these images leave with these shares, or as near as their scores allow."""
    stays = _ruled(bundle, [NEVER] * len(bundle.stages))
    logits = stays.all_exits(noise)
    counts = np.bincount(places(shares, len(noise)), minlength=len(shares))
    inside = np.arange(len(noise))
    thresholds = []
    for at, stage in enumerate(stays.stages):
        sure, _ = scoring.score(stays.score, logits[inside, at], stage.temperature)
        order = np.sort(sure)[::-1]
        leaving = int(counts[at])
        threshold = float(order[leaving - 1]) if leaving and len(order) else NEVER
        thresholds.append(threshold)
        inside = inside[sure < threshold]
    return _ruled(bundle, thresholds)


def main() -> int:
    try:
        given = json.load(sys.stdin)
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        print(json.dumps(_measured(BundleTask(**tuples))))
    except Exception as error:  # whoever started this shows it, in one line
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
