"""How long should OpenMP's threads spin? A training step, quiet and beside one busy process.

    python -m benchmarks.openmp                      minutes, on a machine that does nothing else
    python -m benchmarks.openmp --quick              a minute, to see that it runs

For each network one process a setting, called in turns, first alone, then beside a process that keeps
one core busy. A ratio is time with a setting over time with the library's own (300,000 turns of the
loop), a second one over the quiet time of the same setting: what the neighbor costs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from benchmarks.side import Contender, Result, in_turns, machine, ratio
from offramp.openmp import SPINS
from offramp.study.tune import BUSY_LOOP

SETTINGS: Mapping[str, Mapping[str, str | None]] = {
    "300000 (the library's)": {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": None},
    "0 (passive)": {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": "passive"},
    **{str(n): {"GOMP_SPINCOUNT": str(n), "OMP_WAIT_POLICY": None} for n in (SPINS, 1_000, 10_000)},
}
USUAL = next(iter(SETTINGS))
SUBJECTS = (
    ("digits-cnn", (1, 8, 8), 128),
    ("mobilenetv2", (3, 32, 32), 128),
    ("resnet18", (3, 32, 32), 128),
)


def make(
    backbone: str, shape: tuple[int, int, int], batch: int, threads: int, seconds: float
) -> Callable[[], float]:
    """The median time of a step, over steps of about so many seconds."""
    import torch

    from offramp.allocator import keep_freed_memory
    from offramp.engine import probe

    keep_freed_memory()
    net = probe.network(probe.Subject(backbone, shape, batch))
    step = probe.stepper(net, batch, probe.Way(threads), torch.device("cpu"))
    step()
    return partial(_median, step, seconds)


def _median(step: Callable[[], float], seconds: float) -> float:
    from offramp.engine.probe import in_turns as timed

    return median(timed([step], seconds)[0])


@contextmanager
def neighbor() -> Iterator[None]:
    """A process that keeps one core busy."""
    with subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) as process:
        try:
            yield
        finally:
            process.kill()


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    rounds, seconds, threads = (3, 0.5, 2) if quick else (7, 2.0, 2)
    for backbone, shape, batch in SUBJECTS:
        batch = batch // 8 if quick and backbone != "digits-cnn" else batch
        arguments = {"backbone": backbone, "shape": shape, "batch": batch}
        where = machine()
        with ExitStack() as stack:
            contenders = {}
            for name, environment in SETTINGS.items():
                made = Contender(make, environment, **arguments, threads=threads, seconds=seconds)
                contenders[name] = stack.enter_context(made)
            quiet = in_turns(contenders, rounds)
            with neighbor():
                beside = in_turns(contenders, rounds)
        for name in SETTINGS:
            say(
                f"  {backbone}, {name}: {1e3 * median(quiet[name]):.2f} ms quiet, "
                f"{1e3 * median(beside[name]):.2f} ms beside a busy process"
            )
            note = f"batch {batch}, {threads} threads"
            made_of = {"quiet": (quiet[name], quiet[USUAL]), "beside": (beside[name], beside[USUAL])}
            for kind, (mine, usual) in made_of.items() if name != USUAL else ():
                label = f"openmp: {backbone}, {kind}, {name} turns against {USUAL}"
                yield _result(label, *ratio(mine, usual), where, note)
            label = f"openmp: {backbone}, {name} turns, beside a busy process against quiet"
            yield _result(label, *ratio(beside[name], quiet[name]), where, note)


def _result(name: str, found: float, spread: tuple[float, float], where: str, note: str) -> Result:
    return Result(name, found, None, "lower", spread, where, note)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller batches, fewer repeats")
    for result in measure(parser.parse_args().quick, partial(print, flush=True)):
        low, high = result.spread
        print(f"{result.name}: {result.ratio:.2f} ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
