"""How much of a study fits into a given time: fewer epochs, and a part of the images."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

from offramp import units
from offramp.api.reporter import Reporter
from offramp.data import Data
from offramp.errors import OfframpError
from offramp.parts import path
from offramp.study.plan import forecast
from offramp.study.plan.plan import Plan, plan_trials

MARGIN = 0.8  # of the time: what a short measurement promises is not always kept
TEST_SHARE = 0.2  # of the time, at most, goes into answers on validation, calibration and test
LEAST_OF_CLASS = 10  # training images
LEAST_EPOCHS = 3  # below these, or as many as the study asks for, networks stay near chance
LEAST_STEPS = 100  # of the optimizer, in each phase


@dataclass(frozen=True)
class Choice:
    """What fits into a time."""

    settings: tuple[str, ...]  # as of `--set`, none where all of it fits
    macs: float  # with them, evaluation included
    epochs: int  # of a phase
    images: int  # of the training split before anything is held out


def shrunk(
    plan: Plan,
    budget: float,
    device: torch.device,
    reporter: Reporter,
    anyway: bool,
    batch_size: Callable[[int], int] | None = None,
    trainings: int = 1,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Settings with which a study fits so many seconds, and why that is too short, which is refused
    unless `anyway`. trainings: how many of as much work the time is for."""
    from offramp.policy.useful import check  # takes scipy.stats, and a plan does without

    speed = forecast.measured(plan, device) / trainings
    choice = choose(plan, budget * speed)
    epochs, plan_images = plan.study.recipe.epochs, train_images(plan.data)
    settings = " ".join(choice.settings)
    means = f"the same as the settings {settings}" if settings else "all of it fits"
    if choice.images < plan_images:
        means += (
            f", {choice.epochs:,} of {epochs:,} epochs and {choice.images:,} of {plan_images:,} images"
        )
    about = f"about {units.duration(choice.macs / speed)} here, at {units.macs(speed * trainings)}MAC/s"
    reporter.say(f"A budget of {units.duration(budget)}: {means}; {about}.", must=True)
    short = too_short(plan, budget * speed, batch_size)
    weak: tuple[str, ...] = ()
    if short is not None:
        leaves, needed = short
        weak = (
            f"a budget of {units.duration(budget)} is too short: it leaves {leaves}; give about "
            f"{units.duration(needed / speed)}, or take fewer strategies or seeds",
        )
        check(weak, anyway)
    for reason in weak:
        reporter.say(f"Unreliable: {reason}.", must=True)
    return choice.settings, weak


def choose(plan: Plan, macs: float) -> Choice:
    """Epochs and images with which a plan takes fewer MACs. The share of epochs is about the square of
    that of images, which teach more; raises OfframpError where not even one epoch fits."""
    images, test, room = train_images(plan.data), len(plan.data.test), macs * MARGIN
    answers, epochs = _answers(plan), plan.study.recipe.epochs
    tested = min(test, max(1, int(TEST_SHARE * room / answers)))
    room -= answers * tested
    held_out = answers * (len(plan.data.validation) + len(plan.data.calibration))
    full: float = plan.executed + held_out

    @cache
    def work(epochs: int) -> float:
        recipe = replace(plan.study.recipe, epochs=epochs)
        study = plan.study.model_copy(update={"recipe": recipe})
        return plan_trials(study, plan.data, plan.net, plan.numerics).executed + held_out

    train, chosen = images, epochs
    if full > room:
        least = min(images, LEAST_OF_CLASS * len(plan.data.classes))
        share = max(least / images, math.cbrt(room / full))
        chosen = max(1, bisect_right(range(1, epochs + 1), room / share, key=work))
        few = min(LEAST_EPOCHS, epochs)
        if chosen < few and images * room / work(few) >= least:
            chosen = few
        train = min(images, int(images * room / work(chosen)))
        if train < least:
            raise OfframpError(
                f"not even one epoch on {least} images fits; give more time, fewer seeds or strategies"
            )
        full = work(chosen) * train / images
    changes = (
        ("recipe.epochs", chosen, epochs),
        ("data.train_images", train, images),
        ("data.test_images", tested, test),
    )
    settings = tuple(f"{name}={fits}" for name, fits, value in changes if fits != value)
    return Choice(settings, full + answers * tested, chosen, train)


def too_short(
    plan: Plan, macs: float, batch_size: Callable[[int], int] | None = None
) -> tuple[str, float] | None:
    """What `choose` leaves, if less than 3 epochs or 100 steps a phase and than the study asks, and the
    MACs that would do. batch_size: for so many training images, where the recipe does not say."""
    recipe, images = plan.study.recipe, train_images(plan.data)

    def steps(epochs: int, part: int) -> int:
        train = len(plan.data.train) * part / images
        batch = recipe.batch_size if batch_size is None else batch_size(int(train))
        return epochs * math.ceil(train / batch)

    least = min(LEAST_STEPS, steps(recipe.epochs, images))

    def learns(choice: Choice) -> bool:
        long = choice.epochs >= min(LEAST_EPOCHS, recipe.epochs)
        return long and steps(choice.epochs, choice.images) >= least

    choice = choose(plan, macs)
    if learns(choice):
        return None
    count = steps(choice.epochs, choice.images)
    words = (
        f"{units.counted(choice.epochs, 'epoch')} of {choice.images:,} images, "
        f"{count:,} {'step' if count == 1 else 'steps'} a phase, and with fewer than "
        f"{LEAST_EPOCHS} epochs or {least} steps networks stay near chance"
    )
    while not learns(choose(plan, macs)):
        macs *= 1.1
    return words, macs


def train_images(data: Data) -> int:
    """Of the training split before anything was held out, as `data.train_images` counts."""
    splits = [data.train, data.calibration]
    splits += [] if data.validation is data.test else [data.validation]
    available = data.provenance.get("available", {}).get("train", math.inf)
    return int(min(sum(map(len, splits)), available))


def _answers(plan: Plan) -> int:
    """MACs of an image through the finished networks of all trials, each with its own trunks."""
    total = 0
    for resolved in (trial.resolved for trial in plan.trials):
        run = {(resolved.owners[k - 1], part) for k in resolved.final for part in path(k)}
        total += sum(plan.net.macs(part, resolved.carry) for _, part in run)
    return total
