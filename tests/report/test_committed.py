"""The results in docs/results: every figure and table that their data allow comes out of them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from textwrap import dedent
from typing import Any, Literal

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import ttest_rel
from syrupy.assertion import SnapshotAssertion

from longer import long
from offramp.analysis.measures import MEASURES
from offramp.analysis.recommend import Advice, Preference, recommend, sure
from offramp.analysis.recommend.equal import ComputeLevel
from offramp.analysis.stats import pairwise
from offramp.analysis.stats.pairwise import ALPHA, Pair, paired_differences
from offramp.policy import quality
from offramp.policy.calibration import Target
from offramp.policy.useful import images_needed
from offramp.report import claims, evidence
from offramp.report.advice import answer, beside_plain, listed
from offramp.report.compare import ALL, across
from offramp.report.controls import COIN, PlainNetwork
from offramp.report.evidence import Evidence
from offramp.report.figures import draw
from offramp.report.figures.compute import cascade_points, threshold_points
from offramp.report.logits import summarized
from offramp.report.model import Table
from offramp.report.registry import made_of
from offramp.report.render.tables import markdown
from offramp.report.runs import Runs
from offramp.report.tables import TABLES, make
from offramp.store.table import Spread
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import make_plan
from offramp.study.spec import file as spec
from results_page import DOCS, ROOT, clauses, groups_of, named_clauses, page, section
from support import CPU, PAPER

STUDIES = ROOT / "studies"
SPLITS = ("validation", "test")
MISSING = {
    "cifar10": (),
    "imagenette": (
        "times of mobilenetv2 on Imagenette are estimates and are not compared: its phases ran on "
        "unlike machines (Intel(R) Xeon(R) Processor @ 2.50GHz, 2 cores; Intel(R) Xeon(R) Processor, "
        "2 cores)",
    ),
}
LACKING = {
    "cifar10": ("table overall",),  # of several networks or data sets
    "imagenette": ("table overall", "figure budget"),  # of other numbers of epochs
}
"""What the runs lack. A new figure or table that needs it is named here."""
VERDICTS = "supported|contradicted|not significant|identical by construction|cannot be tested"
LOWEST_LOSS = ["low-early-loss", "branch-wise-high-early-loss"]
AS_IN_THE_PAPER = [
    "branch-wise-highest-final-loss",
    "branch-wise-lowest-final-accuracy",
    "accuracy-grows-with-depth",
]
# What the page says in words: which of the paper's findings are supported, and which contradicted.
NAMED = {
    "cifar10": (
        [*AS_IN_THE_PAPER, "joint-close-to-distillation", "hybrids-close-to-joint"],
        LOWEST_LOSS,
    ),
    "imagenette": (
        [*AS_IN_THE_PAPER, "separate-beats-two-stage"],
        [
            *LOWEST_LOSS,
            "two-stage-exit-3-loss",
            "joint-second-in-accuracy",
            "separate-weak-early-exits",
            "accurate-early-exits",
            "branch-wise-weak-early-exits",
        ],
    ),
    "cifar100": (
        ["accuracy-grows-with-depth"],
        [
            *LOWEST_LOSS,
            "distillation-most-accurate",
            "distillation-ahead-of-joint",
            "joint-close-to-distillation",
            "accurate-early-exits",
            "separate-weak-early-exits",
            "branch-wise-weak-early-exits",
        ],
    ),
    "imagenette-scratch": ([], LOWEST_LOSS),
    "chest-xray": ([], ["deeper-exits-take-longer", *LOWEST_LOSS]),
}


BESIDE_SCRATCH = "imagenette-scratch-controls"
# Where the smaller plain networks beside a study are; None where they are the study's own.
BESIDE = {
    "cifar10": "cifar10-controls",
    "cifar10-long": "cifar10-controls",
    "cifar10-long-medium": "cifar10-controls",
    "cifar10-anew": None,
    "cifar100": "cifar100-controls",
    "cifar100-long": "cifar100-controls/*-hidden",
    "imagenette": "imagenette-controls",
    "imagenette-scratch": BESIDE_SCRATCH,
    "chest-xray": "chest-xray-controls",
}


# Smaller plain networks that trained for as many MACs as the way that is ahead of a shorter one.
TRAINED_AS_MUCH = {
    "imagenette-scratch": f"{BESIDE_SCRATCH}/tiny-74",
    "chest-xray": "chest-xray-controls-long",
}


@cache
def opened(*names: str) -> Evidence:
    """The results of these studies, as one. Read once: what is computed of them stays."""
    if len(names) > 1:
        parts = [opened(name) for name in names]
        whole = evidence.join(parts)
        # A trial's logits come to the same in whatever company: gigabytes are not read again.
        reference = {id: summary for part in parts for id, summary in part.outcomes.items()}
        vars(whole)["outcomes"] = {trial.id: reference[trial.id] for trial in whole.trials}
        return whole
    return evidence.open(DOCS / names[0])


@cache
def advice(goal: Literal["accuracy", "latency"], *names: str) -> Advice:
    """What these studies recommend, which several tests ask for."""
    (actual,) = recommend(opened(*names).facts, Preference(goal))
    return actual


@cache
def few() -> Evidence:
    """Of the strategies on Imagenette the plain network, some of the paper's ways, and a hybrid."""
    some = ("baseline", "joint", "two-stage", "joint-two-stage")
    return evidence.of_strategies(opened("imagenette"), some)


@cache
def main_table(name: str) -> Table:
    """The main table of a study, for which all its logits are read."""
    (main,) = make(opened(name), ["main"])
    return main


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    """Gigabytes in all, which no other test needs."""
    yield
    for rest in (opened, advice, few, main_table, with_controls):
        rest.cache_clear()


@pytest.fixture
def cifar() -> Evidence:
    return opened("cifar10")


@pytest.mark.parametrize("study", ["imagenette", *long("cifar10")])
def test_every_figure_and_every_table(study: str) -> None:
    """By family: names of others may begin as its own do."""
    results = opened(study) if study == "cifar10" else few()
    tables = dict(made_of(TABLES, results, Table))
    empty = {name for name, items in tables.items() if not items}
    missing = draw(results).missing
    lacking = {f"table {name}" for name in empty} | {" ".join(t.split()[1:3]) for t in missing}
    assert lacking == {*LACKING[study]}
    for name, items in tables.items():
        assert {table.paper for table in items} <= {TABLES[name].paper}, name


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("cifar10", 33),
        ("cifar100", 33),
        ("imagenette", 33),
        *long(("cifar10-ways", 49), ("imagenette-scratch", 33), ("chest-xray", 33)),
    ],
)
def test_numbers_on_the_page_are_those_of_the_files(name: str, numbers: int) -> None:
    """Each accuracy on pages of docs/results, from the tidy table; deviations and marks, from the main
    one, which rounds."""
    results = opened(name)
    study = spec.read(STUDIES / f"{name}.yaml")
    assert results.missing == MISSING.get(name, ())
    assert {(t.strategy, t.seed) for t in results.trials} == {
        (strategy.label, seed) for strategy in study.strategies for seed in study.seeds
    }
    sentence = rows(section(name), results.strategies)
    main = main_table(name)
    assert sentence == rows(markdown(main), results.strategies)
    table = results.table
    final = table[(table["phase"] == "final") & (table["split"] == "test")]
    means = final[final["metric"] == "accuracy"].groupby(["strategy", "exit"])["value"]
    visible = 0
    for (strategy, exit), value in means.mean().items():
        assert f"{100 * value:.1f} ±" in sentence[strategy][exit - 1]
        visible += 1
    assert visible == numbers


@pytest.mark.parametrize(
    "name", ["cifar10", "cifar100", "imagenette", *long("imagenette-scratch", "chest-xray")]
)
def test_verdicts_on_the_page_are_those_of_the_files(name: str) -> None:
    """How many of the paper's findings hold as statements on these runs, whatever their training."""
    (sentence,) = groups_of(r"\(`--anywhere`\), (.*?)\.\s", section(name).replace("none", "0"))
    judged = opened(name).judge(claims.published(True))
    counts = Counter(judgment.verdict for judgment in judged)
    assert sum(counts.values()) == 111
    for verdict, names in zip(("supported", "contradicted"), NAMED[name], strict=True):
        assert {j.claim.id for j in judged if j.verdict == verdict} == set(names)
    counts["cannot be tested"] = counts.pop("not testable here")
    actual = re.findall(rf"(\d+) (?:is |are )?({VERDICTS})", sentence.replace("of 111 ", ""))
    assert {verdict: int(number) for number, verdict in actual if number != "0"} == +counts


