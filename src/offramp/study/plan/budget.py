"""How much of a study fits into a given time: fewer epochs, and a part of the images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from offramp.data import Data
from offramp.errors import OfframpError
from offramp.parts import path
from offramp.study.plan.plan import Plan, plan_trials
from offramp.units import counted

MARGIN = 0.8  # of the time: what a short measurement promises is not always kept
TEST_SHARE = 0.2  # of the time, at most, goes into answers on validation, calibration and test
LEAST_OF_CLASS = 10  # training images
LEAST_EPOCHS = 3  # below these, or as many as the study asks for, networks stay near chance
LEAST_STEPS = 100  # of the optimizer, in each phase


@dataclass(frozen=True)
class Choice:
    """settings: as of `--set`, none where all of it fits.  macs: with them, evaluation included.
    epochs: of a phase.  images: of the training split before anything is held out."""

    settings: tuple[str, ...]
    macs: float
    epochs: int
    images: int


def choose(plan: Plan, macs: float) -> Choice:
    """Epochs and images with which `plan` takes at most `macs`, a margin kept.

    What has to go is taken from epochs and images in equal proportion, while every class keeps 10
    training images. Cost is taken as proportional to images, which is a little too much.

    Raises OfframpError where not even one epoch fits. `too_short` says whether so much would learn.
    """
    room = macs * MARGIN
    images, test = _train_images(plan.data), len(plan.data.test)
    answers = _answers(plan)
    asked = answers * test
    tested = test if asked <= TEST_SHARE * room else max(1, int(test * TEST_SHARE * room / asked))
    room -= answers * tested
    epochs = plan.study.recipe.epochs
    held = answers * (len(plan.data.validation) + len(plan.data.calibration))
    full: float = plan.executed + held

    @cache
    def work(epochs: int) -> float:
        recipe = replace(plan.study.recipe, epochs=epochs)
        study = plan.study.model_copy(update={"recipe": recipe})
        return plan_trials(study, plan.data, plan.net, plan.numerics).executed + held

    settings = []
    train, chosen = images, epochs
    if full > room:
        least = min(images, LEAST_OF_CLASS * len(plan.data.classes))
        wanted = max(least / images, math.sqrt(room / full))
        chosen = _most(epochs, lambda e: work(e) * wanted <= room)
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
    """Where `choose` leaves less than 3 epochs or 100 steps a phase, and less than the study asks for:
    that in words, and the MACs that would do. batch_size: for so many training images, where it is not
    the recipe's for any number."""
    recipe, images = plan.study.recipe, _train_images(plan.data)

    def steps(epochs: int, part: int) -> int:
        train = len(plan.data.train) * part / images
        batch = recipe.batch_size if batch_size is None else batch_size(int(train))
        return epochs * math.ceil(train / batch)

    least = min(LEAST_STEPS, steps(recipe.epochs, images))

    def learns(found: Choice) -> bool:
        long = found.epochs >= min(LEAST_EPOCHS, recipe.epochs)
        return long and steps(found.epochs, found.images) >= least

    found = choose(plan, macs)
    if learns(found):
        return None
    count = steps(found.epochs, found.images)
    said = (
        f"{counted(found.epochs, 'epoch')} of {found.images:,} images, "
        f"{count:,} {'step' if count == 1 else 'steps'} a phase, and with fewer than "
        f"{LEAST_EPOCHS} epochs or {least} steps networks stay near chance"
    )
    while not learns(choose(plan, macs)):
        macs *= 1.1
    return said, macs


def _most(epochs: int, fits: Callable[[int], bool]) -> int:
    """The largest number of epochs, 1 to `epochs`, that fits; 1 where none does."""
    low, high = 1, epochs
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _train_images(data: Data) -> int:
    """Of the training split before anything was held out, as `data.train_images` counts."""
    held = [data.train, data.calibration, *([] if data.validation is data.test else [data.validation])]
    available = data.provenance.get("available", {}).get("train", math.inf)
    return int(min(sum(map(len, held)), available))


def _answers(plan: Plan) -> int:
    """MACs of an image through the finished networks of all trials, each with its own trunks."""
    total = 0
    for resolved in (trial.resolved for trial in plan.trials):
        run = {(resolved.owners[k - 1], part) for k in resolved.final for part in path(k)}
        total += sum(plan.net.macs(part, resolved.carry) for _, part in run)
    return total
