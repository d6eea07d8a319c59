"""`offramp calibrate` on the files of a store, as a user runs it."""

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import Cli, call, refusal
from syrupy.assertion import SnapshotAssertion

from longer import long
from offramp.api.deploy.calibrate import _curve, calibrate
from offramp.api.deploy.policies import calibration_call
from offramp.cli.adapter import Job, JobCommand
from offramp.policy import policy, scoring, solve
from offramp.policy.calibrate import Calibrated, Performance, target
from offramp.policy.limits import LIMITS
from offramp.policy.policy import Policy
from offramp.store.manifest import Manifest
from offramp.store.store import Store
from offramp.study import trained as trial
from records import changed
from refusal import refuses
from simulated import deceiving, simulated
from support import run_all, tiny_plan, tiny_study
from wording import stable

CLASSES = 3
REMEDY = "What can be had: "
NO_LIMIT = "No limit was named: it is a loss of accuracy of 0.05."


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Real trials and their nodes."""
    study = tiny_study(("baseline", "two-stage", "separate"), recipe={"epochs": 1})
    return run_all(tiny_plan(study), tmp_path_factory.mktemp("trained"))[0]


@pytest.fixture(scope="module")
def manifests(trained: Store) -> dict[str, Manifest]:
    """Of the real trials, by strategy."""
    found = [trained.read_trial(t) for t in trained.trials()]
    return {m.strategy: m for m in found}


def logits(exits: int, calibration: int = 600) -> dict[str, np.ndarray]:
    arrays = {}
    for seed, (split, rows) in enumerate(
        (("validation", 600), ("calibration", calibration), ("test", 500))
    ):
        made = simulated(rows, seed, exits, CLASSES)
        arrays |= {split: made.logits, f"{split}_labels": made.labels}
    return arrays


@pytest.fixture
def store(tmp_path: Path, trained: Store, manifests: dict[str, Manifest]) -> Store:
    """The trials `base`, `two` and `own`, with simulated logits."""
    shutil.copytree(trained.root, tmp_path / "runs", ignore=shutil.ignore_patterns("trials"))
    kept = Store(tmp_path / "runs")
    for name, strategy in (("base", "baseline"), ("two", "two-stage"), ("own", "separate")):
        kept.write_trial(name, manifests[strategy], logits(len(manifests[strategy].exits)))
    return kept


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A search in less detail: how good it is at what it searches is in tests/policy/test_solve.py."""
    monkeypatch.setattr(solve, "NEAR", 6)
    monkeypatch.chdir(tmp_path)
    return lambda *words: call("calibrate", *words, "--store", "runs")


@pytest.mark.parametrize(
    "target",
    [
        ("--max-accuracy-loss", "2%"),
        ("--min-accuracy", "80%", "--score", "entropy", "--temperature"),
        ("--max-mean-macs", "70%", "--shared"),
        *long(
            (("--max-accuracy-loss", "0.05", "--survivors", "--score", "ensemble"),),
            (("--max-accuracy-loss", "0.05", "--score", "gate"),),
            (("--risk", "0.05"),),
        ),
        ("--max-disagreement", "0.05", "--score", "patience"),
        ("--risk", "0.05", "--on-average", "--without-labels"),
    ],
    ids=lambda words: " ".join(words),
)
def test_it_writes_a_policy_and_a_report(run: Cli, store: Store, target: tuple[str, ...]) -> None:
    status, out, _ = run("two", *target, "--out", "p.json", "--json")
    report, file = json.loads(out), Policy.load("p.json")
    assert status == 0
    trained = trial.read(store, "two")
    policy.check_fits(file, trained.id, trained.hash, trained.exits)
    leaves = file.leaves(trained.test.logits)
    said = scoring.all_answer_logits(file.score, trained.test.logits)
    right = scoring.answers(said)[np.arange(500), leaves] == trained.test.labels
    assert report["test"]["policy"]["value"] == pytest.approx(right.mean())
    assert report["statement"] == file.calibration.statement
    made = file.calibration.chosen
    assert made is not None and file.calibration.target is not None
    best = report["curve"][report["chosen"]]
    assert best["macs"] == made.mean_macs < trained.costs.full and best["risk"] == made.risk


@pytest.mark.parametrize("chosen", range(5))
def test_points_that_look_alike_are_a_row(chosen: int) -> None:
    spent = (80_000, 60_000, 44_440, 44_430, 44_420)
    measures = tuple(Performance(0.56, float(macs), 0.0, (1.0,)) for macs in spent)
    target: Any = None
    calibrated = Calibrated(target, (), measures, chosen, rows=100, bound=None, remark=None)
    trained: Any = SimpleNamespace(plain_macs=80_000)
    rows = _curve(trained, calibrated).rows
    marks = ["*" if at == min(chosen, 2) else "" for at in range(3)]
    assert [(row[0], row[1]) for row in rows] == list(
        zip(marks, ("80 k", "60 k", "44.4 k"), strict=True)
    )


