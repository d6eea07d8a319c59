"""Does leaving early pay? The batched predictor against what its stages promise, measured side by side.

    python benchmarks/inference.py                     about half an hour on two quiet cores
    python benchmarks/inference.py --quick             fewer networks, smaller batches: a minute or two

For each network (random weights, exits at a quarter, half and three quarters of the MACs, the paper's
heads) and batch size, everything is called in turns, round by round:

- the plain backbone, in one call; all exits of it, in one call; those with the policy applied after;
- the predictor when nothing leaves;
- the predictor when images leave so that about 30, 50 and 70 % of the MACs are saved;
- every segment and every head alone, on the full batch.

**How images are made to leave.** Random weights have no sensible scores, so which image leaves where is
laid down beforehand: the same share of those still inside leaves at every early exit, in random order
over the batch, a new order in every round. The predictor computes every score and compares it all the
same, and then takes what was laid down for the outcome. At batch 1, images that leave at each exit
are measured apart, and their times are added by share.

Two bars. (a) Stage and head times measured apart at full batch, added up by the share of images that
reach each, promise a time; the promised time over the measured one is at least 0.85. Scores, packing
and smaller batches are not in the promise. (b) When nothing leaves: the time of all exits in one call,
without scores, over the predictor's is at least 0.97. Ratios are medians over rounds of the ratio in
a round, with quartiles. A busy machine is named, and its numbers are not to be trusted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offramp import device as devices
from offramp.allocator import keep_freed_memory
from offramp.engine.settings import placed
from offramp.infer import timing
from offramp.infer.clocks import Times, interleaved, places
from offramp.infer.predictor import Predictor
from offramp.meters import busy_cores
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.parts import backbone
from offramp.policy.policy import Policy
from offramp.study.trained import network_costs

STAGES_BAR, ALL_BAR = 0.85, 0.97
SAVED = (0.0, 0.3, 0.5, 0.7)
EXITS = (1, 2, 3, 4)
POLICY = Policy("confidence", EXITS, (0.5, 0.5, 0.5, None))
QUIET = 0.3  # processes that want a core besides this one

Samples = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Case:
    """A network at a resolution. stem: where the backbone has a choice."""

    backbone: str
    pixels: int
    stem: str

    @property
    def name(self) -> str:
        return f"{self.backbone} {self.pixels} px"


CASES = (
    Case("resnet50", 32, "small"),
    Case("resnet18", 32, "small"),
    Case("mobilenetv2", 32, "small"),
    Case("mobilenetv2", 224, "imagenet"),
)
QUICK = (Case("resnet18", 32, "small"), Case("mobilenetv2", 32, "small"))


@dataclass(frozen=True)
class Row:
    """A line of the table. saved: MACs, as a share of the plain backbone's; below 0 where heads cost and
    nothing leaves.  speed_up, promised: against the plain backbone.  stages, alone: ratios (a) and (b)
    by round; alone where nothing leaves.  applied: as alone, with the policy applied after all exits."""

    case: Case
    batch: int
    saved: float
    speed_up: Samples
    promised: Samples
    stages: Samples
    alone: Samples | None
    applied: Samples | None


def main() -> None:
    given = _arguments()
    keep_freed_memory()  # as every command of offramp does at its start
    device = devices.chosen()
    if given.threads:
        torch.set_num_threads(given.threads)
    where = timing.machine(device)
    cases = QUICK if given.quick else CASES
    chosen = [case for case in cases if given.only is None or given.only in case.name]
    batches = given.batch or ([1, 16] if given.quick else [1, 256])
    what = f"{where['cores']} cores, {where['threads']} threads, torch {where['torch']}"
    print(f"{where['device']}, {what}\n")
    results: list[dict[str, Any]] = []
    print(HEADER)
    for case in chosen:
        for batch in batches:
            busy = busy_cores()
            for row in measure(case, batch, given.rounds, given.seconds, device):
                print(_markdown(row), flush=True)
                results += _results(row, {**where, "busy": busy})
            if busy > QUIET:
                print(
                    f"\n**Busy: other processes kept {busy:.1f} cores busy; trust none of the above.**\n"
                )
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    held = sum(result["holds"] for result in results)
    print(f"\n{held} of {len(results)} bars hold; written to {given.out}")


def measure(case: Case, batch: int, rounds: int, seconds: float, device: torch.device) -> list[Row]:
    """One network and batch size, everything in turns."""
    net = _network(case, device)  # before inference mode, in which it could not be traced
    with torch.inference_mode():
        return _measure(case, net, batch, rounds, seconds)


def _measure(case: Case, net: ExitNetwork, batch: int, rounds: int, seconds: float) -> list[Row]:
    device = next(net.parameters()).device
    images = timing.noise(net, batch, device)
    predictor = Predictor(net, POLICY)
    mixes = [shares_that_save(net, saved) for saved in SAVED]
    runs: dict[str, Callable[[], object]] = {
        "all": partial(net, images),
        "applied": partial(_applied, net, images),
        "plain": timing.plain_run(net, images),
        **timing.stage_runs(net, images),
    }
    for at, shares in enumerate(mixes):
        for name, run in timing.policy_runs(predictor, images, shares, rounds).items():
            runs[name if batch == 1 or name == "nothing leaves" else f"mix {at}"] = run
    found = interleaved(runs, partial(devices.synchronize, device), rounds, seconds)
    return [_row(case, net, batch, shares, at, found) for at, shares in enumerate(mixes)]


def shares_that_save(net: ExitNetwork, saved: float) -> tuple[float, ...]:
    """Shares of images by exit that save so much of the plain backbone's MACs: of those inside, the same
    share leaves at every early exit. 0 lets nothing leave."""
    low, high = 0.0, 1.0 if saved > 0 else 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _saving(net, _leaving(middle)) < saved else (low, middle)
    return _leaving(high)


def _leaving(share: float) -> tuple[float, ...]:
    inside, found = 1.0, []
    for _ in EXITS[:-1]:
        found.append(inside * share)
        inside -= found[-1]
    return (*found, inside)


def _saving(net: ExitNetwork, shares: Sequence[float]) -> float:
    spent = POLICY.macs(network_costs(net, list(net.trunk_of), list(EXITS)))
    plain = sum(net.macs(part) for part in backbone(net.exits))
    return 1 - sum(s * m for s, m in zip(shares, spent, strict=True)) / plain


def _row(
    case: Case,
    net: ExitNetwork,
    batch: int,
    shares: Sequence[float],
    at: int,
    found: dict[str, Times],
) -> Row:
    def by_round(name: str) -> Samples:
        return np.asarray(found[name].samples)

    reached = [sum(shares[i:]) for i in range(len(shares))]
    parts = [by_round(f"segment {k}") + by_round(f"head {k}") for k in EXITS]
    promised = sum((r * part for r, part in zip(reached, parts, strict=True)), np.zeros(len(parts[0])))
    leaves = any(shares[:-1])
    if not leaves:
        taken = by_round("nothing leaves")
    elif batch == 1:
        pairs = [(s, by_round(f"policy {i}")) for i, s in enumerate(shares) if s > 0]
        taken = sum((s * t for s, t in pairs), np.zeros(len(promised)))
    else:
        taken = by_round(f"mix {at}")
    plain = by_round("plain")
    return Row(
        case,
        batch,
        _saving(net, _counted(shares, batch)),
        plain / taken,
        plain / promised,
        promised / taken,
        None if leaves else by_round("all") / taken,
        None if leaves else by_round("applied") / taken,
    )


def _counted(shares: Sequence[float], batch: int) -> tuple[float, ...]:
    """The shares of whole images that a batch came to."""
    if batch == 1:
        return tuple(shares)
    counts = np.bincount(places(shares, batch), minlength=len(shares))
    return tuple(float(count) / batch for count in counts)


def _applied(net: ExitNetwork, images: torch.Tensor) -> object:
    return POLICY.leaves(torch.stack(net(images), dim=1))


def _network(case: Case, device: torch.device) -> ExitNetwork:
    spec = NetSpec(case.backbone, options=(("stem", case.stem),))
    net = build(spec, (3, case.pixels, case.pixels), 10, seed=0).eval()
    placed(net, device)
    return net


HEADER = (
    "| network | batch | MACs saved | speed-up | promised | (a) measured / promised | (b) all exits / "
    "predictor | with policy after |\n|---|---|---|---|---|---|---|---|"
)


def _markdown(row: Row) -> str:
    cells = [
        row.case.name,
        str(row.batch),
        f"{100 * row.saved:.1f} %",
        f"{np.median(row.speed_up):.2f} ×",
        f"{np.median(row.promised):.2f} ×",
        _spread(row.stages, STAGES_BAR),
        "" if row.alone is None else _spread(row.alone, ALL_BAR),
        "" if row.applied is None else _spread(row.applied, None),
    ]
    return f"| {' | '.join(cells)} |"


def _spread(ratios: Samples, bar: float | None) -> str:
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    failed = bar is not None and middle < bar
    return f"{middle:.3f} ({low:.3f} to {high:.3f}){' **below**' if failed else ''}"


def _results(row: Row, machine: dict[str, Any]) -> list[dict[str, Any]]:
    title = f"{row.case.name}, batch {row.batch}"
    saved = f"{100 * row.saved:.0f} % of MACs saved"
    found = [
        _result(f"{title}, {saved}: promised time / measured time", row.stages, STAGES_BAR, machine)
    ]
    if row.alone is not None:
        name = f"{title}, nothing leaves: all exits / predictor"
        found.append(_result(name, row.alone, ALL_BAR, machine))
    return found


def _result(name: str, ratios: Samples, bar: float, machine: dict[str, Any]) -> dict[str, Any]:
    low, middle, high = (float(q) for q in np.quantile(ratios, [0.25, 0.5, 0.75]))
    return {
        "name": name,
        "ratio": middle,
        "bar": bar,
        "better": "higher",
        "holds": middle >= bar,
        "spread": [low, high],
        "machine": machine,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Does leaving early pay, as much as its stages promise?"
    )
    parser.add_argument("--quick", action="store_true", help="two networks, batches 1 and 16")
    parser.add_argument("--only", metavar="TEXT", help="networks whose name has this in it")
    parser.add_argument("--batch", type=int, action="append", metavar="N", help="repeatable")
    parser.add_argument("--rounds", type=int, default=40, help="at most")
    parser.add_argument(
        "--seconds", type=float, default=90.0, help="a network and batch, then 5 rounds do"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("results-inference.json"), metavar="FILE"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
