"""Several labels an image, from a table of files to the server: one study, whose trial is calibrated,
predicted with, exported and served. Scores, limits and guarantees of labels, on made answers too."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from syrupy.assertion import SnapshotAssertion

import offramp
from cli.command import call, data, ok
from cli.command import refusal as refusal_of
from offramp.api.deploy.predict import write
from offramp.bundle import web
from offramp.bundle.runtime import Bundle, answer_fields, named
from offramp.errors import OfframpError
from offramp.infer.image_files import FileAnswer
from offramp.metrics import hamming_losses, hits
from offramp.policy import guarantees, scoring
from offramp.policy.candidates import SplitLogits, loss_of, temperatures
from offramp.report import evidence
from offramp.report.figures import FIGURES
from offramp.report.model import Figure, Table
from offramp.report.registry import Family, made_of
from offramp.report.runs import Runs
from offramp.report.tables import TABLES, make
from offramp.store.store import Store
from offramp.study import trained as trials
from several import NAMES, folder, tiles
from wording import refusal

STUDY = {
    "seeds": [1],
    "strategies": ["joint"],
    "backbone": "digits-cnn",
    "exits": {"taps": ["blocks.2", "blocks.3"], "head": {"kind": "linear"}},
    "recipe": {"epochs": 9, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.01},
}
IMAGES = 900
SEVERAL = [name for name, score in scoring.SCORES.items() if score.several]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one trial of a table of a column for each label."""
    root = tmp_path_factory.mktemp("several")
    table = folder(root / "tiles", IMAGES)
    study = root / "study.yaml"
    named = {"name": "table", "root": str(table), "several": True, "held_out_images": 160}
    study.write_text(json.dumps({**STUDY, "data": named}))
    ok(call("run", study, "--store", root / "runs"))
    return root / "runs"


@pytest.fixture(scope="module")
def answers(runs: Path) -> trials.Trained:
    return trials.read(Store(runs), "joint")


@pytest.fixture(scope="module")
def bundle(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle by which images leave early."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("bundle")
    policy = out / "policy.json"
    limit = ("--max-mean-macs", "80%", "--temperature")
    ok(call("calibrate", "joint", "--store", runs, *limit, "--out", policy, "--anyway"))
    quick = ("--policy", policy, "--out", out / "bundle", "--no-measure")
    ok(call("export", "joint", "--store", runs, *quick))
    return out / "bundle"


def test_a_study_records_metrics_of_labels(runs: Path, answers: trials.Trained) -> None:
    metrics = Store(runs).read_trial(answers.id).metrics["test"]
    record, logits, labels = metrics.by_name, answers.test.logits, answers.test.labels
    assert answers.classes == tuple(sorted(NAMES)) and answers.test.several
    assert metrics.accuracy == pytest.approx(hits(logits, labels).mean(axis=0)), "of all labels"
    assert record["hamming_loss"] == pytest.approx(hamming_losses(logits, labels).mean(axis=0))
    assert record["hamming_loss"][-1] < labels.mean() / 2  # that of answering nothing
    assert record["auroc"][-1] > 0.9 and record["f1"][-1] > 0.6
    shown = data(call("show", "joint", "--store", runs, "--json"))
    assert shown["metrics"]["test"]["hamming_loss"] == list(record["hamming_loss"])
    text = call("show", "joint", "--store", runs)
    assert "micro F1" in text.out and "means over labels" in text.out


# Scores


@pytest.mark.parametrize("name", SEVERAL)
def test_scores_of_labels_by_hand(name: str) -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 3, (50, 6)).astype(np.float32)
    yes = 1 / (1 + np.exp(-logits.astype(np.float64) / 1.5))
    sure = np.maximum(yes, 1 - yes)
    entropy = -(yes * np.log(yes) + (1 - yes) * np.log(1 - yes)).mean(1) / np.log(2)
    expected = {"least-label": sure.min(1), "mean-label": sure.mean(1), "label-entropy": 1 - entropy}
    for array in (logits, torch.from_numpy(logits)):
        scores, past = scoring.score(name, array, 1.5)
        np.testing.assert_allclose(np.asarray(scores), expected[name], rtol=2e-5, atol=1e-6)
        assert past is None
    broken = np.array([[1.0, np.nan], [np.inf, 1.0], [1e30, -1e30], [0.0, 0.0]], np.float32)
    scores, _ = scoring.score(name, broken)
    assert scores[:2].tolist() == [-np.inf] * 2 and scores[2] == 1
    assert scores[3] == pytest.approx(scoring.SCORES[name].low)


