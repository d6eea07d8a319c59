"""Seeds are added to a study until its strategies are told apart or alike, by a rule fixed beforehand.

    log = begin(store, plan, most=20, difference=0.005)    # kept before anything is looked at
    for count in looks(log).counts: train `parts(...)`, then `look(...)`; who is `questioned` goes on

What is looked at is test accuracy, the mean over exits. No weight, threshold or setting is chosen by
it: a look decides only whether more seeds are trained, and `sequential` pays for that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from offramp.analysis.stats.pairwise import ALPHA, FEWEST, Estimate
from offramp.analysis.stats.sample import Floats
from offramp.analysis.stats.sequential import Decision, InterimAnalyses, decide
from offramp.analysis.stats.text import rounded
from offramp.errors import OfframpError
from offramp.hashing import digest
from offramp.metrics import hits
from offramp.store.manifest import SeedLog
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, make_plan, plan_trials
from offramp.terminal import TextTable
from offramp.units import counted

MOST, DIFFERENCE = 20, 0.005
Right = Mapping[tuple[str, int], Floats]
"""By strategy and seed: of each test image the share of exits that are right, [N]."""
VERDICTS = ("different", "alike", "too few images", "open")


@dataclass(frozen=True)
class SeedDecision:
    """How seeds were added until nothing was left to decide.

    Attributes:
        name: Of the rule in the store.
        log: The rule, and what each look at the results came to.
        decisions: What the last look came to.
        seeds: How many there were then.
    """

    name: str
    log: SeedLog
    decisions: Sequence[Decision] = ()
    seeds: int = 0

    def document(self) -> list[str | TextTable]:
        """All pairs, and whether anything is left to decide."""
        rows = []
        for d in self.decisions:
            seeds, mean = (
                (d.estimate.blocks, f"{100 * d.estimate.mean:+.2f}") if d.estimate else (0, "–")
            )
            p = {"different": d.different, "alike": d.alike}.get(d.verdict)
            rows.append((d.a, d.b, str(seeds), mean, d.verdict, "" if p is None else rounded(p)))
        margin = f"{100 * self.log.difference:g} points"
        listing = TextTable(
            ["a", "b"],
            ["seeds", "a − b", "finding", "p"],
            rows,
            f"Pairs after {counted(self.seeds, 'seed')}",
            "a − b: points of test accuracy, mean over exits. alike: they differ by less than "
            f"{margin}.\np is adjusted for every look and pair. The store keeps how seeds were added.",
        )
        return [listing, _left(self.decisions, self.log, self.seeds)]


def begin(
    store: Store,
    plan: Plan,
    most: int | None = None,
    difference: float | None = None,
    beside: Sequence[Plan] = (),
) -> tuple[str, SeedLog]:
    """The rule by which seeds are added to a study: the store's own, or a new one.

    Args:
        store: Where the rule is, or is written.
        plan: The study's plan.
        most: Seeds in all; MOST without.
        difference: In accuracy, 0 to 1; DIFFERENCE without.
        beside: Plans of the study's other seeds, where each draws its own splits.

    Returns:
        The rule's name in the store, and the rule.

    Raises:
        OfframpError: For another rule than the store's, for fewer seeds than a first look needs, and
            where there are no two strategies or test images to compare.
    """
    if len(compared(plan)) < 2:
        raise OfframpError(
            "`until_decided` compares strategies with the same early exits; the study has "
            f"{len(compared(plan))} of them, so name two"
        )
    if len(plan.data.test) < 2:
        raise OfframpError(
            "`until_decided` compares strategies on the test images, and one image decides nothing; ask "
            "for more (data.test_images)"
        )
    seeds = tuple(seed for each in (plan, *beside) for seed in each.study.seeds)
    own = tuple(trial.id for each in (plan, *beside) for trial in each.trials)
    name = digest(sorted(own))[:16]
    if store.archive.has_seed_log(name):
        log = store.archive.read_seed_log(name)
        rule = (most or len(log.seeds), difference or log.difference)
        if rule != (len(log.seeds), log.difference):
            raise OfframpError(
                "seeds are added to this study by a rule that cannot change after a look: `max_seeds` "
                f"{len(log.seeds)}, `difference` {100 * log.difference:g} points; give these, or neither"
            )
        return name, log
    first, most = max(FEWEST, len(seeds)), most or MOST
    if most < first:
        raise OfframpError(f"`max_seeds` is {most}; the first look takes {first}, so give that or more")
    more = range(max(seeds) + 1, max(seeds) + 1 + most - len(seeds))
    log = SeedLog(
        study=plan.study.name,
        trials=own,
        seeds=(*seeds, *more),
        first=first,
        difference=difference or DIFFERENCE,
        alpha=ALPHA,
        looks={},
    )
    store.write_seed_log(name, log)
    return name, log


def looks(log: SeedLog) -> InterimAnalyses:
    """When to look."""
    return InterimAnalyses(tuple(map(str, log.seeds)), log.first)


def compared(plan: Plan) -> tuple[str, ...]:
    """Strategies with all of the network's exits: others have no mean over the same ones."""
    labels = dict.fromkeys(t.label for t in plan.trials if len(t.resolved.final) == plan.net.exits)
    return tuple(labels)


