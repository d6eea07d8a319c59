"""Advice from evidence: what recommend needs, read from trials and their logits; in sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from offramp.analysis.measures import MEASURES
from offramp.analysis.recommend import GOALS, Advice, Preference, Ranked, recommend, sure
from offramp.analysis.recommend.equal import ComputeLevel, crossings, stretches
from offramp.analysis.recommend.goals import ExclusionKind, compute_for
from offramp.analysis.stats.pairwise import ALPHA, POWER, Pair, least_shown
from offramp.policy.quality import p_of_chance
from offramp.report.controls import COIN
from offramp.report.evidence import Evidence
from offramp.report.runs import Runs
from offramp.store.record import TrialRecord
from offramp.units import LISTED, counted, first_few, macs, percent

WORDS = {
    "accuracy": "accuracy",
    "latency": "few MACs at inference",
    "training-time": "short training",
    "memory": "little memory",
    "energy": "little energy",
    "pareto": "accuracy, MACs and training together",
}


def choice(evidence: Evidence, wish: Preference, model: str) -> tuple[TrialRecord, str] | None:
    """A trial of the strategy with exits that runs of `model` put first, and how sure that is: a clause.
    None where they say nothing."""
    trials = tuple(t for t in evidence.trials if t.model == model and t.manifest.program != "baseline")
    by_label = {(t.data, t.strategy): t for t in trials}
    rows = evidence.table[evidence.table["trial"].isin([t.id for t in trials])]
    for advice in recommend(replace(evidence, trials=trials, table=rows, plain={}).facts, wish):
        if advice.ranking:
            first = advice.ranking[0].name.split(" = ")[0]
            open_ = "" if advice.withheld is not None else _detectable(advice)
            return by_label[advice.data, first], f"{model} on {advice.data}: {sure(advice)}{open_}"
    return None


def headline(evidence: Evidence) -> tuple[str, ...]:
    """Which way answers with least compute, what accuracy that is, what share of the plain network's
    compute and how far below it: a sentence for each data set. None where the runs do not recommend, or
    where there are several networks."""
    by_accuracy = recommend(evidence.facts, Preference("accuracy"))
    withheld = {advice.data for advice in by_accuracy if advice.withheld is not None}
    sentences = []
    for advice in recommend(evidence.facts, Preference("latency")):
        own = [runs for runs in evidence.runs if runs.data == advice.data]
        target, ranking = advice.target, advice.ranking
        unsure = advice.data in withheld or advice.withheld is not None
        if unsure or target is None or not ranking or len(own) != 1 or chance(own[0]):
            continue
        full = own[0].trials[0].manifest.backbone_macs
        where = f" on {advice.data}" if len(evidence.runs) > 1 else ""
        first, controls = ranking[0], own[0].controls
        plain = None if controls.whole is None else controls.whole.accuracy().mean
        alike = advice.even and len(ranking) > 1
        reached = target if alike else _reached(first, target)
        has = f"{percent(reached)} on test{where}{of_epochs(own[0].trials, evidence)}"
        apart = "" if plain is None else f", {_from(plain, reached)} it"
        least, most = (percent(each.mean / full) for each in (ranking[0], ranking[-1]))
        perhaps = _out(advice, "perhaps below")
        whether = f"; whether {_named(perhaps)} can reach it is open" if perhaps else ""
        if alike:
            sentences.append(
                f"No difference is shown between {_between(advice)} in the compute for {has}: "
                f"{_span(least, most)} of the plain network's{apart}{whether}."
            )
            continue
        ties = [r.name for r in advice.first[1:]]
        open_ = [r.name for r in ranking[1:] if r.behind is None]
        be = "is" if len(ties) == 1 else "are"
        sure_of = f"; {_named(ties)} {be} not shown to need more" if ties else ""
        sure_of += f"; not tested against {_named(open_)}" if open_ else ""
        size = "smaller " if first.mean < full else ""  # a head may cost more than was saved
        kinds = {"network": f"A {size}plain network", "cascade": "A cascade of plain networks"}
        what = [kinds[k] for k in kinds if first.name in controls.named(k).values()]
        name = f"{what[0]}, {_whole(first.name)}," if what else _whole(first.name)
        sentences.append(
            f"{name} has {has} at {least} of the plain network's compute{apart}{sure_of}{whether}."
        )
    return tuple(sentences)


def _span(low: str, high: str) -> str:
    """From one number to another, as they are read."""
    return low if low == high else f"{low} to {high}"


def of_epochs(trials: Sequence[TrialRecord], evidence: Evidence) -> str:
    """How long these were trained, where the evidence has others that were trained for longer or
    shorter."""
    numbers = sorted({trial.manifest.recipe.epochs for trial in trials if evidence.budgets})
    return f" in runs of {_named([counted(n, 'epoch') for n in numbers])}" if numbers else ""


def _reached(first: Ranked, target: float) -> float:
    """What the first one is right on at its compute: the target, or more where its cheapest answer has
    more."""
    return first.accuracy if first.accuracy and first.accuracy - target > 0.001 else target


def _from(plain: float, target: float) -> str:
    """How far an accuracy is from the plain network's, as it is read."""
    points = 100 * (plain - target)
    return f"{abs(points):.1f} {'points below' if points >= 0 else 'points above'}"


