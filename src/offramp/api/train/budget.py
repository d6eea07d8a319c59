"""How much of a study fits into a given time: fewer epochs, and a part of the images."""

from __future__ import annotations

import math
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
    """What fits into a time.

    Attributes:
        settings: As of `--set`, none where all of it fits.
        macs: With them, evaluation included.
        epochs: Of a phase.
        images: Of the training split before anything is held out.
    """

    settings: tuple[str, ...]
    macs: float
    epochs: int
    images: int


def shrunk(
    plan: Plan,
    budget: float,
    device: torch.device,
    reporter: Reporter,
    anyway: bool,
    batch_size: Callable[[int], int] | None = None,
    trainings: int = 1,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Settings with which a study fits a time, and why the time is too short, if it is. budget: seconds
    of training; batch_size: as in `too_short`; trainings: how many of as much work the time is for.

    Raises:
        OfframpError: The time is too short, unless `anyway`.
    """
    from offramp.policy.useful import check  # takes scipy.stats, and a plan does without

    speed = forecast.measured(plan, device) / trainings
    choice = choose(plan, budget * speed)
    epochs, plan_images = plan.study.recipe.epochs, train_images(plan.data)
    settings = " ".join(choice.settings)
    means = f"the same as the settings {settings}" if settings else "all of it fits"
    if choice.images < plan_images:
        means += (
            f", {choice.epochs:,} of {epochs:,} epochs and {choice.images:,} of {plan_images:,} images "
            "(more of the epochs goes, as new images teach more than more epochs of few)"
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
    """Epochs and images with which a plan takes less than so many MACs, by a margin.

    What has to go is taken from both, more from epochs: new images teach more than more epochs of few.
    So the share of epochs is about the square of that of images, while every class keeps 10 training
    images and there are 3 epochs. Cost is taken as proportional to images, which is a little too much.
    Whether so much would learn, `too_short` says.

    Raises:
        OfframpError: Where not even one epoch fits.
    """
    room = macs * MARGIN
    images, test = train_images(plan.data), len(plan.data.test)
    answers = _answers(plan)
    testing, most = answers * test, TEST_SHARE * room
    tested = test if testing <= most else max(1, int(test * most / testing))
    room -= answers * tested
    epochs = plan.study.recipe.epochs
    held_out = answers * (len(plan.data.validation) + len(plan.data.calibration))
    full: float = plan.executed + held_out

    @cache
    def work(epochs: int) -> float:
        recipe = replace(plan.study.recipe, epochs=epochs)
        study = plan.study.model_copy(update={"recipe": recipe})
        return plan_trials(study, plan.data, plan.net, plan.numerics).executed + held_out

    settings = []
    train, chosen = images, epochs
    if full > room:
        least = min(images, LEAST_OF_CLASS * len(plan.data.classes))
        share = max(least / images, math.cbrt(room / full))
        chosen = _most(epochs, lambda e: work(e) * share <= room)
        few = min(LEAST_EPOCHS, epochs)
        if chosen < few and images * room / work(few) >= least:
            chosen = few
        train = min(images, int(images * room / work(chosen)))
        if train < least:
            times = work(1) * least / images / room
            raise OfframpError(
                f"not even one epoch on {least} images fits, which is {times:.1f} times what the budget "
                "leaves; give more time, or fewer seeds or strategies"
            )
        if chosen != epochs:
            settings.append(f"recipe.epochs={chosen}")
        if train != images:
            settings.append(f"data.train_images={train}")
        full = work(chosen) * train / images
    if tested != test:
        settings.append(f"data.test_images={tested}")
    return Choice(tuple(settings), full + answers * tested, chosen, train)


def too_short(
    plan: Plan, macs: float, batch_size: Callable[[int], int] | None = None
) -> tuple[str, float] | None:
    """Whether `choose` leaves less than 3 epochs or 100 steps a phase, and less than the study says.
    macs: what there is time for; batch_size: for so many training images, where it is not the recipe's
    for any number.

    Returns:
        That in words, and the MACs that would do; None where it is long enough.
    """
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


def _most(epochs: int, fits: Callable[[int], bool]) -> int:
    """The largest number of epochs, 1 to `epochs`, that fits; 1 where none does."""
    low, high = 1, epochs
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


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
