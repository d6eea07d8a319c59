"""What each optimization is worth: the time without it over the time with all of them.

Of a joint step, on every network of the paper: the memory format, the fused optimizer, the allocator's
thresholds, long waits of OpenMP's threads; and what determinism and float32 cost. Of joint training:
images in memory rather than read from files. Of frozen phases: caches and fused phases. Of all nine
strategies: shared phases. A ratio of 1 is worth nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import subjects
from benchmarks.contest import (
    BARE,
    Environment,
    Result,
    against,
    contender,
    in_turns,
    together,
)
from benchmarks.frozen_contenders import Pairs, Task, pictures, plan_of, write_trunk
from benchmarks.step import way
from benchmarks.step_by_hand import Case
from benchmarks.subjects import Setting
from offramp.data.images.geometry import picture
from offramp.engine.waiting import SHORT
from offramp.process import keep_freed_memory
from offramp.study.spec.models import ExecutionSpec

ALL = "everything on"
COSTS = ("determinism", "float32 (bfloat16 instead)")
STEPS: Mapping[str, tuple[Environment, Pairs]] = {
    ALL: (BARE, ()),
    "channels-last": (BARE, (("memory_format", "contiguous"),)),
    "fused optimizer": (BARE, (("fused_optimizer", False),)),
    # Any MALLOC_ variable has the package leave the allocator alone; this one is at glibc's own value.
    "allocator's thresholds": ({**BARE, "MALLOC_ARENA_TEST": "8"}, ()),
    "long waits of OpenMP's threads": ({**BARE, "GOMP_SPINCOUNT": str(SHORT)}, ()),
    COSTS[0]: (BARE, (("deterministic", False),)),
    COSTS[1]: (BARE, (("precision", "bfloat16"),)),
}
"""One thing that is off in each: the environment of its process, or what differs in the profile."""
EXECUTIONS: Mapping[str, Mapping[str, Any]] = {
    ALL: {},
    "cache": {"cache": False},
    "fused phases": {"fuse": False},
}
BACKBONES = {"mobilenetv1": 6, "mobilenetv2": 6, "resnet18": 4, "resnet50": 1, "vgg16": 1}
"""Steps of an epoch that is timed, by network."""


def measure(quick: bool) -> Iterator[Result]:
    cases = [Case(b, 32, 128, max(1, n // 3) if quick else n) for b, n in BACKBONES.items()]
    cases.append(Case("airbench", 32, 128, 1 if quick else 3, (("width", "medium"),)))
    yield from of_steps(cases, 1 if quick else 5)
    for backbone in BACKBONES:
        yield from of_images(backbone, 400 if quick else 512, 1 if quick else 3)
        yield from of_frozen(backbone, *((128, 3, 1) if quick else (384, 8, 2)))
        yield from of_sharing(backbone, 200 if quick else 400)


def worths(times: Mapping[str, list[float]], where: str, note: str) -> Iterator[Result]:
    """What each thing is worth. times: seconds without it, by its name, and with everything."""
    for of in (name for name in times if name != ALL):
        without, usual = (f"{median(times[name]):.3g} s" for name in (of, ALL))
        more = f"{without} without, {usual} with; {note}"
        more += "; below 1 is what it costs" if of in COSTS else ""
        yield against(f"worth of {of}: {where}", times[of], times[ALL], better="higher", note=more)


def of_steps(cases: list[Case], rounds: int) -> Iterator[Result]:
    """Every network with one thing off at a time, each way in a process of its own."""
    with together({n: contender(step, e, numerics=p) for n, (e, p) in STEPS.items()}) as ways:
        for case in cases:
            in_turns(ways, 1, case)  # its first epoch has no dropout, and kernels are chosen
            times: dict[str, list[float]] = in_turns(ways, rounds, case)
            yield from worths(times, f"a step of {case.name}", f"batch {case.batch}, {rounds} turns")


def step(numerics: Pairs) -> Callable[[Case], float]:
    """For a contender: seconds of a step of the engine's loop."""
    engine = way("engine", numerics)
    return lambda case: engine(case).seconds


