"""What runs a bundle: damage is named, bad images are one line each, torch is not needed."""

import json
import math
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_kit import bundle_refusal, edited
from onnx import TensorProto
from packaging.requirements import Requirement
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from fuzz_kit import cases, harmed, one_line
from ghostscript import EPS, trap
from longer import long
from offramp.api.deploy.predict import COLUMNS, predict
from offramp.bundle import runtime
from offramp.bundle.card import markdown
from offramp.bundle.folder import seal
from offramp.bundle.runtime import SUMS, UNANSWERED, Bundle, BundleError, Stage, _answer_all, main
from offramp.data import DataSpec, load
from offramp.infer.image_files import open_bundle
from wording import refusal, stable

ROOT = Path(__file__).parents[2]
NEEDED = ("numpy", "onnxruntime", "pillow")


@pytest.fixture
def bundle(leaving: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    return Path(shutil.copytree(leaving, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of test images, some of them deeper in it."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "more").mkdir()
    for i, image in enumerate(load(DataSpec("digits", test_images=20)).test.images):
        Image.fromarray(image[0].numpy()).save(folder / ("more" if i % 2 else ".") / f"{i:02}.png")
    return folder


def run(bundle: Path, *words: object, python: str = sys.executable) -> tuple[int, str, str]:
    """`python bundle/run.py …`, isolated from everything but what is installed."""
    command = [python, "-I", "-B", str(bundle / "run.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    return done.returncode, done.stdout, stable(done.stderr)


FILES = (
    "stages/exit-1.onnx",
    "stages/exit-3.onnx",
    "policy.json",
    "labels.json",
    "preprocessing.json",
    "stages.json",
    "scoring.py",
    "card.md",
)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused_by_name(name: str, bundle: Path) -> None:
    """So is a missing file."""
    Bundle(bundle)
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    for what in ("changed", "missing"):
        line = bundle_refusal(Bundle, bundle)
        assert f"{name} " in line and what in line
        (bundle / name).unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["policy.json", "scoring.py", *long("preprocessing.py")])
def test_what_is_damaged_is_named_before_it_is_run(
    name: str, bundle: Path, images: Path, snapshot: SnapshotAssertion
) -> None:
    (bundle / name).write_text("print('run'")
    assert run(bundle, images) == snapshot


def test_a_source_that_is_not_listed_is_not_run(
    bundle: Path, images: Path, snapshot: SnapshotAssertion
) -> None:
    sums = bundle / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "scoring" not in line))
    (bundle / "scoring.py").write_text("print('UNCHECKED')")
    assert run(bundle, images) == snapshot


def test_no_compiled_copy_is_left_or_read(bundle: Path, images: Path) -> None:
    command = [sys.executable, "-I", str(bundle / "run.py"), str(images)]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, env=clean, check=True, capture_output=True, timeout=500)
    assert not list(bundle.rglob("*.pyc"))


def test_whoever_reads_the_answers_may_stop(leaving: Path, images: Path) -> None:
    command = [sys.executable, "-I", "-B", str(leaving / "run.py"), *[str(images)] * 400]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 1


def test_images_given_the_wrong_way(leaving: Path, images: Path, tmp_path: Path) -> None:
    bundle, cut = Bundle(leaving), tmp_path / "cut.png"
    with Image.open(images / "00.png") as image:
        assert "a list of" in bundle_refusal(bundle.predict, image)
    cut.write_bytes((images / "00.png").read_bytes()[:60])
    with Image.open(cut) as damaged:
        assert "image 0" in bundle_refusal(bundle.predict, [damaged])


def test_the_list_of_sums_itself(bundle: Path, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    sums = bundle / "SHA256SUMS"
    whole = sums.read_text()
    sums.write_text("".join(line for line in whole.splitlines(True) if "policy" not in line))
    assert bundle_refusal(Bundle, bundle) == snapshot
    (tmp_path / "outside").write_text("")
    others = ("C:outside", r"\outside", r"more\..\..\outside", r"\\host\share\outside")  # of Windows
    for name in ("../outside", str(tmp_path / "outside"), "", *others, "run.py", "./run.py"):
        sums.write_text(f"{whole}{'0' * 64}  {name}\n")
        assert bundle_refusal(Bundle, bundle) == snapshot
    sums.unlink()
    assert bundle_refusal(Bundle, bundle) == snapshot


def test_a_line_an_image(leaving: Path, images: Path) -> None:
    status, out, err = run(leaving, images / "00.png", images / "more")
    lines = out.splitlines()
    assert (status, err, len(lines)) == (0, "", 11)
    path, label, confidence, exit, milliseconds = lines[0].split("  ")
    assert path == str(images / "00.png") and label in "0123456789"
    assert confidence.endswith(" %") and exit in ("exit 1", "exit 2", "exit 3")
    assert float(milliseconds.removesuffix(" ms")) > 0
    answers = Bundle(leaving).predict([Image.open(line.split("  ")[0]) for line in lines])
    assert [line.split("  ")[1] for line in lines] == list(answers.labels)
    assert [line.split("  ")[3] for line in lines] == [f"exit {k}" for k in answers.exits]


def test_batches_and_json(leaving: Path, images: Path) -> None:
    single, several = (run(leaving, images, "--json", "--batch", n)[1] for n in (1, 8))
    assert len(single.splitlines()) == 20
    check_alike(single, several)


def check_alike(first: str, other: str) -> None:
    """Two answers in JSON, a line an image, say the same of every image."""
    for a, b in zip(*(map(json.loads, text.splitlines()) for text in (first, other)), strict=True):
        assert all(a[key] == b[key] for key in ("file", "class", "exit", "compute_share"))
        assert a["confidence"] == pytest.approx(b["confidence"], abs=1e-5)


def test_json_has_the_fields_of_predict(leaving: Path, images: Path, tmp_path: Path) -> None:
    """An image that cannot be read has its reason in a line, as `offramp predict` gives it."""
    (tmp_path / "no.png").write_bytes(b"no image")
    status, out, _ = run(leaving, "--json", images / "00.png", tmp_path / "no.png")
    answered, refused = sorted(map(json.loads, out.splitlines()), key=len, reverse=True)
    assert status == 2 and set(refused) == {"file", "error"}
    assert set(answered) == {*COLUMNS, "milliseconds"} - {"error"}
    assert 0 < answered["compute_share"] < 2


def test_nan_is_no_answer(
    leaving: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first class was one, with an exit code of 0."""
    outputs = Stage._outputs

    def broken(stage: Stage, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [each * np.float32("nan") for each in outputs(stage, values)]

    monkeypatch.setattr(Stage, "_outputs", broken)
    bundle, file = Bundle(leaving), images / "00.png"
    assert not _answer_all(bundle, [file], 1, as_json=True)
    said = capsys.readouterr()
    line = json.loads(said.out, parse_constant=pytest.fail)  # a browser or jq would read no NaN
    assert line == {"file": str(file), "error": f"{file} has no answer: {UNANSWERED}"}
    assert said.err == f"run.py: {line['error']}\n"
    assert not _answer_all(bundle, [file], 1, as_json=False)
    assert capsys.readouterr() == ("", said.err)


def test_the_card_says_how_to_run_it(leaving: Path, images: Path, tmp_path: Path) -> None:
    """Its lines of Python run as they are, and what they need is a file beside them."""
    bundle = shutil.copytree(leaving, tmp_path / "bundle")
    shutil.copyfile(images / "00.png", bundle / "photo.jpg")  # as `photo.jpg`, whatever its format
    text = (bundle / "card.md").read_text("utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answered = json.loads(run(leaving, "--json", images / "00.png")[1])
    label, confidence, exit = done.stdout.split()
    assert (label, int(exit)) == (answered["class"], answered["exit"])
    assert float(confidence) == pytest.approx(answered["confidence"], abs=1e-5)
    needed = map(Requirement, (bundle / "requirements.txt").read_text().splitlines())
    assert [need.name for need in needed] == list(NEEDED)
    assert "0, 1, 2, 3" in text and "pip install -r requirements.txt" in text


@pytest.mark.parametrize(
    ("used", "words"),
    [
        ({}, "float32, 2 threads"),
        ({"threads": 64}, "float32, 64 threads"),
        (
            {"tf32": True, "deterministic": False},
            "float32 with TF32, 2 threads, kernels that may round differently each time",
        ),
    ],
    ids=["as it is", "64 cores", "H100"],
)
def test_the_card_says_which_arithmetic_trained(leaving: Path, used: dict[str, Any], words: str) -> None:
    card = json.loads((leaving / "card.json").read_text())
    card["training"]["numerics"] |= used
    assert f"- arithmetic: {words}\n" in markdown(card)


def test_it_measures_itself(leaving: Path) -> None:
    status, out, _ = run(leaving, "--measure")
    times = json.loads(out)
    assert status == 0 and times["machine"]["cores"] >= 1
    assert [(s["batch"], s["exit"]) for s in times["stages"]] == [
        (b, k) for b in (1, 32) for k in (1, 2, 3)
    ]
    assert all(0 < stage["p50"] <= stage["p95"] for stage in times["stages"])
    more = json.loads(run(leaving, "--measure", "--batch", "2")[1])
    assert {s["batch"] for s in more["stages"]} == {1, 32, 2}


def test_a_place_that_takes_no_times_is_said_before_the_measuring(
    leaving: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setattr(runtime, "measure", lambda *_: pytest.fail("measured"))
    bundle = Bundle(leaving)
    assert bundle_refusal(runtime._write_times, bundle, 1, Path("nowhere/times.json"), None) == snapshot
    assert bundle_refusal(runtime._write_times, bundle, 1, tmp_path, None) == snapshot
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    assert bundle_refusal(runtime._write_times, bundle, 1, tmp_path / "times.json", None) == snapshot


@pytest.mark.parametrize(("late", "count"), [(1.5, 2), (2.5, 3)])
def test_unsteady_times_are_said_to_be(
    leaving: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, late: float, count: int
) -> None:
    times = {"device": "a device", "stages": [{"p50": 1.0, "p95": late}]}
    monkeypatch.setattr(runtime, "measure", lambda *_: times)
    runtime._write_times(Bundle(leaving), 1, tmp_path / "times.json", None)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == count and ("they are unsteady" in lines[-1]) == (count == 3)


def test_times_that_cannot_be_written_leave_the_earlier_ones(
    leaving: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    bundle, out, whole = Bundle(leaving), tmp_path / "times.json", Path.write_text
    monkeypatch.setattr(runtime, "measure", lambda *_: {"device": "a device", "stages": []})
    runtime._write_times(bundle, 1, out, None)
    before = out.read_bytes()

    def full(path: Path, text: str, **options: Any) -> int:
        whole(path, text[:5], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert bundle_refusal(runtime._write_times, bundle, 1, out, None) == snapshot
    assert out.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_stage_takes_what_predict_does_in_it(leaving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an answer costs once is in the first stage. The clock moves by what is listed here alone."""
    now, bundle = [0.0], Bundle(leaving)
    assert any(stage.threshold is not None for stage in bundle.stages)

    def takes(place: Any, name: str, seconds: float) -> None:
        original = getattr(place, name)

        def slow(*args: Any, **kwargs: Any) -> Any:
            now[0] += seconds
            return original(*args, **kwargs)

        monkeypatch.setattr(place, name, slow)

    monkeypatch.setattr(runtime.time, "perf_counter", lambda: now[0])
    takes(runtime.Bundle, "pixels", 1000)
    takes(runtime.Stage, "run", 1)
    takes(bundle._scoring, "score", 10)
    takes(bundle._scoring, "answers", 100)
    noise = np.zeros((40, 8, 8, 1), np.uint8)
    assert bundle.times(noise) == [1111, 11, 1]  # whoever comes to the last leaves there
    assert [stage["p95"] for stage in runtime.measure(bundle, (40,), 3)["stages"]] == [1111e3, 11e3, 1e3]


def test_bad_images_are_named_and_the_others_answered(
    leaving: Path, images: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "color.png")
    Image.new("L", (9, 8)).save(tmp_path / "large.png")
    Image.new("F", (8, 8)).save(tmp_path / "deep.tiff")
    whole = (images / "00.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "good.png").write_bytes(whole)
    status, out, err = run(leaving, tmp_path)
    assert status == 2
    assert [line.split("  ")[0] for line in out.splitlines()] == [str(tmp_path / "good.png")]
    assert [line.partition(" (")[0] for line in err.splitlines()] == snapshot  # the rest is Pillow's


@pytest.mark.parametrize("words", ["nowhere.png", "a.png --batch 0", *long("empty", "")])
def test_mistakes_are_a_line(
    leaving: Path,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    status, out, err = run(leaving, *words.split())
    assert (status, out, err.splitlines()[-1]) == snapshot  # usage comes before


def test_arrays_of_another_shape_or_type(leaving: Path, snapshot: SnapshotAssertion) -> None:
    bundle = Bundle(leaving)
    good = np.zeros((2, 8, 8, 1), np.uint8)
    assert bundle.predict(good).exits.shape == (2,)
    assert bundle_refusal(bundle.predict, good[..., 0]) == snapshot
    assert bundle_refusal(bundle.predict, np.zeros((2, 8, 8, 3), np.uint8)) == snapshot
    assert bundle_refusal(bundle.predict, good.astype(np.int64)) == snapshot
    assert bundle_refusal(bundle.predict, [Image.new("L", (8, 8)), good[0]]) == snapshot
    # Of another resolution: a head flattens its map.
    assert bundle_refusal(bundle.predict, np.zeros((1, 16, 16, 1), np.uint8)) == snapshot


def test_the_function_returns_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anything.png"]) == 2  # beside this module there is no bundle
    assert "is no bundle" in capsys.readouterr().err


@pytest.mark.journey
@pytest.mark.parametrize("fill", ["linked", *long("installed")])
def test_in_an_environment_without_torch(leaving: Path, images: Path, tmp_path: Path, fill: str) -> None:
    """numpy, onnxruntime and Pillow are enough, and the answers are the same."""
    python = (_linked if fill == "linked" else _installed)(tmp_path / "env")
    probe = (
        "import importlib.util as u; print([n for n in ('torch', 'offramp', 'onnx') if u.find_spec(n)])"
    )
    assert subprocess.check_output([python, "-I", "-c", probe], text=True) == "[]\n"
    bare, own = (run(leaving, images, "--json", python=exe) for exe in (python, sys.executable))
    assert bare[0] == 0, bare[2]
    check_alike(bare[1], own[1])
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from run import Bundle; import numpy as np\n"
        "print(Bundle(sys.argv[1]).predict(np.zeros((3, 8, 8, 1), np.uint8)).classes.shape)"
    )
    answers = subprocess.check_output([python, "-I", "-B", "-c", code, str(leaving)], text=True)
    assert answers == "(3,)\n"


def _linked(folder: Path) -> str:
    """A fresh environment that has NEEDED of this one and what those require, and nothing else."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python3*/site-packages")
    names, seen = list(NEEDED), set[str]()
    while names:
        distribution = metadata.distribution(names.pop())
        if distribution.name in seen:
            continue
        seen.add(distribution.name)
        required = map(Requirement, distribution.requires or ())
        names += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():  # several share a folder of namespaces
                (packages / top).symlink_to(str(distribution.locate_file(top)))
    return str(folder / "bin" / "python")


def _installed(folder: Path) -> str:
    """A fresh environment; skips where pip cannot fill it."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--constraint", str(ROOT / "constraints.txt"), *NEEDED]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=env, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install here: {done.stderr.strip().splitlines()[-1]}")
    return python


def test_nobody_is_told_of_a_start(
    leaving: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime keeps a name for the device and what it will send to its makers in the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    status, _, err = run(leaving, images / "00.png")
    assert (status, err) == (0, "") and not list(tmp_path.iterdir())


def test_an_eps_that_is_called_png_starts_nothing(
    leaving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = trap(tmp_path, monkeypatch)
    (tmp_path / "a.png").write_bytes(EPS)
    status, out, err = run(leaving, tmp_path / "a.png")
    assert (status, out) == (2, "")
    assert "/a.png " in err and len(err.splitlines()) == 1
    assert not mark.exists()


WRONG = [
    ("stages.json", "stages.1.file", "policy.txt", "SHA256SUMS does not list policy.txt"),
    ("stages.json", "stages", ..., "is damaged ('stages')"),
    ("stages.json", "format", 7, "has bundle format 7, not 1"),
    ("policy.json", "exits.1", ..., "is damaged (2)"),
    ("policy.json", "score", "surely", "is damaged ('surely')"),
    ("preprocessing.json", "size", [10**9, 10**9], "is damaged (size must be (height, width)"),
]


@pytest.mark.parametrize(("file", "path", "value", "message"), WRONG, ids=lambda part: repr(part)[:40])
def test_what_another_wrote_wrongly_is_a_line(
    file: str, path: str, value: object, message: str, bundle: Path
) -> None:
    edited(bundle, file, path, value)
    line = bundle_refusal(Bundle, bundle)
    assert message in line
    assert refusal(open_bundle, bundle) == line  # offramp itself says the same


@pytest.mark.parametrize("text", ["\ud800", "{"])
def test_text_that_is_no_json_is_a_line(text: str, bundle: Path) -> None:
    (bundle / "stages.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    seal(bundle)
    assert "stages.json is damaged" in bundle_refusal(Bundle, bundle)


def test_a_pipe_or_a_device_in_place_of_a_file_is_not_waited_for(
    bundle: Path, images: Path, snapshot: SnapshotAssertion
) -> None:
    os.mkfifo(bundle / "pipe.png")
    assert run(bundle, bundle / "pipe.png") == snapshot
    (bundle / "labels.json").unlink()
    os.mkfifo(bundle / "labels.json")
    assert run(bundle, images) == snapshot
    (bundle / "SHA256SUMS").unlink()
    (bundle / "SHA256SUMS").symlink_to("/dev/zero")
    assert run(bundle, images) == snapshot


def test_what_is_no_file_in_a_folder_of_images_is_named(bundle: Path, images: Path) -> None:
    os.mkfifo(images / "pipe.png")
    (images / "nowhere.png").symlink_to(images / "absent.png")
    (images / "round.png").symlink_to(images / "round.png")
    odd = ("pipe.png", "nowhere.png", "round.png")
    code, out, err = run(bundle, images)
    assert code == 2 and out and all(name in err for name in odd)
    answers = predict(str(bundle), [images], out=bundle.parent / "answers.csv")
    assert answers.exit_code == 1
    assert {each.file.name for each in answers.damaged} == set(odd)


def test_escapes_of_a_terminal_are_not_printed(bundle: Path, images: Path) -> None:
    edited(bundle, "labels.json", "", [f"\x1b[31m{k}\u202e" for k in range(10)])
    status, out, _ = run(bundle, images / "00.png")
    assert status == 0 and "\x1b" not in out and "  \\x1b[31m" in out
    edited(bundle, "stages.json", "unreliable", ["\x1b[2Jgone"])
    assert run(bundle, images / "00.png")[2] == "run.py: unreliable: \\x1b[2Jgone\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_letters_that_a_console_lacks_are_spelled_out(encoding: str, bundle: Path, images: Path) -> None:
    """As a console of Windows does; where it has them all they stay."""
    edited(bundle, "labels.json", "", [f"caf\u00e9 \u732b {k}" for k in range(10)])
    for name, cafe, cat in (
        (encoding, "é" if encoding == "cp1252" else "\\xe9", "\\u732b"),
        ("utf-8", "é", "猫"),
    ):
        command = [sys.executable, "-B", str(bundle / "run.py"), str(images / "00.png")]
        environment = {**os.environ, "PYTHONIOENCODING": name}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=500)
        assert done.returncode == 0 and done.stderr == b""
        assert f"  caf{cafe} {cat} " in done.stdout.decode(name)


def test_one_image_leaves_where_it_does_in_a_batch(
    leaving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that decide nothing are not computed, and of one row none is where it is far from the
    threshold; a tie, which is not, leaves."""
    every, scoring = Bundle(leaving), Bundle(leaving)._scoring
    pixels = every.pixels(load(DataSpec("digits", test_images=20)).test.images.numpy()[..., None][:, 0])
    last = len(every.stages) - 1
    for size in (1, len(pixels)):  # whose logits may differ in their last bits
        batches = [pixels[low : low + size] for low in range(0, len(pixels), size)]
        logits = np.concatenate([every.all_exits(batch) for batch in batches])
        sure = scoring.scores(every.score, logits)
        one_leaves = float(sure[:, 0].max())
        for threshold in (*sure[:3, 0].tolist(), one_leaves, 0.5, -math.inf, math.inf, None):
            bundle = every.with_thresholds([*[threshold] * last, None])
            places = scoring.leaves(every.score, logits, [threshold] * last)
            expected = [bundle.stages[place].exit for place in places]
            assert [exit for batch in batches for exit in bundle.run(batch).exits] == expected
    with monkeypatch.context() as patch:  # far from the threshold, and where all leave: no score at all
        patch.setattr(scoring, "score", lambda *_: pytest.fail("a score was computed"))
        bundle = every.with_thresholds([*[math.inf] * last, None])
        assert bundle.run(pixels[:1]).exits == bundle.stages[last].exit
        assert np.array_equal(bundle.run(pixels[:3]).exits, bundle.run(pixels[:1]).exits.repeat(3))
        with pytest.raises(pytest.fail.Exception):  # the control: many rows are scored together
            bundle.run(np.tile(pixels, (3, 1, 1, 1)))


def ending_in(bundle: Path, kind: str, *more: str, times: int = 1, **attributes: Any) -> None:
    """The first graph with one more node, which makes the logits of what the last one made. times: what
    it may read as "times"."""
    path = bundle / "stages" / "exit-1.onnx"
    model = onnx.load(path)
    logits = model.graph.output[0].name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = "sooner" if name == logits else name
    model.graph.initializer.extend(
        [
            onnx.helper.make_tensor("three", TensorProto.INT64, [2], [3, 10]),
            onnx.helper.make_tensor("times", TensorProto.INT64, [2], [times, 1]),
        ]
    )
    model.graph.node.append(onnx.helper.make_node(kind, ["sooner", *more], [logits], **attributes))
    onnx.save(model, path)
    seal(bundle)


def test_a_graph_that_fails_is_one_line_without_escapes(
    bundle: Path, leaving: Path, images: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime told of it in a log of its own, with the names of nodes as they are."""
    ending_in(bundle, "Identity", name="\x1b[31mfine")
    assert run(bundle, images / "00.png")[0] == 0  # the control
    evil = Path(shutil.copytree(bundle, bundle.with_name("evil")))
    shutil.copy(leaving / "stages" / "exit-1.onnx", evil / "stages")
    ending_in(evil, "Reshape", "three", name="\x1b[31mevil")
    status, _, err = run(evil, images / "00.png")
    assert status == 2 and err.count("\n") == 1 and r"\x1b[31mevil" in err and "\x1b" not in err
    network = open_bundle(evil)
    line = refusal(network.answer, np.zeros((1, 1, 8, 8), np.uint8))
    assert "exit-1.onnx fails" in line and line in stable(err)
    assert capfd.readouterr() == ("", "")


def test_a_graph_has_no_more_memory_than_its_share(bundle: Path) -> None:
    """An operator that every exporter writes may ask for any amount. Here the share is 1 GB."""
    code = (
        "import sys, numpy as np; from offramp.bundle import runtime; runtime._room = lambda: 10**9\n"
        "runtime.Bundle(sys.argv[1]).run(np.zeros((1, 1, 8, 8), np.float32))"
    )

    def told(times: int) -> str:
        other = bundle.with_name(f"times-{times}")
        shutil.copytree(bundle, other)
        ending_in(other, "Tile", "times", times=times)
        ended = subprocess.run([sys.executable, "-c", code, other], capture_output=True, text=True)
        return ended.stderr

    assert told(2**20) == ""  # 40 MB
    assert "exit-1.onnx fails" in told(2**25)  # 1.3 GB
    assert runtime._room() > 2**27


def test_what_is_no_graph_is_a_line(bundle: Path) -> None:
    path = bundle / "stages" / "exit-1.onnx"
    whole = path.read_bytes()
    runtime.check_weights(path)
    for content in (b"", b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b" * 9, b"\x80" * 20, b"ORTM" * 4):
        path.write_bytes(content)
        if content:
            assert bundle_refusal(runtime.check_weights, path).endswith("again")
    for case in cases(500):
        path.write_bytes(harmed(case, whole[:4000] + whole[-4000:]))
        one_line(case, runtime.check_weights, path, also=BundleError)


def whole_number(value: int) -> bytes:
    """As Protocol Buffers write it."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + whole_number(rest) if rest else bytes([low])


def test_a_graph_behind_an_overlong_number_is_refused(bundle: Path) -> None:
    """onnxruntime reads the lower 32 bits: the field of the graph, which was not looked at."""
    path = bundle / "stages" / "exit-1.onnx"
    model = onnx.load(path)
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    key = whole_number((7 << 3 | 2) + 2**32)
    path.write_bytes(model.SerializeToString() + key + whole_number(len(graph)) + graph)
    seal(bundle)
    assert bundle_refusal(Bundle, bundle).endswith("exit-1.onnx is no graph; export the bundle again")


@pytest.mark.parametrize(
    "place", ["beside", "above", "absolute", "link", "constant", "branch", "function"]
)
def test_weights_in_a_file_that_is_not_listed_are_not_read(
    place: str, bundle: Path, snapshot: SnapshotAssertion
) -> None:
    """onnxruntime 1.20 read any file of the machine."""
    path, secret = bundle / "stages" / "exit-1.onnx", bundle.with_name("secret")
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    secret.write_bytes(tensor.raw_data)
    if place in ("constant", "branch", "function"):
        node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.initializer.remove(tensor)
        if place == "branch":
            body = onnx.helper.make_graph([node], "body", [], [onnx.ValueInfoProto(name=tensor.name)])
            yes = onnx.helper.make_tensor("yes", TensorProto.BOOL, [], [True])
            model.graph.initializer.append(yes)
            node = onnx.helper.make_node(
                "If", ["yes"], [tensor.name], then_branch=body, else_branch=body
            )
        if place == "function":
            opset = onnx.helper.make_opsetid("", 18)
            model.functions.append(
                onnx.helper.make_function("own", "W", [], [tensor.name], [node], [opset])
            )
            model.opset_import.append(onnx.helper.make_opsetid("own", 1))
            node = onnx.helper.make_node("W", [], [tensor.name], domain="own")
        model.graph.node.insert(0, node)
    name = {"above": "../../secret", "absolute": str(secret)}.get(place, "weights")
    for each in tensors_of(model, tensor.name):
        onnx.external_data_helper.set_external_data(each, name, 0, len(each.raw_data))
        each.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    weights = path.with_name("weights")
    weights.symlink_to(secret) if place == "link" else shutil.copy(secret, weights)
    seal(bundle)
    if place in ("beside", "constant"):  # the control: it is listed
        Bundle(bundle)
    sums = bundle / SUMS
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if "weights" not in line))
    assert bundle_refusal(Bundle, bundle) == snapshot
    if place in ("above", "absolute", "link"):  # of a graph that is no bundle's: all in its folder
        assert "move them into its folder" in bundle_refusal(runtime.check_weights, path)
    else:
        runtime.check_weights(path)


def tensors_of(model: onnx.ModelProto, name: str) -> list[TensorProto]:
    """The tensor of weights, wherever the model has it."""
    nodes = [*model.graph.node, *(node for each in model.functions for node in each.node)]
    nodes += [node for each in nodes for a in each.attribute if a.HasField("g") for node in a.g.node]
    constants = [a.t for node in nodes if node.op_type == "Constant" for a in node.attribute]
    return [each for each in (*model.graph.initializer, *constants) if each.name == name]


@pytest.mark.parametrize(("version", "spins"), [("1.20.1", "0"), ("1.27.0", "1"), ("2.0", "1")])
def test_threads_spin_only_where_it_can_be_brief(
    version: str, spins: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = runtime.load_onnxruntime()
    entries: dict[str, str] = {}
    add = onnxruntime.SessionOptions.add_session_config_entry

    def recorded(options: Any, name: str, value: str) -> None:
        entries[name] = value
        add(options, name, value)

    monkeypatch.setattr(onnxruntime, "__version__", version)
    monkeypatch.setattr(onnxruntime.SessionOptions, "add_session_config_entry", recorded)
    Bundle(bundle, threads=2)
    assert entries["session.intra_op.allow_spinning"] == spins
    assert entries["session.force_spinning_stop"] == "1"
