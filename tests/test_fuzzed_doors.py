"""Packs, archives, policies and studies with a few bytes or fields changed: an error of one line, or an
answer. Bundles: `tests/bundle/test_runtime.py`."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzz_kit import changed, fuzzed, harmed, one_line
from offramp.arrays import read as read_arrays
from offramp.bundle.preprocessing import from_json
from offramp.hashing import with_seal
from offramp.policy import policy
from offramp.report import evidence
from offramp.store import pack
from offramp.study.spec import file as spec

RESULTS = Path(__file__).parents[1] / "docs" / "results"
ROOT = Path(__file__).parents[1]
POLICY = (RESULTS / "cifar10-deploy-policy.json").read_text()
MADE = RESULTS / "cifar10-deploy"
DOCUMENT = json.loads((MADE / "trials.json").read_text())
STUDY = yaml.safe_load((ROOT / "studies" / "demo.yaml").read_text())
HOW = {"size": [8, 8], "channels": 1, "mean": [0.5], "std": [0.2], "resize": 9, "crop": True}


def archive() -> bytes:
    made = io.BytesIO()
    np.savez_compressed(made, train_images=np.zeros((9, 8, 8), np.uint8), train_labels=np.arange(9))
    return made.getvalue()


@fuzzed
@given(harmed(archive()))
def test_arrays(data: bytes) -> None:
    one_line(read_arrays, data, also=ValueError)


@fuzzed
@given(changed(json.loads(POLICY)))
def test_fields_of_a_policy(value: Any) -> None:
    one_line(policy.parse, json.dumps(value))


@fuzzed
@given(harmed(POLICY.encode()))
def test_bytes_of_a_policy(data: bytes) -> None:
    one_line(policy.parse, data.decode(errors="replace"))


@fuzzed
@given(changed(HOW))
def test_fields_of_preprocessing(value: Any) -> None:
    one_line(from_json, value, also=ValueError)


@fuzzed
@given(changed(STUDY))
def test_fields_of_a_study(value: Any) -> None:
    one_line(spec.parse, value)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(MADE, tmp_path_factory.mktemp("fuzz") / "pack"))


@fuzzed
@given(harmed((MADE / "trials.json").read_bytes()))
def test_bytes_of_a_pack(mine: Path, data: bytes) -> None:
    (mine / "trials.json").write_bytes(data)
    one_line(pack.read, mine)


@fuzzed
@given(changed({k: v for k, v in DOCUMENT.items() if k != "seal"}))
def test_fields_of_a_pack(mine: Path, value: Any) -> None:
    sealed = with_seal(value) if isinstance(value, dict) else value
    (mine / "trials.json").write_text(json.dumps(sealed))
    one_line(lambda: evidence.open(mine).disagreements)


@fuzzed
@given(st.sampled_from(["table.parquet", "logits.npz"]), st.data())
def test_bytes_of_a_packs_files(mine: Path, name: str, draw: st.DataObject) -> None:
    for each in ("table.parquet", "logits.npz"):
        shutil.copy(MADE / each, mine)
    (mine / name).write_bytes(draw.draw(harmed((MADE / name).read_bytes())))
    sums = {n: hashlib.sha256((mine / n).read_bytes()).hexdigest() for n in DOCUMENT["files"]}
    rest = {k: v for k, v in DOCUMENT.items() if k != "seal"}
    (mine / "trials.json").write_text(json.dumps(with_seal({**rest, "files": sums})))
    one_line(lambda: evidence.open(mine).disagreements)
    shutil.copytree(MADE, mine, dirs_exist_ok=True)
