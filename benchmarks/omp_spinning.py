"""How long should OpenMP's threads spin? A training step, alone and beside one busy process.

For each network one process a setting, called in turns, first alone, then beside a process that keeps
one core busy. A ratio is time with a setting over time with the library's own (300,000 turns of the
loop), a second one over the quiet time of the same setting: what the neighbor costs.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.ablation import step
from benchmarks.contest import (
    BARE,
    Environment,
    Result,
    against,
    contender,
    in_turns,
    neighbor,
    together,
)
from benchmarks.step_by_hand import Case
from offramp.engine.waiting import SHORT

USUAL = "300000 (the library's)"
SETTINGS: dict[str, Environment] = {
    USUAL: BARE,
    "0 (passive)": {**BARE, "OMP_WAIT_POLICY": "passive"},
    **{str(n): {**BARE, "GOMP_SPINCOUNT": str(n)} for n in (SHORT, 700, 1_000, 10_000)},
}


def measure(quick: bool) -> Iterator[Result]:
    rounds, batch, share = (3, 16, 4) if quick else (7, 128, 1)
    cases = (
        Case("digits-cnn", 8, 128, 200 // share),
        Case("mobilenetv2", 32, batch, 16 // share),
        Case("resnet18", 32, batch, 12 // share),
    )
    note = f"batch {batch}, 2 threads"
    with together({n: contender(step, setting, numerics=()) for n, setting in SETTINGS.items()}) as ways:
        for case in cases:
            label = f"openmp: {case.backbone}"
            in_turns(ways, 1, case)  # the first epoch has no dropout
            quiet = in_turns(ways, rounds, case)
            with neighbor():
                beside = in_turns(ways, rounds, case)
            for name in SETTINGS:
                for kind, times in {"quiet": quiet, "beside": beside}.items():
                    if name != USUAL:
                        title = f"{label}, {kind}, {name} turns against {USUAL}"
                        yield against(title, times[name], times[USUAL], note=note)
                title = f"{label}, {name} turns, beside a busy process against quiet"
                yield against(title, beside[name], quiet[name], note=note)
