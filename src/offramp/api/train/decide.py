"""Seeds are added to a study until its strategies are told apart or alike, by a rule fixed beforehand.

    log = begin(store, plan, most=20, difference=0.005)    # kept before anything is looked at
    for count in looks(log).counts: train `parts(...)`, then `look(...)`; who is `questioned` goes on

What is looked at is test accuracy, the mean over exits. No weight, threshold or setting is chosen by
it: a look decides only whether more seeds are trained, and `sequential` pays for that.
"""

from __future__ import annotations

from collections import Counter
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
            seeds, mean = (str(d.estimate.blocks), d.estimate.mean) if d.estimate else ("0", None)
            p = {"different": d.different, "alike": d.alike}.get(d.verdict)
            apart = "–" if mean is None else f"{100 * mean:+.2f}"
            rows.append((d.a, d.b, seeds, apart, d.verdict, "" if p is None else rounded(p)))
        listing = TextTable(
            ["a", "b"],
            ["seeds", "a − b", "finding", "p"],
            rows,
            f"Pairs after {counted(self.seeds, 'seed')}",
            "a − b: points of test accuracy, mean over exits. alike: they differ by less than "
            f"{100 * self.log.difference:g} points.\np is adjusted for every look and pair. The store "
            "keeps how seeds were added.",
        )
        return [listing, self._left()]

    def _left(self) -> str:
        verdicts = Counter(d.verdict for d in self.decisions)
        few, pairs = verdicts["too few images"], verdicts["open"]
        hint = " Take more test images, or a larger difference: more seeds are no help." if few else ""
        if pairs:
            spent = f"All {self.seeds} seeds are used. " if self.seeds == len(self.log.seeds) else ""
            return f"{spent}Open: {counted(pairs, 'pair')}.{hint}"
        return f"All{' else' if few else ''} is decided after {counted(self.seeds, 'seed')}.{hint}"


def begin(
    store: Store,
    plan: Plan,
    most: int | None = None,
    difference: float | None = None,
    beside: Sequence[Plan] = (),
) -> tuple[str, SeedLog]:
    """The rule by which seeds are added to a study, with its name: the store's own, or a new one.
    Raises OfframpError for another rule than the store's, and where nothing could be compared."""
    labels = compared(plan)
    if len(labels) < 2:
        raise OfframpError(
            "`until_decided` compares strategies with the same early exits; the study has "
            f"{len(labels)} of them, so name two"
        )
    if len(plan.data.test) < 2:
        raise OfframpError(
            "`until_decided` compares strategies on the test images; ask for more (data.test_images)"
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
    """The plan of other seeds, for some of its strategies; one for each that draws its own splits."""
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
    """What the trials in `shares` decide about all pairs. same_images: all seeds answered the same test
    images, so these are a part of the luck; else each mean has that of its own."""
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
    """At every look, over seeds with images of their own. Equal means do not say how much they vary,
    unless no image differs: then as many as were answered do."""
    for count in when.counts:
        if count <= len(rows) and not any(row.any() for row in rows[:count]):
            yield Estimate(0.0, count, 0.0, images=sum(map(len, rows[:count])))
    yield from when.at(np.array([row.mean() for row in rows]))


def questioned(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """Strategies of pairs that more seeds may decide."""
    return tuple(dict.fromkeys(s for d in decisions if d.verdict == "open" for s in (d.a, d.b)))


def noted(log: SeedLog, count: int, decisions: Sequence[Decision]) -> SeedLog:
    """The log with what a look at so many seeds found."""
    verdicts = []
    for d in decisions:
        seeds, mean = (d.estimate.blocks, d.estimate.mean) if d.estimate else (0, None)
        p = {"p_different": d.different, "p_alike": d.alike}
        verdicts.append(
            {"a": d.a, "b": d.b, "seeds": seeds, "difference": mean, **p, "verdict": d.verdict}
        )
    return log.model_copy(update={"looks": {**log.looks, str(count): tuple(verdicts)}})


def look_line(count: int, decisions: Sequence[Decision]) -> str:
    """A line on one look. count: seeds then."""
    numbers = Counter(d.verdict for d in decisions)
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(numbers.items()))
    return f"Look at {count} seeds, {counted(len(decisions), 'pair')}: {verdicts}."
