"""A trial's policy on corrupted images, on images of no class, and under a slowdown attack."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.bundle.export import preprocessing
from offramp.bundle.trial_images import evenly, for_stress
from offramp.data.images.corruptions import CORRUPTIONS, corrupted
from offramp.engine.settings import laid_out, placed
from offramp.errors import OfframpError
from offramp.hashing import derive
from offramp.infer import image_files
from offramp.infer.image_files import checked_policy, doubts
from offramp.infer.predictor import Predictor
from offramp.nets import ExitNetwork
from offramp.nets.network import inside
from offramp.policy.candidates import SplitLogits
from offramp.policy.policy import Policy
from offramp.policy.stress import StressKind, StressRow, conclusions, stress_row
from offramp.store.manifest import Manifest
from offramp.store.store import Store
from offramp.study.run.trials import load_network
from offramp.study.trained import network_costs

BATCH = 64
STEP = 0.002 * 255 / 8  # of the attack, as a share of its size: 0.002 of a pixel's range at 8 of 255


@dataclass(frozen=True)
class StressOptions:
    """What is tried."""

    images: int  # test images at most, evenly spread; likewise of no class
    foreign: Sequence[Path]  # files of images of no class, and folders of them
    size: float  # the most that an attack changes a pixel, of 0 to 255
    steps: int  # of the attack
    seed: int  # of noise
    root: str | None  # the folder of the data set's files, where the trial's is gone
    trust_code: bool  # see `offramp.study.run.trials.blank_network`


@dataclass(frozen=True)
class Stress:
    """What was tried, and what came of it."""

    trial: str  # its id
    plain_macs: int  # of its network without early exits
    rows: tuple[StressRow, ...]  # by what was tried, the test images as they are first
    conclusions: tuple[str, ...]  # in sentences
    notes: tuple[str, ...]  # what was left out, and why
    unreliable: tuple[str, ...]  # why the network's answers are not to be trusted, where they are not


@dataclass(frozen=True, eq=False)
class _Subject:
    """A network under a policy. scale, shift: [C, 1, 1], from pixels to what it takes."""

    net: ExitNetwork
    policy: Policy
    scale: Tensor
    shift: Tensor

    def logits(self, pixels: Tensor) -> list[Tensor]:
        """[B, C, H, W] from 0 to 255 → [B, classes] of each exit of the policy."""
        out = self.net(laid_out(pixels * self.scale + self.shift, "channels_last"))
        return [out[exit - 1] for exit in self.policy.exits]

    def all_logits(self, batches: Iterable[Tensor]) -> NDArray[np.float32]:
        """[N, exits, classes] of batches [B, C, H, W] of pixels."""
        with torch.inference_mode():
            every = [
                torch.stack(self.logits(batch.to(self.scale.device, torch.float32)), dim=1).cpu()
                for batch in batches
            ]
        return torch.cat(every).float().numpy()


def slowed(
    logits: Callable[[Tensor], Sequence[Tensor]],
    pixels: Tensor,
    size: float,
    steps: int,
    generator: torch.Generator,
    several: bool = False,
) -> Tensor:
    """Images changed so that they leave late: DeepSloth of each image, bounded in the largest change.

    1. Begin at the image and noise of at most one step.
    2. Step against the sign of the gradient of the cross-entropy between the uniform distribution and
       each exit's probabilities, added over exits; of several labels, of each a half and its sigmoid.
    3. Cut the change to `size`, and the pixels to their range; again from 2.

    Args:
        logits: Pixels [B, C, H, W] → [B, classes] of the exits to keep images from.
        pixels: [B, C, H, W] float32, 0 to 255.
        size: The most that a pixel changes, of 0 to 255.
        steps: How many, each of 0.064 of the size.
        generator: Of the noise, on the CPU.
        several: Whether an image has several labels.

    References:
        S. Hong, Y. Kaya, I. Modoranu, T. Dumitraş. *A panda? No, it's a sloth: slowdown attacks on
        adaptive multi-exit neural network inference*. 2021. Their code takes 30 steps of 0.002 within
        1/32 of the pixel range, and cuts the first noise to that range a step later.
    """
    low, high = (pixels - size).clamp(min=0), (pixels + size).clamp(max=255)
    step = STEP * size
    noise = torch.rand(pixels.shape, generator=generator).to(pixels.device)
    changed = (pixels + step * (2 * noise - 1)).clamp(low, high)
    for _ in range(steps):
        changed.requires_grad_(True)
        even = [_evenness(each, several).mean(dim=1) for each in logits(changed)]
        cost = -torch.stack(even).sum()
        (gradient,) = torch.autograd.grad(cost, changed)
        changed = (changed.detach() - step * gradient.sign()).clamp(low, high)
    return changed


def _evenness(logits: Tensor, several: bool) -> Tensor:
    """Logarithms, [B, C], whose mean is the largest where an exit is sure of nothing."""
    both = nn.functional.logsigmoid(logits) + nn.functional.logsigmoid(-logits)
    return both / 2 if several else nn.functional.log_softmax(logits, dim=1)


def of_trial(
    store: Store, prefix: str, policy: Policy | Path | str, device: torch.device, options: StressOptions
) -> Generator[str, None, Stress]:
    """Try a policy of a trial. Yields what it does, in words.

    Raises:
        OfframpError: The policy is of another trial, images cannot be read, or their pixels are not
            known, as they were normalized beforehand.
    """
    trial = store.find_trial(prefix)
    manifest = store.read_trial(trial)
    if manifest.normalized:
        raise OfframpError(
            f"trial {trial} was trained on normalized images, and what changes "
            "here are pixels; take a trial that was trained on images as uint8"
        )
    rule = checked_policy(store, trial, policy)
    foreign, notes = _foreign(manifest, options)
    yield "reading test images"
    images, labels, numbers = for_stress(manifest, options.root, options.trust_code, options.images)
    net = load_network(store, trial, device, trust_code=options.trust_code)
    placed(net, device)
    Predictor(net, rule)  # refuses a policy that does not go with the network
    costs = network_costs(net, list(inside(net).trunk_of), list(rule.exits))
    std = torch.tensor(manifest.std, device=device)
    mean = torch.tensor(manifest.mean, device=device)
    scale = (255 * std).reciprocal()[:, None, None]  # in the order of operations of `normalize`
    subject = _Subject(net, rule, scale, (-mean / std)[:, None, None])

    def tried(
        kind: StressKind, name: str, batches: Iterable[Tensor], strength: int = 0, amount: float = 0.0
    ) -> StressRow:
        logits = subject.all_logits(batches)
        truth = np.full((len(logits), *labels.shape[1:]), -1) if kind == "foreign" else labels
        answers = SplitLogits(logits, truth)
        return stress_row(kind, name, rule, costs, answers, manifest.classes, (strength, amount))

    yield "images as they are"
    every = [tried("test", "as they are", torch.split(images, BATCH))]
    height, width = images.shape[2:]
    for name, corruption in CORRUPTIONS.items():
        for strength, amount in enumerate(corruption.amounts(height, width), 1):
            yield f"{name} {strength}"
            worse = _corrupted(images, name, amount, options.seed, numbers)
            every.append(tried("corruption", name, worse, strength, amount))
    if len(foreign):
        yield "images of no class"
        every.append(tried("foreign", "of no class", torch.split(foreign, BATCH)))
    leaving = [i for i in rule.active[:-1] if rule.thresholds[i] is not None]
    if leaving:
        yield "random changes"
        changed = _random(images, options)
        every.append(tried("random", "random changes", changed, amount=options.size))
        yield "slowdown attack"
        changed = _attacked(subject, leaving, images, options)
        every.append(tried("attack", "slowdown attack", changed, amount=options.size))
    else:
        last = rule.active[-1]
        why = f"every image leaves at exit {rule.exits[last]}, whatever it looks like"
        if last == len(rule.exits) - 1:
            why = "no image can leave early under this policy"
        notes = (*notes, f"{why}, so nothing was attacked")
    sentences = conclusions(rule.calibration.target, every, costs.full, net.plain_macs)
    unreliable = doubts(store, trial, rule)
    return Stress(trial, net.plain_macs, tuple(every), tuple(sentences), notes, unreliable)


def _corrupted(
    images: Tensor, name: str, amount: float, seed: int, numbers: Sequence[int]
) -> Iterator[Tensor]:
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH].numpy()
        rows = numbers[start : start + BATCH]
        yield torch.from_numpy(corrupted(part, name, amount, seed, rows))


def _random(images: Tensor, options: StressOptions) -> Iterator[Tensor]:
    """Each pixel up or down by the size of the attack: what a change as large does by chance."""
    for start, part in enumerate(torch.split(images, BATCH)):
        draw = torch.rand(part.shape, generator=_generator(options, "random", start))
        yield (part + options.size * (2 * (draw < 0.5) - 1)).clamp(0, 255)


def _attacked(
    subject: _Subject, exits: Sequence[int], images: Tensor, options: StressOptions
) -> Iterator[Tensor]:
    def early(pixels: Tensor) -> list[Tensor]:
        logits = subject.logits(pixels)
        return [logits[i] for i in exits]

    for start, part in enumerate(torch.split(images, BATCH)):
        pixels = part.to(subject.scale.device, torch.float32)
        with torch.inference_mode(False), torch.enable_grad():
            generator = _generator(options, "attack", start)
            several = subject.policy.several
            changed = slowed(early, pixels, options.size, options.steps, generator, several)
        yield changed


def _generator(options: StressOptions, purpose: str, batch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(options.seed, purpose, batch))


def _foreign(manifest: Manifest, options: StressOptions) -> tuple[Tensor, tuple[str, ...]]:
    """Pixels [N, C, H, W] of images of no class, of any size, and what to say of files without any."""
    if not options.foreign:
        return torch.empty(0, *manifest.input_shape), ()
    try:
        how = preprocessing(manifest)
    except ValueError as error:
        raise OfframpError(f"image files cannot be given to this network: {error}") from None
    cut = how if how.resize is not None else replace(how, resize=max(how.size), crop=True)
    files = image_files.find(options.foreign)
    chosen = [files[row] for row in evenly(len(files), options.images).tolist()]
    cut = replace(cut, gray=True)
    good, damaged = image_files.check(chosen, cut)
    with ThreadPoolExecutor() as pool:
        _, pixels, broken = image_files.read_all(good, cut, pool)
    unread = len(damaged) + len(broken)
    notes = (f"{unread} of {len(chosen)} files of no class could not be read",) if unread else ()
    return torch.from_numpy(pixels), notes
