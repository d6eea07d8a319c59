"""Seeds until decided: error rates, what it spends, and the road from looks to a verdict."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from longer import long
from offramp.analysis.stats.pairwise import (
    Estimate,
    Pair,
    UntestedPair,
    half_width,
    over_blocks,
    p_values,
)
from offramp.analysis.stats.sample import Group
from offramp.analysis.stats.sequential import (
    Decision,
    InterimAnalyses,
    decide,
    hopeless,
    sequential_differences,
    spent,
)

MARGIN = 0.005


def looks(most: int, first: int = 3) -> InterimAnalyses:
    return InterimAnalyses(tuple(map(str, range(most))), first)


def right(
    generator: np.random.Generator,
    strategies: int,
    seeds: int,
    images: int,
    luck: float = 0.1,
    taste: float = 0.3,
    better: float = 0.0,
) -> np.ndarray:
    """Right or wrong of strategies that all are equal, [strategies, seeds, images]. All but the last
    share a phase, whose luck with a seed and taste in images they have in common. better: the first."""
    shape = (strategies, seeds, images)
    phase = [0] * (strategies - 1) + [1]
    hard = 1.2 + 1.5 * generator.normal(size=(1, 1, images))
    able = hard + luck * generator.normal(size=(2, seeds, 1))[phase]
    able = able + taste * generator.normal(size=(2, 1, images))[phase]
    able = able + luck / 3 * generator.normal(size=(strategies, seeds, 1))
    able = able + taste / 3 * generator.normal(size=(strategies, 1, images))
    able[0] += better
    return (able + 0.6 * generator.logistic(size=shape) > 0).astype(float)


def looked(values: np.ndarray, design: InterimAnalyses) -> dict[tuple[str, str], tuple[Estimate, ...]]:
    return {
        (str(a), str(b)): design.at(values[a] - values[b])
        for a, b in combinations(range(len(values)), 2)
    }


def false(draws: int, seed: int, seeds: int, images: int, luck: float, taste: float) -> float:
    """How often any of three pairs of equal strategies is found different at any look."""
    design, generator = looks(seeds), np.random.default_rng(seed)
    actual = 0
    for _ in range(draws):
        values = right(generator, 3, seeds, images, luck, taste)
        actual += any(d.verdict == "different" for d in decide(looked(values, design), design, MARGIN))
    return actual / draws


CASES = [(6, 200, 0.1, 0.3), (20, 200, 0.4, 0.1), (12, 1000, 0.1, 0.6), (20, 500, 0.0, 0.0)]


@pytest.mark.parametrize("case", [CASES[0], *long(*((case,) for case in CASES[1:3])), CASES[3]])
def test_equal_strategies_are_told_apart_no_more_than_promised(
    case: tuple[int, int, float, float],
) -> None:
    assert false(100, 1, *case) <= 0.05


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_over_two_thousand_runs(case: tuple[int, int, float, float]) -> None:
    """The numbers in docs/statistics.md; `pytest --long -s` prints them."""
    findings = false(2000, 2, *case)
    print(f"{case}: false decisions in {100 * findings:.2f} % of 2,000 runs")
    assert findings <= 0.05


def test_the_simulation_would_notice_looks_that_are_not_paid_for() -> None:
    generator, design, actual = np.random.default_rng(3), looks(20), 0
    for _ in range(75):
        values = right(generator, 3, 20, 200, 0.4, 0.1)
        naive = [
            [p_of(e) for e in estimates] for estimates in looked(values, design).values()
        ]  # each look at 5 %, as if it were the only one, adjusted for three pairs
        actual += bool((np.array(naive) <= 0.05 / 3).any())
    assert actual / 75 > 0.08


def p_of(e: Estimate) -> float:
    part = (np.array([float(v)]) for v in (e.mean, e.between / e.blocks, e.shared, e.blocks - 1))
    return float(p_values(*part)[0])


@pytest.mark.parametrize("seeds", [3, 4, 5, 8, 20])
@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-5, 1e-7])
def test_no_mixture_of_luck_breaks_the_promise_at_any_level(seeds: int, level: float) -> None:
    """The exact rate of false findings where seeds have a share of the variance: their part is
    chi-squared, that of many images as good as known."""
    edges = np.r_[0, np.logspace(-14, 0, 4001)]
    low, weight = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    chi = stats.chi2.ppf(low, seeds - 1) / (seeds - 1)
    rates = []
    for share in np.r_[0.0, np.logspace(-5, -1, 10), np.linspace(0.2, 1, 30)]:
        half = half_width(np.full(chi.shape, level), share * chi, 1 - share, np.array(seeds - 1))
        rates.append(float((2 * stats.norm.sf(half) * weight).sum()))
    assert max(rates) <= level * 1.002
    assert rates[0] == pytest.approx(level) and rates[-1] == pytest.approx(level, rel=2e-3)
    if (seeds, level) == (3, 1e-5):  # control: degrees of freedom in between
        v = 0.97 * chi + 0.03
        df = (seeds - 2) * v / (0.97 * chi) + 1
        often = (2 * stats.norm.sf(stats.t.isf(level / 2, df) * np.sqrt(v)) * weight).sum()
        assert often > 50 * level


def test_seeds_alone_are_students_t_and_images_alone_the_normal_distribution() -> None:
    values = np.random.default_rng(4).normal(0.3, 1, 6)
    assert p_of(over_blocks(values)) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert p_of(Estimate(0.3, 5, 0.0, 0.01)) == pytest.approx(2 * stats.norm.sf(3))
    assert decide_pair(np.zeros((4, 9)), looks(4)).different == 1  # the same answers everywhere


def test_shares_of_alpha_add_up_to_one() -> None:
    for design in (looks(20), looks(6), looks(20, 5), looks(3), looks(100)):
        assert sum(design.shares.values()) == pytest.approx(1)
        assert list(design.shares) == list(design.counts) == sorted(set(design.counts))
    assert looks(6).shares == pytest.approx({3: 1 / 2, 4: 1 / 6, 5: 1 / 6, 6: 1 / 6})
    assert looks(20, 7).counts == (7, 9, 12, 16, 20)


def normal(effect: float, seeds: int, seed: int) -> np.ndarray:
    """Differences over seeds and a thousand images that vary with seeds alone, in standard deviations of
    MARGIN."""
    drawn = np.random.default_rng(seed).normal(effect, 1, (seeds, 1))
    return MARGIN * np.repeat(drawn, 10, axis=1)


def decide_pair(values: np.ndarray, design: InterimAnalyses, margin: float = MARGIN) -> Decision:
    return decide({("a", "b"): design.at(values)}, design, margin)[0]


def test_verdicts() -> None:
    design = looks(8)
    assert decide_pair(normal(30, 5, 1), design).verdict == "different"
    assert decide_pair(normal(0, 5, 1) / 50, design).verdict == "alike"
    assert decide_pair(normal(1, 4, 3), design).verdict == "open"
    assert decide_pair(normal(9, 2, 1), design) == Decision("a", "b", None, 1.0, 1.0, "open")
    few = np.random.default_rng(5).normal(0, 0.1, (1, 40)) + np.zeros((4, 1))  # luck of images alone
    few += 0.002 - few.mean()
    assert decide_pair(few, design).verdict == "too few images"
    assert decide_pair(few, design, margin=0.3).verdict == "alike"


def test_the_same_answers_to_few_images_say_little() -> None:
    """Where one image in a hundred tells two strategies apart, 50 images show none of it in six of ten
    draws, and 1,500 in none of a million."""
    few, many = (decide_pair(np.zeros((4, n)), looks(4), margin=0.01) for n in (50, 1500))
    assert few.verdict == "too few images" and few.alike >= 0.99**50
    assert many.verdict == "alike"


def test_a_finding_stays_when_later_looks_would_not_make_it() -> None:
    values = normal(30, 8, 6)
    values[5:] -= 40 * MARGIN
    design = looks(8)
    assert decide_pair(values[:5], design).verdict == decide_pair(values, design).verdict == "different"


def test_hopeless_is_what_the_images_alone_leave_open() -> None:
    assert hopeless(Estimate(0.002, 5, 0.0, 0.005**2), 0.005, 0.0025)
    assert not hopeless(Estimate(0.002, 5, 0.0, 0.0005**2), 0.005, 0.0025)
    assert not hopeless(Estimate(0.05, 5, 0.0, 0.005**2), 0.005, 0.0025)
    assert not hopeless(Estimate(0.002, 3, 0.02**2, 0.005**2), 0.005, 0.0025)  # seeds may yet move it


def test_p_over_looks_is_the_smallest_paid_for() -> None:
    design, values = looks(6), np.random.default_rng(7).normal(1, 1, 5)
    p = [stats.ttest_1samp(values[:n], 0).pvalue for n in (3, 4, 5)]
    expected = min(p[0] / (3 / 6), p[1] * 6, p[2] * 6)
    assert spent(design, [design.at(values)])[0] == pytest.approx(min(expected, 1))


def test_groups_are_read_in_the_order_in_which_seeds_were_added() -> None:
    generator = np.random.default_rng(8)
    design = InterimAnalyses(("9", "10", "11", "2", "5"), 3)
    blocks = ("10", "11", "2", "9", "99")  # sorted as text; 99 is of no look
    drawn = {n: generator.normal(k, 0.2, 5) for k, n in enumerate("abc")}
    groups = [Group((n,), tuple(v), blocks) for n, v in drawn.items()]
    groups.append(Group(("d",), (1.0, 2.0), ("9", "10")))
    pairs = sequential_differences(groups, 0.05, design)
    first = pairs[0]
    values = (drawn["a"] - drawn["b"])[[3, 0, 1, 2]]
    assert isinstance(first, Pair)
    assert first.difference == pytest.approx(values.mean())
    assert first.p >= spent(design, [design.at(values)])[0]
    half = stats.t.isf(0.05 * 0.2 / 3 / 2, 3) * values.std(ddof=1) / 2
    assert first.high - first.difference == pytest.approx(half)
    assert ["the 3 blocks" in p.why for p in pairs if isinstance(p, UntestedPair)] == [True] * 3


def test_before_the_first_look_nothing_is_tested() -> None:
    groups = [Group((n,), (0.1 * k, 0.2), ("1", "2")) for k, n in enumerate("ab")]
    (pair,) = sequential_differences(groups, 0.05, InterimAnalyses(("1", "2", "3", "4"), 3))
    assert isinstance(pair, UntestedPair) and pair.difference == pytest.approx(-0.05)


@pytest.mark.parametrize("unit", [1.0, 0.005])  # differences of the second are the same but for rounding
def test_a_look_at_which_seeds_do_not_vary_finds_nothing(unit: float) -> None:
    """Three seeds of a count may differ by the same, which says nothing of how much seeds vary."""
    first = (7, 8, 6, 9, 6, 5, 9)

    def pair(*second: int) -> Pair | UntestedPair:
        groups = [
            Group((name,), tuple(0.8 + unit * x for x in some), tuple("1234567"[: len(second)]))
            for name, some in (("a", first[: len(second)]), ("b", second))
        ]
        return sequential_differences(groups, 0.05, InterimAnalyses(tuple("12345678"), 3))[0]

    decision = pair(5, 6, 4, 9, 7)
    assert isinstance(decision, Pair)
    assert decision.p == pytest.approx(8 * stats.ttest_1samp([2, 2, 2, 0], 0).pvalue)
    for second, where in (((5, 6, 4), "in every block"), ((5, 6, 4, 7, 4, 3, 8), "at every look")):
        early = pair(*second)
        assert isinstance(early, UntestedPair)
        assert f"the same amount {where}" in early.why  # there is no look at seven


def seeds_spent(effect: float, pairs: int, draws: int = 4000) -> tuple[float, float]:
    """Power, and seeds on average, of one of so many pairs; at most 20. effect: in standard deviations
    of paired differences over seeds."""
    drawn = np.random.default_rng(9).normal(effect, 1, (draws, 20))
    decided, seeds = np.zeros(draws, dtype=bool), np.full(draws, 20)
    for count, share in looks(20).shares.items():
        actual = ~decided & (
            stats.ttest_1samp(drawn[:, :count], 0, axis=1).pvalue <= 0.05 / pairs * share
        )
        seeds[actual] = count
        decided |= actual
    return float(decided.mean()), float(seeds.mean())


def fixed(effect: float, power: float, pairs: int) -> int:
    """Seeds of a study without looks that has this power."""
    for n in range(3, 100):
        bound = stats.t.isf(0.05 / pairs / 2, n - 1)
        if stats.nct.sf(bound, n - 1, effect * np.sqrt(n)) >= power:
            return n
    raise AssertionError


@pytest.mark.parametrize("pairs", [1, 10, 28])
def test_what_it_spends_beside_a_fixed_design(pairs: int) -> None:
    """The numbers in docs/statistics.md; `pytest -s` prints them."""
    actual = {effect: seeds_spent(effect, pairs) for effect in (1, 2, 4)}
    planned = fixed(1, actual[1][0], pairs)  # for a difference of one standard deviation, as well found
    for effect, (power, mean) in actual.items():
        reference = fixed(effect, min(power, 0.995), pairs)
        words = f"power {power:.2f}, seeds {mean:.1f}; fixed {planned}, {reference}"
        print(f"{pairs} pairs, {effect} sd: {words}")
    assert actual[2][0] > 0.99 and actual[4][0] > 0.99
    assert actual[1][1] < 1.25 * planned
    assert actual[2][1] < 0.75 * planned and actual[4][1] < 0.55 * planned
