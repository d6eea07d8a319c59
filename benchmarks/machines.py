"""The paper's studies on 1 to 256 equal machines, played with the cost model: nothing is trained.

By the numbers of MACs alone, as if all networks ran at one speed; the studies one after another, as a
list of studies runs, and all at once, as when each is a command of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.contest import Result
from offramp.study.plan.plan import plans
from offramp.study.plan.schedule import Schedule, sizes
from offramp.study.spec.file import members

LIST = Path(__file__).parents[1] / "studies" / "paper" / "all.yaml"
MOST = 256


def measure(quick: bool) -> Iterator[Result]:
    """How many times faster than one machine."""
    studies = [member.study for member in members(LIST)]
    chosen = studies[-2:] if quick else studies
    schedules = [Schedule(plan) for plan in plans(chosen, torch.device("cpu"), provisional=True)]
    alone = sum(schedule.makespan(1) for schedule in schedules)
    chains = sum(schedule.critical for schedule in schedules)
    for count in sizes(MOST):
        time = sum(schedule.makespan(count) for schedule in schedules)
        note = f"efficiency {alone / time / count:.0%}"
        yield Result(f"machines: paper, {count}", alone / time, better="higher", note=note)
    longest = schedules[0].chain()
    names = ", ".join(node.name for node in longest)
    note = f"the longest chains one after another bound it: {names}"
    yield Result("machines: paper, any number", alone / chains, better="higher", note=note)
    at_once = max(schedule.critical for schedule in schedules)
    note = "of all studies at once only the longest chain bounds it"
    yield Result("machines: paper, all studies at once", alone / at_once, better="higher", note=note)