@pytest.mark.usefixtures("store")
def test_the_tables_show_what_matters(run: Cli, snapshot: SnapshotAssertion) -> None:
    status, out, _ = run("two", "--risk", "0.05", "--confidence", "0.9")
    assert status == 0 and Path("policy.json").exists()
    assert out == snapshot
    assert max(map(len, out.splitlines()[:-2])) <= 82
    _, _, table = out.partition("by class")
    losses = [float(loss) for loss in re.findall(r"%\s+([+-]\d+\.\d)\s", table)]
    assert len(losses) == CLASSES and losses == sorted(
        losses, reverse=True
    )  # those that lose most first
    assert losses[0] > losses[-1]


@pytest.mark.parametrize(
    "target",
    [
        ("--max-accuracy-loss", "0.02", "--temperature"),
        *long((("--risk", "0.05"),), (("--max-mean-macs", "50%"),)),
    ],
    ids=lambda words: words[0],
)
def test_poisoned_test_labels_change_no_byte_of_the_policy(
    run: Cli, store: Store, target: tuple[str, ...]
) -> None:
    honest = logits(4)
    poisoned = honest | {"test_labels": (honest["test_labels"] + 1) % CLASSES}
    manifest = store.read_trial("two")
    files = []
    for arrays in (honest, poisoned):
        store.write_trial("two", manifest, arrays)
        status, out, _ = run("two", *target, "--json")
        files.append((Path("policy.json").read_bytes(), json.loads(out)["test"]["full"]))
        assert status == 0
    assert files[0][0] == files[1][0]
    assert files[0][1] != files[1][1]  # the poison was there to be seen


def test_other_labels_of_calibration_do_change_it(run: Cli, store: Store) -> None:
    manifest, arrays = store.read_trial("two"), logits(4)
    found = []
    for labels in (arrays["calibration_labels"], arrays["calibration_labels"][::-1].copy()):
        store.write_trial("two", manifest, arrays | {"calibration_labels": labels})
        run("two", "--risk", "0.05", "--anyway")
        found.append(Path("policy.json").read_bytes())
    assert found[0] != found[1]


def test_costs_are_those_of_the_trial(store: Store) -> None:
    for name in ("base", "two", "own"):
        manifest, trained = store.read_trial(name), trial.read(store, name)
        assert tuple(trained.costs.leaving(range(len(trained.exits)))) == manifest.macs
        assert trained.costs.full == manifest.backbone_macs


def test_a_hash_is_of_the_network_and_its_answers(store: Store) -> None:
    manifest, arrays = store.read_trial("two"), logits(4)
    mine = manifest.hash(arrays)
    assert mine == changed(manifest, strategy="renamed", metrics={}).hash(arrays)
    assert mine != changed(manifest, exits=(1, 2, 3)).hash(arrays)
    assert mine != manifest.hash(arrays | {"calibration": arrays["calibration"] + 1})


@pytest.mark.usefixtures("store")
def test_a_network_with_one_exit(run: Cli, snapshot: SnapshotAssertion) -> None:
    assert refusal(run("base", "--max-accuracy-loss", "0.01")) == snapshot


def test_a_split_that_is_too_small_says_how_many_would_do(
    run: Cli, store: Store, snapshot: SnapshotAssertion
) -> None:
    store.write_trial("two", store.read_trial("two"), logits(4, calibration=120))
    assert refusal(run("two", "--risk", "0.01")) == snapshot
    assert not Path("policy.json").exists()
    status, out, _ = run("two", "--risk", "0.01", "--anyway")
    assert status == 0 and out.startswith("Unreliable: no ")
    assert Policy.load("policy.json").active == (3,)


def test_a_refusal_ends_in_a_command_that_works(run: Cli, store: Store) -> None:
    store.write_trial("two", store.read_trial("two"), logits(4, calibration=120))
    _, _, err = run("two", "--risk", "0.01")
    words = " ".join(err.split()).partition(REMEDY)[2].split()
    assert words[:6] == ["offramp", "calibrate", "two", "--store", "runs", "--risk"]
    assert call(*words[1:]).code == 0 and Policy.load("policy.json").active != (3,)
    line = refuses("certify nothing cheaper", calibrate, "two", store.root, risk=0.01)
    assert f"{REMEDY}`calibrate(..., risk={words[-1]})`" in line and "--" not in line  # of Python


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("limit", [("--max-mean-macs", "1%"), ("--min-accuracy", "0.999")])
def test_a_limit_that_no_policy_keeps_ends_in_one_that_can_be_had(
    run: Cli, limit: tuple[str, str]
) -> None:
    err = run("two", *limit).err
    words = " ".join(err.split()).partition(REMEDY)[2].split()
    assert err.startswith("offramp: no policy ") and words[:3] == ["offramp", "calibrate", "two"]
    assert call(*words[1:]).code == 0


