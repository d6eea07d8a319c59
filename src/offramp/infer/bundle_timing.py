"""Times a bundle in onnxruntime, in a process of its own: torch and onnxruntime in one process take
each other's cores. Run as `python -m offramp.infer.bundle_timing`, with what to do as JSON on standard
input; answers with JSON, or with one line on standard error and exit code 2.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import OfframpError, in_line
from offramp.infer.footprint import Footprint, joules, peak, resident
from offramp.infer.timing import (
    PLAIN,
    POLICY,
    STAYS,
    WARM_UP,
    Effort,
    Timing,
    ToTime,
    interleaved,
    mixture,
    places,
    timing,
)
from offramp.meters import NO_GPU, Meter, Missing, find_packages, not_measured
from offramp.policy import scoring

ENGINE = "onnxruntime"
NEVER, ALWAYS = float("inf"), float("-inf")


@dataclass(frozen=True)
class BundleTask:
    """bundle: its folder.  plain: a graph of the backbone without exits, or None.  shares: of images
    that leave at each of `exits`, the numbers of all exits of its policy.  alone: the one thing of which
    only memory is measured."""

    bundle: str
    plain: str | None
    shares: tuple[float, ...]
    batches: tuple[int, ...]
    threads: int
    repeats: int
    seconds: float
    alone: str | None = None
    exits: tuple[int, ...] = ()


@dataclass(frozen=True)
class BundleTimes:
    """version: of onnxruntime.  unreliable: why the bundle's answers are not to be trusted, if so.
    notes: what could not be measured, and why."""

    lines: tuple[Timing, ...]
    version: str
    unreliable: tuple[str, ...]
    notes: tuple[str, ...]


def measure(asked: BundleTask) -> BundleTimes:
    """Ask new processes: one for the times, and one more for the memory of each network and batch size.
    Raises OfframpError with what they said, such as a changed file's name."""
    answer = _asked(asked)
    lines = [Timing(**each) for each in answer["lines"]]
    early = any(line.what == POLICY for line in lines)
    for at, line in enumerate(lines):
        if line.what in ((PLAIN, POLICY) if early else (PLAIN, STAYS)):
            alone = replace(asked, alone=line.what, batches=(line.batch,))
            told = _asked(alone if line.what == PLAIN else replace(alone, plain=None))
            lines[at] = replace(line, memory=told["memory"])
    unreliable, notes = tuple(answer["unreliable"]), tuple(answer["notes"])
    return BundleTimes(tuple(lines), answer["version"], unreliable, notes)


def _asked(task: BundleTask) -> dict[str, Any]:
    command = [sys.executable, "-m", "offramp.infer.bundle_timing"]
    done = subprocess.run(command, input=json.dumps(asdict(task)), capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise OfframpError(said[-1] if said else f"measuring {task.bundle} failed without a word")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _measured(asked: BundleTask) -> dict[str, Any]:
    import onnxruntime

    from offramp.bundle import runtime

    before = resident()
    plain = None if asked.plain is None else runtime.session(Path(asked.plain), asked.threads)
    if asked.alone == PLAIN:
        return {"memory": _memory(_plain_runs(plain, asked.batches[0]), before)}
    bundle = runtime.Bundle(asked.bundle, asked.threads)
    share = dict(zip(asked.exits, asked.shares, strict=True))
    # From here on of the stages: of the exits where images can leave, or of all in a bundle to measure.
    asked = replace(asked, shares=tuple(share[stage.exit] for stage in bundle.stages))
    if asked.alone is not None:
        noise = _noise(asked.batches[0], (bundle.preprocessing.channels, *bundle.preprocessing.size))
        return {"memory": _memory(_policy_runs(bundle, noise, asked), before)}
    lines: list[Timing] = []
    with Meter(find_packages(), Missing(NO_GPU)) as meter:
        for batch in asked.batches:
            lines += _batch(bundle, plain, batch, asked, meter)
        notes = not_measured(meter)
    return {
        "lines": [asdict(each) for each in lines],
        "version": onnxruntime.__version__,
        "unreliable": bundle.unreliable,
        "notes": notes,
    }


def _memory(runs: ToTime, before: int) -> int:
    for _ in range(1 + WARM_UP):
        for run in runs.values():
            run()
    return max(0, peak() - before)


def _noise(batch: int, shape: Sequence[int]) -> Any:
    return np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)


