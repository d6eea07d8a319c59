"""Networks of finished trials."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from offramp import device as devices
from offramp.engine.settings import placed
from offramp.errors import OfframpError, kind_of
from offramp.infer.image_files import checked_policy
from offramp.infer.predictor import Predictor
from offramp.nets import ExitNetwork
from offramp.nets.foreign import MultiExit
from offramp.nets.own_exits import with_exits
from offramp.policy import policy as policies
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study.run import trials


def load(
    trial: str,
    store: str | Path = "runs",
    device: torch.device | str | None = None,
    net: ExitNetwork | MultiExit | nn.Module | None = None,
    trust_code: bool = False,
) -> ExitNetwork:
    """The trained network of a trial, ready to call.

    It takes normalized images [B, C, H, W] and returns logits [B, classes] of every exit. It is in eval
    mode, and no parameter requires a gradient. To train it in your own loop:
    net.requires_grad_(True).train().

    Args:
        trial: Its id, the beginning or the ending of it.
        store: The folder of the run, or its address ("s3://bucket/runs").
        device: Such as "cuda" or "mps"; by default OFFRAMP_DEVICE, else CUDA, else the CPU.
        net: For a trial of `fit`, the network attached in the same way (the module with its weights
            before training); it does not change. For one of `adopt`, a network of the same code with any
            weights.
        trust_code: Run the file that the store names, if the backbone is code such as
            `net.py:make_net`. It must equal the recorded code.

    Raises:
        OfframpError: The trial is unknown, its network cannot be made any more or needs code that is not
            trusted, or `net` is another than the trial's.

    Example:
        >>> trained = offramp.load("two-stage", store="runs/demo")
        >>> [tuple(logits.shape) for logits in trained(torch.zeros(5, 1, 8, 8))]
        [(5, 10), (5, 10), (5, 10), (5, 10)]
    """
    if not isinstance(trial, str):
        raise OfframpError(
            f"the trial is {kind_of(trial)}; give a trial's id, such as results.trials[0]"
        )
    source = Store(store)
    name = source.find_trial(trial)
    own = None if net is None else with_exits(net, tuple(source.read_trial(name).input_shape))
    return trials.load_network(source, name, devices.chosen(device), own, trust_code)


def predictor(
    net: ExitNetwork | str,
    policy: Policy | str | Path,
    *,
    store: str | Path = "runs",
    device: torch.device | str | None = None,
    backend: str | None = None,
    trust_code: bool = False,
) -> Predictor:
    """A function that answers batches of normalized images [B, C, H, W].

    Images that have left cost no more compute. The answers have classes, confidence, exits and compute
    of each image, [B], and logits [B, classes].

    Args:
        net: A network in eval mode, as `load` and `fit` return it, used where it is; or a trial's id,
            its beginning or its ending, in `store`, to be put on `device`.
        policy: A Policy, or the path of a policy file. If the net is named as a trial, the policy must
            be that trial's.
        store: The folder of the run, or its address.
        device: Such as "cuda", for a trial.
        backend: Of torch.compile, such as "inductor", for each stage alone; None runs eagerly.
        trust_code: As `load` takes it.

    Raises:
        OfframpError: There is no such trial or file, the policy is for exits that the network does not
            have or of a different trial, or the network is in train mode.

    Example:
        >>> policy = offramp.Policy("confidence", exits=(1, 2, 3, 4), thresholds=(0.9, 0.9, 0.9, None))
        >>> answer = offramp.predictor("two-stage", policy, store="runs/demo")
        >>> answer(torch.zeros(5, 1, 8, 8)).classes.shape
        torch.Size([5])
    """
    if isinstance(net, ExitNetwork):
        return Predictor(net, policies.as_policy(policy), backend)
    if not isinstance(net, str):
        raise OfframpError(
            f"the net is {kind_of(net)}; give a network, such as fitted.net, or a trial's id"
        )
    source = Store(store)
    trial = source.find_trial(net)
    rule = checked_policy(source, trial, policy)
    network = load(trial, store, device, trust_code=trust_code)
    placed(network, next(network.parameters()).device)
    return Predictor(network, rule, backend)
