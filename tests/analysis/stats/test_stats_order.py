"""Summaries in a line: letters against graph theory, chains against the pairs they stand for."""

import re
from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from offramp.analysis.stats.pairwise import Pair, Pairs, UntestedPair
from offramp.analysis.stats.text import UNCLEAR, GroupOrder, letters, order, p_text, rounded, rule


def pairs_of(names: str, ps: dict[str, float], rest: float = 0.5) -> Pairs:
    """Pairs of one-letter groups from the highest mean down, with p by name as in 'AB'."""
    return tuple(Pair(a, b, 1.0, 0.5, 1.5, ps.get(a + b, rest)) for a, b in combinations(names, 2))


@pytest.mark.parametrize("seed", range(20))
def test_letters_are_the_maximal_cliques_of_what_does_not_differ(seed: int) -> None:
    generator = np.random.default_rng(seed)
    names = [f"g{i}" for i in range(int(generator.integers(2, 9)))]
    different = {frozenset(p) for p in combinations(names, 2) if generator.random() < generator.random()}
    graph = nx.Graph()
    graph.add_nodes_from(names)
    graph.add_edges_from(p for p in combinations(names, 2) if frozenset(p) not in different)
    columns = letters(names, different)
    cliques = {frozenset(clique) for clique in nx.find_cliques(graph)}
    every = {letter for text in columns.values() for letter in text}
    assert {frozenset(n for n in names if letter in columns[n]) for letter in every} == cliques
    assert columns["g0"].startswith("a")


def test_piephos_chain_of_overlapping_groups() -> None:
    different = {frozenset(p) for p in ("AC", "AD", "BD")}
    assert letters("ABCD", different) == {"A": "a", "B": "ab", "C": "bc", "D": "c"}


def test_more_columns_than_letters() -> None:
    names = [f"g{i:02d}" for i in range(60)]
    columns = letters(names, {frozenset(p) for p in combinations(names, 2)})
    assert len(set(columns.values())) == 60


def test_where_a_group_has_too_many_letters_the_pairs_are_named() -> None:
    """Of sixty groups a line had tens of thousands of letters."""
    names = [f"g{i:02d}" for i in range(60)]
    ps = {(a, b): 0.001 if abs(int(a[1:]) - int(b[1:])) > 15 else 0.5 for a, b in combinations(names, 2)}
    pairs = [Pair(a, b, 1.0, 0.5, 1.5, p) for (a, b), p in ps.items()]
    assert order(names, pairs, 0.05).text() == UNCLEAR


def test_the_papers_notation() -> None:
    ps = {a + b: 1e-4 for a, b in ("JD", "JB", "JS", "JT", "DB", "DS", "DT")}
    ps |= {"BS": 0.01, "BT": 1e-5, "ST": 0.02}
    assert order("JDBST", pairs_of("JDBST", ps), 0.05).text() == "J >> D >> B > S > T"


def test_alike_groups_and_names() -> None:
    ps = {"AC": 1e-5, "BC": 1e-5, "AD": 1e-5, "BD": 1e-5}
    order_ = order("ABCD", pairs_of("ABCD", ps), 0.05)
    assert order_.text() == "A ≈ B >> C ≈ D"
    merged = GroupOrder(("x = y", "z"), (">",), ("a", "b"), None)
    assert merged.text({"x": "X", "z": "Z"}) == "X = y > Z"


def test_a_stronger_sign_needs_every_pair_across_it() -> None:
    ps = {"AB": 1e-5, "AC": 0.01, "BC": 0.5}
    assert order("ABC", pairs_of("ABC", ps), 0.05).text() == "A > B ≈ C"


def test_no_order_where_difference_skips() -> None:
    order_ = order("ABC", pairs_of("ABC", {"AC": 0.01}), 0.05)
    assert order_.signs is None
    assert order_.text() == "A a, B ab, C b"
    assert order_.why == "no order: A and C differ, what lies between does not"


def test_no_order_where_a_pair_is_untested_or_turned_round() -> None:
    holes = (*pairs_of("ABC", {})[:2], UntestedPair("B", "C", "equal in every block", 0.0))
    order_ = order("ABC", holes, 0.05)
    assert order_.why == "untested: B – C" and order_.letters == ()
    assert order_.text() == "not every pair was tested"
    none = (UntestedPair("A", "B", "they share no block, two are needed", None),)
    assert order("AB", none, 0.05).why == "no pair was tested"
    turned = (Pair("A", "B", -1.0, -2.0, -0.5, 0.001),)
    assert "B exceeds A" in str(order("AB", turned, 0.05).why)
    assert order("AB", turned, 0.05).signs is None


@pytest.mark.parametrize("seed", range(40))
def test_a_chain_says_of_every_pair_what_its_p_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    names = "ABCDE"[: int(generator.integers(2, 6))]
    ps = {
        a + b: float(generator.choice([1e-5, 0.01, 0.3], p=[0.5, 0.3, 0.2]))
        for a, b in combinations(names, 2)
    }
    order_ = order(names, pairs_of(names, ps), 0.05)
    if order_.signs is None:
        for i, j in combinations(range(len(names)), 2):
            together = set(order_.letters[i]) & set(order_.letters[j])
            assert bool(together) == (ps[names[i] + names[j]] >= 0.05)
        return
    for i, j in combinations(range(len(names)), 2):
        p, between = ps[names[i] + names[j]], order_.signs[i:j]
        assert (p < 0.05) == any(sign != "≈" for sign in between)
        if ">>" in between:
            assert p < 0.001


def test_no_p_reads_as_one_beyond_its_level() -> None:
    assert [p_text(p) for p in (0.0499, 0.04999, 0.0501, 0.05)] == [
        "0.0499",
        "0.04999",
        "0.050",
        "0.050",
    ]
    assert [p_text(p) for p in (0.0009999, 0.001, 0.0012)] == ["9.999e-04", "0.001", "0.001"]
    assert [rounded(p) for p in (0.0499, 0.0502, 0.0342)] == ["0.0499", "0.05", "0.034"]


def test_the_rule_names_thresholds_and_direction() -> None:
    text = rule(0.05)
    assert "significantly higher than" in text and "p < 0.05" in text and "p < 0.001" in text
    assert "higher (worse) than" in rule(0.05, "lower")
    assert not re.search("better|worse", text)
