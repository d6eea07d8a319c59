"""A trial or a bundle, measured in every engine that it runs in."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from offramp import device as devices
from offramp.bundle import graphs
from offramp.bundle.folder import check_runtime
from offramp.engine.settings import placed
from offramp.errors import OfframpError
from offramp.infer import bundle_timing, torch_timing
from offramp.infer.image_files import checked_policy, doubts
from offramp.infer.timing import Effort, Timing, measure
from offramp.meters.capacity import busy_cores
from offramp.meters.meter import not_measured
from offramp.nets import ExitNetwork
from offramp.nets.network import inside, with_trunks
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study.run.costs import meter
from offramp.study.run.trials import blank_network

NOTE = (
    "policy: noise images that are made to leave where calibration images did, by share and in random "
    "order; scores are computed and compared all the same."
)
NO_TRIAL = (
    "The bundle's trial is not in the store, so the plain backbone was not measured; name the store "
    "that has it."
)


@dataclass(frozen=True)
class BenchmarkOptions:
    """How to measure."""

    batches: tuple[int, ...]  # images at once, each measured apart
    backend: str | None = None  # of torch.compile; None for eager alone
    threads: int | None = None  # of each engine; None for torch's default
    repeats: int = 50  # rounds at most
    seconds: float = 20.0  # of a batch and engine, before rounds are cut
    trust_code: bool = False  # see `offramp.study.run.trials.blank_network`

    @property
    def thread_count(self) -> int:
        return self.threads or torch.get_num_threads()


@dataclass(frozen=True)
class Benchmark:
    """What was measured of a trial or a bundle."""

    name: str  # of the trial or bundle
    exits: tuple[int, ...]  # numbers of its exits
    shares: tuple[float, ...] | None  # of images by exit under the policy, None without one
    lines: tuple[Timing, ...]  # by engine and batch
    compile_seconds: float | None  # first calls of what was compiled
    machine: dict[str, Any]  # where, with threads
    busy: float  # cores that other processes kept busy just before
    notes: tuple[str, ...]  # what a reader should know
    # why the network's answers are not to be trusted, where they are not
    unreliable: tuple[str, ...] = ()


def of_trial(
    store: Store, prefix: str, policy_file: Path | None, device: torch.device, options: BenchmarkOptions
) -> Generator[str, None, Benchmark]:
    """Measure a trial in torch; without a policy, nothing leaves early. Yields what it does, in words.
    Raises OfframpError for a policy of another trial, or without the share that leaves at each exit."""
    trial = store.find_trial(prefix)
    manifest = store.read_trial(trial)
    rule = None if policy_file is None else checked_policy(store, trial, policy_file)
    net = _network(store, trial, manifest.owners, device, options)
    benchmark = yield from of_network(trial, net, manifest.exits, rule, options)
    return replace(benchmark, unreliable=doubts(store, trial, rule))


def of_network(
    name: str, net: ExitNetwork, exits: tuple[int, ...], rule: Policy | None, options: BenchmarkOptions
) -> Generator[str, None, Benchmark]:
    """Measure a network in torch, where it is; yields what it does, in words. rule: has in its
    calibration the share that leaves at each exit; without one, nothing leaves."""
    shares = None if rule is None else _shares(rule)
    leaving = shares or (*(0.0,) * (len(exits) - 1), 1.0)
    every = (*(1.0,) * (len(exits) - 1), None)  # runs every head
    policy = rule or Policy("confidence", exits, every, carry=inside(net).carry)
    device, busy, before = next(net.parameters()).device, busy_cores(), torch.get_num_threads()
    effort = Effort(options.repeats, options.seconds)
    wait, most = partial(devices.synchronize, device), partial(devices.peak_memory, device)
    lines: list[Timing] = []
    compile_seconds: float | None = None
    torch.set_num_threads(options.thread_count)
    try:
        with meter(device) as running:
            for backend in (None, options.backend) if options.backend else (None,):
                engine = "eager" if backend is None else "compiled"
                for batch in options.batches:
                    yield f"torch, {engine}, batch {batch}"
                    with torch.inference_mode():
                        how = net, policy, leaving, batch, backend, options.repeats
                        calls = torch_timing.network_calls(*how)
                        more, first_calls = measure(
                            engine, calls, batch, effort, running, wait=wait, most=most
                        )
                    lines += more
                    if backend is not None:
                        compile_seconds = (compile_seconds or 0.0) + first_calls
            notes = not_measured(running)
    finally:
        torch.set_num_threads(before)
    return Benchmark(
        name,
        exits,
        shares,
        tuple(lines),
        compile_seconds,
        machine={**torch_timing.machine(device), "threads": options.thread_count},
        busy=busy,
        notes=(*(() if shares is None else (NOTE,)), *notes),
    )


def of_bundle(
    store: Store | None, folder: Path, options: BenchmarkOptions
) -> Generator[str, None, Benchmark]:
    """Measure a bundle in onnxruntime, and its trial in torch where the store has it: else there is no
    plain backbone to compare with. Yields what it does, in words. Raises OfframpError without
    onnxruntime, and for a bundle of which a file is changed."""
    check_runtime()
    rule = Policy.load(folder / "policy.json")
    trial, name, device = rule.calibration.trial, str(folder), torch.device("cpu")
    where = {**torch_timing.machine(device), "threads": options.thread_count}
    shares, busy = _shares(rule), busy_cores()
    net: ExitNetwork | None = None
    if store is not None and trial in store.trials():
        net = _network(store, trial, store.read_trial(trial).owners, device, options)
    yield "onnxruntime"
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        task = bundle_timing.BundleTask(
            name,
            None if net is None else _plain_graph(net, Path(scratch)),
            shares,
            options.batches,
            threads=options.thread_count,
            repeats=options.repeats,
            seconds=options.seconds,
            exits=rule.exits,
        )
        times = bundle_timing.measure(task)
    if net is None:
        own = Benchmark(name, rule.exits, shares, (), None, where, busy, (NOTE, NO_TRIAL))
    else:
        own = yield from of_network(name, net, rule.exits, rule, options)
    return replace(
        own,
        lines=(*times.lines, *own.lines),
        machine={**where, "onnxruntime": times.version},
        busy=busy,
        notes=tuple(dict.fromkeys((*own.notes, *times.notes))),
        unreliable=times.unreliable,
    )


def _network(
    store: Store, trial: str, owners: Sequence[int], device: torch.device, options: BenchmarkOptions
) -> ExitNetwork:
    """The trial's network without what it learned, which changes no time."""
    net = with_trunks(blank_network(store, trial, options.trust_code), owners).eval()
    placed(net, device)
    return net


def _plain_graph(net: ExitNetwork, folder: Path) -> str:
    """The backbone without exits as one graph."""
    graphs.check_exporter()
    (stage,) = graphs.layout(inside(net).trunk_of, [net.exits])
    for _ in graphs.export(net, (stage,), folder):
        pass
    return str(folder / stage.file)


def _shares(rule: Policy) -> tuple[float, ...]:
    """Which share left at each exit, of the calibration images."""
    chosen = rule.calibration.chosen
    shares = () if chosen is None else chosen.leaving
    if len(shares) != len(rule.exits) or not all(0 <= share <= 1 for share in shares):
        raise OfframpError(
            "the policy file does not say which share leaves at each exit (chosen.leaving); calibrate "
            "again"
        )
    return tuple(float(share) for share in shares)
