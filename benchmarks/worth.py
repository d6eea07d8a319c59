"""What each optimization is worth: the time without it over the time with all of them.

Of a joint step, on every network of the paper: the memory format, the fused optimizer, the allocator's
thresholds, the bound on OpenMP's spinning; and what determinism and float32 cost. Of joint training:
images in memory rather than read from files. Of frozen phases: caches, caches in memory rather than in
files, fused phases. Of all nine strategies: shared phases. A ratio of 1 is worth nothing.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import loops, phases, runs
from benchmarks.frozen_task import (
    Task,
    cifar10,
    plan_of,
    read_pictures,
    write_pictures,
    write_trunk,
)
from benchmarks.loops import Case, Epoch
from benchmarks.runs import AS_COMMAND, BARE
from benchmarks.side import Contender, Result, in_turns, machine, ratio
from offramp import device as devices
from offramp.allocator import keep_freed_memory
from offramp.data.images.geometry import picture
from offramp.numerics import profile
from offramp.study.spec.models import ExecutionSpec

ALL = "everything on"


@dataclass(frozen=True)
class Off:
    """One thing that is off. environment: of its process.  numerics: what differs in the profile."""

    environment: Mapping[str, str | None] = field(default_factory=lambda: AS_COMMAND)
    numerics: tuple[tuple[str, Any], ...] = ()


STEPS: Mapping[str, Off] = {
    ALL: Off(),
    "channels-last": Off(numerics=(("memory_format", "contiguous"),)),
    "fused optimizer": Off(numerics=(("fused_optimizer", False),)),
    # Any MALLOC_ variable has the package leave the allocator alone; this one is at glibc's own value.
    "allocator's thresholds": Off({**AS_COMMAND, "MALLOC_ARENA_TEST": "8"}),
    "bound on OpenMP's spinning": Off(BARE),
    "determinism": Off(numerics=(("deterministic", False),)),
    "float32 (bfloat16 instead)": Off(numerics=(("precision", "bfloat16"),)),
}
CASES = (
    Case("mobilenetv1", 32, batch=128, steps=6),
    Case("mobilenetv2", 32, batch=128, steps=6),
    Case("resnet18", 32, batch=128, steps=4),
    Case("resnet50", 32, batch=128, steps=1),
    Case("vgg16", 32, batch=128, steps=1),
)


@dataclass(frozen=True)
class Scale:
    """Of the phases that are timed: images that train, epochs, and those of branch-wise."""

    images: int
    epochs: int
    branch_epochs: int
    rounds: int


EXECUTIONS: Mapping[str, Mapping[str, Any]] = {
    ALL: {},
    "cache": {"cache": False},
    "cache in memory": {"cache_memory": 0},
    "fused phases": {"fuse": False},
}
FROZEN = ("two-stage", "distillation", "branch-wise")
TEST_FILES = 100
BACKBONES = ("mobilenetv1", "mobilenetv2", "resnet18", "resnet50", "vgg16")


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    cases = [replace(case, steps=max(1, case.steps // 3)) if quick else case for case in CASES]
    yield from of_steps(cases, 1 if quick else 5, say)
    scale = Scale(128, 3, 2, 1) if quick else Scale(384, 8, 3, 2)
    for backbone in BACKBONES:
        yield from of_images(backbone, 400 if quick else 512, 1 if quick else 3, say)
        yield from of_frozen(backbone, scale, say)
        yield from of_sharing(backbone, 200 if quick else 400, say)


# A joint step


def of_steps(cases: list[Case], rounds: int, say: Callable[[str], None]) -> Iterator[Result]:
    """Every network with one thing off at a time, each way in a process of its own."""
    with ExitStack() as stack:
        ways: dict[str, Callable[..., float]] = {
            name: stack.enter_context(Contender(step, off.environment, numerics=off.numerics))
            for name, off in STEPS.items()
        }
        for case in cases:
            where = machine()
            asked = {name: partial(way, case) for name, way in ways.items()}
            in_turns(asked, 1)  # its first epoch has no dropout, and kernels are chosen
            times = in_turns(asked, rounds)
            said = ", ".join(f"{name} {1000 * statistics.median(t):.0f}" for name, t in times.items())
            say(f"  {case.name}, ms a step: {said}")
            for name in [name for name in STEPS if name != ALL]:
                yield _step(case, name, times[name], times[ALL], where)


def _step(case: Case, name: str, without: list[float], usual: list[float], where: str) -> Result:
    value, spread = ratio(without, usual)
    note = f"{_ms(without)} without, {_ms(usual)} with; batch {case.batch}, {len(usual)} turns"
    if name in ("determinism", "float32 (bfloat16 instead)"):
        note += "; below 1 is what it costs"
    return Result(f"worth of {name}: a step of {case.name}", value, None, "higher", spread, where, note)


def _ms(times: list[float]) -> str:
    return f"{1000 * statistics.median(times):.0f} ms"


def step(numerics: tuple[tuple[str, Any], ...]) -> Callable[[Case], float]:
    """For a contender: seconds of a step of the engine's loop; another case ends the one before it."""
    current: tuple[Case, Iterator[Epoch]] | None = None
    changed = replace(profile("default", devices.chosen().type), **dict(numerics))

    def run(case: Case) -> float:
        nonlocal current
        if current is None or current[0] != case:
            current = None
            current = case, loops.engine(case, changed)
        return next(current[1]).seconds

    return run


# Images in memory


