"""What each optimization is worth: the time without it over the time with all of them.

Of a joint step, on every network of the paper: the memory format, the fused optimizer, the allocator's
thresholds, the bound on OpenMP's spinning; and what determinism and float32 cost. Of joint training:
images in memory rather than read from files. Of frozen phases: caches and fused phases. Of all nine
strategies: shared phases. A ratio of 1 is worth nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import subjects
from benchmarks.contest import (
    AS_COMMAND,
    BARE,
    Contender,
    Environment,
    Result,
    Say,
    against,
    in_turns,
    said,
)
from benchmarks.frozen_task import Task, plan_of, read_pictures, write_pictures, write_trunk
from benchmarks.step import way
from benchmarks.step_by_hand import Case
from benchmarks.subjects import Setting
from offramp.data.images.geometry import picture
from offramp.process import keep_freed_memory
from offramp.study.spec.models import ExecutionSpec

ALL = "everything on"
COSTS = ("determinism", "float32 (bfloat16 instead)")
STEPS: Mapping[str, tuple[Environment, tuple[tuple[str, Any], ...]]] = {
    ALL: (AS_COMMAND, ()),
    "channels-last": (AS_COMMAND, (("memory_format", "contiguous"),)),
    "fused optimizer": (AS_COMMAND, (("fused_optimizer", False),)),
    # Any MALLOC_ variable has the package leave the allocator alone; this one is at glibc's own value.
    "allocator's thresholds": ({**AS_COMMAND, "MALLOC_ARENA_TEST": "8"}, ()),
    "bound on OpenMP's spinning": (BARE, ()),
    COSTS[0]: (AS_COMMAND, (("deterministic", False),)),
    COSTS[1]: (AS_COMMAND, (("precision", "bfloat16"),)),
}
"""One thing that is off in each: the environment of its process, or what differs in the profile."""
EXECUTIONS: Mapping[str, Mapping[str, Any]] = {
    ALL: {},
    "cache": {"cache": False},
    "fused phases": {"fuse": False},
}
BACKBONES = {"mobilenetv1": 6, "mobilenetv2": 6, "resnet18": 4, "resnet50": 1, "vgg16": 1}
"""Steps of an epoch that is timed, by network."""


@dataclass(frozen=True)
class Scale:
    """Of the frozen phases that are timed: images that train, epochs, those of branch-wise, rounds."""

    images: int = 384
    epochs: int = 8
    branch_epochs: int = 3
    rounds: int = 2

    def of(self, strategy: str) -> int:
        return self.branch_epochs if strategy == "branch-wise" else self.epochs


def measure(quick: bool, say: Say) -> Iterator[Result]:
    cases = [Case(b, 32, 128, max(1, n // 3) if quick else n) for b, n in BACKBONES.items()]
    yield from of_steps(cases, 1 if quick else 5, say)
    for backbone in BACKBONES:
        yield from of_images(backbone, 400 if quick else 512, 1 if quick else 3, say)
        yield from of_frozen(backbone, Scale(128, 3, 2, 1) if quick else Scale(), say)
        yield from of_sharing(backbone, 200 if quick else 400, say)


def worth(of: str, where: str, times: Mapping[str, list[float]], unit: str, note: str) -> Result:
    """What `of` is worth. times: without it, and with everything; unit: of the note."""
    scale, digits = (1000, 0) if unit == "ms" else (1, 1)
    without, usual = (f"{scale * median(times[name]):.{digits}f} {unit}" for name in (of, ALL))
    note = f"{without} without, {usual} with; {note}"
    label = f"worth of {of}: {where}"
    return against(label, times[of], times[ALL], better="higher", note=note)


def of_steps(cases: list[Case], rounds: int, say: Say) -> Iterator[Result]:
    """Every network with one thing off at a time, each way in a process of its own."""
    with ExitStack() as stack:
        ways = {
            name: stack.enter_context(Contender(step, environment, numerics=numerics))
            for name, (environment, numerics) in STEPS.items()
        }
        for case in cases:
            asked = {name: partial(ask, case) for name, ask in ways.items()}
            in_turns(asked, 1)  # its first epoch has no dropout, and kernels are chosen
            times: dict[str, list[float]] = in_turns(asked, rounds)
            say(f"  {case.name}, ms a step: {said(times, 1000, 0)}")
            for name in [name for name in STEPS if name != ALL]:
                cost = "; below 1 is what it costs" if name in COSTS else ""
                note = f"batch {case.batch}, {rounds} turns{cost}"
                yield worth(name, f"a step of {case.name}", times, "ms", note)


def step(numerics: tuple[tuple[str, Any], ...]) -> Callable[[Case], float]:
    """For a contender: seconds of a step of the engine's loop."""
    engine = way("engine", numerics)
    return lambda case: engine(case).seconds


