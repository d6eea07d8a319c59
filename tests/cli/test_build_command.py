"""`offramp build` and `offramp export` as a user runs them."""

import inspect
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import numpy as np
import pytest
import torch
from command import Answer, Cli, ok, refusal, refused, untimed
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from torchvision import models

import offramp.api.deploy.build as deploy
from longer import long
from offramp.api.deploy.build import BuildChoices, Built, _limited
from offramp.api.deploy.card import check_words
from offramp.api.progress import log
from offramp.bundle import export, web
from offramp.bundle.runtime import Bundle
from offramp.data import Data, DataSpec, load, normalize, progress
from offramp.data.dataset import FileSplit, Split
from offramp.data.sources.folder import folder
from offramp.nets import NetSpec, pretrained
from offramp.nets.backbones.lookup import origin_of
from offramp.nets.network import inside
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from offramp.study import build
from offramp.study.build import BuildOptions, _held_out, _strategy, choose
from offramp.study.plan import forecast
from offramp.study.run.trials import load_network
from refusal import refuses
from support import run_all
from wording import stable

SHORT = ("--set", "recipe.epochs=2", "--set", "numerics=default")
DIGITS = ("build", "--backbone", "digits-cnn", "--data", "digits")
SMALL = ("--set", "data.train_images=400", "--set", "data.test_images=100")
OWN_SPLITS = "data.split_seed=trial"
TRIAL = "two-stage-digits-cnn-digits-s1"
WHOLE = "the whole test split"
REMEDY = "What can be had: "


def held_out(images: int) -> tuple[str, str]:
    return "--set", f"data.held_out_images={images}"


def told(answer: Answer) -> str:
    """What a command that succeeds says, in one line."""
    return " ".join(ok(answer).out.split())


def reasons(answer: Answer) -> str:
    """Why `build --dry-run --json` would do what, and why not at all, as a snapshot has it: without how
    many threads this machine has."""
    said = json.loads(ok(answer).out)
    lines = [line for line in said["reasons"] if not line.startswith("arithmetic: ")]
    return stable("\n".join([*lines, *(f"Refused: {why}" for why in said["refused"])]))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images of three colors, of odd sizes, forms and modes."""
    rng = np.random.default_rng(0)
    for name, color in {"red": (160, 20, 20), "green": (20, 160, 20), "blue": (20, 20, 160)}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(40):
            height, width = rng.integers(50, 80, 2)
            noise = rng.integers(0, 90, (height, width, 3)) + np.array(color)
            image = Image.fromarray(noise.astype(np.uint8))
            if i % 4 == 1:
                image = image.convert("RGBA")
            if i % 4 == 2:
                image = image.quantize(32)
            exif = Image.Exif()
            if i % 8 == 0:
                exif[0x0112] = 6  # turned by a quarter
            kind = "jpg" if i % 4 == 0 else "png"
            image.save(tmp_path / "photos" / name / f"{i:02}.{kind}", exif=exif)
    return tmp_path / "photos"


def engine(place: Path) -> Path:
    """A folder that has the names of onnxruntime-web's files."""
    (place / "dist").mkdir(parents=True)
    for name in web.RUNTIME:
        (place / "dist" / name).write_text("")
    return place