def of_images(backbone: str, images: int, rounds: int, say: Callable[[str], None]) -> Iterator[Result]:
    """Joint training on PNG files of 32 px, kept in memory or read by worker processes every epoch."""
    with tempfile.TemporaryDirectory() as folder:
        words = write_files(Path(folder), images)
        setting = runs.Setting(
            backbone,
            images,
            2,
            strategies=("joint",),
            test_images=TEST_FILES,
            data=f"folder:{folder}",
        )
        where = machine()
        with Contender(joint, AS_COMMAND, setting=setting) as ask:
            took = in_turns({name: partial(ask, name) for name in ("resident", "streaming")}, rounds)
    value, spread = ratio(took["streaming"], took["resident"])
    seconds = {name: statistics.median(times) for name, times in took.items()}
    said = ", ".join(f"{name} {each:.1f}" for name, each in seconds.items())
    say(f"  {backbone}, images in memory or in files, seconds: {said}")
    note = f"{seconds['streaming']:.1f} s from files, {seconds['resident']:.1f} s with; "
    note += f"joint, {images} {words} as PNG files, 2 epochs; {rounds} turns"
    label = f"worth of resident images: joint training of {backbone}"
    yield Result(label, value, None, "higher", spread, where, note)


def write_files(folder: Path, train: int) -> str:
    """A tree of image files for training and testing; returns what they show, in words."""
    words = write_pictures(folder, cifar10(), train, TEST_FILES)
    held = read_pictures(str(folder))
    for name, split in (("train", held.train), ("test", held.test)):
        for row, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            place = folder / name / str(label)
            place.mkdir(parents=True, exist_ok=True)
            picture(image).save(place / f"{row}.png")
    return words


def joint(setting: runs.Setting) -> Callable[[Any], float]:
    """For a contender: seconds of all epochs, without the first reading of images that stay."""
    keep_freed_memory()
    plans = {
        loader: runs.plan(replace(setting, execution={"loader": loader}), "derived")
        for loader in ("resident", "streaming")
    }

    def run(loader: str) -> float:
        return sum(phases.trained(plans[loader]).values())

    run("resident")  # kernels are chosen and memory is there
    return run


# Phases on a frozen trunk


def of_frozen(backbone: str, scale: Scale, say: Callable[[str], None]) -> Iterator[Result]:
    """Frozen phases of three strategies, whose trunk is given (branch-wise trains its own)."""
    with tempfile.TemporaryDirectory() as folder:
        words = write_pictures(Path(folder), cifar10(), scale.images, scale.images // 2)
        write_trunk(Task(folder, backbone=backbone))
        with Contender(frozen, AS_COMMAND, folder=folder, backbone=backbone, scale=scale) as ask:
            for strategy in FROZEN:
                where = machine()
                offs = {
                    n: partial(ask, strategy, e) for n, e in EXECUTIONS.items() if _says(n, strategy)
                }
                times = in_turns(offs, scale.rounds)
                said = ", ".join(f"{name} {statistics.median(t):.1f}" for name, t in times.items())
                say(f"  {backbone}, {strategy}, seconds: {said}")
                epochs = _epochs(strategy, scale)
                note = f"{scale.images} {words}, {epochs} epochs; {scale.rounds} turns"
                for name in [name for name in times if name != ALL]:
                    value, spread = ratio(times[name], times[ALL])
                    took = f"{statistics.median(times[name]):.1f} s without, "
                    took += f"{statistics.median(times[ALL]):.1f} s with"
                    label = f"worth of {name}: {strategy} of {backbone}"
                    yield Result(label, value, None, "higher", spread, where, f"{took}; {note}")


def _says(name: str, strategy: str) -> bool:
    """Whether it can make a difference: phases of branch-wise follow one another, and none are fused."""
    return (name, strategy) != ("fused phases", "branch-wise")


def _epochs(strategy: str, scale: Scale) -> int:
    return scale.branch_epochs if strategy == "branch-wise" else scale.epochs


def frozen(folder: str, backbone: str, scale: Scale) -> Callable[[str, Mapping[str, Any]], float]:
    """For a contender: seconds of the phases of a strategy, caches filled included."""
    keep_freed_memory()

    def run(strategy: str, execution: Mapping[str, Any], epochs: int | None = None) -> float:
        task = Task(folder, strategy, backbone, recipe=(("learning_rate", 1e-3),))
        plan = plan_of(task, epochs or _epochs(strategy, scale))
        changed = plan.study.model_copy(update={"execution": ExecutionSpec(**execution)})
        return sum(phases.trained(replace(plan, study=changed)).values())

    run("branch-wise", {}, 1)  # kernels are chosen and memory is there
    return run


# Phases that strategies share


def of_sharing(backbone: str, images: int, say: Callable[[str], None]) -> Iterator[Result]:
    """All nine strategies, each phase once or for each of them; one turn, since it is long."""
    where = machine()
    setting = runs.Setting(backbone, images, epochs=2, test_images=200)
    with Contender(shared, AS_COMMAND, setting=setting) as ask:
        took = in_turns({ALL: partial(ask, True), "sharing": partial(ask, False)}, 1)
    value, spread = ratio(took["sharing"], took[ALL])
    say(f"  {backbone}, all nine: {took['sharing'][0]:.0f} s without sharing, {took[ALL][0]:.0f} s with")
    note = f"{took['sharing'][0]:.0f} s without, {took[ALL][0]:.0f} s with; "
    note += f"{images} images of {runs.pictures(setting)}, 2 epochs, one turn"
    label = f"worth of shared phases: all nine strategies on {backbone}"
    yield Result(label, value, None, "higher", spread, where, note)


def shared(setting: runs.Setting) -> Callable[[bool], float]:
    """For a contender: seconds of all phases."""
    keep_freed_memory()

    def run(share: bool, made: runs.Setting = setting) -> float:
        changed = replace(made, execution={"share": share})
        return sum(phases.trained(runs.plan(changed, "derived")).values())

    run(True, replace(setting, strategies=("baseline",), epochs=1))  # kernels are chosen
    return run
