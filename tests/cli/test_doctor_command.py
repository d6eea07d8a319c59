"""`offramp doctor`."""

import json

import psutil
import pytest
import torch
from command import call, ok, refused

from offramp.api.keep import doctor
from offramp.meters import capacity, meter
from offramp.meters.meter import Missing
from offramp.numerics import PROFILES
from offramp.study import tune
from offramp.study.plan import profiles
from offramp.study.plan.profiles import Gain
from offramp.study.tune import AT_ONCE, BESIDE, MEMORY, Measuring

CPU = torch.device("cpu")
METER = "CPU power and energy"
NO_METER = Missing("no counter in /sys", "ask the host for it")
RUNTIMES = "other runtimes of bundles"


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: 0.0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
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


# --tune, with the measurements made up


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def events(*_):
        yield Measuring("resnet18: all there is", 1, 1)
        for what, ratio in ((AT_ONCE, 1.3), (MEMORY, 1.61), (BESIDE, 4.2)):
            yield Gain(what=what, network="resnet18", ratio=ratio)

    monkeypatch.setattr(tune, "measure", events)


@pytest.mark.usefixtures("measured")
def test_tune_shows_what_it_measured_and_writes_a_profile_of_that_name():
    answer = ok(call("doctor", "--tune", "--name", "mine"))
    assert "[1/1] resnet18: " in answer.err
    assert "1.61" in answer.out and "numerics: mine" in answer.out
    assert "No default has" in " ".join(answer.out.split())
    assert profiles.find("mine", "cpu").threads == 1
    assert profiles.find("default", "cpu") is PROFILES["cpu"]
    refused(call("doctor", "--tune", "--name", "mine"), "is there already")


@pytest.mark.usefixtures("measured")
def test_doctor_then_says_what_was_measured():
    def said():
        return {f["what"]: f for f in json.loads(call("doctor", "--json").out)["findings"]}

    before = said()
    assert "--tune" in before["numerics profiles"]["remedy"]
    assert "measured" not in before["freed memory"]["found"]
    assert "measured" not in before["threads that wait"]["found"]  # no number is made up
    call("doctor", "--tune", "--json")
    after = said()
    assert after["numerics profiles"]["found"].split(", ") == ["cpu", "cpu-bf16", "tuned"]
    assert "1.61 (resnet18)" in after["freed memory"]["found"]
    assert "4.20 (resnet18)" in after["threads that wait"]["found"]


@pytest.mark.usefixtures("measured")
def test_what_another_machine_measured_is_not_said_of_this_one(monkeypatch):
    call("doctor", "--tune", "--json")
    assert doctor.tuned(CPU) is not None
    monkeypatch.setattr(doctor, "machine", lambda _: "another machine")
    assert doctor.tuned(CPU) is None


@pytest.mark.usefixtures("measured")
def test_tune_writes_where_it_is_told_to_and_studies_ask_for_the_path(tmp_path):
    made = json.loads(call("doctor", "--tune", "--out", "here.json", "--json").out)
    assert made["path"] == "here.json" and made["numerics"]["threads"] == 1
    assert profiles.find("here.json", "cpu").threads == 1
    assert not list((tmp_path / "offramp").glob("**/*"))


@pytest.mark.usefixtures("measured")
def test_tune_refuses_a_busy_machine_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(capacity, "busy_cores", lambda: 1.5)
    refused(call("doctor", "--tune"), "use 1.5 cores")
    assert not profiles.listed()
    assert call("doctor", "--tune", "--anyway").code == 0
    assert "others used 1.5 cores" in (profiles.listed()["tuned"].machine or "")