def test_accuracy_on_cifar10_rises_with_depth(cifar: Evidence) -> None:
    main = main_table("cifar10")
    for cells in rows(markdown(main), cifar.strategies).values():
        means = [float(cell.strip("* ≈").split()[0]) for cell in cells if "±" in cell]
        assert means == sorted(means)


def test_readme_shows_the_table_of_the_page() -> None:
    """All of it: whatever stands between the two blank lines."""
    words = section("cifar10")
    table = words[words.index("| strategy |") :].partition("\n\n")[0]
    assert len(table.splitlines()) == 2 + len(PAPER) and f"\n\n{table}\n\n" in readme()


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


@cache
def with_controls(study: str = "cifar10") -> Evidence:
    """A study and the smaller plain networks beside it, where they are not of the study itself."""
    packs = sorted(DOCS.glob(f"{BESIDE[study]}/**/trials.json"))
    whole = evidence.join([opened(study), *(evidence.open(path.parent) for path in packs)])
    others = [*whole.plain_trials, *(t for t in whole.trials if t.id not in opened(study).outcomes)]
    plain = {t.id: summarized(*whole.logits(t.id), t.macs, t.manifest.data.test) for t in others}
    vars(whole)["outcomes"] = {**opened(study).outcomes, **plain}
    return whole


def test_what_readme_says_of_its_picture(snapshot: SnapshotAssertion) -> None:
    """All of it, so that no number stands there without a test; of `mixed` there is another."""
    best, fewest = advice("accuracy", "cifar10"), advice("latency", "cifar10")
    (second,) = alike(best)
    final = main_table("cifar10").frame["exit_4"]
    assert fewest.ranking[0].name == best.ranking[0].name
    assert fewest.target == pytest.approx(final["baseline"] - 0.01, abs=2e-4)
    facts = {"first": best.ranking[0].name, "alike": second, "share": least("cifar10")["share"]}
    (runs,) = with_controls().runs
    for control in runs.controls.cheaper:
        name, level = control.label, runs.beside_controls[control.label]
        facts |= {name: f"{control.macs / 1e6:.1f}", f"{name}, right": pct(level.means[name])}
        others = level.means.keys() - {name}
        if others:
            top = max(others, key=level.means.__getitem__)
            facts[f"{top} beside {name}"] = pct(level.means[top])
            ahead = [pair for pair in level.pairs if pair.a == name and pair.difference > 0]
            assert len(ahead) == len(others) and all(pair.p < 0.05 for pair in ahead)
    highest = cascade_points(runs)["value"].max() > threshold_points(runs)["value"].max()
    facts["epochs"] = f"{control.epochs}"
    (joint,) = (t for t in opened("cifar10").trials if (t.strategy, t.seed) == ("joint", 42))
    facts["a phase"] = f"{joint.manifest.recipe.epochs}"
    written = sum(phase.cost.macs_written for phase in joint.phases)
    assert 0.9 < control.training / written < 1.1  # "about what joint training costs"
    longer = with_controls("cifar10-long-medium").runs[0].beside_controls["width small"]
    facts["after as many"] = pct(longer.means["joint-branch"])
    (about,) = groups_of(r"\n\*(Nine ways (?s:.*?))\n\n\|", readme())
    assert named_clauses(about, facts, every=True) == snapshot and highest


def test_what_readme_says_of_its_study() -> None:
    """How many ways, seeds and hours; and that the best final exits are one network by its weights."""
    whole = opened("cifar10")
    seeds = sorted({t.seed for t in whole.trials})
    assert (len(whole.strategies), len(seeds)) == (9, 5)
    final = main_table("cifar10").frame["exit_4"]
    best = [name for name, mean in final.items() if mean == final["baseline"]]
    weights = {(t.seed, t.manifest.sources[t.exits[-1]]) for t in whole.trials if t.strategy in best}
    assert len(best) == 4 and len(weights) == len(seeds)
    assert groups_of(r"\(the (four) that are best", readme())
    costs = {
        (t.seed, p.node): sum(p.cost.seconds.values()) / (p.cost.workers or 1)
        for t in whole.trials
        for p in t.phases
    }
    hours = [sum(s for (seed, _), s in costs.items() if seed == own) / 3600 for own in seeds]
    assert min(hours) > 0.5 and max(hours) < 1.25, hours
    assert "(studies/cifar10.yaml) took about an hour" in readme()


def test_what_readme_counts() -> None:
    assert len(STRATEGIES) == 20 and "trains early exits in twenty ways" in readme()
    eleven = set(STRATEGIES) - set(PAPER)
    (listed,) = groups_of(r"Eleven more come from elsewhere: (.*?)\. ", readme())
    assert set(re.findall(r"`([a-z-]+)`", listed)) == eleven and len(eleven) == 11
    assert images_needed(Target("max-accuracy-loss", 0.01)) == 99
    assert "max_accuracy_loss=0.01)  # needs 99 images to calibrate on" in readme()


@pytest.mark.long
def test_what_readme_says_that_its_study_of_days_takes() -> None:
    """By its MACs, at the speed at which the committed ResNet-18 trained on two cores."""
    (text,) = groups_of(r"\n    # my-study.yaml\n((?:    .*\n)+)", readme())
    plan = make_plan(spec.parse(yaml.safe_load(dedent(text))), CPU, provisional=True)
    assert plan.study.backbone.name == "resnet18" == opened("cifar10-deploy").trials[0].model
    costs = {p.node: p.cost for t in opened("cifar10-deploy").trials for p in t.phases}.values()
    seconds = sum(sum(cost.seconds.values()) / cost.workers for cost in costs)
    hours = plan.executed / (sum(cost.macs_executed for cost in costs) / seconds) / 3600
    least, most = groups_of(r"With this ResNet-18 that is (\d+) to (\d+) hours on two cores", readme())
    assert float(least) < hours < float(most)


@pytest.mark.long
def test_what_readme_says_of_ways_beyond_the_paper() -> None:
    every = {r.name: r for r in advice("accuracy", "cifar10", "cifar10-ways").ranking}
    ahead = 100 * (every["mixed"].mean - every["joint-branch"].mean)
    assert every["joint-branch"].behind is False
    assert f"Beyond the nine, `mixed` is {ahead:.1f} points above, not significantly" in readme()


def pct(share: Any) -> str:
    return f"{100 * share:.1f}"


def least(study: str) -> dict[str, str]:
    """Who needs least compute for which accuracy, as a number and as a share of the plain network's."""
    fewest, plain = advice("latency", study), opened(study).trials[0].manifest.backbone_macs
    first = fewest.ranking[0]
    assert fewest.target is not None
    compute = {"MMACs": f"{first.mean / 1e6:.1f}", "share": f"{100 * first.mean / plain:.0f}"}
    return {"target": pct(fewest.target), "least": first.name, **compute}


def less(fewest: Advice) -> dict[str, str]:
    """How much less accurate those are that are behind the first at its compute."""
    first, *others = fewest.ranking
    gaps = {r.name: (first.accuracy or 0) - (r.accuracy or 0) for r in others if r.behind}
    return {f"less of {name}": pct(gap) for name, gap in gaps.items()}


def alike(advised: Advice) -> set[str]:
    """Who is not behind the first."""
    return {r.name for r in advised.ranking[1:] if not r.behind}


def unmarked(name: str, exit: int) -> list[str]:
    """Who is significantly behind the best at an exit, by the main table."""
    cells = rows(markdown(main_table(name)), opened(name).strategies)
    return sorted(name for name, of in cells.items() if not re.search(r"\*\*|≈|^–$", of[exit - 1]))


def lost(name: str) -> dict[str, str]:
    """What those have that are behind at the final exit, and how far below the plain network that is."""
    ends = main_table(name).frame["exit_4"]
    has = {label: pct(ends[label]) for label in unmarked(name, 4)}
    return has | {f"loss of {label}": pct(ends["baseline"] - ends[label]) for label in has}