def test_scores_go_with_labels(answers: trials.Trained, snapshot: SnapshotAssertion) -> None:
    options: Any = {"logits": answers.calibration.logits, "costs": [10, 20, 30], "max_mean_macs": 25}
    sets = answers.calibration.labels
    assert offramp.calibrate(labels=sets, anyway=True, **options).score == "least-label"
    assert refusal(offramp.calibrate, labels=sets, score="margin", **options) == snapshot
    one = sets[:, 0].astype(int)
    assert refusal(offramp.calibrate, labels=one, score="mean-label", **options) == snapshot
    limit: Any = {**options, "max_mean_macs": None, "hamming_risk": 0.1}
    assert refusal(offramp.calibrate, labels=one, **limit) == snapshot
    assert refusal(offramp.calibrate, labels=sets * 2, **options) == snapshot


def test_a_temperature_is_that_of_sigmoids() -> None:
    draw = np.random.default_rng(1)
    logits = draw.normal(0, 2, (4000, 1, 3))
    labels = (draw.random((4000, 3)) < 1 / (1 + np.exp(-logits[:, 0]))).astype(np.uint8)
    assert temperatures(SplitLogits(logits * 3, labels))[0] == pytest.approx(3, rel=0.1)


# Limits and guarantees


def test_losses_of_labels_by_hand() -> None:
    truth = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    answers = np.array([[[1, 0, 1, 0], [1, 1, 1, 0]], [[1, 0, 0, 0], [0, 0, 0, 0]]], bool)
    assert loss_of("label", answers, truth).tolist() == [[0.5, 0.25], [0.25, 0.0]]
    assert loss_of("miss", answers, truth).tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert loss_of("label-harm", answers, truth).tolist() == [[0.25, 0.0], [0.25, 0.0]]
    assert loss_of("miss-harm", answers, truth).tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert loss_of("wrong", answers, truth).tolist() == [[1.0, 1.0], [1.0, 0.0]]
    assert loss_of("harm", answers, truth).tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert loss_of("disagreement", answers, truth).tolist() == [[1.0, 0.0], [1.0, 0.0]]


def promise(statement: str) -> str:
    """What a statement says of the limit, without what came of it on these images."""
    return statement.partition(". ")[0]


@pytest.mark.parametrize(
    "limit", ["max_hamming_loss", "max_missed_labels", "hamming_risk", "missed_risk"]
)
def test_a_limit_of_labels_is_kept(
    answers: trials.Trained, limit: str, snapshot: SnapshotAssertion
) -> None:
    from offramp.policy.calibrate import target
    from offramp.policy.evaluate import evaluate

    aim = target(1, **{limit: 0.05})  # type: ignore[misc]
    chosen = trials.policy_for(answers, aim, anyway=True)
    leaves = chosen.policy.leaves(answers.calibration.logits)
    assert (leaves < len(answers.exits) - 1).any(), "something leaves early"
    seen = evaluate(chosen.policy, answers.calibration, answers.costs, answers.classes)
    label = seen.labels["miss" if "miss" in limit else "label"]
    came = label.harm if limit.endswith("risk") else label.more
    assert came.mean <= 0.05
    origin = chosen.policy.calibration
    assert promise(origin.statement) == snapshot  # of missed labels the mean over inputs, not each
    if limit.endswith("risk"):
        assert origin.chosen is not None and origin.chosen.risk_below is not None
        assert came.mean < origin.chosen.risk_below <= 0.05


