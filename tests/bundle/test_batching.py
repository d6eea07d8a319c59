"""Images of many requests in the queues before stages: the same answers, and no image waits for good."""

import random
import threading
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_kit import noise

from offramp.bundle.runtime import Bundle, StageInput, joined
from offramp.serve import batcher
from offramp.serve.batcher import (
    PASSES,
    Batcher,
    ImageGroup,
    StageQueues,
    WaitingImage,
    full_batch,
    full_batches,
)

HOUR = 3600.0
KINDS = ["bundle", "together", "cascade", "gated"]


def group(count: int, arrived: float = 0.0) -> ImageGroup:
    """Images that nobody waits for; each is its own number."""
    images = StageInput({None: [np.arange(count)]})
    return ImageGroup(images, tuple(WaitingImage(arrived, Future()) for _ in range(count)))


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_several_batches_are_answered_as_each_alone(kind: str, leaving: Path) -> None:
    """What stays of batches of one to five meets in another order before each stage."""
    bundle, chance = Bundle(leaving.with_name(kind), threads=1), random.Random(0)
    pixels = noise(40)
    cuts = [0, 1, 3, 6, 10, 15, 20, 25, 30, 35, 40]
    here = [(list(range(a, b)), StageInput({None: [pixels[a:b]]})) for a, b in pairwise(cuts)]
    answers: dict[int, tuple[Any, ...]] = {}
    met = 0
    for at in range(len(bundle.stages)):
        onward = []
        chance.shuffle(here)
        for some in (here[::2], here[1::2]):
            numbers = [number for each, _ in some for number in each]
            met += at > 0 and len(some) > 1
            if not some:
                continue
            left, staying, images = bundle.step(at, joined([images for _, images in some]))
            if images is not None:
                onward.append(([numbers[row] for row in staying], images))
                assert len(images) == len(staying)
            if left is not None:
                for i, row in enumerate(left.rows):
                    seen = (at, left.logits[i], left.confidence[i], left.scores[i])
                    answers[numbers[row]] = seen
        here = [(each[i:][:1], images[i : i + 1]) for each, images in onward for i in range(len(each))]
    assert met and len(answers) == len(pixels) and len({at for at, *_ in answers.values()}) > 1
    for number, (at, logits, sure, scores) in answers.items():
        alone = bundle.run(pixels[number : number + 1])
        assert bundle.stages[at].exit == alone.exits[0]
        np.testing.assert_allclose(logits, alone.logits[0], atol=1e-5)
        assert sure == pytest.approx(alone.confidence[0], abs=1e-5)
        assert len(scores) == at + 1


@pytest.mark.parametrize("most", [1, 3, 32])
def test_every_image_has_the_answer_of_its_own(leaving: Path, most: int) -> None:
    bundle, pixels = Bundle(leaving, threads=1), noise(60)
    batcher_ = Batcher(bundle, most, 0.0)
    batcher_.warm()
    answers = [each.result() for each in [batcher_.submit(image) for image in pixels]]
    batcher_.close()
    for image, answer in zip(pixels, answers, strict=True):
        alone = bundle.run(image[None])
        assert (answer.label, answer.exit) == (alone.labels[0], alone.exits[0])
        assert answer.confidence == pytest.approx(alone.confidence[0], abs=1e-5)
        assert answer.batch <= most and len(answer.scores) == answer.exit


def test_what_stays_of_several_batches_runs_together() -> None:
    queues = StageQueues([4, 4, 4], 4, 0.0)
    for _ in range(2):
        queues.put(0, group(4))
        queues.put(1, group(2))  # stays of four
    assert queues.pop(0.0)[0] == 1  # type: ignore[index]  # the deepest of those that are full
    assert queues.pop(0.0)[0] == 0  # type: ignore[index]
    queues.put(2, group(1))
    queues.put(1, group(3))
    order = [queues.pop(0.0) for _ in range(3)]
    assert [(stage, [len(each.waiting) for each in groups]) for stage, groups in order] == [  # type: ignore[misc]
        (0, [4]),
        (1, [3]),
        (2, [1]),
    ]
    assert queues.pop(0.0) is None and not queues


def test_a_batch_takes_images_as_they_came() -> None:
    queues = StageQueues([4], 3, 0.0)
    for number in range(3):
        each = group(2)
        queues.put(
            0, ImageGroup(StageInput({None: [np.array([2 * number, 2 * number + 1])]}), each.waiting)
        )
    batches = []
    while (work := queues.pop(0.0)) is not None:
        batches.append(joined([each.images for each in work[1]]).tensors[None][0].tolist())
    assert batches == [[0, 1, 2], [3, 4, 5]]


def runs_until(queues: StageQueues, stage: int, most: int) -> int | None:
    """How many runs pass before this stage's, while full batches come to the first without end."""
    for run in range(most):
        queues.put(0, group(4))
        if queues.pop(0.0)[0] == stage:  # type: ignore[index]
            return run
    return None


