"""Plain networks at equal compute: coins and cascades on made answers, and how often tests are wrong."""

from dataclasses import replace

import numpy as np
import pytest

from answers import DATA, MODEL, Skill, answers, facts
from longer import long
from offramp.analysis.recommend import Facts
from offramp.analysis.recommend.equal import ComputeLevel, beside_controls
from offramp.analysis.recommend.goals import PlainFacts
from offramp.analysis.tradeoff import NetAnswers, coin, hull, then

NAMES = {(MODEL, s): s for s in ("joint", "two-stage", "separate")}


def plain(seed: int, accuracy: float, macs: float, images: int = 400) -> NetAnswers:
    draw = np.random.default_rng(seed)
    right = draw.random((images, 1)) < accuracy
    return NetAnswers(draw.random((images, 1)), right, (macs,), "these", source=f"{seed}")


# A coin


def test_a_coin_between_two_networks_is_a_straight_line() -> None:
    small, large = plain(1, 0.6, 10.0), plain(2, 0.9, 50.0)
    mixed = coin((small, large))
    low, high = small.right.mean(), large.right.mean()
    for share in (0.0, 0.25, 0.7, 1.0):
        macs = 10 + 40 * share
        expected = (1 - share) * low + share * high
        assert mixed.accuracy(macs) == pytest.approx(expected)
        assert mixed.on_images(macs).mean() == pytest.approx(expected)
    assert np.isnan(mixed.accuracy(9.0)) and mixed.accuracy(80.0) == pytest.approx(high)
    assert mixed.on_images(80.0).mean() == pytest.approx(high)
    assert mixed.cheapest == 10 and mixed.images == "these" and mixed.source == "1+2"


def test_a_coin_tossed_has_the_accuracy_and_the_compute_that_are_drawn() -> None:
    """The line is a promise about a coin: here it is tossed."""
    small, large = plain(1, 0.6, 10.0, 50_000), plain(2, 0.9, 50.0, 50_000)
    heads = np.random.default_rng(3).random(50_000) < 0.4
    tossed = np.where(heads, large.right[:, 0], small.right[:, 0]).mean()
    spent = np.where(heads, 50.0, 10.0).mean()
    assert tossed == pytest.approx(float(coin((small, large)).accuracy(spent)), abs=0.01)


def test_a_coin_of_networks_on_other_images_agrees_with_none() -> None:
    assert coin((plain(1, 0.6, 10.0), replace(plain(2, 0.9, 50.0), images="those"))).images == ""


@pytest.mark.parametrize(
    ("points", "corners"),
    [
        ({"a": (1, 0.5)}, ("a",)),
        ({"a": (1, 0.5), "b": (2, 0.5)}, ("a",)),
        ({"a": (1, 0.5), "b": (2, 0.55), "c": (3, 0.7)}, ("a", "c")),
        ({"a": (1, 0.5), "b": (2, 0.65), "c": (3, 0.7)}, ("a", "b", "c")),
        ({"a": (1, 0.5), "b": (2, 0.6), "c": (3, 0.7)}, ("a", "c")),
        ({"a": (1, 0.8), "b": (2, 0.6), "c": (3, 0.7)}, ("a",)),
    ],
)
def test_corners_of_a_frontier(points: dict[str, tuple[float, float]], corners: tuple[str, ...]) -> None:
    assert hull(points) == corners


# A cascade


def test_a_cascade_pays_for_both_where_the_first_is_unsure() -> None:
    small = NetAnswers(np.array([[0.9], [0.2]]), np.array([[True], [False]]), (10.0,), "these")
    large = NetAnswers(np.array([[0.1], [0.1]]), np.array([[False], [True]]), (50.0,), "these")
    both = then(small, large)
    assert both.macs == (10, 60) and both.images == "these"
    _, spent, hits = both.curve
    assert list(zip(spent.tolist(), hits.tolist(), strict=True)) == [(60, 0.5), (35, 1.0), (10, 0.5)]


# At equal compute


def beside(seed: int, skill: Skill, exit: int, shift: float = 0.0, images: int = 300) -> ComputeLevel:
    """A plain network that is exit `exit` of one strategy more, `shift` more able, at its compute."""
    candidates = facts(seed, ("joint", "two-stage", "separate", "own"), skill, images=images)
    able = Skill(shift={"own": shift})
    own = answers(seed, ("joint", "two-stage", "separate", "own"), able, images=images)
    control = {
        (m, d, "small", s): NetAnswers(
            a.sure[:, [exit]], a.right[:, [exit]], (a.macs[exit],), a.images, source=f"small-{s}"
        )
        for (m, d, name, s), a in own.items()
        if name == "own"
    }
    kinds = {(MODEL, DATA, "small"): PlainFacts("network", 1.0)}
    whole = Facts(candidates.numbers, {**candidates.answers, **control}, controls=kinds)
    return beside_controls(whole, DATA, NAMES, {(MODEL, "small"): "small"})["small"]


def told(level: ComputeLevel) -> tuple[set[str], set[str]]:
    """Whom the plain network beats, and who beats it."""
    others = set(level.means) - {"small"}
    below = {name for name in others if level.beats("small", name)}
    return below, {name for name in others if level.beats(name, "small")}


@pytest.mark.parametrize("exit", [0, 3])
@pytest.mark.parametrize("draws", [8, *long(250)])
def test_a_network_as_good_as_the_strategies_is_not_told_apart(exit: int, draws: int) -> None:
    """Where all images leave at one exit, a plain network that is such an exit is as good as any."""
    false = sum(any(told(beside(seed, Skill(), exit))) for seed in range(draws))
    assert false / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize("shift", [0.8, -0.8], ids=["it wins", "it loses"])
def test_a_planted_difference_has_its_sign(shift: float) -> None:
    results = [told(beside(seed, Skill(), 3, shift, images=2000)) for seed in range(4)]
    for below, above in results:
        right, wrong = (below, above) if shift > 0 else (above, below)
        assert not wrong and len(right) == 3  # without `own`, which is in no report


def test_a_network_that_crosses_is_above_some_and_below_others() -> None:
    skill = Skill(shift={"joint": 0.8, "separate": -0.8})
    below, above = told(beside(1, skill, 2, images=2000))
    assert "separate" in below and "joint" in above
