"""Tables, numbers and progress on a screen of 80 columns: whole, aligned, nothing cut."""

from __future__ import annotations

import json
import math

import pytest
from rich.console import Console

from offramp.cli import render, results
from offramp.cli.progress import Progress
from offramp.engine.fit import EpochReport
from offramp.store.record import Seconds
from offramp.store.results import Spread, StrategyResult
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import Plan
from offramp.study.run import events
from offramp.units import duration
from support import tiny_plan, tiny_study


def line(strategy: str, exits: int, seeds: int = 5) -> StrategyResult:
    """The widest numbers there are."""
    sd = 0.101 if seeds > 1 else math.nan
    return StrategyResult(
        strategy=strategy,
        seeds=tuple(range(seeds)),
        accuracy={k: Spread(0.9, sd) for k in range(1, exits + 1)},
        thresholds={t: (Spread(1.0, sd), Spread(1.07, sd)) for t in (0.5, 0.8, 0.95)},
        seconds=Seconds(written=99.9, executed=5900.0, marginal=99.9, measured=False),
    )


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def printed(lines: list[StrategyResult], seeds: int = 5) -> list[str]:
        results.as_tables(lines, seeds)
        shown = capsys.readouterr().out.splitlines()
        assert max(map(len, shown)) <= 80
        assert not any("…" in row for row in shown)
        return shown

    return printed


@pytest.mark.parametrize("exits", [2, 4, 5])
def test_up_to_five_exits_are_two_tables(screen, exits: int) -> None:  # type: ignore[no-untyped-def]
    shown = screen([line(name, exits) for name in STRATEGIES])
    heads = [row for row in shown if row.startswith("strategy ")]
    assert len(heads) == 2
    assert heads[0].split()[-1] == "final" and heads[0].count("exit") == exits - 1
    assert heads[1].split()[-3:] == ["written", "run", "added"]
    (row,) = [r for r in shown if r.startswith("pretrained-branch ") and "±" in r]
    assert row.count("90.0 ±10.1") == exits
    (row,) = [r for r in shown if r.startswith("pretrained-branch ") and "@" in r]
    assert row.count("100.0 @ 107") == 3 and row.split()[-3:] == ["~99.9s", "98m", "99.9s"]


def test_more_exits_go_on_in_another_table(screen) -> None:  # type: ignore[no-untyped-def]
    shown = screen([line(name, 12) for name in STRATEGIES])
    heads = [row.split()[1:] for row in shown if row.startswith("strategy ")]
    titles = " ".join(word for head in heads[:-1] for word in head)
    assert titles == " ".join(f"exit {k}" for k in range(1, 12)) + " final"
    rows = [row for row in shown if row.startswith("joint-branch ")]
    assert sum(row.count("±") for row in rows) == 12


def test_a_long_label_is_folded_not_cut(screen) -> None:  # type: ignore[no-untyped-def]
    label = "joint with the weights of equation three, ten times as long, and [bold]warmup[/bold]"
    shown = screen([line("joint", 4), line(label, 4)])
    for word in label.split():
        assert any(word in row for row in shown)  # brackets are text, not markup
    assert sum(row.count("±") for row in shown) >= 8


def test_missing_seeds_are_counted(screen) -> None:  # type: ignore[no-untyped-def]
    shown = screen([line("joint", 2, seeds=3), line("baseline", 2, seeds=1)])
    assert shown[1].split()[-1] == "seeds"
    assert [row.split()[-1] for row in shown[3:5]] == ["3", "1"]
    assert "±" not in shown[4]


