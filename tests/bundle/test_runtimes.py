"""A bundle in other runtimes: the answers of PyTorch, or a line that says what is missing."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_kit import QUICK, bundle_refusal, digits_store, edited, export_to, halving, policy_of
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from test_runtime import run
from triton_stub import CALLS, Server

from longer import long
from offramp.bundle import parity, runtime, runtimes
from offramp.bundle.export import ExportOptions
from offramp.bundle.runtime import Bundle, BundleError
from offramp.bundle.runtimes import RUNTIMES, check_runtimes, total_bytes
from offramp.data import DataSpec, load
from offramp.store.store import Store
from refusal import refuses
from wording import refusal

STRATEGIES = ("two-stage", "cascade")  # the second one's stages take the answer before
HERE = [name for name, each in RUNTIMES.items() if each.elsewhere is None]


def skip_without(name: str) -> None:
    if missing := RUNTIMES[name].missing:
        pytest.skip(f"{', '.join(missing)} not installed")


@pytest.fixture(scope="module", params=HERE)
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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_triton_answers_as_the_bundle_does(
    strategy: str, store: Store, images: np.ndarray, tmp_path: Path
) -> None:
    """By a stand-in for its server, which runs each model by what its configuration says."""
    out = tmp_path / "bundle"
    first, row = export_for(out, store, strategy, "triton")["runtimes"]
    assert row["images"] is None and row["bytes"] > first["bytes"]
    assert str(RUNTIMES["triton"].elsewhere) in (out / "card.md").read_text("utf-8")

    direct = Bundle(out, 1).predict(images)
    assert len(set(direct.exits)) > 1
    # A folder of that name would be the package that run.py's libraries import.
    assert not (out / "triton").exists() and (out / "model_repository").is_dir()
    folder = shutil.move(out / "model_repository", tmp_path / "models")  # it stands alone
    server = Server(Path(folder))
    CALLS.clear()
    together = server.answer(images[:1], images[1:20], images[20:])
    served = {name: np.concatenate([one[name] for one in together]) for name in together[0]}
    assert [label.decode() for label in served["class"][:, 0]] == list(direct.labels)
    np.testing.assert_array_equal(served["exit"][:, 0], direct.exits)
    np.testing.assert_allclose(served["confidence"][:, 0], direct.confidence, atol=1e-6)
    np.testing.assert_allclose(served["logits"], direct.logits, atol=1e-5)
    np.testing.assert_allclose(served["compute_share"][:, 0], direct.compute)
    reached = [int((direct.exits >= exit).sum()) for exit in sorted(set(direct.exits))]
    assert [count for _, count in CALLS] == reached  # a stage runs once, on what is left

    (policy,) = server.config.folder.rglob("policy.json")  # the control: the policy is read
    edited(policy.parent, "policy.json", "exits.0.threshold", 1.0)
    assert set(Server(Path(folder)).answer(images)[0]["exit"][:, 0]) < set(direct.exits)


def test_one_bad_request_does_not_cost_the_others(store: Store, tmp_path: Path) -> None:
    export_for(tmp_path / "b", store, "two-stage", "triton")
    server = Server(tmp_path / "b" / "model_repository")
    image = np.zeros((2, 8, 8, 1), np.uint8)
    run = server.router._bundle.predict

    def picky(images: np.ndarray) -> object:
        if images.max() > 0:
            raise BundleError("disliked")
        return run(images)

    server.router._bundle.predict = picky
    first, second = server.answer(image, image + 1)
    assert isinstance(first, dict) and second == "disliked"


def test_tritons_own_protobuf_reads_the_configurations(store: Store, tmp_path: Path) -> None:
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    export_for(tmp_path / "b", store, "cascade", "triton")
    configs = {
        folder.name: text_format.Parse((folder / "config.pbtxt").read_text(), model_config.ModelConfig())
        for folder in (tmp_path / "b" / "model_repository").iterdir()
    }
    assert all(name == config.name for name, config in configs.items())
    assert sorted(config.backend for config in configs.values()).count("onnxruntime") == 3
    (router,) = (config for config in configs.values() if config.backend == "python")
    assert list(router.input[0].dims) == [8, 8, 1]
    assert [each.name for each in configs[f"{router.name}-exit-2"].input] == ["in_0", "before"]


def test_core_ml_is_converted_and_the_card_says_that_nobody_checked(
    store: Store, tmp_path: Path
) -> None:
    skip_without("coreml")
    out = tmp_path / "bundle"
    row = export_for(out, store, "cascade", "coreml")["runtimes"][1]
    assert (row["images"], row["stage_milliseconds"]) == (None, None)
    text = (out / "card.md").read_text("utf-8")
    assert str(RUNTIMES["coreml"].elsewhere) in text and "--runtime NAME" not in text
    assert "runtimes" not in json.loads((out / "stages.json").read_text())
    from coremltools.proto import Model_pb2  # after the export: at its first import it warns

    spec = Model_pb2.Model()
    spec.ParseFromString(
        (out / "stages/exit-2.mlpackage/Data/com.apple.CoreML/model.mlmodel").read_bytes()
    )
    names = [[each.name for each in side] for side in (spec.description.input, spec.description.output)]
    assert names == [["in_0", "in_1"], ["logits", "out_0"]]
    kinds = {each.type.multiArrayType.dataType for each in spec.description.output}
    assert kinds == {spec.description.output[0].type.multiArrayType.FLOAT32}
    sizes = sum(file.stat().st_size for file in out.glob("stages/*.mlpackage/**/*") if file.is_file())
    assert row["bytes"] == sizes and ".mlpackage/Manifest.json" in (out / "SHA256SUMS").read_text()


def test_int8_stages_run_where_their_graphs_are_read(store: Store, tmp_path: Path) -> None:
    skip_without("openvino")
    options = ExportOptions(measure=False, anyway=True, int8=0.2, runtimes=("openvino", "triton"))
    card = export_to(tmp_path / "b", store, halving(store, "two-stage"), options).card
    _, openvino, triton = card["runtimes"]
    assert openvino["images"] == 100 and openvino["share"] <= 0.01 and openvino["largest"] is None
    assert triton["images"] is None
    assert "| shares of exits" in (tmp_path / "b" / "card.md").read_text("utf-8")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_litert_has_a_quantizer_of_its_own(
    strategy: str, store: Store, images: np.ndarray, tmp_path: Path
) -> None:
    skip_without("litert")
    export_for(tmp_path / "float", store, strategy, "litert")
    options = ExportOptions(measure=False, anyway=True, int8=0.1, runtimes=("litert",))
    card = export_to(tmp_path / "b", store, halving(store, strategy), options).card
    row = card["runtimes"][1]
    assert row["images"] == 100 and row["lost"] <= 0.1 and row["share"] < 0.05
    floating = sum(file.stat().st_size for file in (tmp_path / "float").rglob("*.tflite"))
    assert row["bytes"] < 0.6 * floating
    assert f"that costs {100 * row['lost']:.2f} points" in (tmp_path / "b" / "card.md").read_text()
    before, after = (Bundle(tmp_path / name, 1, runtime="litert") for name in ("float", "b"))
    exact, rounded = (each.all_exits(each.pixels(images)) for each in (before, after))
    gap = np.abs(rounded - exact).max()
    assert after.precision == "int8" and 1e-3 < gap < 0.2 * np.abs(exact).max()


def test_a_runtime_is_quantized_on_what_its_stages_take(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """By a stand-in for its quantizer, whose stages are onnxruntime's."""
    skip_without("openvino")
    taken: list[dict[str, np.ndarray]] = []

    def quantize(_: Path, batches: Iterable[dict[str, np.ndarray]]) -> None:
        taken.append(next(iter(batches)))

    own = replace(RUNTIMES["openvino"], int8=False, write=lambda *_: None, quantize=quantize)
    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", own)
    options = ExportOptions(measure=False, anyway=True, int8=0.2, runtimes=("openvino",))
    # Nobody leaves at the first exit: one stage has the layers of two.
    rule = policy_of(store, "two-stage", "confidence", (None, 0.9, None))
    card = export_to(tmp_path / "b", store, rule, options).card
    assert card["runtimes"][1]["lost"] == card["int8"]["lost"]
    stages = json.loads((tmp_path / "b" / "stages.json").read_text())["stages"]
    assert [stage["exit"] for stage in stages] == [2, 3] and len(taken) == 2
    export_to(tmp_path / "float", store, rule)
    first = Bundle(tmp_path / "float", 1).stages[0]
    pixels, later = taken[0]["in_0"], first.run([taken[0]["in_0"]])[1:]
    assert pixels.shape == (32, 1, 8, 8)
    np.testing.assert_allclose(taken[1]["in_0"], later[0], atol=1e-5)

    monkeypatch.setattr(parity, "accuracies", lambda *_: (0.1, 0.1))
    refuses("int8 of OpenVINO costs", export_to, tmp_path / "c", store, rule, options)

    def lacks(*_: object) -> None:
        raise RuntimeError("no scale")

    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", replace(own, quantize=lacks))
    assert refusal(export_to, tmp_path / "c", store, rule, options) == snapshot
    assert not (tmp_path / "c").exists()


