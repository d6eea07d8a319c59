"""`offramp doctor`."""

import importlib.util
import json

import psutil
import pytest
import torch
from command import call, ok, refused

from offramp.meters import capacity
from offramp.numerics import PROFILES
from offramp.study import tune
from offramp.study.plan import profiles
from offramp.study.plan.profiles import Gain
from offramp.study.tune import AT_ONCE, BESIDE, MEMORY, Measuring


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: 0.0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def findings(*words):
    return {f["what"]: f for f in json.loads(call("doctor", "--json", *words).out)["findings"]}


def test_it_names_what_is_there_and_the_remedy_for_what_is_not(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "s3fs" else find(name))
    answer = call("doctor")
    assert answer.code == 0
    assert "torch" in answer.out and "extra cloud: to keep a store in an object store" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80
    seen = findings()
    assert {"versions", "device", "store", "extra onnx"} <= seen.keys()
    assert seen["extra cloud"]["remedy"].endswith("pip install 'offramp[cloud]'")


def test_it_says_whether_the_store_can_be_written(tmp_path):
    assert findings()["store"] == {"what": "store", "found": "runs can be written", "remedy": ""}
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    refused = findings("--store", "file")["store"]
    assert refused["found"] == "file cannot be written" and "cannot write file" in refused["remedy"]
    assert findings("--store", "s3://bucket/runs")["store"]["remedy"] == ""


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