def _plain_runs(plain: Any, batch: int) -> ToTime:
    (given,) = plain.get_inputs()
    return {PLAIN: partial(plain.run, None, {given.name: _noise(batch, given.shape[1:])})}


def _policy_runs(bundle: Any, noise: Any, asked: BundleTask) -> ToTime:
    """The policy: for single images one run an exit that any leave at. Where none leaves early, the
    network as it is when nothing leaves."""
    if not any(share > 0 for share in asked.shares[:-1]):
        return {STAYS: partial(_ruled(bundle, [NEVER] * len(bundle.stages)).run, noise)}
    if len(noise) > 1:
        return {POLICY: partial(_with_shares(bundle, noise, asked.shares).run, noise)}
    runs: ToTime = {}
    for at in _seen(asked):
        alone = [ALWAYS if i == at else NEVER for i in range(len(bundle.stages))]
        runs[f"policy {at}"] = partial(_ruled(bundle, alone).run, noise)
    return runs


def _batch(bundle: Any, plain: Any, batch: int, asked: BundleTask, meter: Meter) -> list[Timing]:
    noise = _noise(batch, (bundle.preprocessing.channels, *bundle.preprocessing.size))
    policy = _policy_runs(bundle, noise, asked)
    stays: ToTime = {STAYS: partial(_ruled(bundle, [NEVER] * len(bundle.stages)).run, noise)}
    whole = stays if plain is None else {**_plain_runs(plain, batch), **stays}
    runs = {**whole, **policy, **_stage_runs(bundle, noise)}
    found = interleaved(runs, lambda: None, Effort(asked.repeats, asked.seconds))
    drawn = {n: Footprint(joules(run, batch, meter)) for n, run in {**whole, **policy}.items()}
    spent = [stage.macs for stage in bundle.stages]
    lines = [timing(ENGINE, STAYS, batch, found[STAYS], spent[-1], drawn[STAYS])]
    if plain is not None:
        plain_macs = bundle.plain_macs
        lines.insert(0, timing(ENGINE, PLAIN, batch, found[PLAIN], plain_macs, drawn[PLAIN]))
    if POLICY in policy:
        mean = float(policy[POLICY]().compute.mean()) * bundle.plain_macs
        lines.append(timing(ENGINE, POLICY, batch, found[POLICY], mean, drawn[POLICY]))
    elif STAYS not in policy:
        parts = [(found[f"policy {at}"], drawn[f"policy {at}"]) for at in _seen(asked)]
        shares = [asked.shares[at] for at in _seen(asked)]
        mean = sum(asked.shares[at] * spent[at] for at in _seen(asked))
        lines.append(mixture(ENGINE, parts, shares, mean))
    for at, stage in enumerate(bundle.stages):
        own, name = spent[at] - (spent[at - 1] if at else 0), f"stage {stage.exit}"
        lines.append(timing(ENGINE, name, batch, found[name], own))
    return lines


def _seen(asked: BundleTask) -> list[int]:
    return [at for at, share in enumerate(asked.shares) if share > 0]


def _stage_runs(bundle: Any, noise: Any) -> ToTime:
    held: dict[int | None, list[Any]] = {None: [noise]}
    before: Any = None
    runs: ToTime = {}
    for at, stage in enumerate(bundle.stages):
        runs[f"stage {stage.exit}"] = run = partial(stage.run, held[stage.after], before)
        before, *held[at] = run()
    return runs


def _ruled(bundle: Any, thresholds: Sequence[float]) -> Any:
    """The same sessions under other thresholds. Scores that count, or say nothing, cannot be cut where
    one likes, so confidence stands for them."""
    twin = bundle.with_thresholds(thresholds)
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
        sure, _ = scoring.score(stays.score, logits[inside, at], stage.temperature, gate=stage.gate)
        order = np.sort(sure)[::-1]
        leaving = min(int(counts[at]), len(order))  # equal scores may have let more leave before
        threshold = float(order[leaving - 1]) if leaving else NEVER
        thresholds.append(threshold)
        inside = inside[sure < threshold]
    return _ruled(bundle, thresholds)


def main() -> int:
    try:
        given = json.load(sys.stdin)
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        print(json.dumps(_measured(BundleTask(**tuples))))
    except Exception as error:  # whoever started this shows it, in one line
        print(in_line(error, 2000), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