def shares(rows: int, draw: np.random.Generator) -> np.ndarray:
    """Losses [rows, 6] in fourths, whose true means are 0.02, 0.05, …, 0.17: candidates of rising risk,
    lumpy in each image, as labels are that are missed together."""
    means = np.linspace(0.02, 0.17, 6)
    lumps = np.where(draw.random((rows, 1)) < 0.5, 1.0, 0.25)  # a share when an image loses anything
    return np.where(draw.random((rows, 1)) < means / 0.625, lumps, 0.0)


def test_a_guarantee_on_shares_keeps_its_word_and_a_control_does_not() -> None:
    """Of 300 draws of 150 images the true risk of what is certified is above 0.1 in at most 5 %."""
    draw = np.random.default_rng(5)
    true, risk, level = np.linspace(0.02, 0.17, 6), 0.1, 0.95
    broken, hopeful, saved = 0, 0, 0
    for _ in range(300):
        losses = shares(150, draw)
        count = guarantees.learn_then_test(losses, risk, level)
        broken += bool(count) and true[count - 1] > risk
        saved += bool(count)
        fits = np.flatnonzero(losses.mean(axis=0) <= risk)  # the control: no more than the mean
        hopeful += bool(len(fits)) and true[fits[-1]] > risk
    assert broken / 300 <= 0.05 and saved / 300 > 0.5
    assert hopeful / 300 > 0.2


def test_bounds_of_shares() -> None:
    draw = np.random.default_rng(6)
    below = sum(guarantees.bound_of(shares(200, draw)[:, 2], 0.9) < 0.08 for _ in range(60))
    assert below / 60 <= 0.15
    halves = np.array([0.5] * 10 + [0.0] * 90)
    bound = guarantees.bound_of(halves, 0.95)
    assert guarantees.hoeffding_bentkus(0.05, bound + 1e-6, 100) <= 0.05
    assert guarantees.hoeffding_bentkus(0.05, bound - 1e-3, 100) > 0.05
    # Losses of 0 and 1 keep the exact binomial tail.
    ones = np.array([1.0] * 5 + [0.0] * 95)
    assert guarantees.bound_of(ones, 0.95) == guarantees.upper_bound(5, 100, 0.95)


def test_conformal_control_of_shares_keeps_the_mean() -> None:
    draw = np.random.default_rng(7)
    true, means = np.linspace(0.02, 0.17, 6), []
    for _ in range(400):
        count = guarantees.conformal(shares(120, draw), 0.1)
        means.append(true[count - 1] if count else 0.0)
    assert np.mean(means) <= 0.1


# Reports

LACKING = {
    Table: {"overall", "anova", "epochs-digest", "anova-costs", "baseline", "anova-hybrids"}
    | {"pairs-one-way", "tests-one-way", "pairs"},
    Figure: {"significance", "budget", "reliability"},
}
"""What one strategy with one seed does not show, and calibration, which is of one class an image."""


@pytest.mark.parametrize(("families", "kind"), [(TABLES, Table), (FIGURES, Figure)])
def test_every_table_and_every_figure_can_be_made_of_several_labels(
    runs: Path, families: Mapping[str, Family], kind: type[Any]
) -> None:
    of_families = made_of(families, evidence.open(runs), kind)
    assert {name for name, items in of_families if not items} == LACKING[kind]


def test_a_table_that_does_not_think_of_several_labels_fails(runs: Path) -> None:
    """The control."""

    def of_a_class(runs: Runs) -> list[Table]:
        logits, labels = runs.evidence.logits(runs.trials[0].id)
        assert hits(logits, labels)[labels == 0].any()
        return []

    with pytest.raises(IndexError):
        make(evidence.open(runs), [of_a_class])


# Commands


def test_the_report_has_metrics_of_labels(runs: Path, answers: trials.Trained, tmp_path: Path) -> None:
    from offramp.report.logits import summarized

    only = ("--only", "main", "--format", "csv", "--out", tmp_path / "tables")
    ok(call("report", runs, "--tables", *only))
    (file,) = (tmp_path / "tables").glob("main-labels-*.csv")
    rows = pd.read_csv(file)
    record = Store(runs).read_trial(answers.id).metrics["test"].by_name
    assert rows["exit"].tolist() == list(answers.exits)
    for name in ("auroc", "auroc_micro", "average_precision", "f1", "f1_micro", "hamming_loss"):
        assert rows[name].tolist() == pytest.approx(record[name])
    told = summarized(answers.test.logits, answers.test.labels, (1, 2, 3))
    assert told.ece == (None,) * 3 and told.bins.sum() == 0  # so that no reliability is drawn
    assert told.answers.right.mean(axis=0) == pytest.approx(record["accuracy"])


