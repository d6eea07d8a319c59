"""What a bundle takes in onnxruntime, measured in a process of its own: torch and onnxruntime in one
process take each other's cores.

Run as `python -m offramp.infer.bundle_timing`, with a task as JSON on standard input; answers with JSON,
or with one line on standard error and exit code 2.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import OfframpError, in_line
from offramp.infer.timing import (
    PLAIN,
    POLICY,
    STAYS,
    WARM_UP,
    Effort,
    TimedCall,
    Timing,
    peak,
    places,
    resident,
)
from offramp.infer.timing import measure as timed
from offramp.meters.meter import NO_GPU, Meter, Missing, find_packages, not_measured
from offramp.policy import scoring

NEVER, ALWAYS = float("inf"), float("-inf")


@dataclass(frozen=True)
class BundleTask:
    """What to measure of a bundle."""

    bundle: str  # its folder
    plain: str | None  # a graph of the backbone without exits, or None
    shares: tuple[float, ...]  # of images that leave at each of `exits`
    batches: tuple[int, ...]  # images at once, each measured apart
    threads: int  # of onnxruntime
    repeats: int  # rounds at most
    seconds: float  # of a batch, before rounds are cut
    alone: str | None = None  # the one of WHOLE of which only memory is measured
    exits: tuple[int, ...] = ()  # the numbers of all exits of the bundle's policy


@dataclass(frozen=True)
class BundleTimes:
    """What was measured of a bundle."""

    lines: tuple[Timing, ...]  # of the plain backbone where there is one, the bundle, and its stages
    version: str  # of onnxruntime
    unreliable: tuple[str, ...]  # why the bundle's answers are not to be trusted, if so
    notes: tuple[str, ...]  # what could not be measured, and why


def measure(task: BundleTask) -> BundleTimes:
    """Measure a bundle: one new process for the times, and one more for the memory of each network and
    batch size. Raises OfframpError with the line of a process that fails."""
    answer = _in_process(task)
    lines = [Timing(**line) for line in answer["lines"]]
    early = any(line.what == POLICY for line in lines)
    for at, line in enumerate(lines):
        if line.what in ((PLAIN, POLICY) if early else (PLAIN, STAYS)):
            alone = replace(task, alone=line.what, batches=(line.batch,))
            memory = _in_process(alone if line.what == PLAIN else replace(alone, plain=None))
            lines[at] = replace(line, memory=memory["memory"])
    unreliable, notes = tuple(answer["unreliable"]), tuple(answer["notes"])
    return BundleTimes(tuple(lines), answer["version"], unreliable, notes)


def _in_process(task: BundleTask) -> dict[str, Any]:
    command = [sys.executable, "-m", "offramp.infer.bundle_timing"]
    done = subprocess.run(command, input=json.dumps(asdict(task)), capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise OfframpError(lines[-1] if lines else f"measuring {task.bundle} failed without a word")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _answer(task: BundleTask) -> dict[str, Any]:
    from offramp.bundle import runtime

    onnxruntime = runtime.load_onnxruntime()
    before = resident()
    plain = None if task.plain is None else runtime.session(Path(task.plain), task.threads)
    if task.alone == PLAIN:
        return {"memory": _memory([_plain_call(plain, task.batches[0], None)], before)}
    bundle = runtime.Bundle(task.bundle, task.threads)
    share = dict(zip(task.exits, task.shares, strict=True))
    # The stages are those of the exits where images can leave, or of all in a bundle to measure.
    shares = tuple(share[stage.exit] for stage in bundle.stages)
    if task.alone is not None:
        calls = [c for c in _policy_calls(bundle, shares, task.batches[0]) if c.what == task.alone]
        return {"memory": _memory(calls, before)}
    lines: list[Timing] = []
    with Meter(find_packages(), Missing(NO_GPU)) as meter:
        for batch in task.batches:
            calls = _calls(bundle, plain, shares, batch)
            effort = Effort(task.repeats, task.seconds)
            lines += timed("onnxruntime", calls, batch, effort, meter)[0]
        notes = not_measured(meter)
    return {
        "lines": [asdict(line) for line in lines],
        "version": onnxruntime.__version__,
        "unreliable": bundle.unreliable,
        "notes": notes,
    }


def _memory(calls: Sequence[TimedCall], before: int) -> int:
    for _ in range(1 + WARM_UP):
        for timed_call in calls:
            timed_call.call()
    return max(0, peak() - before)


def _calls(bundle: Any, plain: Any, shares: Sequence[float], batch: int) -> list[TimedCall]:
    """What there is to time of a bundle: the plain backbone, where there is a session of it,
    `_policy_calls`, and stages."""
    whole = [*_policy_calls(bundle, shares, batch)]
    if plain is not None:
        whole.insert(0, _plain_call(plain, batch, bundle.plain_macs))
    tensors: dict[int | None, list[Any]] = {None: [_noise(bundle, batch)]}
    answer: Any = None
    parts, before = [], 0
    for at, stage in enumerate(bundle.stages):
        call = partial(stage.run, tensors[stage.after], answer)
        parts.append(TimedCall(f"stage {stage.exit}", call, stage.macs - before))
        answer, *tensors[at] = call()
        before = stage.macs
    return [*whole, *parts]


def _policy_calls(bundle: Any, shares: Sequence[float], batch: int) -> Iterator[TimedCall]:
    """As `torch_timing.policy_calls`. shares: of images that leave at each stage."""
    noise, stages = _noise(bundle, batch), bundle.stages
    yield TimedCall(STAYS, partial(_under(bundle, [NEVER] * len(stages)).run, noise), stages[-1].macs)
    if not any(shares[:-1]):
        return
    if batch > 1:
        run = partial(with_shares(bundle, shares, noise).run, noise)
        yield TimedCall(POLICY, run, float(run().compute.mean()) * bundle.plain_macs)
        return
    for at, share in enumerate(shares):
        if share > 0:
            alone = _under(bundle, [ALWAYS if i == at else NEVER for i in range(len(stages))])
            yield TimedCall(POLICY, partial(alone.run, noise), stages[at].macs, share)


def with_shares(bundle: Any, shares: Sequence[float], noise: Any) -> Any:
    """A `runtime.Bundle` with thresholds that let these images leave with the shares, one a stage, or as
    near to them as scores allow."""
    stays = _under(bundle, [NEVER] * len(bundle.stages))
    logits = stays.all_exits(noise)
    counts = np.bincount(places(shares, len(noise)), minlength=len(shares))
    inside = np.arange(len(noise))
    thresholds = []
    for at, stage in enumerate(stays.stages):
        scores, _ = scoring.score(stays.score, logits[inside, at], stage.temperature, gate=stage.gate)
        order = np.sort(scores)[::-1]
        leaving = min(int(counts[at]), len(order))  # equal scores may have let more leave before
        thresholds.append(float(order[leaving - 1]) if leaving else NEVER)
        inside = inside[scores < thresholds[-1]]
    return _under(bundle, thresholds)


def _under(bundle: Any, thresholds: Sequence[float]) -> Any:
    """The same sessions under other thresholds. Scores that count, or are the same for all, cannot be
    cut where one likes, so confidence stands for them."""
    twin, score = bundle.with_thresholds(thresholds), scoring.SCORES[bundle.score]
    twin.score = bundle.score if score.graded and not score.history else "confidence"
    return twin


def _noise(bundle: Any, batch: int) -> Any:
    return _normal(batch, (bundle.preprocessing.channels, *bundle.preprocessing.size))


def _plain_call(plain: Any, batch: int, macs: int | None) -> TimedCall:
    (images,) = plain.get_inputs()
    return TimedCall(
        PLAIN, partial(plain.run, None, {images.name: _normal(batch, images.shape[1:])}), macs
    )


def _normal(batch: int, shape: Sequence[int]) -> Any:
    return np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)


def main() -> int:
    try:
        task = json.load(sys.stdin)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in task.items()}
        print(json.dumps(_answer(BundleTask(**fields))))
    except Exception as error:  # whoever started this shows it, in one line
        print(in_line(error, 2000), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
