"""A study cut down to a rehearsal: the same program on a part of the data, in minutes."""

from __future__ import annotations

from offramp.data.public_counts import DECLARED, counts_of
from offramp.study.spec.models import Study

EPOCHS = 2
TRAIN_SHARE, LEAST_OF_CLASS = 100, 10  # one image in so many, and at least so many of a class
TEST_SHARE = 10
SIZE = 64  # pixels a side, at most
SEEDS = 2


def small(study: Study) -> list[str]:
    """Settings, as of `--set`, that make a study small: two epochs, one training image in a hundred (10
    a class at least), one test image in ten, 64 px at most, two seeds.

    Of data whose counts are not known, all images, or 1,000 where the study says how many. What is
    smaller already stays. The network keeps its width: another one would be another network.
    """
    known = DECLARED.get(study.data.name)
    counts = counts_of(study.data.name, dict(study.data.options))
    train = test = 1_000
    size = study.data.size
    if counts is not None:
        classes = len(counts.train)
        train = max(sum(counts.train) // TRAIN_SHARE, LEAST_OF_CLASS * classes)
        test = sum(counts.test) // TEST_SHARE
    settings = [
        f"recipe.epochs={min(EPOCHS, study.recipe.epochs)}",
        f"seeds={list(study.seeds[:SEEDS])}",
    ]
    for name, most in (("train_images", train), ("test_images", test)):
        given = getattr(study.data, name)
        if given is not None or counts is not None:
            settings.append(f"data.{name}={min(given or most, most)}")
    if known is not None:
        size = size or known.shape[1]
    if size is not None and size > SIZE:
        settings.append(f"data.size={SIZE}")
    return settings
