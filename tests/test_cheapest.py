"""The comparison of docs/results/cheapest.md on made logits, whose truth is known."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

PATH = Path(__file__).parents[1] / "studies" / "cheapest.py"
SPLITS = {"validation": 400, "calibration": 400, "test": 1500}


def study():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("cheapest", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["cheapest"] = module
    spec.loader.exec_module(module)
    return module


def seeds(cheapest, lead: float, most: int = 6):  # type: ignore[no-untyped-def]
    """Exits whose early head is right `lead` more often than a network of that cost; both are surer
    where they are right."""
    rng = np.random.default_rng(0)
    labels = {split: rng.integers(0, 4, rows) for split, rows in SPLITS.items()}

    def logits(accuracy: float):  # type: ignore[no-untyped-def]
        drawn = {}
        for split, rows in SPLITS.items():
            right = rng.random(rows) < accuracy
            answer = np.where(right, labels[split], (labels[split] + 1) % 4)
            drawn[split] = (
                np.eye(4)[answer] * np.where(right, *rng.uniform([[2], [0.5]], 4, (2, rows)))[:, None]
            )
        return drawn

    def one(network: str, accuracies):  # type: ignore[no-untyped-def]
        members = {
            cheapest.Member(network, depth, 4.0 + 6 * depth): logits(accuracy)
            for depth, accuracy in enumerate(accuracies)
        }
        return cheapest.Trained(members, labels)

    sides = [(one("exits", (0.6 + lead, 0.8)), one("plain", (0.6, 0.8))) for _ in range(most)]
    return zip(*sides, strict=True)


def p_value(cheapest, lead: float) -> float:  # type: ignore[no-untyped-def]
    rows = np.ones(SPLITS["test"], dtype=bool)
    exits, plain = seeds(cheapest, lead)
    right, costs = zip(
        *(cheapest.tested(side, cheapest.choose(side, 7.0), rows) for side in (exits, plain)),
        strict=True,
    )
    assert abs(costs[0] - costs[1]) < 0.2
    return cheapest.one_sided(cheapest.crossed(right[0] - right[1]))


def test_a_true_lead_is_shown_and_none_is_not() -> None:
    cheapest = study()
    assert p_value(cheapest, 0.1) < 0.01
    assert p_value(cheapest, -0.1) > 0.99
    assert 0.05 < p_value(cheapest, 0.0) < 0.95


def test_the_images_of_earlier_studies_are_left_out() -> None:
    cheapest = study()
    labels = np.repeat(np.arange(100), 100)
    rows = cheapest.fresh(labels, "cifar100")
    assert rows.sum() == 8000 and (np.bincount(labels[rows]) == 80).all()
    assert cheapest.fresh(labels, "cifar10").all()
