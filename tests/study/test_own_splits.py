"""Studies whose seeds draw their own splits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp.data import DataSpec, RawData, RawSplit
from offramp.data.splits import choose, with_test_split
from offramp.report import evidence
from offramp.report.tables import make
from offramp.store.archive import Archive
from wording import refusal

SEEDS = (42, 43, 44)


def described(split_seed: object, seeds: tuple[int, ...] = SEEDS, **data: Any) -> dict[str, Any]:
    return {
        "seeds": list(seeds),
        "strategies": ["baseline", "two-stage"],
        "backbone": "digits-cnn",
        "data": {"name": "digits", "train_images": 100, "split_seed": split_seed, **data},
        "recipe": {"epochs": 1, "batch_size": 50, "optimizer": "adam", "learning_rate": 0.001},
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> offramp.Results:
    study = described("trial", test="held-out", test_images=None)
    return offramp.run(study, store=tmp_path_factory.mktemp("drawn"))


def test_each_seed_has_its_own_images(drawn: offramp.Results) -> None:
    manifests = [drawn.store.read_trial(trial) for trial in drawn.trials]
    assert len({(m.seed, m.data.test) for m in manifests}) == len(SEEDS)
    assert len({m.data.test for m in manifests}) == len({m.data.train for m in manifests}) == len(SEEDS)
    assert {m.seed: m.data.provenance.split_seed for m in manifests} == {s: s for s in SEEDS}
    assert [len(line.seeds) for line in drawn.lines] == [3, 3]  # one table over all seeds


def test_they_are_compared_as_one_study(drawn: offramp.Results) -> None:
    trials = evidence.from_store(drawn.store.root)
    assert trials.missing == () and len(trials.trials) == 6
    (runs,) = trials.runs
    assert not runs.same_images
    assert make(trials, ["main"])


def test_splits_that_differ_for_no_reason_are_not(tmp_path: Path) -> None:
    for seed in SEEDS[:2]:
        offramp.run(described(seed, (seed,)), store=tmp_path)
    trials = evidence.from_store(tmp_path)
    assert len(trials.trials) == 2
    assert any("of another setting" in note for note in trials.missing)


def test_a_seed_is_the_same_alone(drawn: offramp.Results, tmp_path: Path) -> None:
    alone = offramp.run(described(44, (44,), test="held-out"), store=tmp_path)
    keys = {key for trial in alone.trials for key in alone.store.read_trial(trial).keys}
    assert keys and keys <= set(Archive(drawn.store.root).nodes())


def test_one_split_at_a_time(snapshot: SnapshotAssertion) -> None:
    assert refusal(choose, raw(), DataSpec("own", split_seed="trial")) == snapshot


def raw(**more: Any) -> RawData:
    def split(first: int, n: int) -> RawSplit:
        images = torch.arange(first, first + n, dtype=torch.uint8).view(n, 1, 1, 1).repeat(1, 1, 2, 2)
        return RawSplit(images, torch.arange(n) % 2, tuple(f"p{(first + i) // 2}" for i in range(n)))

    return RawData(split(0, 120), split(119, 101), **more)


def test_test_images_join_those_of_train() -> None:
    """Patients that two splits had in common stay together, and no image is lost."""
    spec = DataSpec("own", test="held-out", held_out_images=40)
    parts = choose(with_test_split(raw(), spec), spec).parts
    shades = {name: part.source.read(part.rows)[:, 0, 0, 0].tolist() for name, part in parts.items()}
    assert sum(map(len, shades.values())) == 221
    patients = {name: {n // 2 for n in numbers} for name, numbers in shades.items()}
    assert sum(map(len, patients.values())) == len(set().union(*patients.values()))
    other = DataSpec("own", test="held-out", held_out_images=40, split_seed=1)
    test = choose(with_test_split(raw(), other), other).parts["test"]
    assert test.source.read(test.rows)[:, 0, 0, 0].tolist() != shades["test"]


def test_so_many_of_a_test_split_that_is_none(snapshot: SnapshotAssertion) -> None:
    spec = DataSpec("own", test="held-out", test_images=5)
    assert refusal(with_test_split, raw(), spec) == snapshot