def test_numbers() -> None:
    assert [render.ranges(n) for n in ([], [2], [3, 1, 2], [1, 2, 4, 6, 7])] == [
        *("", "2", "1–3", "1–2, 4, 6–7"),
    ]
    assert [render.counted(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
    assert results.percent(Spread(0.5, math.nan)) == "50.0"


def test_what_is_not_finite_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    render.emit({"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf, "d": "nan"}})
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said == {"a": [None, [None, 1.5]], "b": {"c": None, "d": "nan"}}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tiny_plan(tiny_study(["baseline", "joint", "two-stage"], recipe={"epochs": 10}))


def report(key: str, epoch: int, exits: int) -> events.Epoch:
    accuracy = {k: 0.5 + k / 100 for k in range(1, exits + 1)}
    return events.Epoch(EpochReport(key, epoch, 1.2345, 1.0, accuracy, accuracy, 0.1))


def moving(progress: Progress) -> list[str]:
    """The moving lines, as the screen has them."""
    console = Console(width=80)
    with console.capture() as shown:
        console.print(progress._screen())
    return shown.get().splitlines()


def keys(plan: Plan, phase: str) -> list[str]:
    return [key for key, node in plan.nodes.items() if node.name == phase]


def test_the_moving_lines_say_what_where_and_how_long(plan: Plan) -> None:
    (joint,) = keys(plan, "joint")
    progress = Progress(plan, shown=True)
    assert moving(progress)[0].endswith("0 % · time left: ? · 0/5 phases")
    progress.see(events.Began((joint,), 0))
    progress.see(report(joint, 3, 4))
    bar, where, numbers = moving(progress)
    assert where == "seed 42 · joint · joint"
    assert numbers == "epoch 3/10 · loss 1.234 · validation 51.0 52.0 53.0 54.0 % at exits 1–4"
    share = round(100 * 0.3 * plan.macs(joint) / plan.executed)
    assert f" {share} % · " in bar and bar.endswith(" s left · 0/5 phases")


def test_time_left_leaves_out_what_earlier_runs_did(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("offramp.cli.progress.time.monotonic", lambda: now[0])
    (backbone,), (joint,) = keys(plan, "backbone"), keys(plan, "joint")
    progress = Progress(plan, shown=True)
    progress.see(events.Reused(backbone))
    progress.see(events.Began((joint,), 5))  # resumed half-way
    now[0] = 60.0
    progress.see(report(joint, 6, 4))
    rest = plan.executed - plan.macs(backbone) - 0.6 * plan.macs(joint)
    assert duration(60 * rest / (0.1 * plan.macs(joint))) in moving(progress)[0]


def test_lines_that_stay(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    (backbone,), (joint,), heads = (
        keys(plan, "backbone"),
        keys(plan, "joint"),
        keys(plan, "exit 1") + keys(plan, "exit 2") + keys(plan, "exit 3"),
    )
    progress = Progress(plan, shown=True)
    progress.see(events.Reused(joint))
    progress.see(events.Failed(backbone, "the loss is not finite"))
    progress.see(events.Failed(heads[0], "needs phase 'backbone', which failed"))
    note = "a note that is longer than the screen is wide " * 3
    progress.see(events.Note(note))
    progress.see(events.Note(note))
    progress.see(events.TrialDone(plan.trials[1].id, True))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "failed: seed 42 · baseline and 1 more · backbone: the loss is not finite",
        "failed: seed 42 · two-stage · exit 1: needs phase 'backbone', which failed",
        note.rstrip() + " ",
    ]
    assert [(f["strategy"], f["reason"]) for f in progress.failures()] == [
        ("baseline", "the loss is not finite"),
        ("two-stage", "the loss is not finite"),
    ]
    assert progress.closing("runs").startswith("1 of 3 trials in runs: 0 nodes trained, 1 reused, in ")


def test_quiet_says_only_what_must_be_said(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(plan, shown=False)
    with progress:
        progress.see(events.Finished(keys(plan, "joint")[0], 1.0))
        progress.see(events.Note("a damaged file"))
    assert capsys.readouterr().err == "a damaged file\n"


def test_a_node_that_was_damaged_and_trained_again_is_not_reused(plan: Plan) -> None:
    (joint,) = keys(plan, "joint")
    progress = Progress(plan, shown=False)
    for event in (events.Finished(joint, 1.0), events.Reused(joint)):
        progress.see(event)
    for trial in plan.trials:
        progress.see(events.TrialDone(trial.id, trial is not plan.trials[1]))
    assert progress.closing("runs").startswith("3 of 3 trials in runs: 1 node trained, 0 reused")
