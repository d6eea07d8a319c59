"""The clock decides what is drawn while it runs, and leaves the generator alone while it does not."""

import pytest
import torch

from offramp.hashing import derive
from offramp.nets.clock import Clock


def draw(clock: Clock, name: str) -> torch.Tensor:
    clock.reseed(name)
    return torch.rand(4)


@pytest.mark.parametrize("ran", [False, True])
def test_a_clock_that_does_not_run_leaves_the_generator_alone(ran: bool) -> None:
    clock = Clock()
    if ran:
        clock.tick(42, 0, 0)
        clock.stop()
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    assert torch.equal(draw(clock, "block.dropout"), expected)


def test_a_running_clock_makes_a_draw_independent_of_what_was_drawn_before() -> None:
    clock = Clock()
    clock.tick(42, 3, 7)
    first = draw(clock, "block.dropout")
    torch.rand(100)
    assert torch.equal(draw(clock, "block.dropout"), first)


@pytest.mark.parametrize(
    ("name", "now"), [("other", (42, 3, 7)), ("a", (43, 3, 7)), ("a", (42, 4, 7)), ("a", (42, 3, 8))]
)
def test_name_seed_epoch_and_step_each_change_the_draw(name: str, now: tuple[int, int, int]) -> None:
    clock = Clock()
    clock.tick(42, 3, 7)
    first = draw(clock, "a")
    clock.tick(*now)
    assert not torch.equal(draw(clock, name), first)


def test_a_draw_is_what_torch_seeded_with_the_names_draws() -> None:
    clock = Clock()
    clock.tick(42, 3, 7)
    drawn = draw(clock, "a")
    torch.manual_seed(derive(42, "noise", "a", 3, 7))
    assert torch.equal(drawn, torch.rand(4))
