"""Airbench: a whitening convolution made from training images, and weights that stay as they are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from network_kit import identity_of
from torch import Tensor
from torch.nn.functional import conv2d

from offramp.data.dataset import normalize
from offramp.nets import NetSpec, build
from offramp.nets.backbones.airbench import whitening
from offramp.nets.network import redrawn
from offramp.study.run.trials import assemble, blank_network, load_network
from support import CPU, network, run_all, tiny_data, tiny_plan, tiny_study
from wording import refusal

WHITENING = "stem.whitening.weight"


def photos(count: int = 40, seed: int = 3) -> Tensor:
    """Images [N, 3, 16, 16] whose neighbors and channels are alike, as those of photographs are."""
    noise = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    noise = noise + 2 * noise.mean(1, keepdim=True)
    large = torch.nn.functional.interpolate(noise, size=16, mode="bilinear", align_corners=False)
    grain = torch.rand(large.shape, generator=torch.Generator().manual_seed(seed + 1))
    return (60 * large + 30 * grain).to(torch.uint8)


def covariance(images: Tensor, weight: Tensor) -> Tensor:
    values = conv2d(images, weight).permute(1, 0, 2, 3).flatten(1).double()
    return values @ values.T / values.shape[1]


def test_patches_come_out_uncorrelated_and_of_equal_strength() -> None:
    pixels = photos()
    mean, std = (pixels.float() / 255).mean((0, 2, 3)), (pixels.float() / 255).std((0, 2, 3))
    weight = whitening(pixels, mean, std)[WHITENING]
    assert weight.shape == (24, 3, 2, 2) and torch.equal(weight[:12], -weight[12:])
    seen = covariance(normalize(pixels, mean, std), weight[:12])
    apart = seen - torch.diag(seen.diagonal())
    assert apart.abs().max() < 1e-3 and (seen.diagonal() - 1).abs().max() < 0.1
    # the control: other images, and the patches as they are, come out otherwise
    others = normalize(torch.randint(0, 256, pixels.shape).to(torch.uint8), mean, std)
    assert (covariance(others, weight[:12]) - torch.eye(12)).abs().max() > 1
    plain = torch.eye(12).reshape(12, 3, 2, 2)
    assert covariance(normalize(pixels, mean, std), plain).fill_diagonal_(0).abs().max() > 0.3


def test_pixels_and_normalized_floats_give_one_weight_whatever_the_threads() -> None:
    pixels, mean, std = photos(), torch.tensor([0.4, 0.5, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    expected = whitening(pixels, mean, std)[WHITENING]
    floats = whitening(normalize(pixels, mean, std).double().float(), mean, std)[WHITENING]
    assert torch.allclose(expected, floats, rtol=1e-3, atol=1e-4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(whitening(pixels, mean, std)[WHITENING], expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.long
def test_a_trial_trains_from_its_whitening_and_comes_back_with_it(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["joint", "two-stage"], "airbench"))
    expected = whitening(*plan.data.sample(2000))[WHITENING]
    store, _ = run_all(plan, tmp_path)
    for trial in plan.trials:
        trained = assemble(plan, trial, store, CPU)
        assert torch.equal(trained.state_dict()[WHITENING], expected)
        loaded = load_network(store, trial.id, CPU)
        assert all(torch.equal(t, trained.state_dict()[n]) for n, t in loaded.state_dict().items())
        norms = [m.weight for m in loaded.modules() if type(m) is torch.nn.BatchNorm2d and not m.affine]
        assert all(torch.equal(weight, torch.ones_like(weight)) for weight in norms)
    names = dict(network("airbench").named_parameters())
    assert WHITENING not in names and "group1.pooled.norm.weight" not in names
    assert "training images" in refusal(redrawn, blank_network(store, plan.trials[0].id), 1)


def test_other_training_images_are_another_whitening_and_other_keys() -> None:
    study = tiny_study(["baseline"], "airbench")
    some, others = tiny_data((3, 32, 32)), tiny_data((3, 32, 32), images=120)
    drawn = [redrawn(tiny_plan(study, data).net, 42).state_dict()[WHITENING] for data in (some, others)]
    assert not torch.equal(*drawn)
    assert not set(tiny_plan(study, some).nodes) & set(tiny_plan(study, others).nodes)
    fixed = replace(some, augment=None)
    assert torch.equal(redrawn(tiny_plan(study, fixed).net, 7).state_dict()[WHITENING], drawn[0])


def test_weights_from_a_file_bring_their_own_whitening(tmp_path: Path) -> None:
    weights = {n: t + 1 for n, t in network("airbench").backbone.state_dict().items()}
    torch.save(weights, tmp_path / "net.pth")
    spec = NetSpec("airbench", weights=str(tmp_path / "net.pth"))
    net = build(spec, (3, 32, 32), 3, 42)
    plan = tiny_plan(tiny_study(["baseline"], "airbench"), net=net)
    assert torch.equal(redrawn(plan.net, 42).state_dict()[WHITENING], weights[WHITENING])


def test_a_width_may_be_written_as_a_number() -> None:
    shape = (3, 16, 16)
    nets = [build(NetSpec("airbench", options=(("width", w),)), shape, 10, 0) for w in (93, "93")]
    assert identity_of(nets[0]) == identity_of(nets[1])
