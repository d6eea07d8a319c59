"""A trial or a bundle, measured in every engine that it runs in."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from offramp.bundle import graphs
from offramp.bundle.folder import check_runtime
from offramp.engine.settings import placed
from offramp.errors import OfframpError
from offramp.infer import bundle_timing, torch_timing
from offramp.infer.image_files import checked_policy, doubts
from offramp.infer.timing import Effort, Timing
from offramp.meters import busy_cores, not_measured
from offramp.nets import ExitNetwork
from offramp.policy import policy
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study.run.costs import meter
from offramp.study.run.trials import blank_network


@dataclass(frozen=True)
class BenchmarkOptions:
    """batches: images at once, each measured apart.  backend: of torch.compile, None for eager alone.
    threads: of each engine; None for torch's default.  repeats: rounds at most; seconds: of a batch and
    engine, before rounds are cut.  trust_code: see `offramp.study.run.trials.blank_network`."""

    batches: tuple[int, ...]
    backend: str | None = None
    threads: int | None = None
    repeats: int = 50
    seconds: float = 20.0
    trust_code: bool = False


@dataclass(frozen=True)
class Benchmark:
    """name: of the trial or bundle.  shares: of images by exit under the policy, None without one.
    compile_seconds: first calls of what was compiled.  machine: where, with threads.  busy: cores
    that other processes kept busy just before.  notes: what a reader should know.  unreliable: why the
    network's answers are not to be trusted, where they are not."""

    name: str
    exits: tuple[int, ...]
    shares: tuple[float, ...] | None
    lines: tuple[Timing, ...]
    compile_seconds: float | None
    machine: dict[str, Any]
    busy: float
    notes: tuple[str, ...]
    unreliable: tuple[str, ...] = ()


def of_trial(
    store: Store, prefix: str, policy_file: Path | None, device: torch.device, asked: BenchmarkOptions
) -> Generator[str, None, Benchmark]:
    """Measure a trial in torch; yields what it does, in words. Without a policy, nothing leaves.

    Raises OfframpError for a policy of another trial, and for one that does not say what leaves where.
    """
    trial = store.find_trial(prefix)
    manifest = store.read_trial(trial)
    exits, rule = manifest.exits, None
    if policy_file is not None:
        rule = checked_policy(store, trial, policy_file)
    net = _network(store, trial, manifest.owners, device, asked)
    found = yield from of_network(trial, net, exits, rule, asked)
    return replace(found, unreliable=doubts(store, trial, rule))


def of_network(
    name: str, net: ExitNetwork, exits: tuple[int, ...], rule: Policy | None, asked: BenchmarkOptions
) -> Generator[str, None, Benchmark]:
    """Measure a network in torch, where it is, as `of_trial`. net: in eval mode.  rule: says in its
    calibration which share leaves where; without one, nothing leaves."""
    known = None if rule is None else _shares(rule)
    busy = busy_cores()
    every = (*(1.0,) * (len(exits) - 1), None)  # asks every head
    asking = rule or Policy("confidence", exits, every, carry=net.carry)
    shares = known or (*(0.0,) * (len(exits) - 1), 1.0)
    done = yield from _torch(net, asking, shares, asked)
    where = {**torch_timing.machine(next(net.parameters()).device), "threads": _threads(asked)}
    notes = (*(() if known is None else (_NOTE,)), *done.notes)
    return Benchmark(
        name,
        exits,
        shares=known,
        lines=done.lines,
        compile_seconds=done.compile_seconds,
        machine=where,
        busy=busy,
        notes=notes,
    )