def of_images(backbone: str, images: int, rounds: int) -> Iterator[Result]:
    """Joint training on PNG files of 32 px, kept in memory or read by worker processes every epoch."""
    with tempfile.TemporaryDirectory() as folder:
        words = write_files(Path(folder), images)
        data = f"folder:{folder}"
        setting = Setting(backbone, images, 2, strategies=("joint",), test_images=100, data=data)
        ways = {ALL: {"loader": "resident"}, "resident images": {"loader": "streaming"}}
        times = of_execution(setting, ways, rounds, warm=True)
    note = f"joint, {images} {words} as PNG files, 2 epochs; {rounds} turns"
    yield from worths(times, f"joint training of {backbone}", note)


def write_files(folder: Path, train: int) -> str:
    """A tree of image files for training and testing; returns what they show, in words."""
    validation = pictures(train, 100)
    for name, split in (("train", validation.train), ("test", validation.test)):
        for row, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            place = folder / name / str(label)
            place.mkdir(parents=True, exist_ok=True)
            picture(image).save(place / f"{row}.png")
    return validation.name


def of_execution(
    setting: Setting, ways: Mapping[str, Mapping[str, Any]], rounds: int, warm: bool = False
) -> dict[str, list[float]]:
    """Seconds of a setting by its settings of execution, in one process."""
    with contender(seconds, BARE, setting=setting) as ask:
        if warm:
            ask(ways[ALL])  # kernels are chosen and memory is there
        return in_turns({name: partial(ask, execution) for name, execution in ways.items()}, rounds)


def seconds(setting: Setting) -> Callable[[Mapping[str, Any]], float]:
    """For a contender: seconds of all phases with settings of execution, without the first reading of
    images that stay."""
    keep_freed_memory()
    return lambda execution: subjects.trained(subjects.plan(replace(setting, execution=execution)))


def of_frozen(backbone: str, images: int, epochs: int, rounds: int) -> Iterator[Result]:
    """Frozen phases of three strategies, whose trunk is given (branch-wise trains its own)."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = (("learning_rate", 1e-3),)
        trunk = f"{folder}/trunk.safetensors"
        task = Task(trunk, images, images // 2, backbone=backbone, recipe=recipe)
        write_trunk(task)
        words = pictures(task.images, task.validation).name
        with contender(frozen, BARE, task=task) as ask:
            for strategy in ("two-stage", "distillation", "branch-wise"):
                alone = strategy == "branch-wise"  # its phases follow one another: none are fused
                length = max(2, 3 * epochs // 8) if alone else epochs
                times = in_turns(
                    {
                        name: partial(ask, strategy, execution, length)
                        for name, execution in EXECUTIONS.items()
                        if not (alone and name == "fused phases")
                    },
                    rounds,
                )
                note = f"{images} {words}, {length} epochs; {rounds} turns"
                yield from worths(times, f"{strategy} of {backbone}", note)


def frozen(task: Task) -> Callable[[str, Mapping[str, Any], int], float]:
    """For a contender: seconds of the phases of a strategy, caches filled included."""
    keep_freed_memory()

    def run(strategy: str, execution: Mapping[str, Any], epochs: int) -> float:
        plan = plan_of(replace(task, strategy=strategy), epochs)
        changed = plan.study.model_copy(update={"execution": ExecutionSpec(**execution)})
        return subjects.trained(replace(plan, study=changed))

    run("branch-wise", {}, 1)  # kernels are chosen and memory is there
    return run


def of_sharing(backbone: str, images: int) -> Iterator[Result]:
    """All nine strategies, each phase once or for each of them; one turn, since it is long."""
    setting = Setting(backbone, images, epochs=2, test_images=200)
    times = of_execution(setting, {ALL: {}, "shared phases": {"share": False}}, 1)
    note = f"{images} images of {subjects.pictures(setting)}, 2 epochs, one turn"
    yield from worths(times, f"all nine strategies on {backbone}", note)
