"""What a training step keeps in memory until its backward pass, found by looking at one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from offramp.device import random_kept
from offramp.engine.settings import laid_out
from offramp.inputs import blank
from offramp.nets.network import ExitNetwork

SAMPLE = 2  # images: the fewest that batch normalization takes


def saved_bytes(net: ExitNetwork) -> int:
    """Bytes an image that a step of `net` through all exits keeps for its backward pass, weights not
    counted. From one forward pass of two black images; `net` and torch's random state stay as they are.
    """
    twin = copy.deepcopy(net)
    twin.train()
    twin.requires_grad_(True)
    device = next(twin.parameters()).device
    own = {t.untyped_storage().data_ptr() for t in (*twin.parameters(), *twin.buffers())}
    held: dict[int, int] = {}
    alive: list[Tensor] = []  # an address may serve twice once a tensor is gone

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    images = laid_out(blank(net.input_shape, SAMPLE, next(twin.parameters())), "channels_last")
    with random_kept(device), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = twin(images)
    del logits
    return sum(held.values()) // SAMPLE