def test_calibrate_says_what_becomes_of_labels(runs: Path, tmp_path: Path) -> None:
    out = ("--store", runs, "--out", tmp_path / "policy.json", "--anyway")
    text = ok(call("calibrate", "joint", "--max-hamming-loss", "0.05", *out))
    for words in ("all labels right", "labels wrong", "labels missed", "Labels found", "least-label"):
        assert words in text.out, words
    told = data(call("calibrate", "joint", "--missed-risk", "0.05", *out, "--json"))
    assert told["target"]["kind"] == "missed-risk" and set(told["test"]["labels"]) == {"label", "miss"}
    for wrong in (("--score", "confidence"), ("--training-shares",), ("--score", "patience")):
        answer = call("calibrate", "joint", "--max-mean-macs", "80%", *wrong, *out)
        assert answer.code == (0 if "confidence" in wrong else 2), answer.err


def test_predict_gives_all_labels(runs: Path, bundle: Path, tmp_path: Path) -> None:
    images = sorted((runs.parent / "tiles").glob("*.png"))[:20]
    ok(call("predict", "joint", *images, "--store", runs, "--out", tmp_path / "full.csv"))
    lines = (tmp_path / "full.csv").read_text().splitlines()
    truth = {
        f"{n}.png": {NAMES[c] for c in np.flatnonzero(row)} for n, row in enumerate(tiles(IMAGES)[1])
    }
    right = 0
    for line in lines[1:]:
        file, names = line.split(",")[:2]
        right += truth[Path(file).name] == (set(names.split("|")) if names else set())
    assert right > 10  # by chance one of nine or so
    ok(call("predict", bundle, *images, "--out", tmp_path / "bundle.csv"))


ODD = ("cat|dog", "cat", "dog", 'a "b"', "", "two\nlines", "comma, too")


@pytest.mark.parametrize("marked", [ODD, ODD[:1], ODD[1:3], ("",), ()], ids=len)
def test_names_with_a_separator_are_told_from_two_names(marked: tuple[str, ...], tmp_path: Path) -> None:
    """In JSON, and in the table of `predict`: one of two animals was two labels."""
    text = named(ODD, [name in marked for name in ODD])
    assert answer_fields(text, {})["labels"] == list(marked)
    write(tmp_path / "answers.csv", [FileAnswer(tmp_path / "a.png", text, 0.5, 1, 0.1)], [])
    with (tmp_path / "answers.csv").open(newline="") as file:
        (cell,) = (row["class"] for row in csv.DictReader(file))
    (names,) = csv.reader([cell], delimiter="|")
    assert names == list(marked)
    usual = [name for name in marked if name.isalpha()]
    assert named(usual, [True] * len(usual)) == "|".join(usual)  # as ever