def test_what_the_page_concludes_from_cifar10(snapshot: SnapshotAssertion) -> None:
    """joint-branch is ahead of all but one on average over exits, and what trains the trunk exit by exit
    loses the final one."""
    best, fewest = advice("accuracy", "cifar10"), advice("latency", "cifar10")
    (second,) = (r for r in best.ranking[1:] if not r.behind)
    assert alike(fewest) == {second.name} and fewest.ranking[0].name == best.ranking[0].name
    facts = {"first": best.ranking[0].name, "mean": pct(best.ranking[0].mean), "alike": second.name}
    facts |= {"p": f"{second.p:.3f}", **least("cifar10"), **less(fewest)}
    ends = main_table("cifar10").frame["exit_4"]
    of_final = lost("cifar10") | {label: pct(ends[label]) for label in ("joint", "baseline")}
    assert clauses("cifar10", "way is best", facts) == snapshot
    assert clauses("cifar10", "What harms", of_final) == snapshot


def in_table(runs: Runs, control: PlainNetwork) -> str:
    """What the page's first table has of a plain network: what it costs and has, and the best way with
    early exits at its compute, with its training and its lead, bold where it is significant."""
    level = runs.beside_controls[control.label]
    others = {name: mean for name, mean in level.means.items() if name != control.label}
    epochs = f"{control.label}, {control.epochs} epoch{'s' * (control.epochs > 1)}"
    if len(control.trials) < len({t.seed for t in runs.trials}):
        epochs += f", {len(control.trials)} seeds"
    costs = f"| {epochs}, {control.macs / runs.trials[0].manifest.backbone_macs:.0%} "
    if not others:
        return f"{costs}| {pct(control.accuracy().mean)} | none is as cheap | – | – |"
    best = max(others, key=others.__getitem__)
    (pair,) = (p for p in pairs_of(level, control.label) if best in (p.a, p.b))
    ahead = f"{100 * pair.difference * (1 if pair.a == best else -1):+.1f}".replace("-", "−")
    marked = f"**{ahead}**" if pair.p < ALPHA else ahead
    times = f"{trained_for(runs.evidence)[best] / control.training:.1f} ×"
    return f"{costs}| {pct(control.accuracy().mean)} | {best} {pct(others[best])} | {times} | {marked} |"


def trained_for(whole: Evidence, cost: str = "macs_written") -> Any:
    """MACs of training of each strategy, on average over seeds."""
    spent = whole.table[whole.table["metric"] == cost]
    return spent.groupby(["strategy", "seed"])["value"].sum().groupby("strategy").mean()


@pytest.mark.parametrize("study", [*long("cifar10"), *(name for name in BESIDE if name != "cifar10")])
def test_plain_networks_beside_each_study_are_in_the_first_table(study: str) -> None:
    (runs,) = (with_controls(study) if BESIDE[study] else opened(study)).runs
    table = page().partition("\n## ")[0]
    for control in runs.controls.cheaper:
        if not control.label.startswith(
            "timm/"
        ):  # from random weights, where the study is from public ones
            assert f"]({study}) {in_table(runs, control)}" in table


def test_what_the_page_says_of_its_first_table() -> None:
    """On CIFAR-10 plain networks are ahead, and those of CIFAR-100 that end in an exit's head; beside
    most others early exits lead, once significantly."""
    text = page().partition("\n## ")[0]
    line = r"^\| \[.*?\]\((\S+)\) \| (.*?) \| .*\| ([\d.]+) × \| (\**)([−+][\d.]+)\** \|$"
    lines = re.findall(line, text, re.MULTILINE)
    ten = {study for study in BESIDE if study.partition("-")[0] == "cifar10"}
    behind = [each for each in lines if each[0] in ten or "cut at" in each[1]]
    assert all(sure and gap[0] == "−" and float(times) > 1 for *_, times, sure, gap in behind)
    assert {each[0] for each in behind} == ten | {"cifar100", "cifar100-long"}
    others = [each[2:] for each in lines if each not in behind]
    ahead = [each for each in others if each[-1][0] == "+"]
    assert 2 * len(ahead) > len(others) and [gap for *_, sure, gap in ahead if sure] == ["+3.3"]
    assert [gap for times, *_, gap in ahead if times == "1.0"] == ["+0.2", "+0.8"]
    (most,) = groups_of(r"in these means, by ([\d.]+) points at most", text)
    assert max(gap for *_, gap in ahead) == f"+{most}"
    assert not [gap for *_, sure, gap in others if sure and gap[0] == "−"]


def test_what_smaller_plain_networks_come_to() -> None:
    """The page has the tool's own sentence of each control that is here."""
    (runs,) = with_controls().runs
    text, sentences = " ".join(section("cifar10").split()), beside_plain(runs)
    assert len(sentences) == len(runs.controls.cheaper) > 0
    for sentence_ in sentences:
        assert f"> {sentence_}" in text


def test_what_fewer_pixels_come_to(snapshot: SnapshotAssertion) -> None:
    """On Imagenette, from ImageNet weights: plain networks, a coin between them, and cascades."""
    (runs,) = with_controls("imagenette").runs
    words = " ".join(section("imagenette").split())
    sentences = [each for each in beside_plain(runs) if "(size " in each]
    assert len(sentences) == 2 and all(f"> {each}" in words for each in sentences)
    (few,), (narrow,) = (
        [c for c in runs.controls.cheaper if c.label == label]
        for label in ("size 64", "timm/mobilenetv2_050")
    )
    early = [s for s in runs.strategies if s != "baseline"]
    costs = [runs.of(s)[0].macs[0] for s in early]
    assert min(costs) / few.macs > 1 and max(costs) / few.macs < 1.2
    firsts = [runs.spread("accuracy-test", s, 1).mean for s in early]
    (level,) = (each for each in runs.levels if f"{each.macs / 1e6:.1f}" == "65.8")
    above = [s for s in early if level.means[s] > level.means[COIN]]
    (coin,) = (p for p in pairs_of(level, COIN) if "joint-branch" in (p.a, p.b))
    facts = {"worst": pct(min(firsts)), "best": pct(max(firsts)), "coin": pct(level.means[COIN])}
    facts |= {"joint-branch": pct(level.means["joint-branch"])}
    assert (
        coin.p > ALPHA and len(above) == 5 and max(above, key=level.means.__getitem__) == "joint-branch"
    )
    assert clauses("imagenette", "smaller plain network", facts) == snapshot
    both = "size 64 then baseline"
    (half,) = (each for each in runs.levels if f"{each.macs / 1e6:.1f}" == "47.1")
    beside = {p.a if p.b == both else p.b: p for p in pairs_of(half, both)}
    assert all(beside[s].p < ALPHA for s in early)
    gaps = [100 * abs(beside[s].difference) for s in early]
    (same,) = (p for p in pairs_of(level, both) if "joint-branch" in (p.a, p.b))
    assert same.p > ALPHA and max(early, key=level.means.__getitem__) == "joint-branch"
    whole = runs.controls.whole
    assert whole is not None
    facts = {"at half": pct(half.means[both]), "from": f"{min(gaps):.1f}", "to": f"{max(gaps):.1f}"}
    facts |= {"share": f"{100 * half.macs / whole.macs:.0f}", "later": pct(level.means[both])}
    facts |= {"more": pct(same.difference), "T": f"{(few.training + whole.training) / 1e12:.1f}"}
    facts |= {"joint's T": f"{trained_for(opened('imagenette'))['joint'] / 1e12:.1f}"}
    assert clauses("imagenette", "cascade", facts) == snapshot
    assert f"({pct(narrow.accuracy().mean)} %, one seed)" in words and len(narrow.trials) == 1


def test_what_fewer_pixels_come_to_on_chest_x_rays(snapshot: SnapshotAssertion) -> None:
    (runs,) = with_controls("chest-xray").runs
    words = " ".join(section("chest-xray").split())
    sentences = [each for each in beside_plain(runs) if "(size " in each]
    assert len(sentences) == 2 and all(f"> {each}" in words for each in sentences)
    early = [s for s in runs.strategies if s != "baseline"]
    first, *later = [
        (level, {({p.a, p.b} - {COIN}).pop(): p for p in pairs_of(level, COIN)}) for level in runs.levels
    ]
    level, beside = first
    behind = [s for s in early if beside[s].p < ALPHA]
    others = sorted(set(early) - set(behind), key=level.means.__getitem__, reverse=True)
    facts = {"at": f"{level.macs / 1e6:.1f}", "coin": pct(level.means[COIN])}
    facts |= {f"{name}'s": pct(level.means[name]) for name in others}
    assert (len(behind), others) == (6, ["distillation", "pretrained-branch"])
    assert all(pairs[s].p > ALPHA for _, pairs in later for s in early if s in pairs)
    assert f"{later[0][0].macs / 1e6:.0f}" == "47"
    (narrow,) = (c for c in runs.controls.cheaper if c.label == "timm/mobilenetv2_050")
    above = runs.beside_controls[narrow.label]
    assert sum(above.beats(s, narrow.label) for s in early) == 5
    assert min(above.means, key=above.means.__getitem__) == narrow.label
    facts |= {"narrow": pct(narrow.accuracy().mean)}
    assert clauses("chest-xray", "smaller plain network", facts) == snapshot