def test_an_exit_alone_that_would_do_is_named_and_not_chosen(
    run: Cli, store: Store, snapshot: SnapshotAssertion
) -> None:
    arrays = {}
    for split in ("validation", "calibration", "test"):
        rows = deceiving(400, 4, CLASSES, split == "calibration")
        arrays |= {split: rows.logits + (split == "test"), f"{split}_labels": rows.labels}
    store.write_trial("two", store.read_trial("two"), arrays)
    typed = ("two", "--max-accuracy-loss", "1%", "--out", "my policy.json")
    line = refusal(run(*typed))
    assert line == snapshot
    words = shlex.split(line.partition(REMEDY)[2])
    assert words == ["offramp", "calibrate", *typed, "--store", "runs", "--score", "fixed"]
    assert not Path("my policy.json").exists() and call(*words[1:]).code == 0
    assert Policy.load("my policy.json").score == "fixed"


def test_a_refusal_names_a_call_and_in_a_shell_a_command(
    store: Store, snapshot: SnapshotAssertion
) -> None:
    place = str(store.root)
    named = calibration_call("two", store, True, "it's")
    assert stable(named) == snapshot
    words = shlex.split(JobCommand("calibrate", Job(calibrate))._in_flags(f"this: {named}"))
    flags = ["--then", "it's", "--store", place, "--trust-code", "--max-mean-macs", "SHARE%"]
    assert words == ["this:", "offramp", "calibrate", "two", *flags]
    assert "trust" not in calibration_call("two", store, False)


def test_the_least_that_a_refusal_names_is_enough(run: Cli, store: Store) -> None:
    own = trial.read(store, "two")
    least = own.costs.leaving([0])[0]
    err = run("two", "--max-mean-macs", "1").err
    allowed = err.partition("the least is ")[2].partition(" ")[0].replace(",", "")
    assert int(allowed) >= least
    assert "the least is" not in run("two", "--max-mean-macs", allowed).err


@pytest.mark.parametrize("amount", [1.0, 1234.4, 999.9, 0.00123449, 11.0, 68_149.3])
@pytest.mark.parametrize("kind", ["max-mean-macs", "max-mean-latency"])
def test_the_least_is_rounded_up(amount: float, kind: str) -> None:
    limit = LIMITS[kind]
    number = float(limit.at_least(amount).split()[0].replace(",", ""))
    rounded = number / (1000 if limit.unit == "TIME" else 1)
    assert amount <= rounded <= amount + max(amount / 1000, limit.unit == "MACS")


def test_a_limit_of_an_hour_has_no_exponent() -> None:
    assert list(map(LIMITS["max-mean-latency"].write, (1e-6, 0.005, 3600))) == [
        "0.001 ms",
        "5 ms",
        "3,600,000 ms",
    ]


def test_the_line_of_a_limit_by_default_outlives_new_thresholds(store: Store) -> None:
    """As int8 takes."""
    own = trial.read(store, "two")
    rule = trial.policy_for(own, target(1, max_accuracy_loss=0.05), anyway=True).policy
    again = trial.solved_again(own, trial.stated(rule, NO_LIMIT)).calibration.statement
    assert again == f"{trial.solved_again(own, rule).calibration.statement} {NO_LIMIT}"


def test_one_exit_alone_is_told_first_and_goes_into_the_policy(
    run: Cli, store: Store, snapshot: SnapshotAssertion
) -> None:
    """Images that all exits tell apart; and control, those of which some are hard."""
    arrays = logits(4)
    for split in ("validation", "calibration", "test"):
        arrays[split][:] = 9 * np.eye(CLASSES, dtype=np.float32)[arrays[f"{split}_labels"]][:, None]
    assert "alone" not in run("two", "--max-accuracy-loss", "0.05").out
    store.write_trial("two", store.read_trial("two"), arrays)
    answer = run("two", "--max-accuracy-loss", "0.01")
    assert answer.code == 0 and answer.out.startswith("Exit 1 alone ")
    rule = Policy.load("policy.json")
    assert rule.score == "fixed" and rule.active == (0,)
    assert rule.calibration.statement == snapshot
    assert answer.out.count("Exit 1 alone") == 1


