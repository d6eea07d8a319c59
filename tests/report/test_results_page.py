"""Numbers of docs/results/README.md that need no test over seeds: the network to deploy, and how long
studies took."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp import units
from offramp.policy import quality
from offramp.policy.policy import Policy
from offramp.policy.quality import Interval
from offramp.report import evidence
from results_page import DOCS, ROOT, groups_of, packs, page, section

DEPLOY = "cifar10-deploy"
ENGINES = {"onnxruntime": "bundle, ONNX Runtime", "eager": "PyTorch"}
BEGAN_AS = {"cifar10-ways": "cifar10", "cifar100-hidden-classifier": "cifar100"}
"""Whose stores some studies began with."""
BAR = r"milliseconds an image: ([\d.]+); network: ([\w ]+); engine: (\w+); batch: batch (\d+);"


def test_what_the_network_to_deploy_comes_to() -> None:
    """A pack rounds logits to float16: by them one image more, a wrong one, leaves at exit 1."""
    words_of = section(DEPLOY)
    rule = Policy.load(DOCS / f"{DEPLOY}-policy.json")
    whole = evidence.open(DOCS / DEPLOY)
    (trial,) = whole.trials
    built = trial.manifest
    requests = rule.calibration
    assert requests.target is not None and requests.chosen is not None
    assert requests.trial == trial.id and requests.target.value == 0.01
    assert f"Calibrated on {requests.chosen.images:,} images for at most one point of loss" in words_of
    train = built.data.provenance.images["train"]
    assert f"{train:,} images with crops and flips, {built.recipe.epochs} epochs, one seed" in words_of

    logits, labels = whole.logits(trial.id)
    leaves, right = rule.leaves(logits.astype(np.float32)), logits.argmax(2) == labels[:, None]
    for at, place in enumerate(built.places):
        where = f"after `{place}`" if at < len(built.places) - 1 else "final"
        threshold = "–" if rule.thresholds[at] is None else f"{rule.thresholds[at]:.3f}"
        here = leaves == at
        every = 100 * built.metrics["test"].accuracy[at]
        begins = f"| {at + 1}, {where} | {threshold} | {100 * here.mean():.1f} % | "
        ends = f" % | {every:.1f} % | {units.macs(trial.macs[at])} |"
        (those,) = groups_of(rf"(?m)^{re.escape(begins)}([\d.]+){re.escape(ends)}$", words_of)
        assert float(those) == pytest.approx(100 * right[here, at].mean(), abs=0.1)

    rest, full, images = right[np.arange(len(labels)), leaves], right[:, -1], len(labels)
    accuracy, loss = quality.share(int(rest.sum()), images), lost(full, rest)
    assert (
        f"On the {images:,} test images: accuracy {points(accuracy, 2)} against "
        f"{100 * full.mean():.2f} % of the full network, a loss of {100 * loss.value:.2f} points "
        f"({between(loss, 2)});"
    ) in words_of
    classes = {name: lost(full[here], rest[here]) for name, here in by_class(built.classes, labels)}
    first, second, *_ = sorted(classes, key=lambda name: -classes[name].value)
    assert (
        f"By class the loss is largest for {first} ({100 * classes[first].value:.1f} points, "
        f"{between(classes[first], 1)}) and {second} ({100 * classes[second].value:.1f}, "
        f"{between(classes[second], 1)})"
    ) in words_of

    spent, plain = np.array(trial.macs)[leaves].mean(), built.backbone_macs
    share = f"{100 * spent / plain:.1f} %"
    assert f"{spent / 1e6:.1f} M MACs an image on average, {share} of the plain" in words_of
    assert f"backbone's {units.macs(plain)}." in words_of
    assert f"MACs promise {plain / spent:.2f} ×." in words_of
    second = (
        f"{100 * right[:, 1].mean():.1f} % of them at {100 * trial.macs[1] / plain:.1f} % of the MACs"
    )
    assert f"exit 2 for all is right on {second}." in words_of
    digest = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    out = 100 * np.cumsum(np.bincount(leaves)) / images
    assert f"{out[0]:.1f} % of the test images leave at exit 1, {out[1]:.0f} % by exit 2." in digest
    assert (
        f"Accuracy is {100 * accuracy.value:.2f} % against {100 * full.mean():.2f} %, for {share} of"
        in digest
    )


def test_how_quick_the_network_to_deploy_is() -> None:
    """The chart holds what was measured, but for the median of single images under the policy."""
    words_of = section(DEPLOY)
    chart = (DOCS / "figures" / "deploy-speed.svg").read_text(encoding="utf-8")
    bars, ticks = re.findall(BAR, chart), re.findall(r"p95: ([\d.]+); network: ([\w ]+)", chart)
    times: dict[tuple[str, int], dict[str, tuple[float, float]]] = {}
    for (typical, network, engine, batch), (late, same) in zip(bars, ticks, strict=True):
        assert network == same
        times.setdefault((engine, int(batch)), {})[network] = float(typical), float(late)
    more, gains = [], {}
    for (engine, batch), of in times.items():
        (plain, late), (whole, _), (used, last) = of["plain"], of["nothing leaves"], of["policy"]
        gains[engine, batch] = gain = f"{plain / used:.2f} ×"
        more.append(100 * (whole / plain - 1))
        digits = 3 if batch == 1 else 1
        begins = f"| {ENGINES[engine]} | {batch} | {batch * plain:.{digits}f} ms | "
        begins += f"{batch * whole:.{digits}f} ms | "
        ends = f" ms (p95 {last:.3f})" if batch == 1 else f"{batch * used:.1f} ms"
        (median,) = groups_of(
            rf"(?m)^{re.escape(begins)}([\d.]*){re.escape(f'{ends} | {gain} |')}$", words_of
        )
        if (engine, batch) == ("onnxruntime", 1):
            assert f"{late / last:.1f} × in ONNX Runtime" in words_of
            assert f"the median gains {plain / float(median):.1f} ×" in words_of
    assert len(gains) == 4
    (less,) = (-each for each in more if each < 0)
    least = min(each for each in more if each > 0)
    assert f"costs {least:.0f} to {max(more):.0f} % more than in the plain network" in words_of
    assert f"One image at a time in ONNX Runtime costs {less:.0f} % less" in words_of
    assert min(float(each.split()[0]) for each in gains.values()) > float(
        groups_of(r"MACs promise ([\d.]+) ×", words_of)[0]
    )
    digest = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    alone, many = gains["onnxruntime", 1], gains["onnxruntime", 256]
    assert f"answers {alone} (one image at a time) and {many} (256 at once) as fast" in digest


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cifar10", r"They took (\d+) to (\d+) minutes"),
        ("cifar10-ways", r"A seed took (\d+) to (\d+) minutes"),
        ("cifar100", r"They took (\d+) to (\d+) minutes"),
        ("imagenette", r"They took (\d+) to (\d+) minutes"),
        ("imagenette-scratch", r"45 trials, (\d+) minutes"),
        ("chest-xray", r"90 trials, (\d+) minutes"),
        ("languages", r"50 trials, (\d+) minutes"),
        ("languages-anew", r"40 trials, (\d+) minutes"),
        (DEPLOY, r"(\d+ h \d+) min of a clock"),
    ],
)
def test_how_long_studies_took(name: str, sentence: str) -> None:
    """From the start of the first phase to the end of the last. The command takes a little longer."""
    spent = spent_on(name)
    sentences_ = [clock(text) for text in groups_of(sentence, section(name))]
    assert sentences_ == pytest.approx(sorted({min(spent), max(spent)}), abs=1)


def test_how_long_all_studies_took() -> None:
    (hours,) = groups_of(r"The studies here took two cores (\d+) hours together", page())
    every = [str(path.parent.relative_to(DOCS)) for path in DOCS.rglob("trials.json")]
    assert int(hours) == round(sum(sum(spent_on(name)) for name in every) / 60)


def spent_on(name: str) -> list[float]:
    """Minutes of each pack of a study; what its stores had from another is not counted twice."""
    first = BEGAN_AS.get(name.partition("/")[0])
    shared = {key for pack in packs(first) for key in nodes(pack)} if first else set()
    return [minutes([node for key, node in nodes(p).items() if key not in shared]) for p in packs(name)]


def nodes(pack: Path) -> dict[str, Any]:
    """What each phase of a pack says of itself, by its key."""
    actual: dict[str, Any] = json.loads((pack / "trials.json").read_text(encoding="utf-8"))["nodes"]
    return actual


def minutes(phases: list[Any]) -> float:
    ends = [datetime.fromisoformat(phase["provenance"]["finished"]) for phase in phases]
    spent = [timedelta(seconds=sum(phase["cost"]["seconds"].values())) for phase in phases]
    return (max(ends) - min(map(datetime.__sub__, ends, spent))).total_seconds() / 60


def clock(text: str) -> int:
    """Minutes of `53` or `1 h 47`."""
    *hours, rest = map(int, text.split(" h "))
    return 60 * sum(hours) + rest


def lost(full: np.ndarray, rest: np.ndarray) -> Interval:
    return quality.difference(int((full & ~rest).sum()), int((rest & ~full).sum()), len(full))


def by_class(names: tuple[str, ...], labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(name, labels == at) for at, name in enumerate(names)]


def points(interval: Interval, digits: int) -> str:
    return f"{100 * interval.value:.{digits}f} % ({between(interval, digits)})"


def between(interval: Interval, digits: int) -> str:
    return f"{100 * interval.low:.{digits}f} to {100 * interval.high:.{digits}f}".replace("-", "−")
