"""A bundle in other runtimes: the answers of PyTorch, or a line that says what is missing."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_kit import QUICK, bundle_refusal, digits_store, edited, export_to, halving
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from test_runtime import run

from longer import long
from offramp.bundle import runtime, runtimes
from offramp.bundle.export import ExportOptions
from offramp.bundle.runtime import Bundle
from offramp.bundle.runtimes import RUNTIMES, check_runtimes, total_bytes
from offramp.data import DataSpec, load
from offramp.store.store import Store
from refusal import refuses
from wording import refusal

STRATEGIES = ("two-stage", "cascade")  # the second one's stages take the answer before


def skip_without(name: str) -> None:
    if missing := RUNTIMES[name].missing:
        pytest.skip(f"{', '.join(missing)} not installed")


@pytest.fixture(scope="module", params=RUNTIMES)
def name(request: pytest.FixtureRequest) -> str:
    skip_without(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def store(digits: Path) -> Store:
    return digits_store(digits, STRATEGIES)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """[60, 8, 8, 1] uint8."""
    return load(DataSpec("digits", test_images=60)).test.images.numpy().transpose(0, 2, 3, 1)


def export_for(out: Path, store: Store, strategy: str, *names: str) -> dict[str, Any]:
    """The card of a bundle for these runtimes, in which nothing was tried."""
    return export_to(out, store, halving(store, strategy), replace(QUICK, runtimes=names)).card


@pytest.mark.parametrize("strategy", [*long("two-stage"), "cascade"])
def test_it_answers_as_onnxruntime_does(
    name: str, strategy: str, store: Store, images: np.ndarray, tmp_path: Path
) -> None:
    """The export has compared it with PyTorch already; this compares the bundles themselves."""
    options = ExportOptions(anyway=True, runtimes=(name,))
    card = export_to(tmp_path / "bundle", store, halving(store, strategy), options).card
    first, other = card["runtimes"]
    assert (first["runtime"], other["runtime"]) == ("onnxruntime", name)
    assert other["images"] == card["test"]["images"] and other["largest"] < 1e-4
    assert len(other["stage_milliseconds"]) == sum(exit["in_bundle"] for exit in card["exits"])
    assert f"| {name} " in (tmp_path / "bundle" / "card.md").read_text("utf-8")

    by_onnx, by_other = (
        Bundle(tmp_path / "bundle", 1, runtime=each).predict(images) for each in ("onnxruntime", name)
    )
    assert len(set(by_onnx.exits)) > 1  # images really go on from what an earlier stage carried
    np.testing.assert_array_equal(by_other.exits, by_onnx.exits)
    np.testing.assert_array_equal(by_other.classes, by_onnx.classes)
    np.testing.assert_allclose(by_other.logits, by_onnx.logits, atol=1e-4)

    photo = tmp_path / "photo.png"
    Image.fromarray(images[0, :, :, 0]).save(photo)
    _, out, log = run(tmp_path / "bundle", "--json", "--runtime", name, photo)
    assert json.loads(out)["class"] == by_onnx.labels[0] and log == ""  # nothing of its own


def test_int8_stages_run_where_their_graphs_are_read(store: Store, tmp_path: Path) -> None:
    skip_without("openvino")
    options = ExportOptions(measure=False, anyway=True, int8=0.2, runtimes=("openvino",))
    card = export_to(tmp_path / "b", store, halving(store, "two-stage"), options).card
    _, openvino = card["runtimes"]
    assert openvino["images"] == 100 and openvino["share"] <= 0.01 and openvino["largest"] is None
    assert "| shares of exits" in (tmp_path / "b" / "card.md").read_text("utf-8")


def test_what_is_not_there_is_one_line(
    leaving: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    assert refusal(check_runtimes, ["tensorrt"], int8=False) == snapshot
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    for name in RUNTIMES:
        asked = rf"{RUNTIMES[name].title} need .*offramp\[{name}\]"
        refuses(asked, check_runtimes, [name], int8=False)
        assert name in extras
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    check_runtimes(RUNTIMES, int8=False)
    refuses("int8", check_runtimes, ["executorch"], int8=True)
    assert bundle_refusal(partial(Bundle, runtime="openvino"), leaving) == snapshot


def test_a_runtime_that_is_not_installed_is_named(
    leaving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    bundle = Path(shutil.copytree(leaving, tmp_path / "bundle"))
    edited(bundle, "stages.json", "runtimes", {"openvino": ".onnx"})
    beside = runtime._beside

    def lacking(name: str) -> object:
        if name == "on_openvino":
            raise ModuleNotFoundError(name="openvino")
        return beside(name)

    monkeypatch.setattr(runtime, "_beside", lacking)
    assert bundle_refusal(partial(Bundle, runtime="openvino"), bundle) == snapshot


@pytest.mark.parametrize(
    "error", ["Missing operator: aten::max_pool2d", "out of luck"], ids=["of a layer", "of none"]
)
def test_layers_that_a_runtime_cannot_run_are_named(
    error: str,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    """And nothing is written."""

    def lacks(_: object, __: Path) -> None:
        raise RuntimeError(error)

    broken = replace(RUNTIMES["openvino"], write=lacks)
    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", broken)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert refusal(export_for, tmp_path / "b", store, "two-stage", "openvino") == snapshot
    assert not (tmp_path / "b").exists()


def test_a_board_needs_neither_onnxruntime_nor_pillow(store: Store, tmp_path: Path) -> None:
    """Where another runtime runs the stages, and arrays come."""
    skip_without("openvino")
    out = tmp_path / "bundle"
    export_for(out, store, "two-stage", "openvino")
    code = f"""
import sys
sys.modules["onnxruntime"] = sys.modules["PIL"] = None
sys.path.insert(0, {str(out)!r})
import numpy, run
pixels = numpy.zeros((3, 8, 8, 1), "uint8")
print(run.Bundle({str(out)!r}, runtime="openvino").predict(pixels).exits.shape)
try:
    run.Bundle({str(out)!r})
except run.BundleError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shape, refused = done.stdout.splitlines()
    assert shape == "(3,)" and refused.endswith("pip install onnxruntime")


def test_weights_beside_a_graph_count_as_its_own(tmp_path: Path) -> None:
    """They lie there where a graph file could not hold them."""
    for name, size in {"exit-1.onnx": 10, "exit-1.onnx.data": 500, "exit-10.onnx": 7}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert total_bytes([tmp_path / "exit-1.onnx"]) == 510
    assert total_bytes([tmp_path / "exit-1.onnx", tmp_path / "exit-10.onnx"]) == 517