def answer(evidence: Evidence) -> tuple[str, ...]:
    """What these runs say, and how sure: sentences on plain networks, on accuracy at equal compute, then
    one for each goal and data set that they can answer, then one on the goals that they cannot."""
    no_learning = {runs: chance(runs) for runs in evidence.runs}
    useless = [text for text in no_learning.values() if text]
    learned = [runs for runs, text in no_learning.items() if not text]
    if not learned:
        return tuple(useless)
    data = {runs.data for runs in learned}
    advised = {
        goal: [a for a in recommend(evidence.facts, Preference(goal)) if a.ranking and a.data in data]
        for goal in GOALS
    }
    few: dict[str, str] = {}  # by data set: why nothing is recommended, in full
    for advice in (a for advices in advised.values() for a in advices if a.withheld is not None):
        few[advice.data] = max(few.get(advice.data, ""), advice.withheld or "", key=len)
    several = {a.data for advices in advised.values() for a in advices if len(a.ranking) > 1}
    early = {t.data for t in evidence.trials if len(t.exits) > 1}
    alone = "one strategy with exits, nothing to compare it with"
    sentences = [f"{d}: {alone if d in early else 'no early exits'}." for d in sorted(data - several)]
    sentences += [text for runs in learned for text in beside_plain(runs, len(evidence.runs) > 1)]
    for runs in (r for r in learned if r.data not in few):
        text = compared(runs.levels, runs.where if len(evidence.runs) > 1 else "")
        sentences += [text] if text else []
    silent = []
    for goal, advices in advised.items():
        measured = [a for a in advices if _measured(a)]
        sentences += [
            sentence(a, len(data) > 1) for a in measured if a.withheld is None and a.data in several
        ]
        silent += [] if measured else [WORDS[goal]]
    sentences += [f"{d}: {why}" if len(data) > 1 else why for d, why in sorted(few.items())]
    if silent:
        what = "nothing was measured, or only in runs that shared work"
        sentences.append(f"These runs say nothing of {listed(silent)}: {what}.")
    return (*useless, *sentences)


def beside_plain(runs: Runs, several: bool = False) -> list[str]:
    """What each cheaper plain network comes to, and who is above and below it at its compute. several:
    there are several networks or data sets, so each is named."""
    where = f" beside {runs.where}" if several else ""
    texts = []
    for control in runs.controls.cheaper:
        level, value = runs.beside_controls[control.label], control.accuracy().mean
        epochs = f"{control.epochs} epoch{'s' * (control.epochs != 1)}"
        trained = f"{control.label}, {epochs}, {macs(control.training)} MACs of training"
        text = f"A plain network of {macs(control.macs)} MACs ({trained}){where} has "
        text += f"{percent(value)} on test"
        others = [name for name in level.means if name != control.label]
        best = max(others, key=level.means.__getitem__, default=None)
        if best is None:
            texts.append(f"{text}; no strategy can spend so little.")
            continue
        text += f", {best} {percent(level.means[best])} at the same compute"
        texts.append(f"{text}{_sides(level, control.label, others)}. {_as_much(runs, value)}.")
    return texts


def _sides(level: ComputeLevel, label: str, others: Sequence[str]) -> str:
    """Who is above and below a plain network, both ways, as the rest of a sentence."""
    pairs = [{p.a, p.b} for p in level.pairs if isinstance(p, Pair)]
    tested = [name for name in others if {name, label} in pairs]
    if not tested:
        return ": not tested, with too few seeds in common"
    below = [name for name in tested if level.beats(label, name)]
    above = [name for name in tested if level.beats(name, label)]
    alike = [name for name in tested if name not in (*below, *above)]
    groups = (
        ("significantly more accurate than", "all", below),
        ("significantly less accurate than", "all", above),
        ("not shown to differ from", "any", alike),
        ("not tested against", "any", [name for name in others if name not in tested]),
    )
    parts = [f"{words} {_of(names, others, every)}" for words, every, names in groups if names]
    return f". There it is {'; '.join(parts)}"


