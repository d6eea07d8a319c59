"""`offramp doctor`."""

from __future__ import annotations

import json

import psutil
import pytest
from command import call

from offramp.cli import doctoring
from offramp.meters import Missing


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: 0.0)


def test_it_names_what_is_there_and_the_remedy_for_what_is_not(monkeypatch):
    monkeypatch.setattr(
        doctoring, "find_packages", lambda: Missing("no counter in /sys", "ask the host for it")
    )
    answer = call("doctor")
    assert answer.code == 0
    assert "torch" in answer.out and "cores" in answer.out
    assert "no: no counter in /sys" in answer.out
    assert "CPU power and energy: ask the host for it." in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80


def test_json_has_every_finding():
    found = {f["what"]: f for f in json.loads(call("doctor", "--json").out)["findings"]}
    assert {"versions", "device", "cores", "memory", "CPU power and energy"} <= found.keys()
    assert found["other work"]["remedy"] == ""


def test_a_busy_machine_is_said(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: 100.0)
    assert "not comparable" in call("doctor").out