@pytest.mark.long
def test_a_budget_that_the_full_network_keeps(
    run: Cli, store: Store, snapshot: SnapshotAssertion
) -> None:
    arrays = logits(4)
    for split in ("validation", "calibration"):
        arrays[split][:, :-1] *= -1  # early exits that are wrong
    store.write_trial("two", store.read_trial("two"), arrays)
    assert refusal(run("two", "--max-mean-macs", "500%")) == snapshot(name="MACs")
    line = refusal(run("two", "--max-mean-latency", "1h"))  # which also says how busy the machine was
    _, said, why = line.partition("no calibration image")
    assert re.sub(r"[\d.]+ ms on", "TIME ms on", said + why) == snapshot(name="time")


def test_what_is_not_to_be_trusted_is_refused(
    run: Cli, store: Store, snapshot: SnapshotAssertion
) -> None:
    """Forty images for one point of loss; and a network that guesses."""
    manifest, few = store.read_trial("two"), logits(4, calibration=40)
    guess = logits(4)
    guess["calibration_labels"] = np.random.default_rng(0).permutation(guess["calibration_labels"])
    for name, arrays in {"few": few, "guess": guess}.items():
        store.write_trial("two", manifest, arrays)
        line = refusal(run("two", "--max-accuracy-loss", "0.01"))
        assert line == snapshot(name=name) and not Path("policy.json").exists()
        status, out, _ = run("two", "--max-accuracy-loss", "0.01", "--anyway", "--json")
        why = json.loads(out)["unreliable"][0]
        assert status == 0 and line.startswith(f"offramp: {why[:40]}")
        Path("policy.json").unlink()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--max-mean-macs", "1"),
        ("--min-accuracy", "1"),
        ("--risk", "0.1", "--out", "runs"),
    ],
    ids=lambda words: " ".join(words) or "no limit",
)
def test_what_cannot_be_had_is_one_line(
    run: Cli, words: tuple[str, ...], snapshot: SnapshotAssertion
) -> None:
    """Others are in test_mistakes.py."""
    assert refusal(run("two", *words)) == snapshot
    assert not Path("policy.json").exists()


def test_trials_that_cannot_be_calibrated(run: Cli, store: Store, snapshot: SnapshotAssertion) -> None:
    manifest, arrays = store.read_trial("two"), logits(4)
    without = {k: v for k, v in arrays.items() if not k.startswith("calibration")}
    same = changed(manifest, "data", validation=manifest.data.test)
    known = changed(manifest, "data", calibration=manifest.data.train)
    strange = arrays["test"].copy()
    strange[3] = np.nan  # whose largest would be the first class
    cases = (
        (manifest, without),
        (manifest, arrays | {"test": strange}),
        (manifest, arrays | {"calibration": arrays["calibration"][:0]}),
        (manifest, arrays | {"test": arrays["test"][:, :2]}),
        (same, arrays),
        (known, arrays),
    )
    lines = []
    for record, kept in cases:
        store.write_trial("two", record, kept)
        lines.append(refusal(run("two", "--risk", "0.1")))
    assert lines == snapshot


def test_reading_names_the_trial(store: Store) -> None:
    refuses("no trial 'x'", trial.read, store, "x")


def paragraph(out: str, word: str) -> str:
    """The first paragraph of an answer that has `word`, in one line."""
    return next(" ".join(part.split()) for part in out.split("\n\n") if word in part)


def test_images_are_weighted_to_the_shares_of_training(
    run: Cli, store: Store, manifests: dict[str, Manifest], snapshot: SnapshotAssertion
) -> None:
    def keep(name: str, counts: dict[str, tuple[int, ...]]) -> None:
        manifest = changed(manifests["two-stage"], "data.provenance", by_class=counts)
        store.write_trial(name, manifest, logits(len(manifest.exits)))

    keep("old", {})
    keep("uneven", {"train": (700, 200, 100), "calibration": (200, 200, 200)})
    shares = ("--training-shares", "--out", "p.json")
    assert refusal(run("old", "--risk", "0.05", *shares)) == snapshot(name="of unknown shares")
    out = run("uneven", "--risk", "0.05").out
    assert paragraph(out, "Note: ") == snapshot(name="other shares")
    status, out, _ = run("uneven", "--risk", "0.05", *shares)
    assert status == 0 and paragraph(out, "weighted to ") == snapshot(name="weighted")
    chosen = Policy.load("p.json").calibration
    assert chosen.statement == snapshot(name="statement")
    kept = chosen.chosen
    assert kept is not None and kept.class_shares == (0.7, 0.2, 0.1)
    assert kept.risk_below is not None and kept.risk_below <= 0.05
    assert refusal(run("uneven", "--max-disagreement", "0.05", *shares)) == snapshot(name="no labels")