def _as_much(runs: Runs, accuracy: float) -> str:
    """Which strategy reaches an accuracy for the least, on average over seeds."""
    early = {(runs.model, s): s for s in runs.strategies if len(runs.of(s)[0].exits) > 1}
    by_name = runs.evidence.facts.of(runs.data, early)
    needs = {name: compute_for(list(seeds.values()), accuracy) for (_, name), seeds in by_name.items()}
    reached = sorted((need, name) for name, need in needs.items() if need is not None)
    if not reached:
        return f"In these means no strategy reaches {percent(accuracy)}"
    least = macs(reached[0][0])
    first = [name for need, name in reached if macs(need) == least]
    ways = ["with more"] * (len(first) < len(reached)) + ["not at all"] * (len(reached) < len(needs))
    others = f", the others {' or '.join(ways)}" if ways else ""
    reach = f"{listed([*map(_whole, first)])} reach{'es' * (len(first) == 1)}"
    return f"In these means {reach} {percent(accuracy)} with {least} MACs{others}"


def chance(runs: Runs) -> str:
    """That no network here has learned anything, if so: the best final exit is not clearly better than
    always giving the most common class (binomial test at 5 %, over all trials)."""
    trials = runs.trials
    outcomes = [runs.evidence.outcomes[t.id] for t in trials]
    hits = [int(o.answers.right[:, -1].sum()) for o in outcomes]
    best = max(range(len(trials)), key=lambda i: hits[i])
    images, common = len(outcomes[best].answers.right), outcomes[best].common
    if p_of_chance(hits[best], images, common) * len(trials) < ALPHA:
        return ""
    what = "set of labels" if runs.several else "class"
    return (
        f"No network has learned, {runs.where}: the best final exit has {100 * hits[best] / images:.1f} "
        f"% on test, always giving the most common {what} {percent(common)}. Nothing is concluded."
    )


def _measured(advice: Advice) -> bool:
    """Whether a goal's numbers mean anything. Time that sharing spared is counted from MACs; memory of
    runs that shared work is not that of any one strategy."""
    return not (advice.estimated and advice.goal in ("memory", "energy"))


def sentence(advice: Advice, several: bool = False) -> str:
    """What one goal comes to, a thing a sentence. several: there is more than one data set, so it is
    named."""
    best, *others = advice.ranking
    where = f" on {advice.data}" if several else ""
    start = f"For {WORDS[advice.goal]}{where}: "
    if advice.goal == "pareto":
        beaten, names = _out(advice, "beaten"), _named([r.name for r in advice.ranking])
        seeds = f"{best.seeds} seeds"
        if len(others) >= LISTED:
            seeds += ", the most accurate at full compute first; `offramp recommend` lists all"
        if others and not beaten:
            every = f"none of {len(others) + 1} strategies is shown to beat another"
            return f"{start}{every} ({names}; {seeds})."
        lost = f"; another beats {_named(beaten)}" if beaten else ""
        return f"{start}nothing is shown to beat {names} ({seeds}){lost}."
    target = "" if advice.target is None else f", for {percent(advice.target)} on test"
    if others and advice.even:
        low, high = sorted((best.mean, others[-1].mean))
        spread = f"{title(advice)} {_span(advice.measure.text(low), advice.measure.text(high))}"
        every = f"no significant difference between {_between(advice)}"
        return f"{start}{every} ({spread}{target}){_detectable(advice)}{_left_out(advice)}."
    if advice.target is not None and (has := _reached(best, advice.target)) > advice.target:
        target += f", where it has {percent(has)}"
    value = f"{title(advice)} {advice.measure.text(best.mean)}{target}"
    return (
        f"{start}{best.name} ({value}). {_begun(sure(advice))}{_detectable(advice)}{_left_out(advice)}."
    )


def _left_out(advice: Advice) -> str:
    """Who has no place in a ranking by a target: those that do not reach it, or may not, and those that
    cannot answer for as little as the first."""
    if advice.target is None:
        return ""
    misses, unsure = _out(advice, "below the target"), _out(advice, "perhaps below")
    target = percent(advice.target)
    do = "does" if len(misses) == 1 else "do"
    parts = [f"{_named(misses)} {do} not reach {target}"] if misses else []
    parts += [f"Whether {_named(unsure)} can reach {target} is open"] if unsure else []
    dearer = _out(advice, "dearer")
    need = "needs" if len(dearer) == 1 else "need"
    parts += [f"{_named(dearer)} {need} more MACs"] if dearer else []
    if advice.hanging:
        does = "is" if len(advice.hanging) == 1 else "are"
        parts.append(f"Whether {_named(advice.hanging)} {does} behind hangs on the target")
    return "".join(f". {part}" for part in parts)


def _between(advice: Advice) -> str:
    """Those of a ranking; of more than a reader would take in, how many, and who is not meant."""
    names, alone = [r.name for r in advice.ranking], _out(advice, "no early exits")
    lacks = "lacks" if len(alone) == 1 else "lack"
    whose = f" with early exits, which {_named(alone)} {lacks}" if alone else ""
    return _named(names) if len(names) <= LISTED else f"any of {len(names)} strategies{whose}"


