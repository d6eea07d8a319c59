"""What all commands have in common: help, version, where the store is, the device."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from command import Cli, call, keys, narrow, refusal
from syrupy.assertion import SnapshotAssertion

from offramp.cli.app import app

COMMANDS = {
    " ".join(filter(None, (name, inner))): command
    for name, outer in app.commands.items()
    for inner, command in (outer.commands if isinstance(outer, click.Group) else {"": outer}).items()
}


def test_help_teaches(cli: Cli, snapshot: SnapshotAssertion) -> None:
    whole = narrow(cli("--help"))
    assert narrow(cli("-h")) == whole == snapshot
    assert len(app.commands) <= 20 and all(f"\n  {name} " in whole for name in app.commands)


@pytest.mark.parametrize("words", [(), ("store",), ("data",)])
def test_without_a_command_the_help_is_there_in_lines(cli: Cli, words: tuple[str, ...]) -> None:
    bare = cli(*words)
    assert bare.code == 2 and bare.out == "" and bare.err == cli(*words, "--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command(cli: Cli, snapshot: SnapshotAssertion, name: str) -> None:
    text = narrow(cli(*name.split(), "--help"))
    assert "--json" in text and text == snapshot
    assert name in ("status", "doctor") or "Examples:" in text
    assert not re.search(r"<\w|`\w+`", text)  # words, neither Python's types nor its names


def test_version(cli: Cli) -> None:
    assert re.fullmatch(r"offramp 0\.\d+\.\d+( \([0-9a-f]{12}\))?\n?", cli("--version").out)


@pytest.fixture
def _garbage() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_garbage")
def test_garbage_is_looked_for_as_often_as_the_user_says(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.delenv("OFFRAMP_GC_THRESHOLD", raising=False)
    assert cli("--version").code == 0 and gc.get_threshold()[0] == 10_000
    monkeypatch.setenv("OFFRAMP_GC_THRESHOLD", "700")
    assert cli("--version").code == 0 and gc.get_threshold()[0] == 700
    for given in ("few", "9" * 12):
        monkeypatch.setenv("OFFRAMP_GC_THRESHOLD", given)
        assert refusal(cli("--version")) == snapshot(name=given)


TRIAL = "two-stage-digits-cnn-digits-s1"


def test_a_store_is_named_before_or_behind_an_option(studied: Cli, snapshot: SnapshotAssertion) -> None:
    Path("runs").rename("elsewhere")
    for words in (
        ["status"],
        ["show", TRIAL],
        ["compare", "joint", TRIAL[:9]],
        ["show", keys("elsewhere")[0]],
    ):
        one, other = studied(*words, "elsewhere"), studied(*words, "--store", "elsewhere")
        assert narrow(one) == narrow(other)
        assert studied(*words, "elsewhere", "--store", "elsewhere") == one
        both = studied(*words, "elsewhere", "--store", "runs")
        assert refusal(both) == snapshot(name=f"{words[0]} of two")
        assert refusal(studied(*words)) == snapshot(name=f"{words[0]} of none")


def test_a_store_below_the_folder_is_named(studied: Cli, snapshot: SnapshotAssertion) -> None:
    Path("runs").rename("build")
    Path("runs").mkdir()
    assert refusal(studied("status")) == snapshot(name="none")
    Path("build").rename("runs/build")
    assert refusal(studied("status")) == snapshot(name="below")


def test_a_device_that_is_not_here_is_one_line(studied: Cli, snapshot: SnapshotAssertion) -> None:
    lines = set()
    for words in (
        *(["run", "s.yaml"], ["run", "s.yaml", "--dry-run"], ["doctor"], ["benchmark", TRIAL]),
        ["run", "--strategy", "joint", "--backbone", "digits-cnn", "--data", "digits"],
        ["calibrate", TRIAL, "--max-mean-latency", "1s", "--anyway"],
        ["build", "--backbone", "digits-cnn", "--data", "digits", "--out", "bundle"],
    ):
        answer = studied(*words, "--device", "abacus")
        assert answer.code == 2 and answer.out == "", words
        lines.add(answer.err.splitlines()[-1])
    assert sorted(lines) == snapshot
    assert studied("run", "s.yaml", "--quiet", "--device", "cpu").code == 0


def test_a_store_option_beside_several_stores_is_among_them(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    other = call("report", first, second, "--tables", "--store", third)
    assert refusal(other) == snapshot
    among = call("report", first, second, "--tables", "--store", second)
    assert among.code == 2 and f"packed results at {first};" in among.err
