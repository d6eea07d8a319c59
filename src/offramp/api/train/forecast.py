"""What a run would take: the phases and the totals of a plan, or of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from offramp.api.answer import answer
from offramp.api.opening import name_code
from offramp.api.options import (
    RUNS,
    CommandOption,
    Speed,
    Time,
    TrainingOptions,
    TrainingStore,
    Watcher,
)
from offramp.api.reporter import reporter_for
from offramp.api.train.request import StudyRequest, TrainingSite, cluster_address, requested
from offramp.api.train.run import StudySource, WorkerCount, planned, points, remark
from offramp.errors import OfframpError
from offramp.store.place import place
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted, duration, macs, noun, percent, size

if TYPE_CHECKING:
    from offramp.data.dataset import Data
    from offramp.report.power import SeedsNeeded
    from offramp.study.plan.forecast import Forecast, Forecasts, OnMachines, Totals
    from offramp.study.plan.plan import Plan
    from offramp.study.plan.schedule import Spans
    from offramp.study.plan.workers import Workers


@answer
class StudyForecast:
    """What one study would take.

    Attributes:
        forecast: Its phases and totals.
        speed: Of another device, in MACs a second; None without one.
        workers: Processes that would train; None for a cluster.
        cluster: Times on several machines; None for this machine alone.
        power: How many seeds a difference takes; None where that was left out.
        data: What the data are, in words.
    """

    forecast: Forecast
    speed: float | None
    workers: Workers | None
    cluster: OnMachines | None
    power: SeedsNeeded | None
    data: str

    def as_json(self) -> dict[str, Any]:
        parts = {"workers": self.workers, "power": self.power}
        more = {name: asdict(part) for name, part in parts.items() if part is not None}
        more |= {} if self.cluster is None else {"cluster": self.cluster.as_json()}
        return with_speed(self.forecast, self.speed) | more

    def document(self) -> TextBlocks:
        power = []
        if self.power is not None:
            from offramp.report.power import power_line  # takes scipy.stats

            power = [power_line(self.power)]
        phases = forecast_document(self.forecast, self.speed, self.workers, self.cluster)
        return [self.data, f"Arithmetic: {self.forecast.arithmetic}.", *phases, *power]


@answer
class StudyListForecast:
    """What several studies would take, one after another.

    Attributes:
        name: What they are called together.
        forecasts: Of each study, and in all.
        speed: Of another device, in MACs a second; None without one.
        workers: Processes of each study; none for a cluster.
        cluster: Times on several machines; None for this machine alone.
    """

    name: str
    forecasts: Forecasts
    speed: float | None
    workers: Sequence[Workers]
    cluster: OnMachines | None

    def as_json(self) -> dict[str, Any]:
        record = with_speed(self.forecasts, self.speed)
        for study, workers in zip(record["studies"], self.workers, strict=self.cluster is None):
            study["workers"] = asdict(workers)
        return record if self.cluster is None else record | {"cluster": self.cluster.as_json()}

    def document(self) -> TextBlocks:
        speed, studies = self.speed, self.forecasts.studies
        rows = []
        for name, study in studies:
            totals = study.totals
            share = f"{100 * totals.share_of_written:.0f} %"
            elsewhere = [] if speed is None else [duration(totals.macs_to_run / speed)]
            here = duration(totals.seconds)
            rows.append((name, str(totals.nodes), macs(totals.macs), share, here, *elsewhere))
        note = "of unshared: MACs against those of all phases, with nothing shared or cached."
        columns = ["nodes", "MACs", "of unshared", "here"]
        if speed is not None:
            columns.append("there")
            note += "\nthere: at the speed that was named."
        title = f"{self.name}: {len(studies)} studies"
        return [
            TextTable(["study"], columns, rows, title, note),
            totals_text(self.forecasts.totals, speed),
            *self._machines(),
            *_provisional([study for _, study in studies]),
        ]

    def _machines(self) -> list[str | TextTable]:
        if self.cluster is not None:
            return machines_document(self.cluster)
        counts = [workers.count for workers in self.workers]
        least, most = min(counts), max(counts)
        count = str(least) if least == most else f"{least} to {most}"
        return [f"Workers: {count} (why is in --json)."]


def forecast(
    study: StudySource = None,
    store: TrainingStore = RUNS,
    *,
    workers: WorkerCount = None,
    on: Annotated[str, CommandOption("PLACE")] = "local",
    price_per_hour: Annotated[float | None, CommandOption("PRICE", least=0)] = None,
    budget: Time = None,
    speed: Speed = None,
    power: Annotated[float | None, CommandOption("POINTS", parse=points)] = None,
    watch: Watcher = None,
    **training: Unpack[TrainingOptions],
) -> StudyForecast | StudyListForecast:
    """Show the work, the shared part of it, and the time. Start nothing.

    A dry run needs neither data nor weights: it knows the sizes of public data sets.

    Args:
        study: A study file, or in Python a mapping or a `Study`.
        store: The store, which keeps finished work: a folder, or s3://BUCKET/NAME.
        workers: Processes that train at the same time.
        on: Where to train.
        price_per_hour: With --on ray: price of a machine per hour, to show the price of the study.
        budget: Cut epochs and images until training here fits this time.
        speed: Also the time on a device of this speed, such as 14TFLOPS or 7TMACs.
        power: Also how many seeds it takes to show this difference, in points of test accuracy.
        watch: Called with events; there are none yet.
        training: What would be trained and how.

    Raises:
        OfframpError: The input cannot work.

    In Python, `study` may be a mapping or a `Study` too, and `power` is a share of 1.

    On the command line:
        offramp run demo.yaml --dry-run
        offramp run demo.yaml --dry-run --power 0.5
        offramp run demo.yaml --dry-run --speed 14TFLOPS
        offramp run demo.yaml --dry-run --on ray --price-per-hour 2.5
        offramp run studies/paper/all.yaml --set scale=small --dry-run
    """
    from offramp.store.store import Store
    from offramp.study.plan.forecast import forecast as foreseen
    from offramp.study.plan.forecast import on_machines

    reporter = reporter_for(watch)
    address = cluster_address(on, workers)
    if price_per_hour is not None and address is None:
        raise OfframpError("`price_per_hour` is for the forecast of a cluster; name one with `on`")
    request = requested(study, training, address is not None)
    name_code(request.studies, training.get("user_code", True), reporter)
    request.check_alone(budget=budget, power=power)
    count = workers if isinstance(workers, int) else None
    site = TrainingSite(place(store), training.get("device"), count)
    if len(request.members) > 1:
        return _list_forecast(request, site, address is not None, speed, price_per_hour)
    plan, _, _ = planned(request, site, budget, True, reporter, provisional=True)
    remark(plan, reporter)
    result = foreseen(plan, Store(site.store), site.device)
    cluster = None
    if address is not None:
        pace = speed or result.macs_per_second
        cluster = on_machines([(spans_left(plan, site), pace)], price_per_hour)
    return StudyForecast(
        result,
        speed,
        site.staff(plan) if address is None else None,
        cluster,
        None if power is None else _power(plan, site, power),
        data_line(plan.data),
    )


def _list_forecast(
    request: StudyRequest, site: TrainingSite, clustered: bool, speed: float | None, price: float | None
) -> StudyListForecast:
    from offramp.store.store import Store
    from offramp.study.plan.forecast import on_machines, together
    from offramp.study.plan.plan import plans
    from offramp.study.spec.models import part_names

    device = site.device
    plan_each = plans(request.studies, device, provisional=True)
    workers: list[Workers] = []
    spans: list[Spans] = []

    def titled() -> Iterator[tuple[str, Plan]]:  # one at a time: networks need not all stay in memory
        for member, plan in zip(request.members, plan_each, strict=True):
            if clustered:
                spans.append(spans_left(plan, site))
            else:
                workers.append(site.staff(plan))
            yield ", ".join((member.path.stem, *part_names(plan.study))), plan

    forecasts = together(titled(), Store(site.store), device)
    cluster = None
    if clustered:
        speeds = [speed or study.macs_per_second for _, study in forecasts.studies]
        cluster = on_machines(list(zip(spans, speeds, strict=True)), price)
    return StudyListForecast(request.name, forecasts, speed, workers, cluster)


def spans_left(plan: Plan, site: TrainingSite) -> Spans:
    """What is left of a plan on many machines, in MACs."""
    from offramp.store.store import Store
    from offramp.study.plan.forecast import MACHINES
    from offramp.study.plan.schedule import Schedule, spans
    from offramp.study.plan.workers import on_a_machine

    store = Store(site.store)
    finished = [] if plan.provisional else [key for key in plan.nodes if store.has_node(key)]
    at_once = on_a_machine(plan, site.device)
    return spans(Schedule(plan, frozenset(finished)), MACHINES, at_once)


def _power(plan: Plan, site: TrainingSite, difference: float) -> SeedsNeeded:
    """How many seeds the study takes to show a difference, as what the store holds varies."""
    from offramp.report import evidence
    from offramp.report.power import SeedsNeeded, seeds_needed
    from offramp.store.archive import is_store
    from offramp.store.manifest import data_label

    root = site.store
    if not is_store(root):
        return SeedsNeeded(difference, 0, why=f"there is no store at {root}; run three seeds first")
    label = data_label(plan.study.data.title or plan.data.name, plan.data.augment)
    strategies = {s.label for s in plan.study.strategies}
    results = evidence.from_store(root)
    return seeds_needed(results, plan.study.backbone.name, label, strategies, difference)


def forecast_document(
    forecast: Forecast,
    speed: float | None = None,
    workers: Workers | None = None,
    cluster: OnMachines | None = None,
) -> list[str | TextTable]:
    """The phases and the totals of a plan. speed: of another device, in MACs a second."""
    parts: list[str | TextTable] = []
    exits = {f"{exit.name} at {percent(exit.share)}": exit.why for exit in forecast.places}
    if exits:
        reasons = "; ".join(f"{', '.join(names)} ({why})" for why, names in by_reason(exits).items())
        parts.append(f"Early exits, by share of the MACs: {reasons}.")
    seeds = sorted({node.seed for node in forecast.nodes})
    rows = []
    for node in (node for node in forecast.nodes if node.seed == seeds[0]):
        key, users = node.key[:8] + " ✓" * node.in_store, dict.fromkeys(node.strategies)
        rows.append((key, node.phase, node.loss, ", ".join(users), macs(node.macs)))
    more = "; the other seeds are alike" if seeds[1:] else ""
    title = f"What seed {seeds[0]} takes{more}"
    parts.append(TextTable(["node", "phase", "loss", "for"], ["MACs"], rows, title))
    parts.append(totals_text(forecast.totals, speed, forecast.macs_per_second))
    if workers is not None:
        more = " The time above is that of one." if workers.count > 1 else ""
        parts.append(f"Workers: {workers.count} ({workers.reason}).{more}")
    if cluster is not None:
        parts += machines_document(cluster)
    return [*parts, *(f"Provisional, keys too: {line}." for line in forecast.provisional)]


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Names that share a reason, by it."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return names


def data_line(data: Data) -> str:
    """How many images each split has, or how many texts."""
    what = f"{noun(data.shape)}s {'×'.join(map(str, data.shape))}"
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    return f"Data: {data.name}, {len(data.classes)} classes, {what}: {counts}."


def machines_document(machines: OnMachines) -> list[str | TextTable]:
    """How long it takes on how many machines; nothing where nothing is left."""
    if not machines.chain:
        return []
    counts = machines.by_machines
    priced = ["price"] if counts[0].price is not None else []
    rows = []
    for row in counts:
        price = [] if row.price is None else [f"{row.price:,.2f}"]
        rows.append((str(row.machines), duration(row.seconds), f"{row.faster:.1f}", *price))
    more = f", {machines.at_once} phases at once on each" if machines.at_once > 1 else ""
    return [
        TextTable(
            ["machines"],
            ["time", "times as fast", *priced],
            rows,
            f"On machines like this one{more}",
        ),
        f"Longest chain: {duration(machines.shortest)} ({', '.join(machines.chain)}). No number of "
        "machines takes less: each of its phases begins from the one before.",
    ]


def with_speed(forecast: Forecast | Forecasts, speed: float | None) -> dict[str, Any]:
    """For programs, with what is left on a device of another speed."""
    record = forecast.as_json()
    if speed is not None:
        left = forecast.totals.macs_to_run / speed
        record["totals"] |= {"given_macs_per_second": speed, "seconds_at_given": left}
    return record


def totals_text(totals: Totals, speed: float | None, here: float | None = None) -> str:
    """The totals of a plan, or of several. speed: of another device, in MACs a second; here: of this
    machine, in which several plans differ."""
    whole, written, left = map(macs, (totals.macs, totals.macs_written, totals.macs_to_run))
    once = 100 * totals.macs_shared / totals.macs_written
    saved = f"\n({once:.0f} % with shared phases; the cache of frozen layers saves the rest)"
    saved = saved if totals.macs < totals.macs_written else ""
    work = f"{left}MACs, about {duration(totals.seconds)} here"
    if here is not None:
        work += f", at {macs(here)}MAC/s"
    if speed is not None:
        work += f";\nat a steady {macs(speed)}MAC/s {duration(totals.macs_to_run / speed)}"
    on_disk, live = totals.cache_disk_bytes, totals.cache_live_bytes
    disk = f"; caches up to {size(on_disk)} at a time" if on_disk else ""
    computed = (
        f";\n{size(live)} of frozen values are not cached, but computed each batch" if live else ""
    )
    return (
        f"{counted(totals.trials, 'trial')} of {counted(totals.phases, 'phase')} in all, "
        f"{totals.nodes} of them different; {totals.nodes_in_store} of these in the store (✓).\n"
        f"Work: {whole}MACs, {100 * totals.share_of_written:.0f} % of the {written}MACs of every "
        f"phase run alone{saved}.\n"
        f"Left: {work if totals.macs_to_run else 'nothing'}.\n"
        f"Disk: {size(totals.disk_bytes)} in the store{disk}.\n"
        f"Memory: about {size(totals.memory_bytes)} a process, "
        f"{size(totals.cache_memory_bytes)} of it caches{computed}.\n"
        "Nothing was started."
    )


def _provisional(studies: Sequence[Forecast]) -> list[str]:
    """What is not here, each thing once."""
    remarks = dict.fromkeys(line for study in studies for line in study.remarks)
    lacking = dict.fromkeys(line for study in studies for line in study.provisional)
    head = ["Provisional, keys too, since not all is here:"] if lacking else []
    return [*(f"Note: {line}." for line in remarks), *head, *(f"  {line}" for line in lacking)]
