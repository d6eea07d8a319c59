"""How many seeds a difference takes, from made trials."""

import pytest
from handmade import HandTrial, Run, evidence, simple

from offramp.analysis.stats.pairwise import Estimate
from offramp.report.power import power_line, seeds_needed

EXITS = (1, 2, 3)


def right(*wrong: int) -> dict[int, tuple[bool, ...]]:
    """Of forty images, which exits have wrong."""
    return dict.fromkeys(EXITS, tuple(k not in wrong for k in range(40)))


def test_seeds_are_those_that_the_widest_and_the_middle_pair_take() -> None:
    wrong = {
        "joint": [(0,), (0,), (0,)],
        "separate": [(1,), (2, 3), (4,)],
        "two-stage": [(5,), (6,), (7,)],
    }
    built = [
        simple(name, 42 + k, right=right(*w)) for name, by in wrong.items() for k, w in enumerate(by)
    ]
    needs = seeds_needed(evidence(built), "net", "images", tuple(wrong), 0.2)
    assert (needs.pairs, needs.seeds, needs.images, needs.why) == (3, 3, 40, None)
    assert needs.typical is not None and needs.widest is not None
    assert needs.typical.seeds is not None and needs.widest.seeds is not None
    assert 3 <= needs.typical.seeds <= needs.widest.seeds
    only = seeds_needed(evidence(built), "net", "images", ("joint", "separate"), 0.2)
    assert only.pairs == 1 and only.widest == only.typical


def test_a_strategy_has_the_seeds_that_its_twin_has() -> None:
    """One network under two names, of which the study has the one with fewer seeds."""

    def twin(label: str, seed: int) -> HandTrial:
        run = Run("all", {k: [2.0, 1.0] for k in EXITS}, key=f"of both, {seed}")
        return HandTrial(label, seed, [run], right=right(seed - 42))

    built = [twin("joint", seed) for seed in (42, 43)]
    built += [twin("joint-again", seed) for seed in (42, 43, 44, 45)]
    built += [simple("separate", seed, right=right(seed - 30)) for seed in (42, 43, 44, 45)]
    needs = seeds_needed(evidence(built), "net", "images", ("joint", "separate"), 0.2)
    assert (needs.pairs, needs.seeds, needs.images, needs.why) == (1, 4, 40, None)


def test_images_that_are_too_few_are_told() -> None:
    wrong = {"joint": tuple(range(0, 12)), "separate": tuple(range(12, 24))}
    built = [simple(name, 42 + k, right=right(*w)) for name, w in wrong.items() for k in range(3)]
    needs = seeds_needed(evidence(built), "net", "images", tuple(wrong), 0.005)
    assert needs.widest is not None and needs.widest.seeds is None
    assert needs.widest.limit == pytest.approx(2.8016 * (24 / 39 / 40) ** 0.5, rel=1e-3)
    text = power_line(needs)
    assert "shows 35 points" in text and "these 40" in text


def test_what_does_not_vary_enough_to_know_is_told() -> None:
    whole = evidence([simple("joint", 42), simple("separate", 42)])
    assert "fewer than two" in power_line(seeds_needed(whole, "net", "images", ("joint", "separate"), 1))
    assert "net on others" in str(seeds_needed(whole, "net", "others", ("joint",), 1).why)


def test_more_than_five_hundred_seeds_are_not_counted() -> None:
    assert Estimate(0.0, 3, 1.0).blocks_for(0.1, 1) is None