def parts(plan: Plan, seeds: Sequence[int], strategies: Collection[str]) -> Iterator[Plan]:
    """The plan of other seeds, for some of its strategies; where each seed draws its own splits, one for
    each seed, whose data are read for it."""
    chosen = tuple(s for s in plan.study.strategies if s.label in strategies)
    study = plan.study.model_copy(update={"seeds": tuple(seeds), "strategies": chosen})
    if study.data.split_seed != "trial":
        yield plan_trials(study, plan.data, plan.net, plan.numerics)
        return
    for each in study.by_split:
        yield make_plan(each, numerics=plan.numerics)


def right(store: Store, plan: Plan) -> dict[tuple[str, int], Floats]:
    """What the trials of a plan have right. Raises Damaged as the store does."""
    shares = {}
    for trial in plan.trials:
        arrays = store.trial_logits(trial.id)
        shares[trial.label, trial.seed] = hits(arrays["test"], arrays["test_labels"]).mean(axis=1)
    return shares


def look(
    log: SeedLog, shares: Right, strategies: Sequence[str], same_images: bool = True
) -> tuple[Decision, ...]:
    """What the trials in `shares` decide about all pairs of `strategies`. same_images: all seeds
    answered the same test images, so these are a part of the luck; else each mean has that of its own.
    """
    when = looks(log)
    pairs: dict[tuple[str, str], tuple[Estimate, ...]] = {}
    for a, b in combinations(strategies, 2):
        seeds = [s for s in log.seeds if (a, s) in shares and (b, s) in shares]
        rows = [shares[a, s] - shares[b, s] for s in seeds]
        if rows and same_images:
            pairs[a, b] = when.at(np.array(rows))
        else:
            pairs[a, b] = tuple(_over_seeds(when, rows)) if rows else ()
    return decide(pairs, when, float(log.difference), float(log.alpha))


def _over_seeds(when: InterimAnalyses, rows: Sequence[Floats]) -> Iterator[Estimate]:
    """The estimate at every look, over seeds that answered images of their own. Means that are equal do
    not say how much they vary, unless no image differs: then as many as were answered do."""
    for count in when.counts:
        if count <= len(rows) and not any(row.any() for row in rows[:count]):
            yield Estimate(0.0, count, 0.0, images=sum(map(len, rows[:count])))
    yield from when.at(np.array([row.mean() for row in rows]))


def questioned(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """Strategies of pairs that more seeds may decide."""
    return tuple(dict.fromkeys(s for d in decisions if d.verdict == "open" for s in (d.a, d.b)))


def noted(log: SeedLog, count: int, decisions: Sequence[Decision]) -> SeedLog:
    """The log with what a look at so many seeds found."""
    verdicts = tuple(
        {
            "a": d.a,
            "b": d.b,
            "seeds": d.estimate.blocks if d.estimate else 0,
            "difference": d.estimate.mean if d.estimate else None,
            "p_different": d.different,
            "p_alike": d.alike,
            "verdict": d.verdict,
        }
        for d in decisions
    )
    return log.model_copy(update={"looks": {**log.looks, str(count): verdicts}})


def look_line(count: int, decisions: Sequence[Decision]) -> str:
    """A line on one look. count: seeds then."""
    verdicts = [d.verdict for d in decisions]
    numbers = ", ".join(f"{verdicts.count(v)} {v}" for v in VERDICTS if v in verdicts)
    return f"Look at {count} seeds, {counted(len(decisions), 'pair')}: {numbers}."


def _left(decisions: Sequence[Decision], log: SeedLog, count: int) -> str:
    pairs = {
        v: [f"{d.a} and {d.b}" for d in decisions if d.verdict == v] for v in ("open", "too few images")
    }
    few = (
        f" With these test images no number of seeds is likely to decide "
        f"{_named(pairs['too few images'])}; take more images, or a larger difference."
        if pairs["too few images"]
        else ""
    )
    if not pairs["open"]:
        return f"{'All else' if few else 'All'} is decided after {counted(count, 'seed')}.{few}"
    if count < len(log.seeds):
        return f"Open: {_named(pairs['open'])}.{few}"
    spent = f"All {counted(len(log.seeds), 'seed')} are used. Open: {_named(pairs['open'])}."
    return spent + few


def _named(pairs: Sequence[str]) -> str:
    """Three of them by name."""
    more = f", and {counted(len(pairs) - 3, 'more pair')}" if len(pairs) > 3 else ""
    return ", ".join(pairs[:3]) + more