def test_the_bundle_answers_as_the_network(runs: Path, bundle: Path) -> None:
    loaded = Bundle(bundle, threads=1)
    assert loaded.several and loaded.labels == tuple(sorted(NAMES))
    pictures = [Image.fromarray(image[0].numpy()) for image in tiles(60)[0]]
    told = loaded.predict(pictures)
    assert told.classes.shape == (60, 5) and told.classes.dtype == bool
    assert len(set(told.exits.tolist())) > 1, "some leave early"
    np.testing.assert_array_equal(told.classes, told.logits > 0)
    warmth = {stage.exit: stage.temperature for stage in loaded.stages}
    heat = np.array([[warmth[exit]] for exit in told.exits.tolist()])
    assert heat.min() != 1
    yes = 1 / (1 + np.exp(-told.logits / heat))
    np.testing.assert_allclose(told.probabilities, yes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(told.confidence, np.maximum(yes, 1 - yes).min(1), rtol=1e-5)
    net, rule = offramp.load("joint", store=runs), offramp.Policy.load(bundle.parent / "policy.json")
    predictor = offramp.Predictor(net, rule)
    pixels = torch.from_numpy(loaded.pixels(pictures))
    ours = predictor(pixels)
    assert torch.equal(ours.classes, torch.from_numpy(told.classes))
    assert torch.equal(ours.exits, torch.from_numpy(told.exits))
    torch.testing.assert_close(ours.confidence, torch.from_numpy(told.confidence), rtol=1e-3, atol=1e-4)
    (single,) = [predictor(pixels[n : n + 1]) for n in (3,)]
    assert torch.equal(single.classes[0], ours.classes[3])
    torch.testing.assert_close(single.confidence[0], ours.confidence[3], rtol=1e-3, atol=1e-4)


def test_run_py_prints_labels(runs: Path, bundle: Path) -> None:
    image = sorted((runs.parent / "tiles").glob("*.png"))[:3]
    command = [sys.executable, str(bundle / "run.py"), *map(str, image)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    for shown, line in zip(text.splitlines(), lines.splitlines(), strict=True):
        answer = json.loads(line)
        assert "class" not in answer and set(answer["probabilities"]) == set(NAMES)
        odds = {name for name, p in answer["probabilities"].items() if p > 0.5}
        assert set(answer["labels"]) == odds
        assert all(f"{name} " in shown for name in odds) and (odds or "no label" in shown)


@pytest.mark.filterwarnings("ignore:The anyio.abc.BlockingPortal alias")  # Starlette before 1.10
def test_the_server_answers_labels_and_the_page_is_refused(bundle: Path) -> None:
    pytest.importorskip("starlette")
    from starlette.testclient import TestClient

    from offramp.serve.alarm import Watch
    from offramp.serve.app import make_app
    from offramp.serve.uploads import ServeLimits

    picture = io.BytesIO()
    Image.fromarray(tiles(1)[0][0, 0].numpy()).save(picture, "PNG")
    loaded = Bundle(bundle, threads=1)
    with TestClient(make_app(loaded, ServeLimits(), "labels", Watch(loaded))) as client:
        answer = client.post("/predict", content=picture.getvalue()).json()
        described = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(answer["probabilities"]) == set(NAMES) and "class" not in answer
    assert answer["labels"] == [n for n in sorted(NAMES) if answer["probabilities"][n] > 0.5]
    jsonschema.validate(answer, described["Answer"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**answer, "class": "one"}, described["Answer"])
    with pytest.raises(OfframpError, match="several labels"):
        web._about(bundle)


def test_a_page_is_refused_before_the_bundle_is_written(
    runs: Path, bundle: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    (tmp_path / "ort" / "dist").mkdir(parents=True)
    for name in web.RUNTIME:
        (tmp_path / "ort" / "dist" / name).touch()
    page = ("--web", tmp_path / "site", "--onnxruntime-web", tmp_path / "ort")
    policy = ("--policy", bundle.parent / "policy.json")
    answer = call("export", "joint", "--store", runs, *policy, "--out", tmp_path / "b", *page)
    assert refusal_of(answer) == snapshot
    assert not (tmp_path / "b").exists()


# From build on


def test_the_card_says_what_accuracy_is_and_what_becomes_of_labels(
    runs: Path, bundle: Path, snapshot: SnapshotAssertion
) -> None:
    from offramp.policy.evaluate import evaluate

    card, text = json.loads((bundle / "card.json").read_text()), (bundle / "card.md").read_text()
    answers, rule = trials.read(Store(runs), "joint"), offramp.Policy.load(bundle / "policy.json")
    seen = evaluate(rule, answers.test, answers.costs, answers.classes).labels
    for kind, what in (("label", "labels wrong"), ("miss", "labels missed")):
        assert card["test"]["labels"][kind]["policy"] == pytest.approx(seen[kind].policy)
        more = f"{100 * seen[kind].policy:.2f} %, {100 * seen[kind].more.mean:+.2f} points"
        (line,) = (line for line in text.splitlines() if what in line)
        assert more in line
    told = [line for line in text.splitlines() if "exact match" in line or "several an image" in line]
    assert told == snapshot


def test_int8_keeps_to_labels(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    policy, out = tmp_path / "policy.json", tmp_path / "bundle"
    limit = ("--hamming-risk", "5%", "--out", policy, "--anyway")
    assert call("calibrate", "joint", runs, *limit).code == 0
    small = ("--int8", "--int8-loss", "20%", "--no-measure", "--anyway")
    done = ok(call("export", "joint", runs, "--policy", policy, "--out", out, *small))
    assert "exact match" in done.out and "Labels missed" in done.out
    card = json.loads((out / "card.json").read_text())
    assert card["precision"] == "int8" and card["calibration"]["target"]["kind"] == "hamming-risk"
    pictures = [Image.fromarray(image[0].numpy()) for image in tiles(200)[0]]
    right = Bundle(out, threads=1).predict(pictures).classes == tiles(200)[1].numpy()[:, ORDER]
    assert right.mean() > 0.9


@pytest.mark.parametrize("what", ["trial", "bundle"])
def test_a_benchmark_times_the_policy(what: str, runs: Path, bundle: Path) -> None:
    options = ("--batch", "2", "--repeats", "5", "--json")
    named = (bundle,) if what == "bundle" else ("joint", "--policy", bundle.parent / "policy.json")
    done = ok(call("benchmark", *named, "--store", runs, *options))
    assert "policy" in {line["what"] for line in data(done)["lines"]}


BUILD = {
    "data.several": "true",
    "data.held_out_images": "160",
    "recipe.epochs": "4",
    "recipe.optimizer": "adam",
    "recipe.learning_rate": "0.01",
    "exits.taps": "['blocks.3']",
    "exits.head.kind": "linear",
}
CONTROLS = "controls=[{backbone: digits-cnn, epochs: 2}]"
ORDER = [NAMES.index(name) for name in sorted(NAMES)]


def built(runs: Path, tmp_path: Path, *more: object) -> tuple[object, ...]:
    settings = [word for key, value in BUILD.items() for word in ("--set", f"{key}={value}")]
    named = ("--backbone", "digits-cnn", "--data", f"table:{runs.parent / 'tiles'}")
    places = ("--store", tmp_path / "built", "--out", tmp_path / "bundle")
    return ("build", *named, *settings, "--strategy", "joint", *places, "--no-measure", *more)


@pytest.mark.journey
def test_from_a_table_to_a_bundle_in_one_command(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = ok(call(*built(runs, tmp_path, "--max-hamming-loss", "2%", "--anyway")))
    assert "max-hamming-loss 0.02" in done.out and "exact match" in done.out
    image = sorted((runs.parent / "tiles").glob("*.png"))[0]
    command = [sys.executable, str(tmp_path / "bundle" / "run.py"), str(image), "--json"]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert set(answer["probabilities"]) == set(NAMES)
    again = offramp.build(
        "digits-cnn",
        f"table:{runs.parent / 'tiles'}",
        tmp_path / "again",
        settings=[f"{key}={value}" for key, value in BUILD.items()],
        strategy="joint",
        store=tmp_path / "built",
        max_hamming_loss=0.02,
        measure=False,
        anyway=True,
        watch=False,
    )
    ours, theirs = (Path(tmp_path, name, "policy.json").read_text() for name in ("bundle", "again"))
    assert ours == theirs and again.card["test"]["labels"]["miss"]["policy"] < 1


@pytest.mark.parametrize(
    "wrong",
    [("--training-shares",), ("--score", "margin"), ("--control",)],
    ids=["shares", "score", "control"],
)
def test_a_build_refuses_before_it_trains(
    wrong: tuple[str, ...], runs: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    answer = call(*built(runs, tmp_path, *wrong))
    assert refusal_of(answer) == snapshot
    assert not (tmp_path / "built" / "trials").exists()


@pytest.mark.long
def test_a_smaller_plain_network_is_compared_by_all_labels(runs: Path, tmp_path: Path) -> None:
    smaller = ("--set", CONTROLS)
    done = ok(call(*built(runs, tmp_path, *smaller, "--control", "--anyway", "--json")))
    assert "all labels" in data(done)["card"]["beside"]["why"]
