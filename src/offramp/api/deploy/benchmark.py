"""Tables, JSON and a chart of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp import units
from offramp.api.answer import answer
from offramp.api.opening import opened_for, trusted
from offramp.api.options import (
    RUNS,
    CommandOption,
    Device,
    FastStepWatcher,
    NetworkPlace,
    PolicyFile,
    StorePlace,
    TrustCode,
)
from offramp.api.reporter import finished
from offramp.errors import OfframpError
from offramp.store.place import Place, place
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted, duration, macs, size

if TYPE_CHECKING:
    from offramp.infer.benchmark import Benchmark
    from offramp.infer.other_images import OtherImages
    from offramp.policy.evaluate import Evaluation
    from offramp.policy.quality import Interval

QUIET = 0.3  # other processes, on average, above which a machine is not quiet


@answer
class BenchmarkReport:
    """What was measured of a trial or a bundle.

    Attributes:
        benchmark: The numbers.
        figure: The chart's file; None without one.
        failure: Why the chart could not be written.
        images: What the policy comes to on images of another folder; None without one.

    On the command line:
        offramp benchmark two-stage-resnet18-cifar10-s42 --json
    """

    benchmark: Benchmark
    figure: Path | None = None
    failure: OfframpError | None = None
    images: OtherImages | None = None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self.benchmark), "images": self.images and asdict(self.images)}

    def document(self) -> TextBlocks:
        measured = self.benchmark
        machine = measured.machine
        engines = f"torch {machine['torch']}"
        if "onnxruntime" in machine:
            engines += f", onnxruntime {machine['onnxruntime']}"
        parts: list[str | TextTable] = [
            f"{measured.name}\n{machine['device']}, {counted(machine['cores'], 'core')}, "
            f"{counted(machine['threads'], 'thread')}; {engines}",
            *(_whole(measured, batch) for batch in sorted({line.batch for line in measured.lines})),
            *stage_tables(measured),
        ]
        if measured.compile_seconds is not None:
            parts.append(f"Compiling took {duration(measured.compile_seconds)}, in the first calls.")
        if measured.shares is not None:
            pairs = zip(measured.exits, measured.shares, strict=True)
            leaving = ", ".join(f"{100 * share:.0f} % at exit {exit}" for exit, share in pairs)
            parts.append(f"Leaving: {leaving}.")
        if self.images is not None:
            parts += _other(self.images)
        parts += [f"Unreliable: {reason}." for reason in measured.unreliable]
        parts += [f"{note[0].upper()}{note[1:].removesuffix('.')}." for note in measured.notes]
        if measured.busy > QUIET:
            parts.append(
                f"Warning: other processes kept {measured.busy:.1f} cores busy; trust no number here."
            )
        return [*parts, *([] if self.figure is None else [f"Figure: {self.figure}"])]


def benchmark(
    network: NetworkPlace,
    store: StorePlace = RUNS,
    *,
    policy: PolicyFile = None,
    images: Annotated[Path | str | None, CommandOption("FOLDER")] = None,
    device: Device = None,
    batch: Annotated[Sequence[int], CommandOption("N", least=1)] = (1, 16, 256),
    threads: Annotated[int | None, CommandOption("N", least=1)] = None,
    compiled: Annotated[bool, CommandOption(names=("--compile",))] = False,
    repeats: Annotated[int, CommandOption("N", least=5)] = 50,
    seconds: Annotated[float, CommandOption("TIME", parse=units.seconds, default="20s")] = 20.0,
    figure: Path | None = None,
    trust_code: TrustCode = None,
    watch: FastStepWatcher = None,
) -> BenchmarkReport:
    """Time a network with and without early exits.

    Four things are timed in turns: the plain network, the network when nothing leaves, the network
    under its policy, and each stage alone. The table has milliseconds, MACs, and energy if there is a
    meter. Close other programs first.

    A bundle is timed in onnxruntime, on the CPU, in its own process. Its memory is measured too, without
    that of libraries. If the store has its trial, the plain network and torch are timed too.

    With `images`, labeled images of another folder, it also says what the policy loses there, and what
    it spends, beside the same on test images. Of a bundle its trial is tried, which the store has.

    Args:
        network: A trial's id, or a bundle's folder.
        store: The store: a folder, or s3://BUCKET/NAME.
        policy: A policy file of offramp calibrate. A bundle has its own.
        images: A folder of CLASS/IMAGE, with the network's classes or some of them.
        device: Where the network runs.
        batch: Images at once. Repeatable.
        threads: Threads of each engine. By default as many as torch uses.
        compiled: Measure torch.compile too, which takes a while.
        repeats: Time each engine and batch size at most N times.
        seconds: Stop each engine and batch size after this time, such as 30s, but not before 5 rounds.
        figure: Draw a chart: .svg, .png, .pdf or .json.
        trust_code: Whether code that the store names may run.
        watch: Called with each step.

    Raises:
        OfframpError: There is no such trial or bundle, the policy is of another one, or the network
            cannot answer `images`.

    On the command line:
        offramp benchmark two-stage-resnet18-cifar10-s42 --policy policy.json
        offramp benchmark two-stage-resnet18 --policy policy.json --images rainy/
        offramp benchmark bundle/ --batch 1 --batch 256 --figure speed.svg
    """
    from offramp import device as devices
    from offramp.api.chart import check_file, saved
    from offramp.api.deploy.predict import check_bundle_options
    from offramp.bundle.folder import opened as opened_bundle
    from offramp.infer import image_files
    from offramp.infer.benchmark import BenchmarkOptions, of_bundle, of_trial
    from offramp.infer.other_images import on_folder
    from offramp.policy.policy import Policy
    from offramp.report.figures.times import speed_figure
    from offramp.store.archive import is_store
    from offramp.store.store import Store

    if figure is not None:
        check_file(figure)
    backend = "inductor" if compiled else None
    options = BenchmarkOptions(tuple(dict.fromkeys(batch)), backend, threads, repeats, seconds)
    root, other, folder = place(store), None, None if images is None else Path(images)
    if image_files.names_bundle(network):
        check_bundle_options(policy, device)
        source = Store(root) if is_store(root) else None
        rule = Policy.load(Path(network) / "policy.json")
        trial = rule.calibration.trial
        here = source is not None and trial in source.trials()
        if source is not None and here:
            options = replace(options, trust_code=trusted(source, trial, trust_code))
        if folder is not None:
            if source is None or not here or opened_bundle(Path(network)).precision != "float32":
                raise OfframpError(
                    "`images` are given to the trial of a bundle in float32; name the store that has "
                    "it, or for int8 the trial and its `policy`"
                )
            steps = on_folder(source, trial, rule, folder, devices.chosen("cpu"), options.trust_code)
            other = finished(steps, watch)
        measured = finished(of_bundle(source, Path(network), options), watch)
        if not here:
            measured = replace(measured, notes=(*measured.notes, *_elsewhere(root, trial)))
    else:
        source = opened_for(network, root)
        code_runs = trusted(source, source.find_trial(network), trust_code)
        options, where = replace(options, trust_code=code_runs), devices.chosen(device)
        if folder is not None:
            if policy is None:
                raise OfframpError("`images` say what a policy loses; give `policy` too")
            other = finished(on_folder(source, network, policy, folder, where, code_runs), watch)
        measured = finished(of_trial(source, network, policy, where, options), watch)
    chart = saved(speed_figure(measured.lines, measured.name), figure) if figure else (None, None)
    return BenchmarkReport(measured, *chart, other)


def _elsewhere(root: Place, trial: str) -> Iterator[str]:
    """The store directly below a folder that has a trial."""
    from offramp.store.archive import Archive, stores_in

    for store in stores_in(root):
        with suppress(OfframpError):
            if trial in Archive(store).trials():
                yield f"--store {store} has it."


def _whole(measured: Benchmark, batch: int) -> TextTable:
    from offramp.infer.timing import WHOLE

    lines = [line for line in measured.lines if line.batch == batch and line.what in WHOLE]
    plain = {line.engine: line.rate for line in lines if line.what == "plain"}
    has_energy, has_memory = (
        any(getattr(line, name) is not None for line in lines) for name in ("joules", "memory")
    )
    rows = []
    for line in lines:
        spent = "–" if line.macs is None else macs(line.macs)
        faster = f"{line.rate / plain[line.engine]:.2f} ×" if line.engine in plain else "–"
        times = f"{1000 * line.p50:.4g}", f"{1000 * line.p95:.4g}", f"{line.rate:,.0f}"
        energy = "–" if line.joules is None else f"{1000 * line.joules:.4g}"
        memory = "–" if line.memory is None else size(line.memory)
        more = [*([energy] if has_energy else []), *([memory] if has_memory else [])]
        rows.append((line.engine, line.what, spent, *times, faster, *more))
    titles = ["MACs", "p50 ms", "p95 ms", "images/s", "speed-up"]
    titles += [*(["mJ/image"] if has_energy else []), *(["memory"] if has_memory else [])]
    return TextTable(["engine", "network"], titles, rows, f"{counted(batch, 'image')} at once")


def _other(images: OtherImages) -> list[str | TextTable]:
    """What the policy comes to on test images, and on those of another folder."""
    from offramp.policy.quality import Interval

    def column(tested: Evaluation) -> list[str]:
        spent = tested.macs
        ends = (spent.mean if end is None else end for end in (spent.low, spent.high))
        share = (each / images.plain_macs for each in (spent.mean, *ends))
        return [
            f"{tested.images:,}",
            *(_share(each) for each in (tested.policy, tested.full, tested.loss)),
            _share(Interval(*share)),
        ]

    names = ["images", "right under the policy", "right in the whole network", "lost, in points", "MACs"]
    columns = zip(names, column(images.test), column(images.elsewhere), strict=True)
    note = (
        "In %, with intervals of 95 %. MACs: of the plain network's. Nothing is promised of such images."
    )
    unread = f"{counted(images.unread, 'file')} could not be read."
    table = TextTable([""], ["test split", images.folder], [*columns], "Other images", note)
    return [table, *([unread] if images.unread else [])]


def _share(each: Interval) -> str:
    return f"{100 * each.value:.1f} ({100 * each.low:.1f} to {100 * each.high:.1f})"


def stage_tables(measured: Benchmark) -> list[TextTable]:
    """Each stage alone: MACs, and the median at each batch size."""
    from offramp.infer.timing import WHOLE

    tables = []
    for engine in dict.fromkeys(line.engine for line in measured.lines):
        own = (line for line in measured.lines if line.engine == engine and line.what not in WHOLE)
        lines = sorted(own, key=lambda line: line.batch)  # as the columns are
        batches = sorted({line.batch for line in lines})
        cells: dict[str, list[str]] = {}
        for line in lines:
            row = cells.setdefault(line.what, ["–" if line.macs is None else macs(line.macs)])
            row.append(f"{1000 * line.p50:.4g}")
        tables.append(
            TextTable(
                ["stage"],
                ["MACs", *(f"ms at {batch}" for batch in batches)],
                [(stage, *row) for stage, row in cells.items()],
                f"Each stage alone, {engine}, on every image",
            )
        )
    return tables
