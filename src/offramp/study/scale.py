"""A study cut down to a rehearsal: the same program on a part of the data, in minutes."""

from __future__ import annotations

from offramp.data.declared import DECLARED
from offramp.study.spec import Study

EPOCHS_SHARE, LEAST_EPOCHS = 100, 2  # one in so many, and at least
TRAIN_SHARE, LEAST_OF_CLASS = 50, 10
TEST_SHARE = 10
SIZE = 64  # pixels a side, at most
SEEDS = 2


def small(study: Study) -> list[str]:
    """Settings, as of `--set`, that make a study small: one epoch in a hundred (2 at least), one
    training image in fifty (10 a class at least), one test image in ten, 64 px at most, two seeds.

    Of data whose counts are not declared, at most 1,000 images; sizes are then left as they are. What is
    smaller already stays. The network keeps its width: another one would be another network.
    """
    counts = DECLARED.get(study.data.name)
    train = test = 1_000
    size = study.data.size
    if counts is not None:
        classes = len(counts.train)
        train = max(sum(counts.train) // TRAIN_SHARE, LEAST_OF_CLASS * classes)
        test = sum(counts.test) // TEST_SHARE
        size = size or counts.shape[1]
    epochs = max(min(LEAST_EPOCHS, study.recipe.epochs), study.recipe.epochs // EPOCHS_SHARE)
    settings = [f"recipe.epochs={epochs}", f"seeds={list(study.seeds[:SEEDS])}"]
    for name, most in (("train_images", train), ("test_images", test)):
        given = getattr(study.data, name)
        if given is not None or counts is not None:
            settings.append(f"data.{name}={min(given or most, most)}")
    if size is not None and size > SIZE:
        settings.append(f"data.size={SIZE}")
    return settings
