"""The slowdown attack on networks whose answers are known."""

import pytest
import torch
from torch import Tensor

from offramp.infer.stress import slowed

PIXELS = torch.randint(0, 256, (8, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()


def bright(pixels: Tensor) -> list[Tensor]:
    """Two exits that are the surer of class 0 the brighter an image is, and undecided at 100."""
    level = (pixels.mean(dim=(1, 2, 3)) - 100) / 8
    return [torch.stack((level, -level), dim=1), torch.stack((2 * level, 0 * level), dim=1)]


def attack(size: float, steps: int = 30, seed: int = 3) -> Tensor:
    return slowed(bright, PIXELS, size, steps, torch.Generator().manual_seed(seed)).detach()


def sure(pixels: Tensor) -> Tensor:
    return torch.stack([each.softmax(dim=1).amax(dim=1) for each in bright(pixels)])


def test_a_size_of_0_changes_no_bit() -> None:
    assert torch.equal(attack(0.0), PIXELS)


@pytest.mark.parametrize("size", [1.0, 8.0, 200.0])
def test_changes_stay_within_the_size_and_pixels_in_their_range(size: float) -> None:
    changed = attack(size)
    assert (changed - PIXELS).abs().max() <= size + 1e-4
    assert changed.min() >= 0 and changed.max() <= 255


def test_every_exit_becomes_less_sure_and_steps_lead_there() -> None:
    before = sure(PIXELS)
    changed = attack(8.0)
    assert (sure(changed) <= before + 1e-6).all() and sure(changed).mean() < before.mean() - 0.05
    # 30 steps of 0.064 of the size reach the whole of it where that helps, and fewer do not
    far = (PIXELS.mean(dim=(1, 2, 3)) - 100).abs() > 16
    inner = (PIXELS > 8) & (PIXELS < 247)
    assert ((changed - PIXELS).abs()[far][inner[far]] > 7.9).all()
    assert (attack(8.0, steps=5) - PIXELS).abs().max() < 8 * 0.064 * 6 + 1e-3


def test_the_same_seed_gives_the_same_bits() -> None:
    assert torch.equal(attack(8.0, seed=3), attack(8.0, seed=3))
    assert not torch.equal(attack(8.0, seed=3), attack(8.0, seed=4))


def test_of_several_labels_each_becomes_unsure() -> None:
    """Both labels of an image alike: the softmax is even already, and nothing of it to gain."""

    def alike(pixels: Tensor) -> list[Tensor]:
        level = (pixels.mean(dim=(1, 2, 3)) - 100) / 8
        return [torch.stack((level, level), dim=1)]

    def doubt(several: bool) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return alike(slowed(alike, PIXELS, 8.0, 30, generator, several))[0].abs().mean().detach()

    before = alike(PIXELS)[0].abs().mean()
    assert doubt(True) < before - 0.4 and abs(doubt(False) - before) < 0.2