def _out(advice: Advice, kind: ExclusionKind) -> list[str]:
    """Who is ruled out for a reason of this kind."""
    return [out.name for out in advice.ruled_out if out.kind == kind]


def _begun(words: str) -> str:
    """As a sentence begins."""
    return words[:1].upper() + words[1:]


def title(advice: Advice) -> str:
    """What is ranked by, in the middle of a sentence; says what it is a mean of."""
    if advice.measure is MEASURES["accuracy-test"]:
        return "test accuracy, mean over exits"
    text = advice.measure.title if advice.measure.name != "macs" else "per image"
    return text if text[1].isupper() else text[0].lower() + text[1:]


def _detectable(advice: Advice) -> str:
    """The smallest difference that would have been found, where one was not."""
    undecided = any(r.behind is False for r in advice.ranking[1:])
    if advice.detectable is None or not undecided:
        return ""
    if advice.target is None:
        least = advice.measure.gap(advice.detectable)
    else:
        least = f"{MEASURES['accuracy-test'].gap(advice.detectable)} at equal compute"
    return _detected(f"A difference of {least}")


def compared(levels: Sequence[ComputeLevel], place: str = "") -> str:
    """Who leads at equal compute, from where to where; empty where nothing was compared. place: of the
    runs, where there are several."""
    if not levels or all(level.why is not None or len(level.means) < 2 for level in levels):
        return ""
    where = f" ({place})" if place else ""
    low, high = macs(levels[0].macs), macs(levels[-1].macs)
    span = f"at {low}" if low == high else f"from {low} to {high}"
    most = _detected_at(levels)
    if all(level.even for level in levels):
        return (
            f"At equal compute{where}, no two strategies differ significantly in test accuracy, "
            f"{span} MACs an image{most}."
        )
    leading, behind = [], []
    for part, leaders in stretches(levels):
        first, last = macs(part[0].macs), macs(part[-1].macs)
        at = f"at {first}" if len(part) == 1 else f"from {first} to {last}"
        others = [name for name in part[-1].means if name not in leaders]
        if len(leaders) == 1:
            leading.append(f"{leaders[0]} {at}")
        elif others:
            tops = {next(iter(level.means)) for level in part}
            best = tops.pop() if len(tops) == 1 else "the best"
            be = "are" if len(others) > 1 or COIN in others else "is"
            everyone = [name for name in part[-1].means if name != best]
            behind.append(f"{_of(others, everyone)} {be} behind {best} {at}")
    parts = [f"the most accurate is {'; '.join(leading)}"] if leading else []
    parts += ["; ".join(behind)] if behind else []
    if crossed := [f"{a} and {b}" for a, b in crossings(levels)]:
        many = f"{len(crossed)} pairs of curves cross"
        parts.append(many if len(crossed) > LISTED else f"curves that cross: {', '.join(crossed)}")
    if untested := list(dict.fromkeys(name for level in levels for name in level.untested)):
        parts.append(f"not tested against the best: {_named(untested)}")
    if not parts:
        return (
            f"At equal compute{where}, no strategy is significantly behind the best in test accuracy, "
            f"{span} MACs an image{most}."
        )
    first, *rest = parts
    words = ". ".join([first, *map(_begun, rest)])
    return f"At equal compute{where}, by MACs of an image (test accuracy, adjusted p < 0.05): {words}."


def _detected_at(levels: Sequence[ComputeLevel]) -> str:
    """What would probably have been found at equal compute; from where it is least to where it is most,
    where that tells a reader another thing."""
    detectable = [least for level in levels if (least := least_shown(level.pairs)) is not None]
    if not detectable:
        return ""
    low, high = (MEASURES["accuracy-test"].gap(end) for end in (min(detectable), max(detectable)))
    if low == high:
        return _detected(f"A difference of {high}")
    return _detected(f"Differences of {low.removesuffix(' points')} to {high}, by the MACs,")


def _detected(differences: str) -> str:
    """What would probably have been found."""
    return f". {differences} would have been found in {100 * POWER:.0f} % of such runs"


def _of(names: Sequence[str], everyone: Collection[str], every: str = "all") -> str:
    """The names; where a reader would not take them in, who else there is, or how many of how many.
    every: `any` behind a no."""
    if len(names) <= LISTED:
        return _named(names)
    others = [name for name in everyone if name not in names]
    if len(others) > LISTED:
        return f"{len(names)} of {len(everyone)}"
    return f"{every} but {_named(others)}" if others else f"{every} of the {len(names)} others"


def _whole(name: str) -> str:
    """A name as it stands among others: in quotes where it has a comma in it."""
    return f"'{name}'" if "," in name else name


def _named(names: Sequence[str]) -> str:
    """`A, 'B, C' and D`: a few names, of which some may have a comma in them."""
    return listed([*map(_whole, first_few(names))])


def listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