def test_what_is_not_there_is_one_line(
    leaving: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    assert refusal(check_runtimes, ["tensorrt"], int8=False) == snapshot  # is near litert, as words are
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    for name in RUNTIMES:
        if RUNTIMES[name].packages:
            remedy = "uv can" if RUNTIMES[name].remedy else rf"offramp\[{name}\]"
            refuses(rf"{RUNTIMES[name].title} need .*{remedy}", check_runtimes, [name], int8=False)
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


def test_openvino_reads_no_file_whose_operators_nobody_looked_at(leaving: Path, tmp_path: Path) -> None:
    """It would take a graph of its own, or one of TensorFlow, for what a bundle calls its stages."""
    skip_without("openvino")
    import openvino

    bundle = Path(shutil.copytree(leaving, tmp_path / "bundle"))
    shutil.copy(Path(runtime.__file__).with_name("on_openvino.py"), bundle)
    for graph in (bundle / "stages").iterdir():
        openvino.save_model(openvino.convert_model(graph), graph.with_suffix(".xml"))
    edited(bundle, "stages.json", "runtimes", {"openvino": ".onnx"})
    Bundle(bundle, runtime="openvino")  # the control
    edited(bundle, "stages.json", "runtimes", {"openvino": ".xml"})
    said = bundle_refusal(partial(Bundle, runtime="openvino"), bundle)
    assert said.endswith("exit-1.xml cannot be loaded by openvino (it is no ONNX graph)")


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
    (tmp_path / "exit-1.mlpackage" / "Data").mkdir(parents=True)
    places = {
        "exit-1.onnx": 10,
        "exit-1.onnx.data": 500,
        "exit-10.onnx": 7,
        "exit-1.mlpackage/Data/a": 3,
    }
    for name, size in places.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert total_bytes([tmp_path / "exit-1.onnx"]) == 510
    assert total_bytes([tmp_path / "exit-10.onnx", tmp_path / "exit-1.mlpackage"]) == 10
