"""How long should OpenMP's threads spin? A training step, alone and beside one busy process.

For each network one process a setting, called in turns, first alone, then beside a process that keeps
one core busy. A ratio is time with a setting over time with the library's own (300,000 turns of the
loop), a second one over the quiet time of the same setting: what the neighbor costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from benchmarks.contest import (
    BARE,
    Contender,
    Environment,
    Result,
    Say,
    against,
    in_turns,
    neighbor,
    said,
)
from benchmarks.step import way
from benchmarks.step_by_hand import Case
from offramp.process import SPINS

USUAL = "300000 (the library's)"
SETTINGS: dict[str, Environment] = {
    USUAL: BARE,
    "0 (passive)": {**BARE, "OMP_WAIT_POLICY": "passive"},
    **{str(n): {**BARE, "GOMP_SPINCOUNT": str(n)} for n in (SPINS, 1_000, 10_000)},
}


def measure(quick: bool, say: Say) -> Iterator[Result]:
    rounds, batch, share = (3, 16, 4) if quick else (7, 128, 1)
    cases = (
        Case("digits-cnn", 8, 128, 200 // share),
        Case("mobilenetv2", 32, batch, 16 // share),
        Case("resnet18", 32, batch, 12 // share),
    )
    with ExitStack() as stack:
        ways = {
            name: stack.enter_context(Contender(way, setting, name="engine"))
            for name, setting in SETTINGS.items()
        }
        for case in cases:
            asked = {name: partial(_seconds, contender, case) for name, contender in ways.items()}
            in_turns(asked, 1)  # the first epoch has no dropout
            quiet = in_turns(asked, rounds)
            with neighbor():
                beside = in_turns(asked, rounds)
            for kind, found in {"quiet": quiet, "beside": beside}.items():
                say(f"  {case.backbone}, {kind}, ms by turns: {said(found, 1000)}")
            note = f"batch {case.batch}, 2 threads"
            for name in SETTINGS:
                label = f"openmp: {case.backbone}"
                for kind, found in {"quiet": quiet, "beside": beside}.items():
                    if name != USUAL:
                        title = f"{label}, {kind}, {name} turns against {USUAL}"
                        yield against(title, found[name], found[USUAL], note=note)
                title = f"{label}, {name} turns, beside a busy process against quiet"
                yield against(title, beside[name], quiet[name], note=note)


def _seconds(contender: Contender, case: Case) -> float:
    return float(contender(case).seconds)