def of_images(backbone: str, images: int, rounds: int, say: Say) -> Iterator[Result]:
    """Joint training on PNG files of 32 px, kept in memory or read by worker processes every epoch."""
    with tempfile.TemporaryDirectory() as folder:
        words = write_files(Path(folder), images)
        data = f"folder:{folder}"
        setting = Setting(backbone, images, 2, strategies=("joint",), test_images=100, data=data)
        ways = {ALL: {"loader": "resident"}, "resident images": {"loader": "streaming"}}
        with Contender(seconds, AS_COMMAND, setting=setting) as ask:
            in_turns({ALL: partial(ask, ways[ALL])}, 1)  # kernels are chosen and memory is there
            times = in_turns({name: partial(ask, execution) for name, execution in ways.items()}, rounds)
    say(f"  {backbone}, images in memory or in files, seconds: {said(times)}")
    note = f"joint, {images} {words} as PNG files, 2 epochs; {rounds} turns"
    yield worth("resident images", f"joint training of {backbone}", times, "s", note)


def write_files(folder: Path, train: int) -> str:
    """A tree of image files for training and testing; returns what they show, in words."""
    words = write_pictures(folder, train, 100)
    held = read_pictures(str(folder))
    for name, split in (("train", held.train), ("test", held.test)):
        for row, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            place = folder / name / str(label)
            place.mkdir(parents=True, exist_ok=True)
            picture(image).save(place / f"{row}.png")
    return words


def seconds(setting: Setting) -> Callable[[Mapping[str, Any]], float]:
    """For a contender: seconds of all phases with settings of execution, without the first reading of
    images that stay."""
    keep_freed_memory()
    return lambda execution: subjects.trained(subjects.plan(replace(setting, execution=execution)))


def of_frozen(backbone: str, scale: Scale, say: Say) -> Iterator[Result]:
    """Frozen phases of three strategies, whose trunk is given (branch-wise trains its own)."""
    with tempfile.TemporaryDirectory() as folder:
        words = write_pictures(Path(folder), scale.images, scale.images // 2)
        write_trunk(Task(folder, backbone=backbone))
        with Contender(frozen, AS_COMMAND, folder=folder, backbone=backbone, scale=scale) as ask:
            for strategy in ("two-stage", "distillation", "branch-wise"):
                # Phases of branch-wise follow one another: none are fused.
                ways = {
                    n: e
                    for n, e in EXECUTIONS.items()
                    if (n, strategy) != ("fused phases", "branch-wise")
                }
                times = in_turns({n: partial(ask, strategy, e) for n, e in ways.items()}, scale.rounds)
                say(f"  {backbone}, {strategy}, seconds: {said(times)}")
                note = f"{scale.images} {words}, {scale.of(strategy)} epochs; {scale.rounds} turns"
                for name in [name for name in times if name != ALL]:
                    yield worth(name, f"{strategy} of {backbone}", times, "s", note)


def frozen(folder: str, backbone: str, scale: Scale) -> Callable[[str, Mapping[str, Any]], float]:
    """For a contender: seconds of the phases of a strategy, caches filled included."""
    keep_freed_memory()

    def run(strategy: str, execution: Mapping[str, Any], epochs: int | None = None) -> float:
        task = Task(folder, strategy, backbone, recipe=(("learning_rate", 1e-3),))
        plan = plan_of(task, epochs or scale.of(strategy))
        changed = plan.study.model_copy(update={"execution": ExecutionSpec(**execution)})
        return subjects.trained(replace(plan, study=changed))

    run("branch-wise", {}, 1)  # kernels are chosen and memory is there
    return run


def of_sharing(backbone: str, images: int, say: Say) -> Iterator[Result]:
    """All nine strategies, each phase once or for each of them; one turn, since it is long."""
    setting = Setting(backbone, images, epochs=2, test_images=200)
    with Contender(seconds, AS_COMMAND, setting=setting) as ask:
        ways = {ALL: {}, "shared phases": {"share": False}}
        times = in_turns({name: partial(ask, execution) for name, execution in ways.items()}, 1)
    say(f"  {backbone}, all nine, seconds: {said(times)}")
    note = f"{images} images of {subjects.pictures(setting)}, 2 epochs, one turn"
    yield worth("shared phases", f"all nine strategies on {backbone}", times, "s", note)
