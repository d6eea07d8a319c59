"""The ways to train early exits. One file and one line each."""

from __future__ import annotations

from collections.abc import Callable

from offramp.phase import Program
from offramp.strategies.baseline import baseline
from offramp.strategies.branch_wise import branch_wise
from offramp.strategies.distillation import distillation
from offramp.strategies.joint import joint
from offramp.strategies.joint_branch import joint_branch
from offramp.strategies.joint_two_stage import joint_two_stage
from offramp.strategies.pretrained_branch import pretrained_branch
from offramp.strategies.separate import separate
from offramp.strategies.two_stage import two_stage

Strategy = Callable[..., Program]

STRATEGIES: dict[str, Strategy] = {
    "baseline": baseline,
    "joint": joint,
    "separate": separate,
    "branch-wise": branch_wise,
    "two-stage": two_stage,
    "distillation": distillation,
    "joint-branch": joint_branch,
    "joint-two-stage": joint_two_stage,
    "pretrained-branch": pretrained_branch,
}
