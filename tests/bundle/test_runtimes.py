"""A bundle in other runtimes: the answers of PyTorch, or a line that says what is missing."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_kit import QUICK, digits_store, export_to, halving
from PIL import Image
from test_runtime import run

from offramp.bundle import runtime, runtimes
from offramp.bundle.export import ExportOptions
from offramp.bundle.folder import seal
from offramp.bundle.runtime import Bundle, BundleError
from offramp.bundle.runtimes import RUNTIMES, check_runtimes
from offramp.data import DataSpec, load
from offramp.errors import OfframpError
from refusal import refuses

STRATEGIES = ("two-stage", "cascade")  # the second one's stages take the answer before


@pytest.fixture(scope="module", params=sorted(RUNTIMES))
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(RUNTIMES[request.param].package)
    return str(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_answers_as_onnxruntime_does(name: str, strategy: str, digits: Path, tmp_path: Path) -> None:
    """The export has compared it with PyTorch already; this compares the bundles themselves."""
    store = digits_store(digits, STRATEGIES)
    options = ExportOptions(anyway=True, runtimes=(name,))
    card = export_to(tmp_path / "bundle", store, halving(store, strategy), options).card
    first, other = card["runtimes"]
    assert (first["runtime"], other["runtime"]) == ("onnxruntime", name)
    assert other["images"] == card["test"]["images"] and other["largest"] < 1e-4
    assert len(other["stage_milliseconds"]) == sum(exit["in_bundle"] for exit in card["exits"])
    assert f"| {name} " in (tmp_path / "bundle" / "card.md").read_text("utf-8")

    images = load(DataSpec("digits", test_images=50)).test.images.numpy().transpose(0, 2, 3, 1)
    by_onnx, by_other = (
        Bundle(tmp_path / "bundle", 1, runtime=each).predict(images) for each in ("onnxruntime", name)
    )
    assert len(set(by_onnx.exits)) > 1  # images really go on from what an earlier stage carried
    np.testing.assert_array_equal(by_other.exits, by_onnx.exits)
    np.testing.assert_array_equal(by_other.classes, by_onnx.classes)
    np.testing.assert_allclose(by_other.logits, by_onnx.logits, atol=1e-4)

    photo = tmp_path / "photo.png"
    _write_photo(photo, images[0])
    outputs = [run(tmp_path / "bundle", "--json", *more, photo) for more in ((), ("--runtime", name))]
    answers = [json.loads(out) for _, out, _ in outputs]
    assert [answer["class"] for answer in answers] == [by_onnx.labels[0]] * 2
    assert outputs[1][2] == "", "nothing of its own log"


def _write_photo(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image[:, :, 0]).save(path)


def test_what_is_not_there_is_one_line(leaving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses("openvino", check_runtimes, ["openvin"], int8=False)  # a near name
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name in RUNTIMES:
        refuses(rf"offramp\[{name}\]", check_runtimes, [name], int8=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    check_runtimes(RUNTIMES, int8=False)
    refuses("int8", check_runtimes, ["openvino"], int8=True)
    with pytest.raises(BundleError, match="no stages for openvino; it has some for onnxruntime"):
        Bundle(leaving, runtime="openvino")


def test_a_runtime_that_is_not_installed_is_named(
    leaving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(leaving, tmp_path / "bundle"))
    layout = json.loads((bundle / "stages.json").read_text())
    (bundle / "stages.json").write_text(json.dumps(layout | {"runtimes": {"openvino": ".onnx"}}))
    seal(bundle)
    beside = runtime._beside

    def lacking(name: str) -> object:
        if name == "on_openvino":
            raise ModuleNotFoundError("No module named 'openvino'", name="openvino")
        return beside(name)

    monkeypatch.setattr(runtime, "_beside", lacking)
    with pytest.raises(BundleError, match="openvino is not installed here; pip install openvino"):
        Bundle(bundle, runtime="openvino")


def test_layers_that_a_runtime_cannot_run_are_named(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is written."""

    def lacks(_: object, __: Path) -> None:
        raise RuntimeError("Missing operator: aten::gelu")

    broken = replace(RUNTIMES["openvino"], write=lacks)
    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", broken)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    store = digits_store(digits, STRATEGIES)
    with pytest.raises(OfframpError, match=r"up to exit 1 .* OpenVINO \(Missing operator: aten::gelu\)"):
        options = replace(QUICK, runtimes=("openvino",))
        export_to(tmp_path / "bundle", store, halving(store, "two-stage"), options)
    assert not (tmp_path / "bundle").exists()