def of_bundle(
    store: Store | None, folder: Path, asked: BenchmarkOptions
) -> Generator[str, None, Benchmark]:
    """Measure a bundle in onnxruntime, and its trial in torch where `store` has it; without that, there
    is no plain backbone to compare with.

    Raises OfframpError without onnxruntime, and for a bundle of which a file is changed.
    """
    check_runtime()
    rule = policy.read(folder / "policy.json")
    shares, trial = _shares(rule), rule.calibration.trial
    there = store is not None and trial in store.trials()
    notes = [_NOTE]
    device, busy = torch.device("cpu"), busy_cores()
    net: ExitNetwork | None = None
    if store is not None and there:
        owners = store.read_trial(trial).owners
        net = _network(store, trial, owners, device, asked)
    else:
        notes.append(
            "The bundle's trial is not in the store, so the plain backbone was not measured; name the "
            "store that has it."
        )
    yield "onnxruntime"
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        plain = None if net is None else _plain_graph(net, Path(scratch))
        found = bundle_timing.measure(
            bundle_timing.BundleTask(
                str(folder),
                plain,
                shares,
                asked.batches,
                threads=_threads(asked),
                repeats=asked.repeats,
                seconds=asked.seconds,
                exits=rule.exits,
            )
        )
    lines, seconds = list(found.lines), None
    notes += found.notes
    if net is not None:
        done = yield from _torch(net, rule, shares, asked)
        lines += done.lines
        seconds = done.compile_seconds
    where = {**torch_timing.machine(device), "threads": _threads(asked), "onnxruntime": found.version}
    return Benchmark(
        str(folder),
        rule.exits,
        shares,
        lines=tuple(lines),
        compile_seconds=seconds,
        machine=where,
        busy=busy,
        notes=tuple(notes),
        unreliable=found.unreliable,
    )


_NOTE = (
    "policy: noise images that are made to leave where calibration images did, by share and in random "
    "order; scores are computed and compared all the same."
)


def _threads(asked: BenchmarkOptions) -> int:
    return asked.threads or torch.get_num_threads()


@dataclass(frozen=True)
class _Torch:
    """What was measured in torch. compile_seconds: of first calls.  notes: as of `Benchmark`."""

    lines: tuple[Timing, ...]
    compile_seconds: float | None
    notes: tuple[str, ...]


def _torch(
    net: ExitNetwork, rule: Policy, shares: Sequence[float], asked: BenchmarkOptions
) -> Generator[str, None, _Torch]:
    before = torch.get_num_threads()
    lines: list[Timing] = []
    compiling: float | None = None
    try:
        if asked.threads is not None:
            torch.set_num_threads(asked.threads)
        effort = Effort(asked.repeats, asked.seconds)
        with meter(next(net.parameters()).device) as running:
            for backend in (None, asked.backend) if asked.backend else (None,):
                for batch in asked.batches:
                    yield f"torch, {'eager' if backend is None else 'compiled'}, batch {batch}"
                    found = torch_timing.benchmark(net, rule, shares, batch, backend, effort, running)
                    lines += found.lines
                    if backend is not None:
                        compiling = (compiling or 0.0) + found.first_calls
            notes = tuple(not_measured(running))
    finally:
        torch.set_num_threads(before)
    return _Torch(tuple(lines), compiling, notes)


def _network(
    store: Store, trial: str, owners: Sequence[int], device: torch.device, asked: BenchmarkOptions
) -> ExitNetwork:
    """The trial's network without what it learned, which changes no time."""
    net = blank_network(store, trial, asked.trust_code).with_trunks(owners).eval()
    placed(net, device)
    return net


def _plain_graph(net: ExitNetwork, folder: Path) -> str:
    """The backbone without exits as one graph."""
    graphs.check_installed()
    (stage,) = graphs.layout(net.trunk_of, [net.exits])
    for _ in graphs.export(net, (stage,), folder):
        pass
    return str(folder / stage.file)


def _shares(rule: Policy) -> tuple[float, ...]:
    """Which share left at each exit, of the calibration images."""
    chosen = rule.calibration.chosen
    found = () if chosen is None else chosen.leaving
    if len(found) != len(rule.exits) or not all(0 <= share <= 1 for share in found):
        raise OfframpError(
            "the policy file does not say which share leaves at each exit (chosen.leaving); calibrate "
            "again"
        )
    return tuple(float(share) for share in found)