def test_what_smaller_plain_networks_come_to_on_cifar100(snapshot: SnapshotAssertion) -> None:
    """With their own classifier, one linear layer, and with the head of an early exit in its place."""
    (runs,) = with_controls("cifar100").runs
    words = " ".join(section("cifar100").split())
    assert all(f"> {each}" in words for each in beside_plain(runs))
    early = [s for s in runs.strategies if s != "baseline"]
    linear = [evidence.open(DOCS / BESIDE["cifar100"] / f"{width}-16") for width in ("tiny", "small")]
    (of_linear,) = evidence.join([opened("cifar100"), *linear]).runs
    level, beside, best = of_coin(of_linear, "25.9")
    facts = {"linear coin": pct(level.means[COIN]), "best": best, "has": pct(level.means[best])}
    facts |= {"p": f"{beside[best].p:.3f}"}
    ahead = sorted((s for s in early if level.beats(s, COIN)), key=level.means.__getitem__)
    facts |= {"ahead": listed(ahead[-2::-1])}
    assert ahead[-1] == best
    tiny = next(c for c in runs.controls.cheaper if c.label == "width tiny, cut at group3.block.norm")
    plain = runs.trials[0].manifest.backbone_macs
    firsts = {s: runs.spread("accuracy-test", s, 1).mean for s in early}
    first = max(firsts, key=firsts.__getitem__)
    level, beside, best = of_coin(runs, "21.1")
    assert all(level.beats(COIN, s) for s in early)
    facts |= {"tiny": pct(tiny.accuracy().mean), "for": f"{100 * tiny.macs / plain:.0f}"}
    of_first = runs.of(first)[0].macs[0]
    facts |= {"first exit": pct(firsts[first]), "first for": f"{100 * of_first / plain:.0f}"}
    facts |= {"coin": pct(level.means[COIN]), "best there": best, "has there": pct(level.means[best])}
    facts |= {"p there": f"{beside[best].p:.3f}"}
    hybrids = ("joint-branch", "joint-two-stage", "pretrained-branch")
    later = [each for each in runs.levels if each.macs > level.macs]
    assert f"{later[0].macs / 1e6:.1f}" == "25.9"
    assert not any(each.beats(COIN, s) or each.beats(s, COIN) for each in later for s in hybrids)
    assert clauses("cifar100", "smaller plain network", facts) == snapshot


def of_coin(runs: Runs, mmacs: str) -> tuple[ComputeLevel, dict[str, Pair], str]:
    """So many MMACs: what is tested there, what of a coin between plain networks by who is beside it,
    and the best way with early exits."""
    (level,) = (each for each in runs.levels if f"{each.macs / 1e6:.1f}" == mmacs)
    beside = {({p.a, p.b} - {COIN}).pop(): p for p in pairs_of(level, COIN)}
    early = [s for s in runs.strategies if s != "baseline"]
    return level, beside, max(early, key=level.means.__getitem__)


def pairs_of(level: ComputeLevel, name: str) -> list[Pair]:
    return [p for p in level.pairs if isinstance(p, Pair) and name in (p.a, p.b)]


def test_a_smaller_network_beside_training_from_scratch(snapshot: SnapshotAssertion) -> None:
    """One that trains for as many epochs, and one for as many MACs as the way that is ahead of it."""
    words = " ".join(section("imagenette-scratch").split())
    tiny, gaps = [], []
    for pack in ("tiny-16", "tiny-74"):
        alone = evidence.open(DOCS / BESIDE_SCRATCH / pack)
        (runs,) = evidence.join([opened("imagenette-scratch"), alone]).runs
        (sentence_,), (control,) = beside_plain(runs), runs.controls.cheaper
        assert f"> {sentence_}" in words
        assert f"](imagenette-scratch) {in_table(runs, control)}" in page()
        tiny.append(control)
        gaps.append(pairs_of(runs.beside_controls[control.label], control.label))
    (best,) = (p for p in gaps[0] if p.p < ALPHA)
    (later,) = (p for p in gaps[1] if "pretrained-branch" in (p.a, p.b))
    assert (best.a, later.a) == ("pretrained-branch", "pretrained-branch")
    assert min(p.p for p in gaps[1]) > ALPHA
    means = trained_for(opened("imagenette-scratch"))
    whole, times = means["pretrained-branch"], f"{means['pretrained-branch'] / tiny[0].training:.1f}"
    assert tiny[1].training == pytest.approx(whole, rel=0.01)
    facts = {"p": f"{best.p:.3f}", "T": f"{whole / 1e12:.1f}", "times": times}
    facts |= {"joint's T": f"{means['joint'] / 1e12:.1f}"}
    right = [{t.seed: t.manifest.metrics["test"].accuracy[-1] for t in c.trials} for c in tiny]
    facts |= {"gain": pct(np.mean([right[1][seed] - right[0][seed] for seed in right[1]]))}
    facts |= {"lead": pct(later.difference), "behind": pct(-later.low), "ahead": pct(later.high)}
    assert clauses("imagenette-scratch", "smaller plain network", facts) == snapshot
    for text in (page().partition("\n## ")[0], readme()):
        assert f"trains for {times} times less" in text


def trained_as_much(study: str) -> tuple[Runs, list[PlainNetwork]]:
    """A study, and the smaller plain networks that trained for as much."""
    packs = [path.parent for path in sorted(DOCS.glob(f"{TRAINED_AS_MUCH[study]}/**/trials.json"))]
    more = [evidence.open(path) for path in packs]
    (runs,) = evidence.join([with_controls(study) if BESIDE[study] else opened(study), *more]).runs
    new = {trial.id for each in more for trial in each.trials}
    return runs, [c for c in runs.controls.cheaper if any(trial.id in new for trial in c.trials)]


@pytest.mark.parametrize("study", TRAINED_AS_MUCH)
def test_no_way_is_ahead_of_plain_networks_that_train_for_as_much(
    study: str, snapshot: SnapshotAssertion
) -> None:
    """The best way trained for as much, to 5 %; the first table and the section say what it comes to."""
    (runs, alike), words = trained_as_much(study), " ".join(section(study).split())
    ways = [s for s in runs.strategies if s != "baseline"]
    assert alike
    leads, gaps = {}, {}
    for control in alike:
        level = runs.beside_controls[control.label]
        assert not any(level.beats(way, control.label) for way in ways)
        line = in_table(runs, control)
        assert line.split(" | ")[-2] == "1.0 ×" and f"]({study}) {line}" in page()
        assert [each for each in beside_plain(runs) if f"> {each}" in words and control.label in each]
        leads[control.label] = line.split(" | ")[-1].strip(" |")
        (gaps[control.label], *_) = pairs_of(level, control.label)
    ends = ("0.2", "0.8")
    assert all(float(ends[0]) <= float(lead) <= float(ends[1]) for lead in leads.values())
    assert len(TRAINED_AS_MUCH) == 2
    for text in (page(), readme()):
        assert "tried on two data sets" in text
    assert f"lead by {ends[0]} to {ends[1]} points in these means, not significantly" in page()
    facts = {f"{label}'s lead": lead[1:] for label, lead in leads.items() if float(lead)}
    if study == "chest-xray":
        (gap,) = gaps.values()
        (short,) = (c for c in with_controls(study).runs[0].controls.cheaper if c.label in leads)
        facts |= {"gain": pct(alike[0].accuracy().mean - short.accuracy().mean)}
        facts |= {"behind": pct(-gap.low), "ahead": pct(gap.high)}
    if study != "imagenette-scratch":  # of which another test tells
        assert clauses(study, "trains for as much", facts) == snapshot


