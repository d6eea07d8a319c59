"""Where the time of a phase goes, by a clock that the test moves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fit_runs import USUAL, begin, program_nodes, train

from offramp.engine import fit as engine_fit
from offramp.engine.cache import Cache
from offramp.engine.fit import conclude, fit
from offramp.engine.images import Images
from offramp.engine.passes import Derived, Pass
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, enroll
from offramp.engine.weights import Weights
from support import CPU, NUMERICS, network, tiny_data

READ, TRAIN, CHECK = 2.0, 5.0, 3.0  # seconds of a batch
BATCHES = {
    split: -(-len(part) // USUAL.batch_size) for split, part in tiny_data().splits.items()
}  # ceil; the last of train may join the one before it


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """A clock that only reading, training and checking a batch move."""
    now = [100.0]

    def takes(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*args: Any) -> Any:
            now[0] += seconds
            return work(*args)

        return slow

    monkeypatch.setattr(Images, "read", takes(READ, Images.read))
    monkeypatch.setattr(engine_fit, "step", takes(TRAIN, engine_fit.step))
    monkeypatch.setattr(engine_fit, "loss_of", takes(CHECK, engine_fit.loss_of))
    return lambda: now[0]


def run(trainees: list[Trainee], passes: Pass, images: Images) -> list[float]:
    """Train; the seconds that epochs are reported with."""
    size = trainees[0].node.recipe.batch_size
    reports = [report for epoch in fit(trainees, passes, images, size) for report in epoch]
    for trainee in trainees:
        conclude(trainee, passes, images, size)
    return [report.seconds for report in reports if isinstance(report, engine_fit.EpochReport)]


def test_waiting_for_images_is_no_training(clock: Callable[[], float]) -> None:
    (node,) = program_nodes("baseline")
    with applied(NUMERICS):
        trainee, passes, images = begin(node, images=Images(tiny_data(), CPU, clock=clock))
        epochs = run([trainee], passes, images)
    spent, count = trainee.seconds, len(epochs)
    batches = BATCHES["train"] + BATCHES["validation"]
    assert spent["train"] == count * TRAIN * BATCHES["train"]
    assert spent["validation"] == count * CHECK * BATCHES["validation"]
    assert spent["data"] == count * READ * batches
    whole = spent["train"] + spent["validation"] + spent["data"]
    assert sum(epochs) == whole and trainee.epoch_seconds == epochs
    # The closing pass is one thing: nothing of it is told apart, and the next epoch knows nothing of it.
    assert spent["evaluation"] % ((READ + CHECK) * BATCHES["train"]) == 0 != spent["evaluation"]


@pytest.mark.parametrize("cached", [True, False])
def test_frozen_layers_are_no_data_and_what_is_cached_waits_for_none(
    cached: bool, tmp_path: Path, clock: Callable[[], float]
) -> None:
    first, *nodes = program_nodes("two-stage")[:3]
    weights_of = {first.key: train(first)[2]}
    images = Images(tiny_data(), CPU, clock=clock)
    with applied(NUMERICS):
        weights = Weights(network("digits-cnn"), first.seed, weights_of.__getitem__, CPU)
        trainees = [enroll(node, weights, NUMERICS.fused_optimizer) for node in nodes]
        cache = Cache(10**8, 0, tmp_path) if cached else None
        run(trainees, Derived(images, nodes, weights, 64, cache), images)
    batches = BATCHES["train"] + BATCHES["validation"]
    for trainee in trainees:  # they share a pass, in equal parts
        expected = 0.0 if cached else USUAL.epochs * READ * batches / len(trainees)
        assert trainee.seconds["data"] == expected
        assert trainee.seconds["train"] == USUAL.epochs * TRAIN * BATCHES["train"]