def test_the_reading_of_images_is_told(cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PERIOD", 0.0)
    monkeypatch.setattr(log, "SELDOM", 0.0)
    words = ("build", "--backbone", "digits-cnn", "--data", f"folder:{photos}", "--out", "bundle")
    assert "reading images: " in cli(*words, "--dry-run").err
    assert cli(*words, "--dry-run", "--quiet").err == ""


@pytest.mark.parametrize(("images", "limit"), [(200, 0.01), (99, 0.01), (90, 0.011), (15, 0.05)])
def test_a_limit_that_nobody_named_is_the_least_that_the_images_tell(images: int, limit: float) -> None:
    """Up to five points; a limit that was named stays."""
    choices, line = _limited({}, images)
    assert choices == {"max_accuracy_loss": limit} and bool(line) == (limit > 0.01)
    named = BuildChoices(max_accuracy_loss=0.01)
    assert _limited(named, images) == (named, ())


def test_images_that_are_too_few_for_the_usual_limit(
    cli: Cli, photos: Path, snapshot: SnapshotAssertion
) -> None:
    """Who named none has the least that they tell; who did is refused, with the command for that."""
    words = ("build", "--backbone", "digits-cnn", "--data", f"folder:{photos}", "--out", "bundle")
    words = (*words, *held_out(24), "--exits", "1")
    dry = cli(*words, "--dry-run", "--json")
    assert reasons(dry) == snapshot
    assert json.loads(dry.out)["target"] == {"max-accuracy-loss": 0.04}
    err = cli(*words, "--max-accuracy-loss", "0.01").err.strip()
    command = shlex.split(err.partition(REMEDY)[2])
    assert command == ["offramp", *words, "--max-accuracy-loss", "0.04"]
    assert "refused" not in cli(*command[1:], "--dry-run").out


def test_images_that_are_too_few_for_any_limit(
    cli: Cli, photos: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    """Which is said before the work."""
    words = ("build", "--backbone", "digits-cnn", "--data", f"folder:{photos}", "--out", "bundle")
    few = cli(*words)
    assert (few.code, few.err.count("offramp: ")) == (2, 1)
    dry = cli(*words, "--dry-run", "--json")
    assert reasons(dry) == snapshot
    (why,) = json.loads(dry.out)["refused"]
    assert why in few.err and f"refused: {why}" in told(cli(*words, "--dry-run"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.journey
@pytest.mark.parametrize("small", [False, *long(True)], ids=["bundle", "and a small one, with a page"])
def test_from_a_folder_of_images_to_a_bundle(
    cli: Cli, photos: Path, tmp_path: Path, small: bool, snapshot: SnapshotAssertion
) -> None:
    words = ("build", "--backbone", "digits-cnn", "--data", f"folder:{photos}", "--out", "bundle")
    words = (*words, "--exits", "1")  # of which each is a graph to export
    words = (*words, "--set", "recipe.epochs=4", "--max-accuracy-loss", "0.1", "--anyway")
    plan = cli(*words, "--dry-run", "--json")
    assert reasons(plan) == snapshot(name="reasons")
    answer = cli(*words)
    assert all(reason in told(answer) for reason in json.loads(plan.out)["reasons"])
    for said in ("3 classes, images 3×48×48", "Check: ", "bundle/run.py", "offramp serve bundle"):
        assert said in answer.out
    assert "offramp benchmark bundle" in answer.out
    card = json.loads((tmp_path / "bundle" / "card.json").read_text())
    assert card["check"]["what"] == WHOLE
    assert card["network"]["taps"] == 1 and card["network"]["head"] == [["flatten", False]]
    assert card["network"]["heads_that_flatten"] == []
    # The bundle's answers for the files are those of the trial for its test split: the same pixels.
    data = load(DataSpec("folder", str(photos), size=48, held_out_images=9))
    test = folder(photos).test
    assert test is not None
    files = [photos / name for name in test.images.ids]
    bundle = Bundle(tmp_path / "bundle")
    pixels = bundle.pixels([Image.open(file) for file in files])
    mean, std = np.array(data.mean, np.float32), np.array(data.std, np.float32)
    raw = np.rint((pixels * std[:, None, None] + mean[:, None, None]) * 255).astype(np.uint8)
    assert (raw == data.test.images.numpy()).all()
    run = [sys.executable, "-I", "-B", "bundle/run.py", str(photos)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 120
    following = [line.split() for line in answer.out.splitlines() if line.startswith("  offramp show")]
    assert len(following) == 1 and cli(*following[0][1:]).code == 0
    assert refusal(cli(*words)) == snapshot(name="there already")
    if not small:
        return
    engine(tmp_path / "ort")
    web_page = ("--int8", "--int8-loss", "0.9", "--web", "site", "--onnxruntime-web", "ort")
    forced = ok(cli(*words, *web_page, "--force", "--json"))  # found in the store
    made = json.loads(forced.out)
    assert made["card"]["trial"] == card["trial"] and made["card"]["precision"] == "int8"
    assert made["web"] == "site" and (tmp_path / "site" / "index.html").is_file()


def test_an_interrupted_export_says_how_to_go_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while it trains."""

    def cut_short(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "export", cut_short)
    epochs = ("--set", "recipe.epochs=1")
    answer = cli(*DIGITS, "--out", "b", "--exits", "1", *SMALL, *epochs, "--anyway")
    assert answer.code == 130 and "Interrupted. Run the same command again to go on" in answer.err


def test_the_plan_starts_nothing(cli: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    words = (*DIGITS, *SMALL, *SHORT, "--out", "b", "--goal", "training-time", "--dry-run")
    plan, answer = cli(*words, "--json"), cli(*words)
    assert reasons(plan) == snapshot
    assert all(reason in told(answer) for reason in json.loads(plan.out)["reasons"])
    for said in ("10 classes, images 1×8×8", "MACs before it", "backbone", "Nothing was started."):
        assert said in answer.out
    assert "loss 0.016. Bundle: b." in answer.out  # as 63 calibration images tell
    assert not list(tmp_path.iterdir())
    wanted = (*SHORT, "--out", "b", "--max-accuracy-loss", "1%")
    found = json.loads(cli(*DIGITS, *SMALL, *wanted, "--dry-run", "--json").out)
    assert [exit["exit"] for exit in found["exits"]] == [1, 2, 3, 4]
    shares = [exit["share"] for exit in found["exits"]]
    assert shares == sorted(shares) and 0.9 < shares[-1] <= 1
    assert found["totals"]["nodes"] == 4 and found["target"] == {"max-accuracy-loss": 0.01}


@pytest.mark.long
def test_a_checkpoint_that_is_kept(cli: Cli, tmp_path: Path) -> None:
    """Its final answer is the file's, to the bit, in the trial, and within rounding in the bundle."""
    before = ("run", "--strategy", "baseline", "--backbone", "digits-cnn", "--data", "digits")
    assert cli(*before, *SMALL, "--set", "recipe.epochs=3").code == 0
    store = Store(tmp_path / "runs")
    net = load_network(store, store.trials()[0], torch.device("cpu"))
    torch.save(inside(net).trunks[0].module.state_dict(), tmp_path / "mine.pth")
    words = (*DIGITS, *SMALL, *SHORT, "--weights", "mine.pth", "--keep-frozen", "--out", "b")
    refused(cli(*words), "say normalize: imagenet")
    words = (*words, *held_out(100))  # a quarter of each class, as by default
    answer = ok(cli(*words, "--normalize", "train", "--exits", "2", "--anyway"))
    assert "tensors loaded" in answer.out and "Weights 'mine.pth'" in answer.out
    built = Store(tmp_path / "runs" / "build")
    (trial,) = built.trials()
    logits = built.trial_logits(trial)["test"][:, -1]
    assert np.array_equal(logits, store.trial_logits(store.trials()[0])["test"][:, -1])
    card = json.loads((tmp_path / "b" / "card.json").read_text())
    assert card["training"]["options"]["backbone"] == "kept"
    assert [exit["exit"] for exit in card["exits"]] == [1, 2, 3]


def test_a_time_sets_the_epochs(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setattr(forecast, "measured", lambda *_: 1e9)
    words = (*DIGITS, "--out", "b", "--budget")
    answer = cli(*words, "10s", "--dry-run")
    assert answer.code == 0 and untimed(answer.err) == snapshot(name="enough")
    epochs = answer.err.partition("recipe.epochs=")[2].split()[0].rstrip(";.")
    assert f"- {epochs} epochs a phase of " in answer.out
    short = cli(*words, "1s")
    said, _, line = short.err.partition("offramp: ")
    assert (short.code, short.out) == (2, "")
    assert [*untimed(said), line] == snapshot(name="too short")


@pytest.mark.long
def test_a_bundle_of_too_short_a_training_is_marked(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forecast, "measured", lambda *_: 1e9)
    answer = ok(cli(*DIGITS, "--out", "b", "--exits", "1", "--budget", "1s", "--anyway"))
    card = json.loads((tmp_path / "b" / "card.json").read_text())
    assert card["unreliable"][0].startswith("a budget of 1.0 s")
    assert "Unreliable: a budget of 1.0 s" in answer.out


@pytest.mark.long
def test_public_weights_that_are_here_are_the_start(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    words = ("build", "--backbone", "mobilenetv2", "--data", "digits", "--size", "32")
    gray = (*words, "--out", "b", "--dry-run", "--json")
    words = (*gray, "--set", "data.channels=3")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    weights = models.get_model_weights("mobilenet_v2").DEFAULT
    file = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]

    def start(*words: str) -> str:
        lines = reasons(cli(*words)).replace(file.name, "FILE").splitlines()
        return "\n".join(line for line in lines if "weights" in line)

    assert start(*words) == snapshot(name="not here")
    file.parent.mkdir(parents=True)
    state = models.mobilenet_v2().state_dict()
    torch.save(state, file)
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: torch.load(file))
    assert start(*words) == snapshot(name="here")
    assert start(*words, "--weights", "random") == snapshot(name="not wanted")
    assert start(*gray) == snapshot(name="of gray")
    refused(cli(*gray, "--weights", "imagenet"), "normalize: ")


FEW = ("data.train_images=100", "data.test_images=20", "data.channels=3")
PUBLISHED = ("--data", "digits", "--pretrained", "--out", "b", "--dry-run", "--exits", "1")
PUBLISHED += tuple(word for setting in FEW for word in ("--set", setting))


@pytest.mark.parametrize(
    ("name", "side", "pixels"),
    [
        ("timm/test_vit", 160, "pixels normalized by 'half'"),
        *long(("torchvision/squeezenet1_1", 224, "pixels normalized by ImageNet's mean")),
    ],
)
def test_a_published_network_is_kept_as_it_is(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, side: int, pixels: str
) -> None:
    """Its pixels are those that it was trained on, whoever published it."""
    whole = origin_of(NetSpec(name), (3, side, side), 10).make
    assert whole is not None
    monkeypatch.setattr(pretrained, "_public", lambda _: dict(whole().state_dict()))
    answer = ok(cli("build", "--backbone", name, *PUBLISHED, "--strategy", "survivors"))
    out = " ".join(answer.out.split())
    assert f"images 3×{side}×{side}" in out and pixels in out
    assert "drawn anew" not in out and "survivors: as asked" in out


def test_what_a_published_network_is_given_fits_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    words = ("build", "--backbone", "timm/test_vit", *PUBLISHED)
    of = {n: origin_of(NetSpec("timm/test_vit"), (3, 64, 64), n).make for n in (10, 1000)}
    monkeypatch.setattr(pretrained, "_public", lambda _: dict(of[10]().state_dict()))  # type: ignore[misc]

    odd = pretrained.Published((0.5, 0.4, 0.3), (0.2, 0.2, 0.25), 64)  # as no name has them
    with monkeypatch.context() as patch:
        patch.setattr(build, "published", lambda _: odd)
        said = told(cli(*words, "--strategy", "survivors"))
    assert "normalized by (0.5, 0.4, 0.3) and (0.2, 0.2, 0.25)" in said
    other = cli(*words, "--set", "data.options={}", "--weights", "mine.pth")
    assert refusal(other) == snapshot(name="two")
    monkeypatch.setattr(pretrained, "_public", lambda _: dict(of[1000]().state_dict()))  # type: ignore[misc]
    thousand = cli(*words, "--size", "64")
    assert refusal(thousand) == snapshot(name="of other classes")


@pytest.mark.parametrize("strategy", ["two-stage", *long("survivors")])
def test_heads_alone_train_on_a_published_network(
    strategy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its final exit answers as the published network, to the bit."""
    make = origin_of(NetSpec("timm/test_vit"), (3, 32, 32), 10).make
    assert make is not None
    torch.manual_seed(5)
    module = make().eval()
    monkeypatch.setattr(pretrained, "_public", lambda _: dict(module.state_dict()))
    settings = ("data.train_images=100", "data.test_images=40", "data.channels=3", "recipe.epochs=1")
    wish = BuildOptions("timm/test_vit", "digits", "1", strategy=strategy, size=32, settings=settings)
    plan = choose(replace(wish, pretrained=True)).plan
    assert plan.data.mean == (0.5, 0.5, 0.5) == plan.data.std
    own = (0.5, 0.4, 0.3), (0.2, 0.2, 1.0)
    data = choose(replace(wish, pretrained=True, normalize=own)).plan.data
    assert (data.mean, data.std) == own
    store, _ = run_all(plan, tmp_path / "runs")
    (trial,) = store.trials()
    images = normalize(plan.data.test.images, torch.tensor(plan.data.mean), torch.tensor(plan.data.std))
    with torch.inference_mode():
        expected = module(images.contiguous(memory_format=torch.channels_last)).numpy()
    assert np.array_equal(store.trial_logits(trial)["test"][:, -1], expected)


def test_choices_that_are_none(cli: Cli) -> None:
    """Of which there will be others; how the rest of these lines goes is in no snapshot."""
    kept = ("--weights", "w.pth", "--keep-frozen", "--strategy", "joint")
    for words, said in (
        (("--backbone", "resnet"), "mean 'resnet"),
        (("--backbone", "torchvision/nope"), "nope"),
        (("--strategy", "baseline"), "'baseline' has no"),
        (kept, "joint, as asked"),
    ):
        refused(cli(*DIGITS, "--out", "b", *words), said)


@pytest.mark.long
def test_a_size_of_ones_own(cli: Cli, photos: Path) -> None:
    words = ("--backbone", "digits-cnn", "--data", f"folder:{photos}", "--out", "b", "--size", "32")
    answer = ok(cli("build", *words, "--dry-run"))
    assert "images 3×32×32" in answer.out and "size 48" not in answer.out


def test_images_are_read_as_the_settings_say(photos: Path) -> None:
    """As a run reads them: from their files, boxes out of whole images, and a seed's own splits."""
    wish = BuildOptions("resnet20", f"folder:{photos}", strategy="joint", settings=("data.size=32",))

    def train(*more: str, seed: int = 42) -> Split | FileSplit:
        return choose(replace(wish, seed=seed, settings=(*wish.settings, *more))).plan.data.train

    files, boxes = train("execution.loader=streaming"), train("augment={resized_crop: [0.5, 1]}")
    assert isinstance(files, FileSplit) and files.memory is None
    assert isinstance(boxes, FileSplit)  # a Split has nothing around its pixels
    assert train(OWN_SPLITS, seed=1).digest != train(OWN_SPLITS, seed=2).digest


def test_the_strategy_comes_from_runs_where_there_are_some(
    cli: Cli, snapshot: SnapshotAssertion
) -> None:
    before = ("--strategy", "pretrained-branch", "--backbone", "digits-cnn", "--data", "digits")
    ok(cli("run", *before, *SMALL, *SHORT, "--store", "known"))
    words = (*DIGITS, *SMALL, *SHORT, "--out", "b", "--evidence", "known", "--dry-run")
    assert reasons(cli(*words, "--json")).splitlines()[0] == snapshot(name="told")
    assert refusal(cli("build", "--backbone", "resnet18", *words[3:])) == snapshot(name="not told")


def test_every_strategy_that_can_keep_a_backbone_may() -> None:
    wish = BuildOptions("digits-cnn", "digits", weights="w.pth", keep_frozen=True)
    keeping = {n for n, s in STRATEGIES.items() if "backbone" in inspect.signature(s).parameters}
    assert keeping >= {"two-stage", "cascade", "gated"} and "joint" not in keeping
    for name in keeping:
        assert _strategy(replace(wish, strategy=name), []) == {"name": name, "backbone": "kept"}
    refuses("unknown strategy 'cascad'", _strategy, replace(wish, strategy="cascad"), [])
    known = replace(wish, evidence=("pretrained-branch", {"scope": "head"}, "digits-cnn (runs)"))
    line = refuses("pretrained-branch", _strategy, known, [])
    assert "digits-cnn (runs)" in line and "two-stage" in line


def test_export_shows_what_it_made(studied: Cli) -> None:
    words = ("calibrate", TRIAL, "--max-accuracy-loss", "0.05", "--out", "p.json")
    refused(studied(*words), "better than chance")
    assert not Path("p.json").exists() and studied(*words, "--anyway").code == 0
    export = ("export", TRIAL, "--policy", "p.json", "--out", "b", "--no-measure")
    refused(studied(*export, "--quiet"), "better than chance")
    answer = ok(studied(*export, "--anyway"))
    assert answer.out.startswith("Unreliable: ")
    assert f"100 images ({WHOLE}), logits within" in answer.out
    assert "stage 1 of " in answer.err and "comparing with PyTorch" in answer.err
    unchecked = ("--policy", "p.json", "--out", "c", "--no-check", "--json", "--anyway")
    told = studied("export", TRIAL, *unchecked)
    assert told.code == 0 and told.err == ""
    assert json.loads(told.out)["card"]["check"] is None


@pytest.mark.parametrize(
    ("needed", "calibration", "held"),
    [
        (0, 40, None),  # a limit that compares with nothing
        (40, 40, None),
        (49, 40, 60),  # more than the default, and a tenth at the least
        (85, 40, 85),
        (99, 40, 90),  # never more than 15 %
        (49, 150, 60),  # less than the default, where that takes a quarter
    ],
)
def test_as_many_are_held_out_as_the_target_needs(
    needed: int, calibration: int, held: int | None
) -> None:
    sizes = {"train": 600 - 2 * calibration, "validation": calibration, "calibration": calibration}
    data = cast(Data, SimpleNamespace(**{name: range(n) for name, n in sizes.items()}))
    assert _held_out(needed, data) == held


@pytest.mark.long
def test_a_table_of_images_of_several_sizes_is_given_one(
    cli: Cli, photos: Path, snapshot: SnapshotAssertion
) -> None:
    """And what was understood of the data is told."""
    paths = [(p, p.parent.name) for p in sorted(photos.glob("*/*.*"))]
    lines = [f"{path.relative_to(photos)},{name}" for path, name in paths]
    (photos / "labels.csv").write_text("\n".join(["file,class", *lines]))
    words = ("--backbone", "resnet18", "--data", f"table:{photos}/labels.csv", "--out", "bundle")
    out = cli("build", *words, "--dry-run").out
    assert [line for line in out.splitlines() if "labels.csv" in line] == snapshot
    assert "few images" in out


def test_no_policy_is_named_that_nobody_wrote(
    monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """Of a plain network there is none to calibrate, and its bundle is the one that was written."""
    monkeypatch.setattr(deploy, "card_document", lambda *_: [])
    rule = Policy("confidence", (2,), (None,))
    plain = Built(Path("b"), rule, {}, "baseline-net-1f2e60c4")
    early = replace(plain, _share=50)
    assert [built.document() for built in (plain, early)] == snapshot


def test_a_check_that_agrees_wholly(snapshot: SnapshotAssertion) -> None:
    check = {"images": 500, "what": WHOLE, "differing": 0, "share": 0.0}
    assert [check_words({**check, "accuracy": accuracy}) for accuracy in (0.0, 0.002)] == snapshot


@pytest.mark.parametrize("page", ["b", "b/site", "."])
def test_a_page_and_a_bundle_have_folders_of_their_own(
    cli: Cli, tmp_path_factory: pytest.TempPathFactory, page: str
) -> None:
    ort = engine(tmp_path_factory.mktemp("ort"))
    words = ("--web", page, "--onnxruntime-web", ort, "--dry-run")
    refused(cli(*DIGITS, "--out", "b", *words), f"--web {page} and --out b")


def test_photos_on_their_side_differ_in_size(cli: Cli, tmp_path: Path) -> None:
    """Phones store every photo in one size, and say which way it is up."""
    turned = Image.Exif()
    turned[0x0112] = 6
    noise = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "phone" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        how = {"exif": turned} if i % 3 == 0 else {}
        Image.fromarray(noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path, **how)
    words = ("build", "--backbone", "digits-cnn", "--data", "folder:phone", "--out", "b", "--dry-run")
    answer = cli(*words)
    assert answer.code == 0 and "size 48: images differ" in answer.out, answer.err
