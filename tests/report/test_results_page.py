"""Numbers of the pages of docs/results that need no test over seeds: the network to deploy, and how long
studies took."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from offramp import units
from offramp.policy import quality
from offramp.policy.policy import Policy
from offramp.policy.quality import Interval
from offramp.report import evidence
from results_page import DOCS, ROOT, clauses, groups_of, named_clauses, packs, page, section

DEPLOY = "cifar10-deploy"
ENGINES = {"onnxruntime": "bundle, ONNX Runtime", "eager": "PyTorch"}
BEGAN_AS = {"cifar10-ways": "cifar10", "cifar100-hidden-classifier": "cifar100"}
"""Whose stores some studies began with."""
BAR = r"milliseconds an image: ([\d.]+); network: ([\w ]+); engine: (\w+); batch: batch (\d+);"


def test_what_the_network_to_deploy_comes_to(snapshot: SnapshotAssertion) -> None:
    """A pack rounds logits to float16: by them one image more, a wrong one, leaves at exit 1."""
    rule = Policy.load(DOCS / f"{DEPLOY}-policy.json")
    whole = evidence.open(DOCS / DEPLOY)
    (trial,) = whole.trials
    built, origin = trial.manifest, rule.calibration
    assert origin.target is not None and origin.chosen is not None
    assert origin.trial == trial.id and origin.target.value == 0.01
    logits, labels = whole.logits(trial.id)
    leaves, right = rule.leaves(logits.astype(np.float32)), logits.argmax(2) == labels[:, None]
    facts = {"calibrated on": f"{origin.chosen.images:,}", "epochs": f"{built.recipe.epochs} epochs"}
    facts["trained on"] = f"{built.data.provenance.images['train']:,}"
    table = re.findall(r"(?m)^\| (\d), .*? % \| ([\d.]+) % \| [\d.]+ % \|", section(DEPLOY))
    for at, (exit, those) in enumerate(table):
        here, threshold = leaves == at, rule.thresholds[at]
        facts |= {} if threshold is None else {f"threshold {exit}": f"{threshold:.3f}"}
        facts[f"leave at {exit}"] = f"{100 * here.mean():.1f}"
        facts[f"right at {exit}"] = f"{100 * built.metrics['test'].accuracy[at]:.1f}"
        facts[f"MACs {exit}"] = units.macs(trial.macs[at])
        assert float(those) == pytest.approx(100 * right[here, at].mean(), abs=0.1)
    assert len(table) == len(built.places) == 4

    rest, full, images = right[np.arange(len(labels)), leaves], right[:, -1], len(labels)
    facts["tested on"] = f"{images:,}"
    facts |= interval("accuracy", quality.share(int(rest.sum()), images), 2)
    facts |= {"full": f"{100 * full.mean():.2f}", **interval("loss", lost(full, rest), 2)}
    classes = {name: lost(full[here], rest[here]) for name, here in by_class(built.classes, labels)}
    for number, name in enumerate(sorted(classes, key=lambda name: -classes[name].value)[:2], start=1):
        facts |= {f"class {number}": name, **interval(f"loss of {number}", classes[name], 2)}
    spent, plain = np.array(trial.macs)[leaves].mean(), built.backbone_macs
    share = f"{100 * spent / plain:.1f}"
    facts |= {"spent": f"{spent / 1e6:.1f}", "share": share, "plain": units.macs(plain)}
    facts["promised"] = f"{plain / spent:.2f}"
    assert clauses(DEPLOY, "", facts) == snapshot
    second = {"right": 100 * right[:, 1].mean(), "share": 100 * trial.macs[1] / plain}
    second_ = {name: f"{value:.1f}" for name, value in second.items()}
    assert clauses(DEPLOY, "not pay", second_) == snapshot
    out = 100 * np.cumsum(np.bincount(leaves)) / images
    facts = {name: facts[name] for name in ("accuracy", "full", "share")}
    facts |= {"out at 1": f"{out[0]:.1f}", "out by 2": f"{out[1]:.0f}"}
    assert named_clauses(summary(), facts) == snapshot


def summary() -> str:
    """What the guide says of the network to deploy."""
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (paragraph,) = [part for part in text.split("\n\n") if "of the test images leave at exit 1" in part]
    return paragraph


def test_how_quick_the_network_to_deploy_is(snapshot: SnapshotAssertion) -> None:
    """The chart holds what was measured, but for the median of single images under the policy."""
    words_of = section(DEPLOY)
    chart = (DOCS / "figures" / "deploy-speed.svg").read_text(encoding="utf-8")
    bars, ticks = re.findall(BAR, chart), re.findall(r"p95: ([\d.]+); network: ([\w ]+)", chart)
    times: dict[tuple[str, int], dict[str, tuple[float, float]]] = {}
    for (typical, network, engine, batch), (late, same) in zip(bars, ticks, strict=True):
        assert network == same
        times.setdefault((engine, int(batch)), {})[network] = float(typical), float(late)
    more, gains, facts = [], {}, {}
    for (engine, batch), of in times.items():
        (plain, late), (whole, _), (used, last) = of["plain"], of["nothing leaves"], of["policy"]
        gains[engine, batch] = gain = f"{plain / used:.2f}"
        more.append(100 * (whole / plain - 1))
        digits = 3 if batch == 1 else 1
        begins = f"| {ENGINES[engine]} | {batch} | {batch * plain:.{digits}f} ms | "
        begins += f"{batch * whole:.{digits}f} ms | "
        ends = f" ms (p95 {last:.3f})" if batch == 1 else f"{batch * used:.1f} ms"
        (median,) = groups_of(
            rf"(?m)^{re.escape(begins)}([\d.]*){re.escape(f'{ends} | {gain} × |')}$", words_of
        )
        if (engine, batch) == ("onnxruntime", 1):
            facts |= {"gain of p95": f"{late / last:.1f}", "of median": f"{plain / float(median):.1f}"}
    assert len(gains) == 4
    (less,) = (-each for each in more if each < 0)
    least = min(each for each in more if each > 0)
    facts |= {"more, from": f"{least:.0f}", "to": f"{max(more):.0f}", "less": f"{less:.0f}"}
    assert clauses(DEPLOY, "not pay", facts) == snapshot
    assert min(map(float, gains.values())) > float(groups_of(r"MACs promise ([\d.]+) ×", words_of)[0])
    both = {f"batch {batch}": gains["onnxruntime", batch] for batch in (1, 256)}
    assert named_clauses(summary(), both) == snapshot


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cifar10", r"They took (\d+) to (\d+) minutes"),
        ("cifar10-ways", r"A seed took (\d+) to (\d+) minutes"),
        ("cifar100", r"They took (\d+) to (\d+) minutes"),
        ("imagenette", r"They took (\d+) to (\d+) minutes"),
        ("imagenette-scratch", r"45 trials, (\d+) minutes"),
        ("chest-xray", r"90 trials, (\d+) minutes"),
        (DEPLOY, r"It took (\d+ h \d+) min"),
        ("cifar10-long", r"25 trials, (\d+ h \d+) min on"),
        ("cifar10-long-medium", r"25 trials, (\d+ h \d+) min on"),
        ("cifar10-anew", r"15 trials, (\d+) minutes"),
        ("cifar100-long", r"10 trials, (\d+) minutes"),
    ],
)
def test_how_long_studies_took(name: str, sentence: str) -> None:
    """The command takes a little longer than its phases."""
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
    """In which one of these phases was at work: no pause counts, what ran side by side counts once. Each
    phase of a group has a share of the group's time, and all end together."""
    total, busy_until = timedelta(), datetime.min.replace(tzinfo=UTC)
    ends = [datetime.fromisoformat(phase["provenance"]["finished"]) for phase in phases]
    costs = [phase["cost"] for phase in phases]
    spent = [timedelta(seconds=cost["group"] * sum(cost["seconds"].values())) for cost in costs]
    for end, work in sorted(zip(ends, spent, strict=True), key=lambda pair: pair[0] - pair[1]):
        total += max(end - max(end - work, busy_until), timedelta())
        busy_until = max(busy_until, end)
    return total.total_seconds() / 60


def clock(text: str) -> int:
    """Minutes of `53` or `1 h 47`."""
    *hours, rest = map(int, text.split(" h "))
    return 60 * sum(hours) + rest


def lost(full: np.ndarray, rest: np.ndarray) -> Interval:
    return quality.difference(int((full & ~rest).sum()), int((rest & ~full).sum()), len(full))


def by_class(names: tuple[str, ...], labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(name, labels == at) for at, name in enumerate(names)]


def interval(name: str, of: Interval, digits: int) -> dict[str, str]:
    """In percent or points: its value, and its ends."""
    ends = {name: of.value, f"{name}, from": of.low, f"{name}, to": of.high}
    return {key: f"{100 * end:.{digits}f}".replace("-", "−") for key, end in ends.items()}
