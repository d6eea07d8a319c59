"""Seeds until decided: the rule and its log, and which strategies go on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp.api.train import decide
from offramp.data.dataset import Data, Split
from offramp.store.store import Damaged, Store
from offramp.study.plan import plan as planning
from offramp.study.plan.plan import plans, read_data
from offramp.study.spec import file as spec
from offramp.study.spec.models import Study
from support import CPU, run_all, tiny_data, tiny_plan, tiny_study
from wording import refusal

OTHERWISE = {"most": 8, "difference": 0.01}
THREE = ("baseline", "joint", "two-stage", "separate")


def plan(*strategies: str, seeds: tuple[int, ...] = (42, 43)) -> decide.Plan:
    return tiny_plan(tiny_study(strategies or THREE, seeds=seeds))


def test_seeds_go_on_from_those_of_the_study(tmp_path: Path) -> None:
    _, log = decide.begin(Store(tmp_path), plan(seeds=(7, 42)), most=5, difference=0.02)
    assert (log.seeds, log.first, log.difference) == ((7, 42, 43, 44, 45), 3, 0.02)
    _, log = decide.begin(Store(tmp_path), plan(seeds=(1, 2, 3, 4)))
    assert (log.first, len(log.seeds), log.difference) == (4, 20, 0.005)


def test_the_rule_is_kept_before_the_first_look_and_does_not_change(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    store, study = Store(tmp_path), plan()
    name, log = decide.begin(store, study, most=6)
    assert store.archive.seed_logs() == {name: log}
    assert decide.begin(store, study) == decide.begin(store, study, 6, 0.005) == (name, log)
    refusals = {refusal(decide.begin, store, study, **{k: v}) for k, v in OTHERWISE.items()}
    assert refusals == snapshot
    assert store.collect(abandon=True) == 0
    assert Store(tmp_path).archive.read_seed_log(name) == log


def test_a_log_that_was_altered_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name, _ = decide.begin(store, plan(), most=6)
    path = tmp_path / "seeds" / f"{name}.json"
    path.write_text(path.read_text().replace("0.05", "0.50"))
    with pytest.raises(Damaged, match="its seal"):
        decide.begin(store, plan())
    path.write_text("{")
    with pytest.raises(Damaged, match="is not JSON"):
        store.archive.seed_logs()


def test_what_else_lies_beside_logs_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name, log = decide.begin(store, plan(), most=6)
    for stray in ("notes.txt", f"{name}.json.bak", "A copy.json"):
        (tmp_path / "seeds" / stray).write_text("mine")
    assert store.archive.seed_logs() == {name: log}


def test_what_cannot_be_decided_is_refused_before_anything_is_kept(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    store = Store(tmp_path)
    assert refusal(decide.begin, store, plan("baseline", "joint")) == snapshot
    assert refusal(decide.begin, store, plan(seeds=(1, 2, 3, 4)), most=3) == snapshot
    data = tiny_data()
    alone = Split(data.test.read(torch.tensor([0])), data.test.labels[:1])
    of_one = tiny_plan(tiny_study(THREE), replace(data, test=alone))
    assert refusal(decide.begin, store, of_one) == snapshot
    assert not store.archive.seed_logs()


def own_splits(seed: int) -> decide.Plan:
    """Of a study whose seeds draw their own splits, that of one seed."""
    data = {"name": "digits", "train_images": 60, "test_images": 40, "split_seed": "trial"}
    named = {"seeds": [1, 2, 3], "strategies": list(THREE), "backbone": "digits-cnn", "data": data}
    (plan,) = plans([s for s in spec.parse(named).parts if s.seeds == (seed,)], CPU)
    return plan


def test_seeds_that_draw_their_own_splits(tmp_path: Path) -> None:
    """Each has a plan of its own, with images of its own, and the rule names the trials of all."""
    first, second, third = map(own_splits, (1, 2, 3))
    (own,), (other,) = (list(decide.parts(first, (seed,), THREE)) for seed in (1, 2))
    assert [t.id for t in own.trials] == [t.id for t in first.trials]
    assert [t.id for t in other.trials] == [t.id for t in second.trials]
    assert other.data.test.digest == second.data.test.digest != first.data.test.digest
    _, log = decide.begin(Store(tmp_path), first, most=4, beside=(second, third))
    assert log.seeds == (1, 2, 3, 4) and log.first == 3
    assert {t.id for t in (*first.trials, *second.trials)} < set(log.trials)


def test_the_data_of_a_seed_that_draws_its_own_splits_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[object] = []

    def read(study: Study, provisional: bool = False) -> Data:
        seeds.append(study.drawn_data.split_seed)
        return read_data(study, provisional)

    monkeypatch.setattr(planning, "read_data", read)
    study = {
        "seeds": [1, 2],
        "strategies": ["joint", "two-stage"],
        "backbone": "digits-cnn",
        "data": {"name": "digits", "train_images": 60, "test_images": 40, "split_seed": "trial"},
        "recipe": {"epochs": 1},
    }
    results = offramp.run(study, store=tmp_path, until_decided=True, max_seeds=4, watch=False)
    assert sorted(seeds) == [1, 2, 3, 4] and len(results.trials) == 8


def test_added_trials_are_those_of_a_study_with_these_seeds() -> None:
    (more,) = decide.parts(plan(), (43, 44), ("joint", "two-stage"))
    whole = {t.id for t in plan(seeds=(42, 43, 44)).trials}
    assert [(t.label, t.seed) for t in more.trials] == [
        (label, seed) for seed in (43, 44) for label in ("joint", "two-stage")
    ]
    assert {t.id for t in more.trials} < whole


def drawn(
    seeds: int, gap: float, rng: np.random.Generator, images: int = 80
) -> dict[tuple[str, int], np.ndarray]:
    """Two strategies, each seed with images of its own, on which they have luck in common."""
    shares: dict[tuple[str, int], np.ndarray] = {}
    for seed in range(seeds):
        hard, luck = rng.random(images + seed), rng.normal(0, 0.01, 2)
        for k, name in enumerate(("joint", "separate")):
            rate = 0.8 + gap * k + luck[k] + 0.3 * (0.5 - hard)
            shares[name, 42 + seed] = (rng.random(len(hard)) < rate).astype(float)
    return shares


def test_own_images_are_a_part_of_the_luck_of_seeds(tmp_path: Path) -> None:
    """Numbers of images differ from seed to seed: nothing lines up, and seeds alone are counted."""
    _, log = decide.begin(Store(tmp_path), plan(seeds=(42, 43, 44)), most=8)
    rng, names = np.random.default_rng(0), ("joint", "separate")
    equal = [decide.look(log, drawn(8, 0.0, rng), names, False)[0].different for _ in range(300)]
    assert np.mean(np.array(equal) < 0.05) < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    apart = [decide.look(log, drawn(8, 0.15, rng), names, False)[0].verdict for _ in range(20)]
    assert apart.count("different") > 15


def test_equal_means_are_no_difference_and_no_likeness_but_equal_answers_are(tmp_path: Path) -> None:
    _, log = decide.begin(Store(tmp_path), plan(seeds=(42, 43, 44)), most=8)
    names, right = ("joint", "separate"), np.tile([1.0, 0.0], 300)
    same = {(name, 42 + k): right for name in names for k in range(4)}
    (decision,) = decide.look(log, same, names, False)
    assert decision.verdict == "alike" and decision.different == 1
    swapped = {key: right[::-1] if key[0] == "joint" else right for key in same}
    (decision,) = decide.look(log, swapped, names, False)
    assert decision.verdict == "open" and decision.estimate is None


def test_right_is_the_mean_over_exits_on_test(tmp_path: Path) -> None:
    made = plan("joint", seeds=(42,))
    store, _ = run_all(made, tmp_path)
    found = decide.right(store, made)["joint", 42]
    accuracy = store.read_trial(made.trials[0].id).metrics["test"].accuracy
    assert found.mean() == pytest.approx(np.mean(accuracy))
    assert store.read_trial(made.trials[0].id).asked == (42,)


def values(seeds: int, **means: float) -> dict[tuple[str, int], np.ndarray]:
    """Of a thousand images, all alike but for their mean."""
    rng = np.random.default_rng(1)
    luck = rng.normal(0, 0.0002, (len(means), seeds))
    return {
        (name, 42 + k): np.full(1000, mean + luck[i, k])
        for i, (name, mean) in enumerate(means.items())
        for k in range(seeds)
    }


def test_only_strategies_in_question_go_on(tmp_path: Path) -> None:
    _, log = decide.begin(Store(tmp_path), plan(seeds=(42, 43, 44)), most=8)
    names = ("joint", "separate", "two-stage")
    known = values(3, **{"joint": 0.8, "separate": 0.8001, "two-stage": 0.9})
    assert decide.questioned(decide.look(log, known, names)) == ()
    known = values(5, **{"joint": 0.8, "separate": 0.8048, "two-stage": 0.95})
    for k in range(5):  # what is in between is neither
        known["separate", 42 + k] = known["separate", 42 + k] + 0.004 * (-1) ** k
    found = {(d.a, d.b): d.verdict for d in decide.look(log, known, names)}
    assert found["joint", "two-stage"] == "different"
    assert found["joint", "separate"] == "open"
    assert decide.questioned(decide.look(log, known, names))[:2] == ("joint", "separate")
    noted = decide.noted(log, 5, decide.look(log, known, names))
    assert [f["verdict"] for f in noted.looks["5"]] == list(found.values())
    assert noted.looks["5"][0]["seeds"] == 5


def test_a_strategy_without_the_seeds_of_a_look_is_open(tmp_path: Path) -> None:
    _, log = decide.begin(Store(tmp_path), plan(), most=8)
    found = decide.look(log, values(2, joint=0.8, separate=0.9), ("joint", "separate", "two-stage"))
    assert {d.verdict for d in found} == {"open"} and {d.estimate for d in found} == {None}


def test_far_apart_takes_few_trials_and_alike_ones_go_on(tmp_path: Path) -> None:
    """Two strategies that differ by half a standard deviation, and two far from them and each other."""
    _, log = decide.begin(Store(tmp_path), plan(seeds=(42, 43)), most=20)
    means = {"near": 0.0, "nearer": 0.5, "far": 20.0, "farther": -20.0}
    spent: dict[str, list[int]] = {name: [] for name in means}
    for draw in range(25):
        rng = np.random.default_rng(draw)
        every = {n: 0.5 + 0.01 / 2**0.5 * rng.normal(m * 2**0.5, 1, 20) for n, m in means.items()}
        known: dict[tuple[str, int], np.ndarray] = {}
        wanted, before = tuple(means), 0
        for count in decide.looks(log).counts:
            new = [(n, k) for n in wanted for k in range(before, count)]
            known |= {(n, log.seeds[k]): np.full(3, every[n][k]) for n, k in new}
            decisions, before = decide.look(log, known, tuple(means)), count
            wanted = decide.questioned(decisions)
            if not wanted:
                break
        for name in means:
            spent[name].append(sum(n == name for n, _ in known))
    assert np.mean(spent["far"]) < 5 and np.mean(spent["farther"]) < 5
    assert np.mean(spent["near"]) > 15 and np.mean(spent["nearer"]) > 15
