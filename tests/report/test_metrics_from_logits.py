"""Metrics that trials were not recorded with, worked out of their stored logits."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from handmade import evidence, simple
from syrupy.assertion import SnapshotAssertion

from offramp import metrics
from offramp.analysis.measures import MEASURES, find_measure, of_metric
from offramp.metrics import METRICS, Metric
from offramp.report.claims import read
from offramp.report.compare import compare, trials_in
from offramp.report.evidence import Evidence
from support import run_all, tiny_plan, tiny_study
from wording import refusal

RIGHT = {1: (True, False, False, False), 2: (True, True, False, False), 3: (True, True, True, False)}
BALANCED = "balanced-accuracy"
SHARPNESS = """
def spread(logits, labels):
    return logits.max(axis=2).mean(axis=0) - logits.min(axis=2).mean(axis=0)
"""

FACTORY = """
def quantile(at):
    import numpy as np

    def of(logits, labels):
        return np.quantile(logits, at, axis=(0, 2))

    return of


least, most, wrong = quantile(0.0), quantile(1.0), quantile(2.0)


def broken(logits, labels):
    return logitz


def by_class(logits, labels):
    return logits.mean(axis=(0, 1))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def two() -> Evidence:
    return evidence([simple("joint", seed, right=RIGHT) for seed in (1, 2)])


def values(whole: Evidence, name: str) -> dict[int | None, float]:
    (runs,) = whole.runs
    rows = runs.observations(find_measure(name))
    rows = rows[rows["seed"] == 1]
    exits = [None if e == 0 else e for e in rows["exit"].fillna(0)]
    return dict(zip(exits, rows["value"].tolist(), strict=True))


def test_a_metric_that_the_table_lacks_is_worked_out(two: Evidence) -> None:
    assert "balanced_accuracy" not in set(two.table["metric"])
    expected = {1: 0.25, 2: 0.5, 3: 0.75, None: 0.5}
    assert values(two, f"{BALANCED}-test") == values(two, "accuracy-test") == expected
    assert values(two, f"final-{BALANCED}-validation") == {None: 0.75}
    assert values(two, "auroc-test") == {}  # one class only: it is not defined


def test_every_metric_is_a_measure() -> None:
    for name, metric in METRICS.items():
        for measure in of_metric(name, metric, "test"):
            assert MEASURES[measure.name].title == measure.title


def test_it_is_worked_out_once_for_the_same_logits(two: Evidence, cache: Path) -> None:
    calls: list[tuple[int, ...]] = []

    def of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        calls.append(logits.shape)
        return metrics.accuracy(logits, labels)

    measure, _ = of_metric("mine", Metric(of), "test")
    for _ in range(2):
        two._observed.clear()
        assert len(two.observed(measure)) == 1
    assert calls == [(4, 3, 2)]  # both trials answered alike
    (file,) = (cache / "offramp" / "metrics").iterdir()
    file.write_text(file.read_text().replace("0.25", "0.99"))
    two._observed.clear()
    (rows,) = two.observed(measure).values()
    assert rows["value"].max() == 0.75 and len(calls) == 2


def test_a_users_metric_is_a_measure(two: Evidence, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SHARPNESS)
    measure = find_measure(f"{file}:spread")
    assert (measure.title, measure.better) == ("Test spread", "higher")
    assert measure.text(1.5) == "1.5"
    assert values(two, f"{file}:spread")[1] == pytest.approx(np.log(9), rel=1e-6)
    assert refusal(find_measure, f"{file}:sprea") == snapshot
    assert refusal(find_measure, "f1-tes") == snapshot


def test_faults_of_a_users_metric_are_its_own(
    two: Evidence, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FACTORY)
    least, most = (values(two, f"{file}:{name}") for name in ("least", "most"))
    assert least[1] < most[1]  # alike in code, and not in what they come to
    for name in ("wrong", "broken", "by_class"):
        assert refusal(values, two, f"{file}:{name}") == snapshot
    file.write_text(FACTORY.replace("quantile(0.0)", "quantile(1.0)"))  # a notebook goes on after this
    two._observed.clear()
    assert values(two, f"{file}:least") == most


def test_claims_of_a_function_test_by_it_and_those_of_a_file_do_not(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    trials = [simple("joint", s, right=RIGHT, sure=0.8 + 0.01 * s) for s in (1, 2, 3)]
    trials += [simple("separate", s, right=RIGHT, sure=0.6 + 0.012 * s) for s in (1, 2, 3)]
    about = {"section": "1", "question": "more", "strategies": "joint", "against": "separate"}
    file, yaml_file = tmp_path / "mine.py", tmp_path / "mine.yaml"
    sharper = about | {"id": "a", "text": "sharper", "measure": f"{file}:spread", "is": "higher"}
    fair = about | {"id": "b", "text": "fair", "measure": "f1-test", "is": "within", "margin": 0.1}
    document = {"claims": [sharper, fair]}
    file.write_text(f"{SHARPNESS}\n\ndef claims():\n    return {document!r}\n")
    first, second = evidence(trials).judge(read(f"{file}:claims"))
    assert (first.verdict, first.compared, second.compared) == ("supported", 1, 1)
    yaml_file.write_text(yaml.safe_dump(document))
    assert refusal(read, yaml_file) == snapshot


def test_strategies_and_trials_are_compared_by_any_measure(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    plan = tiny_plan(tiny_study(["joint", "separate"], seeds=(42, 43), recipe={"epochs": 1}))
    run_all(plan, tmp_path / "runs")
    trials = trials_in(tmp_path / "runs")
    f1 = compare(trials, "joint", "separate", "f1")
    assert f1.measure is MEASURES["f1-test"] and f1.paired_by == "seed"
    assert list(f1.exits) == list(compare(trials, "joint", "separate").exits)
    balanced = compare(trials, "joint", "separate", BALANCED)
    assert "balanced_accuracy" not in next(iter(trials.manifests.values())).metrics["test"].by_name
    final = compare(trials, "joint", "separate", f"final-{BALANCED}-test").exits
    assert final == {None: balanced.exits[max(filter(None, balanced.exits))]}
    macs = compare(trials, "joint", "separate", "macs-written")
    assert list(macs.exits) == [None] and macs.exits[None].pairs == 2
    assert refusal(compare, trials, "joint", "separate", "seconds-written") == snapshot
    first, other = (t for t in sorted(trials.manifests) if t.startswith("joint"))
    loss = compare(trials, first, other, "loss")
    recorded = [trials.manifests[t].metrics["test"].cross_entropy for t in (first, other)]
    for exit, difference in loss.exits.items():
        assert exit is not None
        assert difference.mean == pytest.approx(recorded[0][exit - 1] - recorded[1][exit - 1])
    assert refusal(compare, trials, first, other, "f1") == snapshot
    pairs = (("joint", "separate"), (first, other))
    assert {refusal(compare, trials, *pair, "hamming-loss") for pair in pairs} == snapshot
