"""`offramp benchmark --stress`, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altair.utils.schemapi import validate_jsonschema
from altair.vegalite.v6.schema.core import load_schema
from command import Cli, call, refused
from command import refusal as refusal_line
from PIL import Image
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp.api.deploy.stress import StressReport
from offramp.bundle.folder import seal
from offramp.data.images.corruptions import CORRUPTIONS
from offramp.infer import stress
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.terminal import plain_text
from support import run_all, tiny_plan, tiny_study
from wording import refusal

STUDY = """\
seeds: [1]
strategies: [joint]
backbone: digits-cnn
exits: {taps: [blocks.0, blocks.2], head: linear}
data: {name: digits, train_images: 600, test_images: 150}
recipe: {epochs: 2, optimizer: adam, learning_rate: 0.01, batch_size: 32}
"""
COUNT = 110  # test images that are tried


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a policy file and images of no class."""
    folder = tmp_path_factory.mktemp("stress")
    (folder / "study.yaml").write_text(STUDY)
    assert call("run", folder / "study.yaml", "--store", folder / "runs", "-q").code == 0
    options = ("--max-mean-macs", "60%", "--out", folder / "policy.json", "--anyway")
    assert call("calibrate", "joint", folder / "runs", *options).code == 0
    draw = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for at in range(COUNT):
        pixels = draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{at:03}.png")
    (folder / "photos" / "109.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def report(place: Path) -> StressReport:
    return offramp.stress(
        "joint",
        place / "runs",
        policy=place / "policy.json",
        foreign=[place / "photos"],
        images=COUNT,
        attack_size=40.0,
        attack_steps=10,
        figure=place / "stress.json",
    )


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(place)
    monkeypatch.setattr(stress, "CORRUPTIONS", {"jpeg": CORRUPTIONS["jpeg"]})  # as quick as can be
    return lambda *words: call("benchmark", "joint", "--stress", *words)


def by_name(rows: Any) -> dict[str, Any]:
    return {f"{row['name']} {row['strength']}": row for row in rows}


def mean_macs(row: Any) -> float:
    return float(row["tested"]["macs"]["mean"])


def shares(row: Any) -> list[float]:
    return [exit["share"] for exit in row["tested"]["exits"]]


def test_all_kinds_are_tried(report: StressReport, place: Path, snapshot: SnapshotAssertion) -> None:
    rows = by_name(report.as_json()["rows"])
    assert len(rows) == 1 + 30 + 1 + 2
    assert rows["of no class 0"]["tested"]["images"] == COUNT - 1
    assert report.stress.notes == snapshot
    test, attacked = rows["as they are 0"], rows["slowdown attack 0"]
    assert test["tested"]["images"] == attacked["tested"]["images"] == COUNT
    assert mean_macs(attacked) > 1.05 * mean_macs(rows["random changes 0"])
    assert all(sum(shares(row)) == pytest.approx(1) for row in rows.values())
    spec = json.loads((place / "stress.json").read_text())
    validate_jsonschema(spec, {"$ref": "#/definitions/TopLevelSpec"}, load_schema())


def test_the_table_and_the_sentences_are_shown(report: StressReport) -> None:
    text = plain_text(report.document())
    for words in ("shot noise 3", "slowdown attack", "of no class", "exchangeable", "110 test images"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_same_seed_gives_the_same_bits_from_the_command(run: Cli, report: StressReport) -> None:
    options = ("--foreign", "photos", "--images", COUNT, "--attack-size", 40, "--attack-steps", 10)
    answer = run("--policy", "policy.json", *options, "--json")
    rows = by_name(json.loads(answer.out)["rows"])
    first = by_name(json.loads(json.dumps(report.as_json()))["rows"])
    assert rows == {name: row for name, row in first.items() if name in rows} and len(rows) == 9


def test_images_as_they_are_come_to_what_calibration_reports(
    run: Cli, snapshot: SnapshotAssertion
) -> None:
    """All test images; and an attack of size 0 changes nothing of them."""
    answer = run("--policy", "policy.json", "--attack-size", 0, "--attack-steps", 3, "--json")
    said = json.loads(answer.out)
    rows = by_name(said["rows"])
    policy, store = Policy.load("policy.json"), Store(Path("runs"))
    logits = store.trial_logits(store.find_trial("joint"))
    test = rows["as they are 0"]
    assert test["tested"]["images"] == len(logits["test"]) == 150
    left = np.bincount(policy.leaves(logits["test"]), minlength=3) / 150
    assert shares(test) == pytest.approx(left.tolist(), abs=1e-3)
    named = ("kind", "name")
    for changed in ("slowdown attack 0", "random changes 0"):
        assert {k: v for k, v in rows[changed].items() if k not in named} == {
            k: v for k, v in test.items() if k not in named
        }
    assert [line for line in said["conclusions"] if "not shown" in line] == snapshot


@pytest.mark.parametrize(("first", "early"), [(None, 0), (0.0, 1)], ids=["none early", "all early"])
def test_a_policy_that_decides_nothing_is_not_attacked(
    run: Cli, first: float | None, early: int, snapshot: SnapshotAssertion
) -> None:
    made = Policy.load("policy.json")
    Policy("fixed", made.exits, (first, None, None), calibration=made.calibration).save("late.json")
    answer = run("--policy", "late.json", "--images", 20, "--json")
    found = json.loads(answer.out)
    assert {row["kind"] for row in found["rows"]} == {"test", "corruption"}
    assert all(row["early"]["value"] == early for row in found["rows"])
    assert [found["notes"][0], found["conclusions"][0]] == snapshot


def test_a_bundle_has_its_policy(run: Cli, snapshot: SnapshotAssertion) -> None:
    words = ("--no-check", "--no-measure", "--anyway", "--out", "bundle")
    assert call("export", "joint", "--policy", "policy.json", *words).code == 0
    quick = ("--images", 20, "--attack-steps", 1, "--json")
    of_trial = run("--policy", "policy.json", *quick)
    assert call("benchmark", "bundle", "--stress", *quick).out == of_trial.out
    refused(call("benchmark", "bundle", "--stress", "--policy", "policy.json"), "leave --policy out")
    layout = Path("bundle/stages.json")
    layout.write_text(layout.read_text().replace("float32", "int8"))
    seal(Path("bundle"))
    refused_lines = call("benchmark", "bundle", "--stress"), run()
    assert [refusal_line(each) for each in refused_lines] == snapshot


def test_mistakes_are_named(run: Cli, snapshot: SnapshotAssertion) -> None:
    refused(run("--policy", "none.json"), "none.json")
    refused(run("--policy", "policy.json", "--figure", "stress.txt"), "stress.txt")
    refused(run("--policy", "policy.json", "--foreign", "nowhere"), "nowhere")
    other, _ = run_all(tiny_plan(tiny_study(("joint",), recipe={"epochs": 1})), Path("other"))
    name = other.find_trial("joint")
    wrong = refusal(offramp.stress, name, "other", policy=Path("policy.json"))
    assert "exit 4" in wrong  # the policy is of another trial
    hand = Policy("confidence", (1, 2, 3, 4), (0.5, 0.5, 0.5, None))
    gone = refusal(offramp.stress, name, "other", policy=hand)
    assert gone == snapshot  # images that were given in Python