def test_what_exits_come_to_that_train_as_long(snapshot: SnapshotAssertion) -> None:
    (runs,) = with_controls("cifar10-long").runs
    (tiny,) = runs.controls.cheaper
    (sentence_,), level = beside_plain(runs), runs.beside_controls[tiny.label]
    assert f"> {sentence_}" in " ".join(section("cifar10-long").split())
    ways = [way for way in runs.strategies if way != "baseline"]
    gaps = {s: p for p in pairs_of(level, tiny.label) for s in ways if s in (p.a, p.b)}
    assert len(gaps) == 4 and all(gap.p < ALPHA for gap in gaps.values())
    facts = {f"behind, {s}": pct(abs(gap.difference)) for s, gap in gaps.items()}
    assert clauses("cifar10-long", "still ahead", facts | medium_behind()) == snapshot
    plain, *rest = [in_the_table_of("cifar10-long", runs, s)[-1] for s in ("two-stage", *ways)]
    ends = {s: pct(end.mean) for s, end in zip(ways, rest, strict=True)} | {"plain": pct(plain.mean)}
    mixed, joint = final_exits_behind_the_plain_network(runs)
    assert mixed.p < ALPHA <= joint.p
    ends |= {"p, mixed": f"{mixed.p:.3f}", "p, joint": f"{joint.p:.3f}"}
    assert clauses("cifar10-long", "final exit", ends) == snapshot


def test_whether_a_lead_hangs_on_one_split_and_one_rate(snapshot: SnapshotAssertion) -> None:
    whole, words = opened("cifar10-anew"), section("cifar10-anew")
    (runs,) = whole.runs
    assert len({t.manifest.data.splits["train"] for t in whole.trials if t.strategy == "joint"}) == 5
    (tiny,), (sentence_,) = runs.controls.cheaper, beside_plain(runs)
    assert f"> {sentence_}" in words
    searches = [t.manifest.search for t in (*runs.trials, *tiny.trials)]
    rates = {s.found["recipe.learning_rate"] for s in searches if s is not None and s.trials == 4}
    assert len(searches) == 15 and {f"{rate:.2f}" for rate in rates} == {
        *groups_of(r"Each took ([\d.]+), twice", words)
    }
    before = with_controls("cifar10-long").runs[0]
    facts = {}
    for name, level in (
        ("now", runs.beside_controls[tiny.label]),
        ("one split", before.beside_controls[tiny.label]),
    ):
        for pair in pairs_of(level, tiny.label):
            assert pair.p < ALPHA
            facts |= {f"{s}, {name}": pct(abs(pair.difference)) for s in runs.strategies if s == pair.b}
    for strategy in ("joint", "joint-branch"):
        in_the_table_of("cifar10-anew", runs, strategy)
    assert clauses("cifar10-anew", "still ahead", facts) == snapshot


def final_exits_behind_the_plain_network(runs: Runs) -> tuple[Pair, Pair]:
    """Mixed, and joint training with joint-branch, whose final exit is one."""
    final = runs.sample(MEASURES["accuracy-test"], 4)
    assert final is not None and final.groups[0].names == ("baseline", "two-stage")
    gaps = {p.b: p for p in paired_differences(final.groups, ALPHA) if "two-stage" in p.a}
    behind = gaps["mixed"], gaps["joint = joint-branch"]
    assert min(gap.difference for gap in behind) > 0
    return behind


def test_where_an_early_exit_is_ahead_of_a_coin_between_plain_networks(
    snapshot: SnapshotAssertion,
) -> None:
    """At one of five levels of compute; the words below the first table tell it too."""
    (runs,) = with_controls("cifar10-long").runs
    beside = [
        (level, {p.a: p for p in pairs_of(level, COIN)}) for level in runs.levels if COIN in level.means
    ]
    ahead = [(level, way, pairs[way]) for level, pairs in beside for way in pairs if way != COIN]
    ahead = [(level, way, pair) for level, way, pair in ahead if pair.p < ALPHA]
    ((middle, _, two_stage), (_, cascade, _)) = sorted(ahead, key=lambda each: each[1])
    assert {way for _, way, _ in ahead} == {"two-stage", cascade} and "then" in cascade
    words = f"by {pct(two_stage.difference)} points at one of five levels of compute"
    assert words in page() and len(runs.levels) == 5
    rest = [way for way in runs.strategies if way not in ("baseline", "two-stage")]
    coins = {p.a: p for p in pairs_of(middle, COIN)}
    means = {s: pct(middle.means[s]) for s in ("two-stage", *rest, cascade, COIN)}
    means |= {f"p, {s}": f"{coins[s].p:.2f}" for s in rest} | {"p": f"{two_stage.p:.3f}"}
    means |= {"MMACs": f"{middle.macs / 1e6:.1f}"}
    assert clauses("cifar10-long", "between the two", means) == snapshot


def test_what_exits_come_to_that_train_as_long_on_cifar100(snapshot: SnapshotAssertion) -> None:
    """Of a network that ends in an exit's head too, beside plain ones that do."""
    (runs,) = with_controls("cifar100-long").runs
    words = " ".join(section("cifar100-long").split())
    assert all(f"> {each}" in words for each in beside_plain(runs))
    facts: dict[str, str] = {}
    for name, control in zip(("tiny", "small"), runs.controls.cheaper, strict=True):
        gaps = pairs_of(runs.beside_controls[control.label], control.label)
        assert all(gap.p < ALPHA for gap in gaps)
        (gap,) = (gap for gap in gaps if "joint-branch" in (gap.a, gap.b))
        facts[name] = pct(abs(gap.difference))
    assert clauses("cifar100-long", "still ahead", facts) == snapshot
    in_the_table_of("cifar100-long", runs, "joint")
    third = in_the_table_of("cifar100-long", runs, "joint-branch")[2]
    (middle, deep) = (
        next(level for level in runs.levels if f"{level.macs / 1e6:.1f}" == macs)
        for macs in ("14.3", "16.6")
    )
    means = {"joint-branch": pct(middle.means["joint-branch"]), "coin": pct(middle.means[COIN])}
    means |= {"exit 3": pct(third.mean), "coin there": pct(deep.means[COIN])}
    for level in (middle, deep):
        (gap,) = (p for p in pairs_of(level, COIN) if "joint-branch" in (p.a, p.b))
        means[f"p at {level.macs / 1e6:.1f}"] = f"{gap.p:.3f}"
    means["by thresholds"] = pct(deep.means["joint-branch"])
    assert clauses("cifar100-long", "between the two", means) == snapshot


def in_the_table_of(study: str, runs: Runs, strategy: str) -> list[Spread]:
    """A strategy's test accuracy at each exit, which a section's table has with the exits' MACs."""
    table = section(study).partition("\n\n| ")[2].partition("\n\n")[0]
    trial = next(t for t in runs.trials if t.strategy == strategy)
    spread = [runs.spread("accuracy-test", strategy, exit) for exit in trial.exits]
    for exit, macs in zip(spread, trial.macs, strict=True):
        assert f" {pct(exit.mean)} ±{pct(exit.sd)} " in table and f" {macs / 1e6:.1f} " in table
    return spread


def medium_behind() -> dict[str, str]:
    """By how much the best way on the medium width is behind the small plain network."""
    levels = {
        name: with_controls(study).runs[0].beside_controls["width small"]
        for study, name in (("cifar10", "by"), ("cifar10-long-medium", "by, after 16 epochs"))
    }
    best = {
        name: max(v for n, v in level.means.items() if "width" not in n)
        for name, level in levels.items()
    }
    return {name: pct(level.means["width small"] - best[name]) for name, level in levels.items()}


def test_what_exits_come_to_on_the_medium_width(snapshot: SnapshotAssertion) -> None:
    (runs,) = with_controls("cifar10-long-medium").runs
    (small,) = (control for control in runs.controls.cheaper if control.label == "width small")
    words = " ".join(section("cifar10-long-medium").split())
    assert [each for each in beside_plain(runs) if small.label in each and f"> {each}" in words]
    ways = [way for way in runs.strategies if way != "baseline"]
    beside = pairs_of(runs.beside_controls[small.label], small.label)
    gaps = {p.b: p for p in beside if p.a == small.label and p.b in ways}
    assert len(gaps) == 4 and all(gap.p < ALPHA for gap in gaps.values())
    behind = {s: pct(gap.difference) for s, gap in gaps.items()}
    assert clauses("cifar10-long-medium", "catch up", behind | medium_behind()) == snapshot
    ends = {s: pct(in_the_table_of("cifar10-long-medium", runs, s)[-1].mean) for s in ways}
    mixed, joint = final_exits_behind_the_plain_network(runs)
    assert joint.p < ALPHA <= mixed.p
    ends |= {"p, mixed": f"{mixed.p:.3f}", "p, joint": f"{joint.p:.3f}"}
    assert clauses("cifar10-long-medium", "final exit", ends) == snapshot


