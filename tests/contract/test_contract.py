"""What every strategy owes on every backbone. New entries of either registry are covered untouched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import contract_runs
import numpy as np
import pytest
import torch
from contract_runs import LAST_ONLY, TrialRecord, contract_plan, run_derived, run_plain, violations

import offramp.engine.fit
import offramp.engine.trainee
import offramp.engine.values
from offramp.nets.backbones import BACKBONES
from offramp.parts import Part
from offramp.strategies import STRATEGIES

FROM_BASELINE = ("two-stage", "distillation", LAST_ONLY)
FROM_JOINT = ("joint-branch", "joint-two-stage")


@dataclass(frozen=True)
class Runs:
    backbone: str
    exits: int
    plain: dict[str, TrialRecord]
    derived: dict[str, TrialRecord]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in BACKBONES]
)
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """All strategies on one backbone, once in each mode."""
    name = request.param
    plain = contract_plan(name, "plain")
    yield Runs(name, plain.net.exits, run_plain(plain), run_derived(contract_plan(name, "derived")))
