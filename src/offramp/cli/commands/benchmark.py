"""`offramp benchmark`: tables, JSON and a chart of what was measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp import units
from offramp.cli import options
from offramp.cli.options import argument, flag, option
from offramp.cli.render import emit, say, told
from offramp.cli.store import opened_for, trusted
from offramp.errors import OfframpError
from offramp.store.place import Place
from offramp.terminal import show, split, table
from offramp.units import counted, duration, macs, size

if TYPE_CHECKING:
    from offramp.infer.benchmark import Benchmark


def benchmark(
    network: Annotated[str, argument("TRIAL|BUNDLE", "A trial's id, or a bundle's folder.")],
    store: options.StoreArgument = None,
    store_: options.StoreOption = None,
    policy: options.PolicyOption = None,
    device: options.DeviceOption = None,
    batch: Annotated[
        list[int] | None, option("N", "Images at once. Repeatable.  [default: 1, 16, 256]", min=1)
    ] = None,
    threads: Annotated[
        int | None, option("N", "Threads of each engine. By default as many as torch uses.", min=1)
    ] = None,
    compile_: Annotated[
        bool, flag("--compile", "Measure torch.compile too, which takes a while.")
    ] = False,
    repeats: Annotated[int, option("N", "Time each engine and batch size at most N times.", min=5)] = 50,
    seconds: Annotated[
        str,
        option(
            "TIME",
            "Stop each engine and batch size after this time, such as 30s, but not before 5 rounds.",
        ),
    ] = "20s",
    figure: Annotated[Path | None, option("FILE", "Draw a chart: .svg, .png, .pdf or .json.")] = None,
    trust: options.TrustOption = None,
    json: options.JsonOption = False,
) -> None:
    """Time a network with and without early exits.

    Four things are timed in turns: the plain network, the network when nothing leaves, the network
    under its policy, and each stage alone. The table has milliseconds, MACs, and energy if there is a
    meter. Close other programs first.

    A bundle is timed in onnxruntime, on the CPU, in its own process. Its memory is measured too, without
    that of libraries. If the store has its trial, the plain network and torch are timed too.

    \b
    Examples:
      offramp benchmark two-stage-resnet18-cifar10-s42 --policy policy.json
      offramp benchmark bundle/ --batch 1 --batch 256 --figure speed.svg
    """
    from offramp import device as devices
    from offramp.infer import image_files
    from offramp.infer.benchmark import BenchmarkOptions, of_bundle, of_trial
    from offramp.policy.policy import Policy
    from offramp.report.render.charts import FORMATS
    from offramp.store.archive import is_store
    from offramp.store.store import Store

    if figure is not None and figure.suffix[1:] not in FORMATS:
        endings = ", ".join(f".{ending}" for ending in FORMATS)
        raise OfframpError(f"--figure is {figure}; end it in one of {endings}")
    if figure is not None and not figure.parent.is_dir():
        raise OfframpError(f"there is no folder {figure.parent} for --figure; make it first")
    quiet = not sys.stderr.isatty()
    batches = tuple(dict.fromkeys(batch or (1, 16, 256)))
    backend = "inductor" if compile_ else None
    time = units.seconds(seconds, "--seconds")
    asked = BenchmarkOptions(batches, backend, threads, repeats, time)
    root = options.named(store, store_)
    kept = Store(root) if is_store(root) else None
    if image_files.is_bundle(network):
        options.check_bundle_options(policy, device)
        trial = Policy.load(Path(network) / "policy.json").calibration.trial
        here = kept is not None and trial in kept.trials()
        if kept is not None and here:
            asked = replace(asked, trust_code=trusted(kept, trial, trust))
        found = told(of_bundle(kept, Path(network), asked), quiet)
        if not here:
            found = replace(found, notes=(*found.notes, *_elsewhere(root, trial)))
    else:
        kept = opened_for(network, root)
        asked = replace(asked, trust_code=trusted(kept, kept.find_trial(network), trust))
        found = told(of_trial(kept, network, policy, devices.chosen(device), asked), quiet)
    if json:
        emit({**asdict(found), "lines": [asdict(line) for line in found.lines]})
    else:
        _show(found)
    if figure is not None:  # last: what was measured is said, whether the chart can be written or not
        _draw(found, figure)
        if not json:
            typer.echo(f"Figure: {figure}")


def _elsewhere(root: Place, trial: str) -> Iterator[str]:
    """The store directly below a folder that has a trial."""
    from offramp.store.archive import Archive, stores_in

    for store in stores_in(root):
        with suppress(OfframpError):
            if trial in Archive(store).trials():
                yield f"--store {store} has it."


QUIET = 0.3  # other processes, on average, above which a machine is not quiet


def _show(found: Benchmark) -> None:
    where = found.machine
    engines = f"torch {where['torch']}"
    if "onnxruntime" in where:
        engines += f", onnxruntime {where['onnxruntime']}"
    typer.echo(
        f"{found.name}\n{where['device']}, {counted(where['cores'], 'core')}, "
        f"{counted(where['threads'], 'thread')}; {engines}\n"
    )
    for batch in sorted({line.batch for line in found.lines}):
        _whole(found, batch)
    _stages(found)
    if found.compile_seconds is not None:
        typer.echo(f"Compiling took {duration(found.compile_seconds)}, in the first calls.")
    if found.shares is not None:
        pairs = zip(found.exits, found.shares, strict=True)
        leaving = ", ".join(f"{100 * share:.0f} % at exit {exit}" for exit, share in pairs)
        typer.echo(f"Leaving: {leaving}.")
    for reason in found.unreliable:
        say(f"Unreliable: {reason}.")
    for note in found.notes:
        say(f"{note[0].upper()}{note[1:].removesuffix('.')}.")
    if found.busy > QUIET:
        typer.echo(f"Warning: other processes kept {found.busy:.1f} cores busy; trust no number here.")


def _whole(found: Benchmark, batch: int) -> None:
    from offramp.infer.timing import WHOLE

    lines = [line for line in found.lines if line.batch == batch and line.what in WHOLE]
    plain = {line.engine: line.rate for line in lines if line.what == "plain"}
    drawn, taken = (
        any(getattr(line, name) is not None for line in lines) for name in ("joules", "memory")
    )
    rows = []
    for line in lines:
        spent = "–" if line.macs is None else macs(line.macs)
        faster = f"{line.rate / plain[line.engine]:.2f} ×" if line.engine in plain else "–"
        times = f"{1000 * line.p50:.4g}", f"{1000 * line.p95:.4g}", f"{line.rate:,.0f}"
        energy = "–" if line.joules is None else f"{1000 * line.joules:.4g}"
        memory = "–" if line.memory is None else size(line.memory)
        more = [*([energy] if drawn else []), *([memory] if taken else [])]
        rows.append((line.engine, line.what, spent, *times, faster, *more))
    titles = ["MACs", "p50 ms", "p95 ms", "images/s", "speed-up"]
    titles += [*(["mJ/image"] if drawn else []), *(["memory"] if taken else [])]
    show(table(["engine", "network"], titles, rows), f"{counted(batch, 'image')} at once")


def _stages(found: Benchmark) -> None:
    """Each stage alone: MACs, and the median at each batch size."""
    from offramp.infer.timing import WHOLE

    for engine in dict.fromkeys(line.engine for line in found.lines):
        own = (one for one in found.lines if one.engine == engine and one.what not in WHOLE)
        lines = sorted(own, key=lambda line: line.batch)  # as the columns are
        batches = sorted({line.batch for line in lines})
        rows: dict[str, list[str]] = {}
        for line in lines:
            cells = rows.setdefault(line.what, ["–" if line.macs is None else macs(line.macs)])
            cells.append(f"{1000 * line.p50:.4g}")
        columns = ["MACs", *(f"ms at {batch}" for batch in batches)]
        show(split("stage", columns, rows), f"Each stage alone, {engine}, on every image")


def _draw(found: Benchmark, figure: Path) -> None:
    from offramp.api.chart import Chart
    from offramp.report.figures.times import speed_figure

    Chart(speed_figure(found.lines, found.name)).save(figure)
