"""The engine and the loop by hand compute the same, and the check of that can fail."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from benchmarks.step import CASES, agreement
from benchmarks.step_by_hand import Case, Epoch, by_hand, defaults, engine, equal_settings, network

from benchmarks import step_by_hand
from support import NUMERICS, backbones

TINY = Case("mobilenetv2", 32, batch=8, steps=2)


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def first(epochs: Iterator[Epoch]) -> Epoch:
    try:
        return next(epochs)
    finally:
        epochs.close()  # type: ignore[attr-defined]


def test_the_loop_by_hand_has_the_first_weights_that_follow_from_images() -> None:
    case = Case("airbench", 32, 8, 2, (("width", "small"),))
    mine, theirs = first(engine(case, NUMERICS)), first(equal_settings(case, NUMERICS))
    assert agreement(case, mine, theirs) and case.name == "airbench small 32 px"


def test_the_engine_and_the_loop_by_hand_have_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = first(engine(TINY, NUMERICS)), first(equal_settings(TINY, NUMERICS))
    assert agreement(TINY, mine, theirs) == "losses of both equal to the last bit"
    assert mine.seconds > 0 and theirs.seconds > 0
    monkeypatch.setattr(step_by_hand, "RATE", 2 * step_by_hand.RATE)
    with pytest.raises(RuntimeError, match="do not compute the same"):
        agreement(TINY, mine, first(equal_settings(TINY, NUMERICS)))


def test_losses_that_are_not_numbers_do_not_agree() -> None:
    nan = Epoch(1.0, float("nan"), 1.0)
    with pytest.raises(RuntimeError, match="do not compute the same"):
        agreement(TINY, nan, nan)


@pytest.mark.long
def test_the_loop_at_defaults_learns() -> None:
    epochs = defaults(TINY, NUMERICS)
    losses = [next(epochs).loss for _ in range(12)]
    assert min(losses[6:]) < losses[0]


@pytest.mark.parametrize(
    "case",
    backbones(CASES[:5], lambda case: case.backbone),
    ids=lambda case: case.backbone,
)
@torch.no_grad()
def test_the_network_by_hand_is_the_network(case: Case) -> None:
    images = torch.randn(2, 3, case.pixels, case.pixels)
    hand, net = by_hand(case).eval(), network(case).eval()
    assert all(torch.equal(a, b) for a, b in zip(hand(images), net(images), strict=True))
    assert len(hand.heads) == 4 and len(list(hand.parameters())) == len(list(net.parameters()))


def test_dropout_is_back_after_the_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    network(TINY)  # what is found out about a network is kept: the first time it runs
    rates: list[float] = []
    dropout = torch.nn.functional.dropout

    def noted(x: torch.Tensor, p: float, training: bool, *rest: bool) -> torch.Tensor:
        if training and x.requires_grad:  # not when a network is traced, nor in validation
            rates.append(p)
        return dropout(x, p, training, *rest)

    monkeypatch.setattr(torch.nn.functional, "dropout", noted)
    for way in (engine, equal_settings):
        epochs = way(replace(TINY, steps=1), NUMERICS)
        rates.clear()
        next(epochs)
        assert set(rates) == {0.0}
        rates.clear()
        next(epochs)
        assert set(rates) == {0.5, 0.2}
        epochs.close()  # type: ignore[attr-defined]
