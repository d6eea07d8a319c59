"""Measuring a machine: every question is asked and answered, and what follows from the answers."""

import psutil
import pytest

from offramp.engine import probe
from offramp.engine.probe import ProbeSubject, in_turns, network, stepper
from offramp.errors import OfframpError
from offramp.numerics import PROFILES
from offramp.study import tune
from offramp.study.plan.profiles import Gain
from offramp.study.tune import AT_ONCE, Measuring, chosen, measure, processes
from support import CPU

TINY = ProbeSubject("digits-cnn", (1, 8, 8), 8)


@pytest.mark.long
def test_a_machine_is_measured_and_no_process_is_left() -> None:
    before = set(psutil.Process().children())  # other tests keep some
    events = list(measure("cpu", 2, seconds=0.05, subjects=[TINY]))
    parts = [event for event in events if isinstance(event, Measuring)]
    gains = [event for event in events if isinstance(event, Gain)]
    assert [part.number for part in parts] == list(range(1, parts[0].of + 1))
    whole = {"2 threads against 1", tune.FORMAT, tune.PRECISION, AT_ONCE, tune.MEMORY}
    whole |= {tune.SPINNING, tune.SLEEPING, tune.BESIDE}
    assert {gain.what for gain in gains} == whole and len(gains) == len(whole)
    left = set(psutil.Process().children()) - before
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]


def test_one_core_is_asked_nothing_about_two() -> None:
    first = next(e for e in measure("cpu", 1, 0.05, [TINY]) if isinstance(e, Measuring))
    assert first.of == 3
    assert "2 threads against 1" not in tune._on_cpu(1)
    assert "8 threads against 2" in tune._on_cpu(8)


def gain(ratio: float, network: str = "resnet18") -> Gain:
    return Gain(what=AT_ONCE, network=network, ratio=ratio)


@pytest.mark.parametrize(
    ("ratios", "threads"), [([1.5, 1.2], 1), ([1.0, 1.0], 2), ([2.0, 0.4], 2), ([1.04, 1.04], 2)]
)
def test_a_trial_has_one_thread_where_two_at_once_do_more(ratios: list[float], threads: int) -> None:
    profile = chosen("cpu", [gain(ratio) for ratio in ratios])
    assert profile.threads == threads
    assert profile.precision == "float32" and not profile.tf32  # never chosen for the user


def test_one_core_gets_one_thread_and_a_gpu_the_usual_two() -> None:
    assert chosen("cpu", []).threads == 1
    assert chosen("cuda", []).threads == 2


def test_a_step_is_of_the_way_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(TINY)
    seen = []
    real = probe.applied
    monkeypatch.setattr(probe, "applied", lambda numerics: seen.append(numerics) or real(numerics))
    step = stepper(net, TINY.batch, PROFILES["cpu-bf16"], CPU)
    assert step() > 0
    assert [(n.threads, n.precision) for n in seen] == [(1, "bfloat16")]


def test_turns_are_equal() -> None:
    order: list[int] = []
    steps = [lambda n=n: float(order.append(n) or n) for n in (0, 1)]
    medians = in_turns(steps, 0.0)
    assert medians == [[0.0] * 3, [1.0] * 3] and order == [0, 1] * 3


def test_a_process_that_dies_is_said_in_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    nothing = ProbeSubject("no-such-network", (1, 8, 8), 8)
    with pytest.raises(OfframpError, match="process that measures ended"), processes(nothing, {}):
        pass
    assert "no-such-network" in capfd.readouterr().err