@pytest.mark.parametrize("stage", [1, 2])
def test_no_image_waits_without_end(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def queues() -> StageQueues:
        waits = StageQueues([4, 4, 4], 4, 0.0)
        waits.put(stage, group(1))
        return waits

    assert runs_until(queues(), stage, 100) == PASSES
    monkeypatch.setattr(batcher, "PASSES", 10**6)  # the control: without the rule it waits for good
    assert runs_until(queues(), stage, 100) is None


def test_an_image_is_passed_over_by_so_many_runs_at_most() -> None:
    """Of random traffic through four stages, whatever is fuller."""
    chance, stages = random.Random(0), 4
    queues = StageQueues([1, 8, 2, 8], 8, 0.0)
    since: dict[int, int] = {}  # by image: the run at which it came to its queue
    longest = 0
    for run in range(3000):
        queues.put(0, entered := group(chance.randrange(1, 9)))
        since |= {id(each): run for each in entered.waiting}
        stage, groups = queues.pop(0.0)  # type: ignore[misc]
        waiting = [each for part in groups for each in part.waiting]
        if stage:  # before the first a long queue is waited out, in order
            longest = max(longest, *(run - since[id(each)] for each in waiting))
        staying = tuple(each for each in waiting if chance.random() < 0.5)
        if staying and stage + 1 < stages:
            since |= {id(each): run for each in staying}
            queues.put(stage + 1, ImageGroup(group(len(staying)).images, staying))
    assert PASSES < longest <= 2 * (PASSES + stages)


def test_the_first_stage_waits_for_others_until_it_is_full() -> None:
    queues = StageQueues([3, 3], 8, 10.0)
    queues.put(0, group(2, arrived=5.0))
    assert queues.due() == 15.0 and queues.pop(14.9) is None
    queues.put(1, group(1))
    assert queues.pop(14.9)[0] == 1  # type: ignore[index]  # later stages wait for nothing
    assert queues.pop(15.0)[0] == 0  # type: ignore[index]
    queues.put(0, group(3, arrived=20.0))
    assert queues.pop(20.0)[0] == 0  # type: ignore[index]


def test_where_nothing_runs_an_image_waits_for_no_others(leaving: Path) -> None:
    batcher_ = Batcher(Bundle(leaving, threads=1), 8, HOUR)
    for image in noise(3):
        assert batcher_.submit(image).result().batch == 1
    batcher_.close()


def test_at_the_end_nothing_waits_for_others(leaving: Path) -> None:
    batcher_ = Batcher(Bundle(leaving, threads=1), 8, HOUR)
    batcher_._running += 1  # as if another stage ran
    waits = batcher_.submit(noise(1)[0])
    assert not waits.done()
    batcher_.hurry()
    assert waits.result().batch == 1
    assert batcher_.submit(noise(1)[0]).result().batch == 1  # one whose body came meanwhile
    batcher_.close()
    assert not any(thread.name == "answering" for thread in threading.enumerate())


def test_what_nobody_waits_for_does_not_run(leaving: Path) -> None:
    batcher_ = Batcher(Bundle(leaving, threads=1), 2, HOUR)
    batcher_._running += 1
    gone, stays = batcher_.submit(noise(2)[0]), None
    assert gone.cancel()
    stays = batcher_.submit(noise(2)[1])
    assert stays.result().batch == 1
    batcher_.close()


def test_an_image_has_one_outcome_where_answering_fails(
    leaving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that had gone on were told of the failure too. Their own answer came later, and whoever was
    in a batch with them then failed."""
    monkeypatch.setattr(batcher, "WORKERS", 0)  # the test runs the stages
    bundle, pixels = Bundle(leaving, threads=1), noise(40)
    exits = bundle.run(pixels).exits
    leaves, goes_on, other = (int(at) for at in (np.argmax(exits == 1), *np.flatnonzero(exits == 2)[:2]))
    batcher_ = Batcher(bundle, 2, 0.0)

    def run(*rows: int) -> list[Future[Any]]:
        """The first stage, of these images."""
        waiting = tuple(WaitingImage(0.0, Future()) for _ in rows)
        batcher_._run(0, [ImageGroup(StageInput({None: [pixels[list(rows)]]}), waiting)])
        return [each.answer for each in waiting]

    def failing(_: int) -> str:
        raise ValueError("no name")

    with monkeypatch.context() as broken:
        broken.setattr(bundle, "name", failing)
        outcomes = run(leaves, goes_on)
    assert [type(each.exception(timeout=0)) for each in outcomes] == [ValueError] * 2
    (innocent,) = run(other)
    while (work := batcher_._queues.pop(0.0)) is not None:
        batcher_._run(*work)
    assert innocent.result(timeout=0).exit == 2


def test_when_a_batch_is_full(leaving: Path) -> None:
    assert full_batch(1.0, 32.0, 32) == 1  # twice the images take twice the time
    assert full_batch(2.0, 33.0, 32) == 7  # of eight units one is fixed
    assert full_batch(1.0, 1.0, 32) == full_batch(1.0, 0.9, 32) == 32  # more images cost nothing
    assert full_batch(1.0, 1.0, 1) == 1
    bundle = Bundle(leaving, threads=1)
    assert all(1 <= each <= 6 for each in full_batches(bundle, 6)) and len(bundle.stages) == 3
