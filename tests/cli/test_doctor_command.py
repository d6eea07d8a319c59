"""`offramp doctor`."""

import importlib.util
import json

import pytest
from command import call


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
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