def test_where_an_early_exit_is_ahead_of_a_coin_on_the_medium_width(snapshot: SnapshotAssertion) -> None:
    (runs,) = with_controls("cifar10-long-medium").runs
    ways = [way for way in runs.strategies if way != "baseline"]
    beside = [(level, {p.a: p for p in pairs_of(level, COIN)}) for level in runs.levels]
    ahead = [(level, c, s) for level, c in beside for s in ways if s in c and c[s].p < ALPHA]
    ((level, coins, best),) = ahead
    lead, cascade = coins[best].difference, "width tiny then baseline"
    assert best == "two-stage" and f"by {pct(lead)} points at one of five levels" in page()
    assert len(runs.levels) == 5 and coins[cascade].p < ALPHA
    assert level.means[cascade] == max(level.means.values())
    facts = {s: pct(level.means[s]) for s in (*ways, COIN, cascade)}
    facts |= {f"p, {s}": f"{coins[s].p:.3f}" for s in ways}
    facts |= {"MMACs": f"{level.macs / 1e6:.1f}"}
    cheaper = runs.levels[1]
    gaps = {p.b: p for p in pairs_of(cheaper, cascade) if p.a == cascade and p.b in ways}
    assert len(gaps) == 4 and all(gap.p < ALPHA for gap in gaps.values())
    leads = sorted(gap.difference for gap in gaps.values())
    facts |= {"at": f"{cheaper.macs / 1e6:.1f}", "from": pct(leads[0]), "to": pct(leads[-1])}
    assert clauses("cifar10-long-medium", "between that", facts) == snapshot


def apart(actual: Advice) -> float:
    """How far those lie apart on average over exits that are not told apart from the first; where all
    are, how far the second is behind."""
    alike = actual.first if len(actual.first) > 1 else actual.ranking[:2]
    means = [r.mean for r in alike]
    return max(means) - min(means)


DIFFERENCES = {
    "cifar10": ("found", "at equal compute", "apart"),
    "cifar10-ways": ("found", "apart"),
    "cifar100": ("found", "at equal compute", "apart", "at the final exit"),
    "imagenette": ("at equal compute", "apart"),
    "imagenette-scratch": ("found", "apart"),
    "chest-xray": ("found", "apart"),
}
"""Which the page tells of a study."""


@pytest.mark.parametrize("study", [*(n for n in DIFFERENCES if "ways" not in n), *long("cifar10-ways")])
def test_differences_that_would_have_been_found(study: str, snapshot: SnapshotAssertion) -> None:
    names, best = DIFFERENCES[study], advice("accuracy", study)
    facts = {"found": best.detectable or 0, "apart": apart(best)}
    if "at equal compute" in names:
        facts["at equal compute"] = advice("latency", study).detectable or 0
    if "at the final exit" in names:
        (final,) = pairs(opened(study), "exit-4")
        facts["at the final exit"] = worst(final) / 100
    values = {name: pct(facts[name]) for name in names}
    assert clauses(study, "decide more", values) == snapshot


