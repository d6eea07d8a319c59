"""Tables and numbers on a screen of 80 columns: whole, aligned, nothing cut."""

import math
from dataclasses import replace

import pytest

from offramp import terminal
from offramp.api.train import results
from offramp.store.record import Seconds
from offramp.store.table import Spread, StrategyResult
from offramp.strategies import STRATEGIES
from offramp.units import counted, ranges

LABEL = "joint with the weights of equation three, ten times as long, and [bold]warmup[/bold]"
TRIAL = "pretrained-branch-airbench-cifar10-s42-fd16ab14"


def line(strategy: str, exits: int, seeds: int = 5) -> StrategyResult:
    """The widest numbers there are."""
    sd = 0.101 if seeds > 1 else math.nan
    return StrategyResult(
        strategy=strategy,
        seeds=tuple(range(seeds)),
        accuracy={k: Spread(0.9, sd) for k in range(1, exits + 1)},
        thresholds={t: (Spread(1.0, sd), Spread(1.07, sd)) for t in (0.5, 0.8, 0.95)},
        seconds=Seconds(5000.0, 2500.0, 5900.0, executed=5900.0, marginal=99.9, measured=False),
    )


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def printed(lines: list[StrategyResult], seeds: int = 5) -> list[str]:
        terminal.show(results.result_tables(lines, seeds))
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
    assert row.count("100.0 @ 107") == 3 and row.split()[-3:] == ["~42–98m", "98m", "99.9s"]


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (10.3, 19.4, "~10–19s"),
        (3.44, 9.9, "~3.4–9.9s"),
        (7.31, 7.32, "~7.3s"),
        (3600, 9000, "~1.0–2.5h"),
    ],
)
def test_an_estimated_time_is_a_range(screen, low: float, high: float, shown: str) -> None:  # type: ignore[no-untyped-def]
    spent = Seconds((low + high) / 2, low, high, executed=1.0, marginal=1.0, measured=False)
    assert any(shown in row.split() for row in screen([replace(line("joint", 2), seconds=spent)]))


def test_more_exits_go_on_in_another_table(screen) -> None:  # type: ignore[no-untyped-def]
    shown = screen([line(name, 12) for name in STRATEGIES])
    heads = [row.split()[1:] for row in shown if row.startswith("strategy ")]
    titles = " ".join(word for head in heads[:-1] for word in head)
    assert titles == " ".join(f"exit {k}" for k in range(1, 12)) + " final"
    rows = [row for row in shown if row.startswith("joint-branch ")]
    assert sum(row.count("±") for row in rows) == 12


def test_a_long_label_is_folded_not_cut(screen) -> None:  # type: ignore[no-untyped-def]
    shown = screen([line("joint", 4), line(LABEL, 4)])
    for word in LABEL.split():
        assert any(word in row for row in shown)  # brackets are text, not markup
    assert sum(row.count("±") for row in shown) >= 8


def test_names_of_trials_are_folded_where_they_are_joined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal.show([terminal.TextTable(["trial"], ["test, %"], [(TRIAL, "79.0 82.1 84.6 86.4")])])
    shown = capsys.readouterr().out.splitlines()
    name = [row[:39].strip() for row in shown[2:] if row.strip()]
    assert "".join(name) == TRIAL and len(name) == 2 and name[0].endswith("-")
    assert max(map(len, shown)) <= 60


def test_words_are_folded_at_spaces_then_hyphens_then_anywhere() -> None:
    assert terminal.folded("joint of joint-net-s1", 9) == ["joint of", "joint-", "net-s1"]
    assert terminal.folded("wholly-unbreakable", 8) == ["wholly-", "unbreaka", "ble"]
    assert terminal.folded("two\nlines", 80) == ["two", "lines"] and terminal.folded("", 8) == [""]
    assert terminal.folded("ネットワーク", 4) == ["ネッ", "トワ", "ーク"]  # two columns a letter
    assert terminal.folded("joint", 1) == [*"joint"]


def test_missing_seeds_are_counted(screen) -> None:  # type: ignore[no-untyped-def]
    shown = screen([line("joint", 2, seeds=3), line("baseline", 2, seeds=1)])
    assert shown[1].split()[-1] == "seeds"
    assert [row.split()[-1] for row in shown[3:5]] == ["3", "1"]
    assert "±" not in shown[4]


def test_numbers() -> None:
    assert [ranges(n) for n in ([], [2], [3, 1, 2], [1, 2, 4, 6, 7])] == [
        *("", "2", "1–3", "1–2, 4, 6–7")
    ]
    assert [counted(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
    assert results.percent(Spread(0.5, math.nan)) == "50.0"
