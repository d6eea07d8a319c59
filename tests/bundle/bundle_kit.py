"""What the tests of bundles share: trials of digits, policies for them, and their bundles."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from offramp.api.reporter import finished
from offramp.bundle.export import Exported, ExportOptions, export
from offramp.bundle.folder import seal
from offramp.bundle.runtime import BundleError
from offramp.policy import scoring
from offramp.policy.calibration import Calibration
from offramp.policy.learned import GateNumbers, gates, shares
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study import trained
from offramp.study.plan.plan import make_plan
from offramp.study.spec import file as spec
from offramp.study.trained import Trained
from support import run_all
from wording import stable

STRATEGIES = (
    "joint",
    "two-stage",
    "separate",
    {"name": "distillation", "students": "independent", "as": "students"},
    "boosted",
    "cascade",
    "imta",
)


def digits_store(root: Path, strategies: Sequence[Any] = STRATEGIES) -> Store:
    """A trial of each strategy on a part of the digits, with two early exits."""
    study = spec.parse(
        {
            "seeds": [1],
            "strategies": list(strategies),
            "backbone": "digits-cnn",
            "exits": {"taps": ["blocks.0", "blocks.2"], "head": {"flatten": True}},
            "data": {"name": "digits", "train_images": 300, "test_images": 100},
            "recipe": {"epochs": 3, "learning_rate": 0.05, "batch_size": 32},
        }
    )
    return run_all(make_plan(study), root)[0]


@cache
def read(store: Store, prefix: str) -> Trained:
    """A trial of `digits_store`, read once."""
    return trained.read(store, prefix)


def halving(store: Store, prefix: str, score: str = "confidence") -> Policy:
    """A policy by which about half of the calibration images leave at each exit that they reach."""
    trial = read(store, prefix)
    sure = scoring.scores(score, trial.calibration.logits, None, gates_of(trial, score))
    early = [float(np.float32(np.median(sure[:, i]))) for i in range(len(trial.exits) - 1)]
    return policy_of(store, prefix, score, (*early, None))


def policy_of(store: Store, prefix: str, score: str, thresholds: Sequence[float | None]) -> Policy:
    """A policy of those thresholds, as `offramp calibrate` keeps one."""
    trial = read(store, prefix)
    origin = Calibration(trial.id, trial.hash, len(trial.classes))
    carry, learned = trial.costs.carry, gates_of(trial, score)
    return Policy(score, trial.exits, tuple(thresholds), carry=carry, calibration=origin, gates=learned)


def gates_of(trial: Trained, score: str) -> GateNumbers | None:
    """The trial's own, or learned on validation, as calibration does."""
    if not scoring.SCORES[score].learned:
        return None
    if score == "gate" and trial.gates is not None:
        return trial.gates
    rows = trial.validation
    return gates(rows.logits, rows.labels, shares(trial.costs))


QUICK = ExportOptions(check=False, measure=False, anyway=True)


def export_to(
    out: Path, store: Store, rule: Policy, options: ExportOptions = QUICK, trial: str | None = None
) -> Exported:
    """`export` to its end, of the policy's trial unless another is named."""
    return finished(export(store, trial or rule.calibration.trial, rule, out, options))


def photos_store(folder: Path, shape: tuple[int, int, int], **geometry: Any) -> Store:
    """A trial of `two-stage` on files of noise `[H, W, 3]`, 40 dark and 40 light to train on, 10 of each
    to test."""
    write_photos(folder / "photos", shape)
    study = spec.parse(
        {
            "seeds": [1],
            "strategies": ["two-stage"],
            "backbone": "digits-cnn",
            "exits": {"taps": ["blocks.0"], "head": "linear"},
            "data": {"name": "folder", "root": str(folder / "photos"), **geometry},
            "recipe": {"epochs": 1, "batch_size": 16},
        }
    )
    return run_all(make_plan(study), folder / "runs")[0]


def write_photos(folder: Path, shape: tuple[int, int, int]) -> None:
    chance = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for label in ("dark", "light"):
            place = folder / split / label
            place.mkdir(parents=True)
            for i in range(count):
                noise = chance.integers(0, 120, shape) + (100 if label == "light" else 0)
                Image.fromarray(noise.astype(np.uint8)).save(place / f"{i}.png")


def edited(bundle: Path, file: str, path: str, value: object) -> None:
    """Put a value into a bundle's JSON file, `...` takes away what is there, and list its new hash."""
    place = bundle / file
    document = json.loads(place.read_text())
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")] if path else [""]
    holder = document
    for step in steps:
        holder = holder[step]
    if not path:
        document = value
    elif value is ...:
        del holder[last]
    else:
        holder[last] = value
    place.write_text(json.dumps(document))
    seal(bundle)


WAIT = """
const [done] = arguments;
const page = document.documentElement;
const problem = document.getElementById("problem");
const look = () => {
  if (CONDITION) watching.disconnect(), done(problem ? problem.textContent : "");
};
const watching = new MutationObserver(look);
watching.observe(page, { attributes: true, childList: true, subtree: true });
look();
"""


def await_page(browser: Any, condition: str) -> str:
    """Until the page is so; no clock ends it but the limit for a script that hangs. Returns what the
    page says is wrong."""
    browser.set_script_timeout(600)
    return str(browser.execute_async_script(WAIT.replace("CONDITION", condition)))


def noise(count: int) -> np.ndarray:
    """[count, 1, 8, 8] float32, as the digits' networks take it."""
    return np.random.default_rng(0).standard_normal((count, 1, 8, 8)).astype(np.float32)


def bundle_refusal(function: Callable[..., object], *args: Any) -> str:
    """The one line in which `function(*args)` refuses a bundle, as a snapshot has it."""
    with pytest.raises(BundleError) as caught:
        function(*args)
    line = str(caught.value)
    assert "\n" not in line
    return stable(line)
