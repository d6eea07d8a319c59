"""`offramp doctor`."""

import json

import psutil
import pytest
from command import call

from offramp.api.keep import doctor
from offramp.meters import meter
from offramp.meters.meter import Missing

METER = "CPU power and energy"
NO_METER = Missing("no counter in /sys", "ask the host for it")
RUNTIMES = "other runtimes of bundles"


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def test_it_names_what_is_there_and_the_remedy_for_what_is_not(monkeypatch):
    monkeypatch.setattr(meter, "find_packages", lambda: NO_METER)
    answer = call("doctor")
    assert answer.code == 0
    assert "torch" in answer.out and "cores" in answer.out
    assert f"no: {NO_METER.reason}" in answer.out
    assert f"{METER}: {NO_METER.remedy}." in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80


def test_json_has_every_finding():
    found = {f["what"]: f for f in json.loads(call("doctor", "--json").out)["findings"]}
    assert {"versions", "device", "cores", "memory", METER} <= found.keys()
    assert found["other work"]["remedy"] == ""


@pytest.mark.parametrize("missing", [(), ("openvino",), ("executorch", "openvino")])
def test_runtimes_that_are_installed_are_named(missing, monkeypatch):
    packages = {"openvino": "OpenVINO", "executorch": "ExecuTorch"}
    monkeypatch.setattr(
        doctor.importlib.util,
        "find_spec",
        lambda name: object() if name in packages.keys() - missing else None,
    )
    findings = {f["what"]: f for f in json.loads(call("doctor", "--json").out)["findings"]}
    row = findings[RUNTIMES]
    assert {title for title in packages.values() if title in row["found"]} == {
        title for name, title in packages.items() if name not in missing
    }
    assert row["remedy"] == ""


def test_a_busy_machine_is_said(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: 100.0)
    assert "not comparable" in call("doctor").out
