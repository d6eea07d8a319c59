"""How phases are divided among machines, and how long that takes by the cost model."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from offramp.api.train.forecast import machines_document
from offramp.data_spec import HELD_OUT
from offramp.engine.resolve import Node
from offramp.numerics import Numerics
from offramp.store.store import Store
from offramp.study.plan import forecast
from offramp.study.plan.forecast import on_machines, times_faster
from offramp.study.plan.plan import Plan
from offramp.study.plan.schedule import Schedule, sizes, spans
from support import CPU, tiny_plan, tiny_study


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tiny_plan(tiny_study(seeds=(1, 2)))


def test_one_machine_takes_all_and_many_the_longest_chain(plan: Plan) -> None:
    schedule = Schedule(plan)
    times = [schedule.makespan(n) for n in sizes(64)]
    assert times[0] <= plan.executed
    assert all(later <= before for before, later in pairwise(times))
    assert schedule.critical <= times[-1] <= 1.02 * schedule.critical
    assert schedule.critical == sum(plan.macs(node.key) for node in schedule.chain())
    assert schedule.chain()[0].name == "backbone"
    for node, following in pairwise(schedule.chain()):
        assert node.key in following.needs


def test_a_shared_pass_costs_less_work() -> None:
    """Heads on one trunk, which is computed once for all of them."""
    two = tiny_plan(tiny_study(["two-stage"]))
    backbone = next(key for key, node in two.nodes.items() if node.name == "backbone")
    heads = Schedule(two, frozenset([backbone]))
    (together,) = heads.groups(list(heads.left.values()))
    assert len(together) == 3
    each = [heads.macs([node]) for node in together]
    assert max(each) < heads.macs(together) == heads.makespan(8) < sum(each)
    apart = Schedule(tiny_plan(tiny_study(["two-stage"], execution={"fuse": False})))
    assert len(apart.groups(list(apart.left.values())[1:])) == 3


def test_a_forecast_counts_the_devices_that_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs as far as there are cores for them."""
    monkeypatch.setattr(forecast, "macs_per_second", lambda *_, **__: 100.0)
    single = tiny_plan(tiny_study())
    four = replace(single, numerics=replace(single.numerics, ranks=4, threads=2))
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [forecast.measured(plan, gpu) for plan in (single, four)] == [100, 400]
    speeds = [times_faster(4, 2, cpu, lambda n=n: n) for n in (1, 2, 3, 8, 64)]  # type: ignore[misc]
    assert speeds == [1, 1, 1.5, 4, 4]


def test_each_arithmetic_and_batch_is_measured_once(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[tuple[int, int]] = []

    def speed(_: object, numerics: Numerics, __: object, batch: int, **___: object) -> float:
        batches.append((numerics.threads, batch))
        return 100.0 * numerics.threads

    monkeypatch.setattr(forecast, "macs_per_second", speed)
    wide = replace(plan, numerics=replace(plan.numerics, threads=plan.numerics.threads + 2))
    larger = tiny_plan(tiny_study(seeds=(1,), recipe={"batch_size": 96}))
    plans = {"plain": plan, "again": plan, "wide": wide, "larger": larger}
    forecasts = forecast.together(plans.items(), Store(tmp_path), CPU)
    assert len(batches) == len(set(batches)) == 3
    speeds = [one.macs_per_second for _, one in forecasts.studies]
    assert speeds[0] == speeds[1] == speeds[3] < speeds[2]
    both = forecast.together([*plans.items()][:2], Store(tmp_path), CPU).totals
    images = sum(len(plan.data.splits[name]) for name in HELD_OUT)
    logits = 4 * images * sum(len(t.resolved.final) for t in plan.trials) * plan.net.classes
    assert both.disk_bytes == forecasts.studies[0][1].totals.disk_bytes + logits  # weights once


def test_nothing_left_takes_no_time_on_one_machine(plan: Plan) -> None:
    empty = spans(Schedule(plan, frozenset(plan.nodes)), 256)
    nothing = on_machines([(empty, 1.0)])
    assert [row.machines for row in nothing.by_machines] == [1] and machines_document(nothing) == []


def test_what_is_done_counts_no_more(plan: Plan) -> None:
    first = next(iter(plan.nodes))
    assert first not in Schedule(plan, frozenset([first])).left
    empty = Schedule(plan, frozenset(plan.nodes))
    assert (empty.critical, empty.makespan(4), empty.chain()) == (0, 0, [])


def test_the_longest_chains_begin_first(plan: Plan) -> None:
    schedule = Schedule(plan)
    ready = [node for node in schedule.left.values() if not node.needs]
    groups = schedule.groups(ready)
    tails = [max(schedule.tails[node.key] for node in group) for group in groups]
    assert tails == sorted(tails, reverse=True)


def test_workers_that_each_take_the_most_urgent_node_idle_less() -> None:
    """The longest chain comes last in the study. Seeds come one after another all the same."""
    plan = tiny_plan(tiny_study(["joint", "gradient-equilibrium", "sequential"], seeds=(1, 2)))
    schedule = Schedule(plan)

    def ends(nodes: list[Node]) -> list[int]:
        # When each of two workers is done, that take the first node that is ready.
        done: dict[str, int] = {}
        free = [0, 0]
        while nodes:
            at = min(range(2), key=free.__getitem__)
            ready = [n for n in nodes if all(done.get(k, free[at] + 1) <= free[at] for k in n.needs)]
            if not ready:
                free[at] = min(time for time in [*done.values(), *free] if time > free[at])
                continue
            nodes.remove(ready[0])
            free[at] += plan.macs(ready[0].key)
            done[ready[0].key] = free[at]
        return free

    first = [node for node in plan.nodes.values() if node.seed == 1]
    assert max(ends(schedule.by_urgency(first))) < 0.9 * max(ends(list(first)))
    ordered = schedule.by_urgency(plan.nodes.values())
    assert [node.seed for node in ordered] == sorted(node.seed for node in ordered)
    assert sorted(node.key for node in ordered) == sorted(plan.nodes)


def test_the_price_is_of_all_machines_and_stops_where_more_gain_nothing(plan: Plan) -> None:
    priced = on_machines([(spans(Schedule(plan), 256), 1e6)] * 2, price=3600.0)
    rows = priced.by_machines
    for row in rows:
        assert row.price == pytest.approx(row.machines * row.seconds)
    assert rows[-1].machines < 256
    assert rows[-1].seconds <= 1.02 * priced.shortest
    assert rows[0].faster == 1.0


def test_a_machine_with_room_for_several_counts_as_so_many(plan: Plan) -> None:
    schedule = Schedule(plan)
    single, four = spans(schedule, 64), spans(schedule, 16, slots=4)
    assert [four.by_machines[n] for n in (1, 4, 16)] == [single.by_machines[n] for n in (4, 16, 64)]
    prices = [on_machines([(each, 1e6)], price=3600.0).by_machines[0].price for each in (single, four)]
    assert prices[1] < prices[0] / 2  # an hour of a machine costs the same, whatever it does in it