def test_what_the_page_concludes_from_shorter_training(
    cifar: Evidence, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {e.trials[0].manifest.recipe.epochs: e for e in (cifar, *cifar.budgets)}
    rankings = {
        epochs: recommend(e.facts, Preference("accuracy"))[0].ranking for epochs, e in every.items()
    }
    for epochs in (2, 4):
        assert {trial.seed for trial in every[epochs].trials} == {42, 43, 44}
    places = {
        name: [[r.name for r in rankings[epochs]].index(name) + 1 for epochs in (2, 4, 8)]
        for name in ("pretrained-branch", "separate", "joint-branch")
    }
    assert places == {"pretrained-branch": [1, 2, 5], "separate": [8, 6, 4], "joint-branch": [2, 1, 1]}
    first, *_, near, last = rankings[2]
    assert pct(near.mean) == pct(last.mean) and near.name == "distillation"
    changes, images = across(cifar, every[2], ALL, ALL, MEASURES["accuracy-test"])
    shown = [pair for pair in changes if isinstance(pair, Pair) and pair.p < 0.05]
    most = max(shown, key=lambda pair: abs(pair.difference))
    assert images == 10_000
    facts = {"highest": pct(first.mean), "lowest": pct(last.mean)}
    facts |= {"changed": f"{len(shown)}", "pairs": f"{len(changes)}", "by": pct(abs(most.difference))}
    facts["most"] = f"{most.a} and {most.b}"
    assert clauses("cifar10", "length of training", facts) == snapshot
    monkeypatch.setattr(pairwise, "moderated", lambda own, groups: [*own])  # noqa: ARG005
    by_own_variance, _ = across(cifar, every[2], ALL, ALL, MEASURES["accuracy-test"])
    assert not [pair for pair in by_own_variance if isinstance(pair, Pair) and pair.p < 0.05]
    same = {epochs: {r.name for r in rankings[epochs] if not r.behind} for epochs in (2, 4)}
    assert same[2] == {"pretrained-branch", "joint-branch", "joint-two-stage"} == same[4]


def test_what_the_plain_network_gains_from_longer_training(
    cifar: Evidence, snapshot: SnapshotAssertion
) -> None:
    facts, spent = {}, {}
    for whole in (cifar, *cifar.budgets):
        (runs,) = whole.runs
        mean = runs.spread("final-accuracy-test", "baseline").mean
        facts[f"after {runs.trials[0].manifest.recipe.epochs}"] = pct(mean)
    for name in ("airbench93", "cifar10"):
        table = opened(name).table
        rows_ = table[(table["metric"] == "macs_executed") & (table["strategy"] == "baseline")]
        spent[name] = rows_.groupby("seed")["value"].sum().mean()
    facts["times the MACs"] = f"{spent['airbench93'] / spent['cifar10']:.1f}"
    (trial,) = opened("cifar10-pilot/medium-16").trials
    longest = quality.share(round(10_000 * trial.manifest.metrics["test"].accuracy[-1]), 10_000)
    ends = {"after 16": longest.value, "from": longest.low, "to": longest.high}
    facts |= {name: pct(value) for name, value in ends.items()}
    assert clauses("cifar10", "Can it reach", facts) == snapshot


def test_what_the_pilot_of_widths_and_epochs_says(snapshot: SnapshotAssertion) -> None:
    facts, spent, validation = {}, [], []
    for name in ("medium-8", "small-16", "93-5", "medium-16"):
        actual = opened(f"cifar10-pilot/{name}")
        (trial,) = actual.trials
        width, epochs = name.split("-")
        network, metrics = dict(trial.manifest.network.options), trial.manifest.metrics
        assert (network["width"], trial.manifest.recipe.epochs) == (width, int(epochs))
        assert (trial.seed, trial.strategy) == (41, "baseline")
        facts |= {f"{name}, {split}": pct(metrics[split].accuracy[-1]) for split in SPLITS}
        validation.append(metrics["validation"].accuracy[-1])
        table = actual.table
        spent.append(table[table["metric"] == "macs_executed"]["value"].sum())
    assert max(spent[:3]) < 1.1 * min(spent[:3]) and spent[3] > 1.9 * spent[0]
    errors = [(share * (1 - share) / 2500) ** 0.5 for share in validation[:3]]
    assert max(validation[:3]) - min(validation[:3]) < 2 * max(errors)
    short = {name: value for name, value in facts.items() if "medium-16" not in name}
    assert clauses("cifar10", "Why this width", short) == snapshot


def trained(whole: Evidence) -> Any:
    """MACs of training by strategy, those of joint training 1."""
    means = trained_for(whole, "macs_executed")
    return means / means["joint"]


@pytest.mark.long
def test_means_and_costs_of_ways_beyond_the_paper() -> None:
    beyond = opened("cifar10-ways")
    main = main_table("cifar10-ways")
    costs = trained(beyond)
    means = rows(markdown(main), beyond.strategies, 4, 5)
    sentence = rows(section("cifar10-ways"), beyond.strategies, 4, 6)
    for name, (mean, cost) in sentence.items():
        assert [mean] == means[name] and cost == f"{costs[name]:.2f}"


@pytest.mark.long
def test_what_the_page_concludes_of_ways_beyond_the_paper(snapshot: SnapshotAssertion) -> None:
    whole = "cifar10-ways"
    best, fewest = advice("accuracy", whole), advice("latency", whole)
    every = {r.name: r for r in advice("accuracy", "cifar10", whole).ranking}
    assert not every["joint-branch"].behind
    main, over = main_table(whole).frame, {r.name: r.mean for r in best.ranking}
    first, costs = best.ranking[0].name, trained(opened(whole))
    facts = {"first": first, "mean": pct(over[first]), "final": pct(main["exit_4"][first])}
    facts["joint-branch behind"] = pct(every[first].mean - every["joint-branch"].mean)
    assert [clauses(whole, r"is best\?", facts), sorted(alike(best))] == snapshot
    some = ("boosted", "imta", first, "sequential")
    facts = {name: pct(over[name]) for name in some}
    facts |= {f"cost of {name}": f"{costs[name]:.1f}" for name in some[1:]}
    facts["boosted above joint"] = pct(over["boosted"] - over["joint"])
    assert clauses(whole, "for its training", facts) == snapshot
    facts = least(whole) | {"confidence-gated": pct(main["exit_4"]["confidence-gated"])}
    behind = sorted(r.name for r in fewest.ranking if r.behind)
    out = [r.name for r in fewest.ruled_out if r.why.startswith("it reaches")]
    answers = clauses(whole, "for its inference", facts)
    assert [answers, sorted(alike(fewest)), behind, out] == snapshot


def test_how_far_the_plain_network_gets_with_its_authors_recipe(snapshot: SnapshotAssertion) -> None:
    whole = opened("airbench93")
    (trial,) = whole.trials
    study, images = spec.read(STUDIES / "airbench93.yaml"), trial.manifest.data.provenance
    assert trial.manifest.recipe.epochs == study.recipe.epochs and trial.seed == study.seeds[0]
    assert images.available["train"] - images.images["train"] == 10  # of each class one
    test = whole.table[(whole.table["phase"] == "final") & (whole.table["split"] == "test")]
    ours = {row.metric: pct(row.value) for row in test.itertuples()}
    log = (DOCS / "airbench93" / "authors_code.log").read_text(encoding="utf-8")
    (numbers,) = (line.split("|")[3:8] for line in log.splitlines() if " eval " in line)
    facts = {
        **{"MMACs": f"{trial.manifest.backbone_macs / 1e6:.0f}", "epochs": f"{study.recipe.epochs}"},
        **{"ours": ours["accuracy"], "ours, flipped": ours["accuracy_flipped"]},
        **{name: pct(float(numbers[at])) for name, at in (("theirs", 2), ("theirs, flipped", 3))},
    }
    assert clauses("cifar10", "published results", facts) == snapshot


def rows(text: str, strategies: Sequence[str], start: int = 0, end: int = 4) -> dict[str, list[str]]:
    """What a Markdown table says of each strategy; by default, of its four exits."""
    actual = {}
    for strategy in strategies:
        cells = re.search(rf"^\| {strategy} +\|(.*)\|$", text, re.MULTILINE)
        assert cells is not None
        actual[strategy] = [cell.strip() for cell in cells[1].split("|")[start:end]]
    return actual


def test_what_the_page_concludes_from_imagenette(snapshot: SnapshotAssertion) -> None:
    """separate is the most accurate on average over exits, and at equal compute far behind, as its exits
    share nothing."""
    whole, name = opened("imagenette"), "imagenette"
    plain = whole.trials[0].manifest.backbone_macs
    best, fewest = advice("accuracy", name), advice("latency", name)
    first, second, *_ = best.ranking
    assert not alike(best)
    assert not sure(fewest).startswith("better than every")
    assert {r.name for r in fewest.ranking if r.behind} == {first.name}
    spent = {r.name: r.mean for r in fewest.ranking}
    dear = spent.pop(first.name)
    facts = {"first": first.name, "mean": pct(first.mean)}
    facts |= {"next": second.name, "its mean": pct(second.mean)}
    facts |= {key: least(name)[key] for key in ("target", "least")}
    facts |= {"dear": f"{dear / 1e6:.0f}", "plain": f"{plain / 1e6:.0f}"}
    for end, macs in {"fewest": min(spent.values()), "most": max(spent.values())}.items():
        facts |= {end: f"{macs / 1e6:.0f}", f"{end}, share": f"{100 * macs / plain:.0f}"}
    assert clauses(name, "way is best", facts) == snapshot
    out = {r.name: r.why for r in fewest.ruled_out if r.why.startswith(("it reaches", "not shown"))}
    assert out == snapshot
    firsts, ends = (main_table(name).frame[f"exit_{exit}"] for exit in (1, 4))
    high = [firsts[label] for label in ("separate", "branch-wise", "pretrained-branch")]
    facts = {"joint": pct(firsts["joint"]), "from": pct(min(high)), "to": pct(max(high)), **lost(name)}
    facts["loss of joint"] = pct(ends["baseline"] - ends["joint"])
    answers = clauses(name, "What harms", facts)
    assert [answers, unmarked(name, 1)] == snapshot
    assert f"mean over exits {pct(first.mean)} %" in answer(whole)[1]  # the final exit has 92.9 %


def test_what_the_page_concludes_from_imagenette_from_scratch(snapshot: SnapshotAssertion) -> None:
    """Little is significant, and the page says so."""
    whole, name = opened("imagenette-scratch"), "imagenette-scratch"
    best, fewest = advice("accuracy", name), advice("latency", name)
    first, *_, last = best.ranking
    assert {r.name for r in best.ranking if r.behind} == {"distillation", "branch-wise"}
    assert len(best.ranking) == 8
    assert alike(fewest) == {r.name for r in fewest.ranking[1:]} and len(fewest.ranking) == 5
    assert "no two strategies" in answer(whole)[0]
    ends = {"lowest": last.name, "its mean": pct(last.mean), "first": first.name}
    ends |= {"mean": pct(first.mean), **least(name)}
    assert clauses(name, "way is best", ends) == snapshot
    facts = {}
    for exit in (1, 4):
        means = main_table(name).frame[f"exit_{exit}"].drop("baseline")
        facts |= {f"from, exit {exit}": pct(means.min()), f"to, exit {exit}": pct(means.max())}
    assert unmarked(name, 4) == []  # none significantly behind there
    plain = whole.trials[0].manifest.backbone_macs
    (facts["share"],) = {f"{t.macs[0] / plain:.0%}"[:-1] for t in whole.trials if len(t.exits) > 1}
    assert clauses(name, "depth pay", facts) == snapshot


def test_what_the_page_concludes_from_chest_x_rays(snapshot: SnapshotAssertion) -> None:
    whole, name = opened("chest-xray"), "chest-xray"
    first, *others = advice("accuracy", name).ranking
    (behind,) = [r for r in others if r.behind]
    assert len(others) == 7
    # The second is 93.25 but for its last bit, which depends on numpy's version.
    facts = {r.name: pct(r.mean - 1e-11) for r in (first, behind)}
    early, final = (main_table(name).frame[f"exit_{exit}"] for exit in (1, 4))
    firsts, finals = "distillation joint two-stage", "branch-wise pretrained-branch baseline"
    facts |= {f"{label}, exit 1": pct(early[label]) for label in firsts.split()}
    facts |= {f"{label}, final": pct(final[label]) for label in finals.split()}
    far = [
        (label, exit)
        for exit in (2, 3, 4)
        for label, mean in main_table(name).frame[f"exit_{exit}"].drop("baseline").items()
        if abs(mean - final["baseline"]) > 0.015
    ]
    assert far == [("branch-wise", 4)]
    plain = whole.trials[0].manifest.backbone_macs
    (facts["share"],) = {f"{t.macs[1] / plain:.0%}"[:-1] for t in whole.trials if t.strategy == "joint"}
    answers = clauses(name, "order appear", facts)
    assert [answers, unmarked(name, 1), unmarked(name, 4)] == snapshot
    each = [t.manifest.metrics["test"].by_name["auroc"] for t in whole.trials]
    worth = [value for of in each for value in of if value is not None]
    between = groups_of(r"AUROC lies between (\S+) and (\S+) in", section(name))
    assert between == (f"{min(worth):.2f}", f"{max(worth):.2f}")


def test_what_the_page_concludes_from_cifar100(snapshot: SnapshotAssertion) -> None:
    """The hybrids are above joint and two-stage, joint training gains at the final exit, distillation is
    last."""
    actual, best = opened("cifar100"), advice("accuracy", "cifar100")
    hybrids = tuple(r.name for r in best.ranking[:3])
    assert {*hybrids} == {"joint-branch", "pretrained-branch", "joint-two-stage"}
    means = {r.name: pct(r.mean) for r in best.ranking}
    assert best.ranking[-1].name == "distillation" and means["separate"] == means["branch-wise"]
    over, first, final = pairs(actual, "overall", "exit-1", "exit-4")
    for hybrid in hybrids:
        above = {name for name in means if apart_at(over, hybrid, name)[1] < 0.05}
        assert above == means.keys() - set(hybrids)
    costs, fewest = trained(actual), advice("latency", "cifar100")
    facts = {name: means[name] for name in (*hybrids, "separate", "joint")}
    facts |= {f"cost of {name}": f"{costs[name]:.2f}" for name in ("joint-branch", "pretrained-branch")}
    assert f"{costs['joint-two-stage']:.2f}" == facts["cost of joint-branch"]
    facts |= least("cifar100") | less(fewest)
    out = sorted(r.name for r in fewest.ruled_out if r.why.startswith("not shown"))
    answers = clauses("cifar100", "way is best", facts)
    assert [answers, sorted(alike(fewest)), out] == snapshot
    assert {r.name for r in fewest.ruled_out} == {"baseline", *out}

    firsts, finals = (main_table("cifar100").frame[f"exit_{exit}"] for exit in (1, 4))
    two, alone = (apart_at(first, name, "joint") for name in ("two-stage", "separate"))
    gain, p = apart_at(final, "pretrained-branch", "baseline")
    near, open_ = apart_at(final, "joint", "baseline")
    assert max(two[1], alone[1], p) < 0.05 < open_ and near > 0
    (between,) = [
        row for row in final if row["a"] == "branch-wise" and "baseline" in row["b"].split(" = ")
    ]
    facts = {
        **{"joint, exit 1": pct(firsts["joint"]), "joint-branch, exit 1": pct(firsts["joint-branch"])},
        **{"less than two-stage": f"{two[0]:.1f}", "less than alone": f"{alone[0]:.1f}"},
        **{"pretrained-branch": pct(finals["pretrained-branch"]), "joint": pct(finals["joint"])},
        **{"gain": f"{gain:.1f}", "p": f"{p:.3f}", "p of joint": f"{open_:.3f}"},
        **{"below": f"{-between['low']:.1f}", "above": f"{between['high']:.1f}"},
    }
    assert clauses("cifar100", "What harms", facts) == snapshot
    assert min(t.manifest.metrics["test"].accuracy[-1] for t in actual.trials) > 0.5

    gap, p = apart_at(over, "two-stage", "distillation")
    fits = trained_on(actual)
    facts = {"mean": means["distillation"], "less than two-stage": f"{gap:.1f}"}
    facts |= {"fits": f"{fits['distillation', 'student 3', 3]:.1f}"}
    facts |= {"two-stage fits": f"{fits['two-stage', 'exit 3', 3]:.1f}"}
    logits = np.concatenate(
        [actual.logits(t.id)[0][:, -1] for t in actual.trials if t.strategy == "baseline"]
    )
    facts["flat"] = f"{(torch.from_numpy(logits).double() / 3).softmax(1).amax(1).mean():.2f}"
    assert p < 0.05
    assert clauses("cifar100", "distillation last", facts) == snapshot


def trained_on(whole: Evidence) -> Any:
    """Accuracy on training images, %, by strategy, phase and exit."""
    table = whole.table
    fits = table[(table["metric"] == "accuracy") & (table["split"] == "train-eval")]
    # Where an earlier epoch was kept, the last one is there too.
    kept = fits.sort_values("epoch").drop_duplicates(["strategy", "seed", "phase", "exit"])
    return 100 * kept.groupby(["strategy", "phase", "exit"])["value"].mean()


def test_what_compute_buys_on_cifar100(snapshot: SnapshotAssertion) -> None:
    actual = opened("cifar100")
    plain = actual.trials[0].manifest.backbone_macs
    curves, trials = [], [t for t in actual.trials if t.strategy == "joint-branch"]
    for trial in trials:
        logits, labels = actual.logits(trial.id)
        sure = torch.from_numpy(logits).double().softmax(2).amax(2).numpy()
        right, macs = logits.argmax(2) == labels[:, None], np.array(trial.macs[:3])
        place = np.array(
            [np.where(sure[:, 0] >= t, 0, 2 - (sure[:, 1] >= t)) for t in np.linspace(0, 1, 401)]
        )
        curves.append([(macs[at].mean(), right[np.arange(len(at)), at].mean()) for at in place])
    third = np.mean([t.manifest.metrics["test"].accuracy[2] for t in trials])
    cheapest = min(cost for cost, accuracy in np.mean(curves, axis=0) if accuracy >= third - 0.01)
    facts = {"exit 3": pct(third), "its compute": f"{100 * macs[2] / plain:.0f}"}
    facts |= {"a point less": pct(third - 0.01), "for": f"{100 * cheapest / plain:.0f}"}
    assert clauses("cifar100", "exit worth it", facts) == snapshot


def test_why_exits_differ_on_cifar100(snapshot: SnapshotAssertion) -> None:
    """The paper's heads hold more than this network's classifier, and exit 3 is the better for it."""
    actual = opened("cifar100")
    early = main_table("cifar100").frame[["exit_3", "exit_4"]].drop(index="baseline")
    (last,) = early.index[early["exit_3"] < early["exit_4"]]
    assert last == "distillation"
    hidden = opened("cifar100-hidden-classifier")
    assert [t.seed for t in hidden.trials] == [42, 43, 44, 45, 46]
    third, fourth, plain = (
        np.array([100 * t.manifest.metrics["test"].accuracy[exit] for t in hidden.trials])
        for exit in (2, 3, 4)
    )
    before = [t for t in actual.trials if t.strategy == "separate"]
    assert [100 * t.manifest.metrics["test"].accuracy[-1] for t in before] == list(plain)  # the same
    p, open_ = (ttest_rel(fourth, other).pvalue for other in (plain, third))
    assert p < 0.05 < open_
    linear = main_table("cifar100-linear-heads").frame
    means = [linear[f"exit_{exit}"]["joint"] for exit in (1, 2, 3, 4)]
    assert means == sorted(means)
    usual = next(t for t in actual.trials if (t.strategy, t.seed) == ("joint", 42))
    fits = trained_on(actual)
    facts = {
        "exit 3 fits": f"{fits['two-stage', 'exit 3', 3]:.1f}",
        "final exit fits": f"{fits['two-stage', 'backbone', 4]:.1f}",
        **{"hidden": f"{fourth.mean():.1f}", "gain": f"{(fourth - plain).mean():.1f}", "p": f"{p:.3f}"},
        "over exit 3": f"{(fourth - third).mean():.1f}",
        "loss of one layer": pct(usual.manifest.metrics["test"].accuracy[-1] - means[3]),
        **{f"linear, exit {exit}": pct(mean) for exit, mean in enumerate(means, 1)},
    }
    assert clauses("cifar100", "Why is exit 3", facts) == snapshot


def pairs(whole: Evidence, *expected_names: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of the tables of pairs of strategies at these exits, or `overall`."""
    tables_of = make(whole, ["pairs"])
    for where in expected_names:
        (table,) = [t for t in tables_of if t.name.endswith(f"-{where}")]
        yield table.frame.to_dict("records")


def apart_at(rows_: list[dict[str, Any]], a: str, b: str) -> tuple[float, float]:
    """How many points a is above b, and p; 1 where they are the same runs."""
    for row in rows_:
        first, two = row["a"].split(" = "), row["b"].split(" = ")
        if a in first and b in two:
            return row["difference"], row["p"]
        if a in two and b in first:
            return -row["difference"], row["p"]
    return 0.0, 1.0


def worst(rows_: list[dict[str, Any]]) -> float:
    """The smallest difference that would have been found, of the pair not shown to differ that has the
    largest."""
    return max(row["detectable"] for row in rows_ if row["p"] >= 0.05)
