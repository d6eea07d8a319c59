"""What nothing else beats: on networks whose truth is known, and beside the index that it replaced."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from answers import FOUR, Skill, answers, better, crossing, equal, facts
from longer import long
from offramp.analysis.recommend import Advice, Facts, Preference, recommend, sure
from offramp.analysis.recommend.pareto import Offer, beaten, more_accurate
from offramp.analysis.stats.pairwise import Pair, paired_differences
from offramp.analysis.stats.sample import Group
from offramp.analysis.stats.sequential import InterimAnalyses
from offramp.analysis.tradeoff import NetAnswers
from simulate import Planted


def pareto(candidates: Facts) -> Advice:
    (advice,) = recommend(candidates, Preference("pareto"))
    return advice


def left(advice: Advice) -> set[str]:
    return {row.name for row in advice.ranking}


def offers(seed: int, strategies: tuple[str, ...] = FOUR, **more: object) -> dict[str, Offer]:
    """Of networks as `answers` draws them; training costs the same."""
    built = answers(seed, strategies, **more)  # type: ignore[arg-type]
    return {s: Offer({key[3]: a for key, a in built.items() if key[2] == s}, 1e12) for s in strategies}


def test_who_is_better_for_the_same_is_left_alone() -> None:
    advice = pareto(better())
    assert left(advice) == {"joint"} and not advice.even
    lost = {out.name: out for out in advice.ruled_out}
    assert lost.keys() == {"two-stage", "separate", "distillation"}
    assert {out.kind for out in lost.values()} == {"beaten"}
    assert all(out.why.startswith("joint costs no more") for out in lost.values())
    (row,) = advice.ranking
    assert (row.low, row.high, row.training) == (1e6, 4e6, 1e12)
    finals = [a.right[:, -1].mean() for key, a in better().answers.items() if key[2] == "joint"]
    assert row.mean == pytest.approx(np.mean(finals))
    assert sure(advice).endswith("beat it, 5 seeds")


def test_who_costs_less_or_leads_elsewhere_stays() -> None:
    table = facts(1, FOUR, Skill(shift={"joint": 0.6}), Planted(meters={"joint": 0}))
    rows = table.numbers.phases
    dearer = rows.assign(
        macs_written=rows["macs_written"].where(
            ~rows.index.get_level_values(0).str.match("joint-"), 2e12
        )
    )
    taught = replace(table.numbers, phases=dearer)
    assert left(pareto(replace(table, numbers=taught, _by_measure={}))) == set(FOUR)
    assert {"joint", "separate"} <= left(pareto(crossing()))
    late = Skill(shift={"joint": 0.6}, macs={"joint": (2e6, 2.5e6, 3e6, 4e6)})
    assert left(pareto(facts(1, FOUR, late))) == set(FOUR)  # none but joint can answer for 1 M MACs


def test_few_seeds_show_nothing() -> None:
    few = pareto(facts(1, FOUR, Skill(shift={"joint": 0.6}), seeds=2))
    assert left(few) == set(FOUR) and not few.even
    assert few.withheld is not None and "2 seeds are too few" in few.withheld


def test_equal_networks_are_one_entry_and_unknown_costs_are_no_advantage() -> None:
    built = equal()
    twin = {k: a for k, a in built.answers.items() if k[2] != "separate"}
    twin |= {(*k[:2], "separate", k[3]): a for k, a in built.answers.items() if k[2] == "two-stage"}
    advice = pareto(replace(built, answers=twin))
    assert left(advice) == {"joint", "distillation", "separate = two-stage"} and advice.even
    best = offers(1, skill=Skill(shift={"joint": 0.6}))
    assert beaten(best).keys() == set(FOUR) - {"joint"}
    assert beaten({**best, "joint": replace(best["joint"], training=None)}) == {}
    for training, equal_cost in ((1.004e12, True), (1.01e12, False)):
        dear = {**best, "joint": replace(best["joint"], training=training)}
        assert bool(beaten(dear)) is equal_cost
    assert beaten({name: replace(offer, training=None) for name, offer in best.items()})


def test_seeds_that_were_added_after_looking_pay_for_it() -> None:
    rule = InterimAnalyses(tuple(map(str, range(42, 62))), 3)
    drawn = offers(3, skill=Skill(shift={"joint": 0.6}))
    plain, paid = more_accurate(drawn), more_accurate(drawn, rule)
    assert ("joint", "separate") in paid and paid.keys() <= plain.keys()
    assert min(paid["joint", "separate"].values()) > min(plain["joint", "separate"].values())


def test_seeds_with_images_of_their_own_are_compared_over_seeds() -> None:
    drawn = offers(3, skill=Skill(shift={"joint": 0.6}))
    own = {
        name: replace(o, seeds={s: replace(a, images=f"of {s}") for s, a in o.seeds.items()})
        for name, o in drawn.items()
    }
    alone, both = more_accurate(own), more_accurate(drawn)
    assert alone["joint", "separate"] != both["joint", "separate"]


def test_seeds_that_do_not_vary_show_nothing_over_seeds_alone() -> None:
    """Its p would be 0."""
    rule = InterimAnalyses(tuple(map(str, range(42, 62))), 3)

    def offer(*hits: int) -> Offer:
        """So many of ten images right, which each seed draws anew."""
        right = [np.arange(10)[:, None] < count for count in hits]
        answers = [NetAnswers(r * 1.0, r, (1.0,), f"of {s}", f"{hits}") for s, r in enumerate(right)]
        return Offer(dict(enumerate(answers, 42)), None)

    late = {"a": offer(8, 7, 6, 9, 3), "b": offer(6, 5, 4, 2, 9)}
    assert more_accurate(late, rule) == {} == more_accurate(late)
    alike = {"a": offer(8, 7, 6), "b": offer(6, 5, 4)}
    assert more_accurate(alike, rule) == {} == more_accurate(alike)


def test_two_seeds_in_common_tell_nothing_of_how_seeds_vary() -> None:
    """As everywhere over seeds and images; by luck they may agree to the last image."""
    drawn = offers(3, skill=Skill(shift={"joint": 0.6}))
    shifted = replace(drawn["joint"], seeds={s + 3: a for s, a in drawn["joint"].seeds.items()})
    assert ("joint", "separate") in more_accurate(drawn)
    assert not [pair for pair in more_accurate(drawn | {"joint": shifted}) if "joint" in pair]


# The index that this replaced: the mean place between the best, 0, and the worst, 1, of each seed
Values = dict[str, dict[int, float]]  # by strategy and seed


def index(*parts: Values) -> Values:
    """Of amounts of which the largest are the best."""
    places: Values = {name: dict.fromkeys(of, 0.0) for name, of in parts[0].items()}
    for part in parts:
        for seed in next(iter(part.values())):
            values = [of[seed] for of in part.values()]
            for name, of in part.items():
                places[name][seed] += (max(values) - of[seed]) / np.ptp(values) / len(parts)
    return places


def index_finds(drawn: dict[str, Offer]) -> bool:
    right = {n: {s: float(a.right.mean()) for s, a in o.seeds.items()} for n, o in drawn.items()}
    areas = {n: {s: a.area(1e6, 4e6) for s, a in o.seeds.items()} for n, o in drawn.items()}
    groups = [
        Group((name,), tuple(values.values()), tuple(map(str, values)))
        for name, values in index(right, areas).items()
    ]
    pairs = paired_differences(groups, 0.05)
    return any(isinstance(pair, Pair) and pair.p < 0.05 for pair in pairs)


@pytest.mark.parametrize("draws", [60, *long(400)])
def test_nothing_beats_anything_on_null_stores(draws: int) -> None:
    """Four that are alike, each with its own taste in images. The index, which took no account of that
    and has bounded places, found much more often."""
    found = controls = 0
    for seed in range(draws):
        drawn = offers(seed, images=200, taste=0.5)
        found += bool(more_accurate(drawn))
        controls += index_finds(drawn)
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert found / draws <= most < controls / draws


def test_a_strategy_that_leaves_turns_nothing_around() -> None:
    skill = Skill(
        shift={"joint": 0.5, "two-stage": 0.3, "separate": 0.25, "distillation": 0.0, "own": -0.3}
    )
    names = (*FOUR, "own")
    every = offers(5, names, skill=skill, images=1000)
    whole, order = more_accurate(every), {name: o.accuracy(o.dearest) for name, o in every.items()}
    assert len(whole) > 5
    for size in (2, 3, 4):
        for some in combinations(names, size):
            part = {name: every[name] for name in some}
            here = more_accurate(part).keys()
            assert not {(b, a) for a, b in whole} & here
            fewest = min(len(some), 4)  # all of its own: what others say of a variance is not lost
            assert len(some) < fewest or {p for p in whole if set(p) <= set(some)} >= here - whole.keys()
            assert {n: o.accuracy(o.dearest) for n, o in part.items()} == {n: order[n] for n in some}


def test_the_index_is_turned_around_by_who_else_is_there() -> None:
    """A leads by one amount, B by another: whose lead counts for more hangs on a third one."""
    one, two = {"a": {1: 0.90}, "b": {1: 0.88}}, {"a": {1: 0.80}, "b": {1: 0.83}}
    first = index(one | {"c": {1: 0.50}}, two | {"c": {1: 0.82}})
    second = index(one | {"c": {1: 0.89}}, two | {"c": {1: 0.40}})
    assert first["b"][1] < first["a"][1] and second["a"][1] < second["b"][1]


def test_a_store_without_answers_has_no_list() -> None:
    advice = pareto(Facts(better().numbers, {}))
    assert advice.ranking == () and advice.untested == "no answers on test images are known"
