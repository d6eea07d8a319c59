"""The ways to train early exits. One file and one line each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence

from offramp.phase import Phase
from offramp.strategies.baseline import baseline
from offramp.strategies.boosted import boosted
from offramp.strategies.branch_wise import branch_wise
from offramp.strategies.cascade import cascade
from offramp.strategies.confidence_gated import confidence_gated
from offramp.strategies.distillation import distillation
from offramp.strategies.exit_ensemble import exit_ensemble
from offramp.strategies.gated import gated
from offramp.strategies.gradient_equilibrium import gradient_equilibrium
from offramp.strategies.imta import imta
from offramp.strategies.joint import joint
from offramp.strategies.joint_branch import joint_branch
from offramp.strategies.joint_two_stage import joint_two_stage
from offramp.strategies.mixed import mixed
from offramp.strategies.pretrained_branch import pretrained_branch
from offramp.strategies.self_distillation import self_distillation
from offramp.strategies.separate import separate
from offramp.strategies.sequential import sequential
from offramp.strategies.survivors import survivors
from offramp.strategies.two_stage import two_stage

Strategy = Callable[..., Sequence[Phase]]

GROUPS: dict[str, dict[str, Strategy]] = {
    "the paper's nine": {
        "baseline": baseline,
        "joint": joint,
        "separate": separate,
        "branch-wise": branch_wise,
        "two-stage": two_stage,
        "distillation": distillation,
        "joint-branch": joint_branch,
        "joint-two-stage": joint_two_stage,
        "pretrained-branch": pretrained_branch,
    },
    "frozen trunk": {
        "survivors": survivors,
        "cascade": cascade,
    },
    "gated": {
        "gated": gated,
    },
    "all at once": {
        "mixed": mixed,
        "gradient-equilibrium": gradient_equilibrium,
        "imta": imta,
        "self-distillation": self_distillation,
        "exit-ensemble": exit_ensemble,
        "confidence-gated": confidence_gated,
        "boosted": boosted,
    },
    "one after another": {
        "sequential": sequential,
    },
}

STRATEGIES: dict[str, Strategy] = {
    name: strategy for group in GROUPS.values() for name, strategy in group.items()
}
# By which plain networks are trained, whole and cut off (with its option `only`).
PLAIN, CUT_OFF = "baseline", "separate"


def explained(strategy: Strategy) -> tuple[str, dict[str, str]]:
    """What a strategy's docstring says.

    Returns:
        The text without its arguments, and the words on each of these.

    >>> explained(joint)[1]["joint_weights"]
    'Of the exits, see `loss_weights`.'
    """
    prose, _, section = (inspect.getdoc(strategy) or "").partition("\n\nArgs:\n")
    section, *rest = re.split(r"\n+(?=\S)", section, maxsplit=1)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return "\n\n".join([prose, *rest]), {name: " ".join(words.split()) for name, words in entries}
