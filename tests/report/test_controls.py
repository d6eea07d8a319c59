"""Smaller plain networks beside a study: which are taken for its controls, and what is said of them."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import handmade
import numpy as np
import pandas as pd
import pytest
import yaml
from handmade import HandTrial, Run, evidence
from syrupy.assertion import SnapshotAssertion

from offramp.analysis.claims import Claim, Judgment
from offramp.analysis.recommend import Preference, recommend
from offramp.report import select
from offramp.report.advice import _named, answer, beside_plain, headline
from offramp.report.claims import read
from offramp.report.controls import COIN
from offramp.report.evidence import Evidence, gather, of_strategies
from offramp.report.figures.compute import BAR, FRONT, RING, accuracy_compute, static_frontier
from offramp.report.runs import Runs
from offramp.report.tables.compute import equal
from offramp.report.tables.main import main
from offramp.units import percent
from records import changed

STRATEGIES = {"baseline": (0.0, 0.0, 1.3), "joint": (0.3, 0.9, 1.3), "two-stage": (0.2, 0.8, 1.3)}
SMALL = ("small", 20)
IMAGES = 1500


def planted(
    small: float,
    skills: Mapping[str, Sequence[float]] = STRATEGIES,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    **more: object,
) -> list[HandTrial]:
    """Trials on the same images, by how able each exit is. small: how able the smaller plain network."""
    generator = np.random.default_rng(7)
    hard = generator.normal(0, 1.3, IMAGES)

    def trial(label: str, seed: int, able: Mapping[int, float], **other: object) -> HandTrial:
        sense = generator.normal(0, 0.3, IMAGES) - hard + generator.normal(0, 0.02)
        right = {k: (sense + able[k] > 0).tolist() for k in able}
        whole = {k: [1.0] * 3 for k in able}
        return HandTrial(label, seed, [Run("all", whole)], tuple(able), right, even=True, **other)  # type: ignore[arg-type]

    trials = [
        trial(label, seed, {3: skill[2]} if label == "baseline" else dict(enumerate(skill, 1)))
        for label, skill in skills.items()
        for seed in (1, 2, 3, 4, 5)
    ]
    own = {"width": SMALL, "recipe": {"epochs": 6}, "study": "small", **more}
    return [*trials, *(trial("baseline", seed, {3: small}, **own) for seed in seeds)]


def runs_of(trials: Sequence[HandTrial]) -> Runs:
    (runs,) = evidence(trials).runs
    return runs


# Of able 0.3 at 10 MACs and 1.3 at 60, in which nobody is surer than another, 20 MACs buy 65 % of
# the images; a plain network of able 1.0 has 77 %, one of -0.4 has 38 %.
@pytest.mark.parametrize(
    ("small", "skills", "below", "above"),
    [
        (1.0, STRATEGIES, {"joint", "two-stage"}, set()),
        (-0.4, STRATEGIES, set(), {"joint", "two-stage"}),
        (
            0.5,
            {**STRATEGIES, "two-stage": (-0.6, 0.8, 1.3), "joint": (1.0, 1.2, 1.3)},
            {"two-stage"},
            {"joint"},
        ),
    ],
    ids=["it wins", "it loses", "it crosses"],
)
def test_what_is_said_of_a_smaller_network(
    small: float,
    skills: Mapping[str, Sequence[float]],
    below: set[str],
    above: set[str],
    snapshot: SnapshotAssertion,
) -> None:
    runs = runs_of(planted(small, skills))
    level = runs.beside_controls["width small"]
    others = set(level.means) - {"width small"}
    assert {name for name in others if level.beats("width small", name)} == below
    assert {name for name in others if level.beats(name, "width small")} == above
    (text,) = beside_plain(runs)
    assert text == snapshot
    assert text in answer(runs.evidence)


def test_a_control_wins_the_advice_that_compute_decides() -> None:
    """Of no goal that wants a mean over exits."""
    with_it, without = (evidence(planted(small)) for small in (1.2, -9.0))
    first = {
        goal: recommend(e.facts, Preference(goal, min_accuracy=0.75))[0].ranking[0].name  # type: ignore[arg-type]
        for e, goal in [(with_it, "latency"), (with_it, "accuracy")]
    }
    assert first == {"latency": "width small", "accuracy": "joint"}
    (advice,) = recommend(without.facts, Preference("latency", min_accuracy=0.75))
    assert advice.ranking[0].name != "width small"
    (within,) = recommend(with_it.facts, Preference("accuracy", max_macs=20))
    assert within.ranking[0].name == "width small"
    (unbeaten,) = recommend(with_it.facts, Preference("pareto"))
    small = next(r for r in unbeaten.ranking if r.name == "width small")
    assert (small.low, small.high, small.training) == (20, 20, 100)
    assert COIN not in {r.name for r in (*advice.ranking, *unbeaten.ranking)}  # a bar, and no advice


def test_the_first_sentence_has_the_accuracy_of_the_control_itself(snapshot: SnapshotAssertion) -> None:
    """It is above the target, as a network of one exit has no less accurate answer for less compute."""
    (runs,) = (found := evidence(planted(1.6))).runs
    (sentence,) = headline(found)
    (small,) = runs.controls.cheaper
    (advice,) = recommend(found.facts, Preference("latency"))
    assert advice.target is not None and small.accuracy().mean > advice.target + 0.005
    assert sentence == snapshot  # what it has, and not what was the target
    assert f"width small, has {percent(small.accuracy().mean)} on" in sentence
    assert f"where it has {percent(small.accuracy().mean)}" in " ".join(answer(found))
    (sentence,) = headline(evidence(planted(-9.0)))
    assert percent(advice.target) in sentence and "plain network," not in sentence


def test_a_plain_network_is_smaller_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head of one that is cut may cost more than the cut spares."""
    monkeypatch.setattr(select, "cut_at", lambda manifest: manifest.network.options)
    usual = handmade._macs
    monkeypatch.setattr(handmade, "_macs", lambda trial, exit: 51 if trial.width else usual(trial, exit))
    (sentence,) = headline(evidence(planted(1.6)))
    assert sentence.startswith("A plain network, width small, has") and " at 102.0 % of" in sentence


def test_a_name_with_a_comma_is_one_among_others() -> None:
    names = ["joint", "width small, cut at layer2", "two-stage"]
    assert _named(names) == "joint, 'width small, cut at layer2' and two-stage"
    assert _named(["joint"]) == "joint"


def test_the_first_sentence_names_who_may_reach_its_accuracy_too() -> None:
    """Forty images rule nobody out."""

    def trial(label: str, seed: int, hits: int) -> HandTrial:
        right = {k: [i < n for i in range(40)] for k, n in ((1, 20), (2, 27), (3, hits))}
        return HandTrial(label, seed, [Run("all", {k: [1.0] for k in right})], right=right, even=True)

    hits = {"joint": (34, 35, 36), "separate": (30, 34, 32)}
    (sentence,) = headline(evidence([trial(s, k, n) for s in hits for k, n in enumerate(hits[s])]))
    assert sentence.startswith("joint has ")
    assert sentence.endswith("compute; whether separate can reach it is open.")
    more = {**hits, "boosted": hits["joint"]}
    (sentence,) = headline(evidence([trial(s, k, n) for s in more for k, n in enumerate(more[s])]))
    assert "between boosted and joint" in sentence
    assert sentence.endswith("; whether separate can reach it is open.")


def test_which_plain_networks_are_controls() -> None:
    """Fewer MACs, no early exits, and nothing else but the epochs differs."""
    usual = planted(1.0)
    assert [c.label for c in runs_of(usual).controls.networks] == ["width small", "baseline"]
    others = {
        "larger": {"width": ("large", 51)},
        "another rate": {"recipe": {"learning_rate": 0.5}},
        "other data": {"data": "pictures"},
    }
    for why, change in others.items():
        runs = next(r for r in evidence(planted(1.0, **change)).runs if r.data == "images")
        assert runs.controls.networks == (), why
    (other,) = runs_of(planted(1.0, model="tiny-net")).controls.cheaper
    assert other.label == "tiny-net"


def test_a_network_that_ends_in_an_exits_head_is_a_control_though_its_head_costs_more() -> None:
    """As large a network that is not cut off is the plain network itself, or trained otherwise."""
    gathered = evidence(planted(1.0)).gathered
    host = next(t.manifest for t in gathered.trials.values() if len(t.exits) > 1)
    own = {"network": host.network, "backbone_macs": host.backbone_macs}

    def labels(**changes: object) -> list[str]:
        trials = {
            id: changed(t, "manifest", **changes) if t.macs == (20,) else t
            for id, t in gathered.trials.items()
        }
        (runs,) = gather(replace(gathered, trials=trials)).runs
        return [c.label for c in runs.controls.cheaper]

    dear = {**own, "macs": (host.backbone_macs + 3,)}
    assert labels(**dear, exits=(2,)) == [f"cut at {host.places[1]}"]
    assert labels(**{**dear, "backbone_macs": host.backbone_macs + 1}, exits=(2,)) == []
    assert labels(**dear) == labels(**own, macs=(host.backbone_macs,)) == []


@pytest.mark.parametrize(("bridge", "labels"), [(False, ["narrow"]), (True, ["narrow", "width small"])])
def test_another_trial_of_the_same_images_tells_what_they_were_read_from(
    bridge: bool, labels: list[str]
) -> None:
    """Trials of an earlier offramp lack it, and a control at another size is one by it."""
    narrow = [replace(t, model="narrow") for t in planted(0.9) if t.width]
    gathered = evidence([*planted(1.0), *narrow]).gathered
    for id, trial in gathered.trials.items():
        data, smaller = (
            trial.manifest.data,
            trial.model == "net" and max(trial.manifest.macs) == SMALL[1],
        )
        of_size = {split: f"{images} at 9" for split, images in data.splits.items()} if smaller else {}
        read = {split: f"pictures {split}" for split in data.splits}
        read = read if smaller or (trial.model == "narrow" and bridge) else {}
        known = changed(trial, "manifest.data.provenance", sources=read)
        gathered.trials[id] = changed(known, "manifest.data", **of_size)  # type: ignore[index]
    runs = next(r for r in gather(gathered).runs if r.model == "net")
    assert [control.label for control in runs.controls.cheaper] == labels
    advised = recommend(runs.evidence.facts, Preference("latency", min_accuracy=0.75))
    assert ("width small" in {r.name for r in advised[0].ranking}) == bridge


@pytest.mark.parametrize("model", ["net", "tiny-net"])
def test_a_repeated_trial_of_a_control_is_left_out_and_named(
    model: str, snapshot: SnapshotAssertion
) -> None:
    """Its network stays a control, and none of its trials is compared for itself."""
    trials = [replace(t, model=model) if t.width else t for t in planted(1.0)]
    first = next(t for t in trials if t.width and t.seed == 1)
    again = replace(first, study="b", finished="2026-01-01")
    (runs,) = (found := evidence([*trials, again])).runs
    (control,) = runs.controls.cheaper
    assert [t.seed for t in control.trials] == [1, 2, 3, 4, 5] and control.trials[0].id == again.id
    assert [note.replace(first.id, "FIRST") for note in found.missing] == snapshot


def test_of_several_plain_networks_the_first_is_the_networks_own() -> None:
    """One that another label trains longer, or otherwise, is no seed of it."""
    usual = runs_of(planted(1.0))
    labeled = [
        replace(t, label="longer") if t.label == "baseline" and not t.width else t for t in planted(1.0)
    ]
    (runs,) = (found := evidence([*planted(1.0), *(t for t in labeled if t.label == "longer")])).runs
    renamed = {t.id: changed(t, "manifest", program="baseline") for t in found.trials}
    both = replace(runs, evidence=replace(found, trials=tuple(renamed.values())))
    assert both.controls.whole is not None and usual.controls.whole is not None
    assert [t.id for t in both.controls.whole.trials] == [t.id for t in usual.controls.whole.trials]


def test_who_needs_less_than_a_plain_network_is_not_set_against_who_never_has_as_much(
    snapshot: SnapshotAssertion,
) -> None:
    weak = {**STRATEGIES, "two-stage": (-1.0, -0.9, -0.8), "separate": (0.1, 0.5, 1.3)}
    assert beside_plain(runs_of(planted(0.7, weak))) == snapshot
    assert beside_plain(runs_of(planted(0.7))) == snapshot


def test_of_controls_alone_nothing_changes() -> None:
    """Without a study with early exits, plain networks are what is compared."""
    alone = [t for t in planted(1.0) if t.label == "baseline"]
    found = evidence(alone)
    assert found.plain == {} and len(found.missing) == 1


@pytest.mark.parametrize("seeds", [(41,), (1, 2)], ids=["none", "two"])
def test_a_control_with_few_common_seeds_is_drawn_and_not_tested(
    seeds: tuple[int, ...], snapshot: SnapshotAssertion
) -> None:
    """Of two it does not say that there are none."""
    runs = runs_of(planted(1.0, seeds=seeds))
    (text,) = beside_plain(runs)
    assert text == snapshot
    assert runs.controls.candidates == ()
    without = [t for t in planted(1.0) if t.width is None]
    words, usual = answer(runs.evidence), answer(evidence(without))
    assert set(usual) == set(words) - {text}  # it withholds nothing that is known
    assert len(static_frontier(runs)[0]) == 2


def test_a_poor_network_is_no_corner_of_the_frontier() -> None:
    runs = runs_of([*planted(1.1), *poor()])
    assert {c.label for c in runs.controls.networks} == {"width small", "width poor", "baseline"}
    assert [c.label for c in runs.controls.frontier] == ["width small", "baseline"]
    networks, line = static_frontier(runs)
    assert len(networks) == 3
    ends = networks[networks["strategy"] != "width poor"].sort_values("macs")
    middle = line["macs"].sub(ends["macs"].mean()).abs().idxmin()
    assert line["value"][middle] == pytest.approx(ends["value"].mean(), abs=1)


def poor(able: float = 0.2) -> list[HandTrial]:
    return [replace(t, width=("poor", 30)) for t in planted(able) if t.width is not None]


def test_tables_and_the_figure_have_them() -> None:
    mixture = " then ".join(("width small", "baseline"))
    runs = runs_of(planted(1.0))
    (table,) = main(runs)
    assert table.frame.loc["width small", "exit_3"] == pytest.approx(
        runs.controls.cheaper[0].accuracy().mean
    )
    assert pd.isna(table.frame.loc["width small", "exit_1"])
    assert ("width small", "exit_3") not in table.best | table.alike
    (compute,) = equal(runs)
    assert {"plain networks", mixture} <= set(compute.frame.index)
    (figure,) = accuracy_compute(runs)
    assert mixture in str(figure.spec)
    assert "static frontier" in figure.caption
    (usual,) = accuracy_compute(runs_of([t for t in planted(1.0) if t.width is None]))
    assert "static frontier" not in usual.caption and "plain networks" not in str(usual.spec)


def test_the_legend_shows_plain_networks_as_rings_and_cascades_as_lines() -> None:
    """As they are drawn: a filled circle is the baseline's mark, and a cascade has no marks."""
    (figure,) = accuracy_compute(runs_of(planted(1.0)))
    scale = figure.spec["layer"][0]["encoding"]["shape"]["scale"]
    symbols = dict(zip(scale["domain"], scale["range"], strict=True))
    assert (symbols["baseline"], symbols[COIN]) == ("circle", RING)
    assert symbols["width small then baseline"] == symbols[FRONT] == BAR


def test_the_name_of_a_ring_at_the_bottom_stands_above_it() -> None:
    """Below it are the numbers of the axis."""
    for trials, sides in ((planted(1.0), {13}), ([*planted(1.0), *poor(-3.0)], {13, -8})):
        (figure,) = accuracy_compute(runs_of(trials))
        below = {int(dy) for dy in re.findall(r"'type': 'text'[^}]*'dy': (-?\d+)", str(figure.spec))}
        assert below == sides


def test_a_name_that_ends_beyond_the_chart_stands_left_of_its_ring() -> None:
    short = [replace(t, width=("w", 45)) if t.width else t for t in planted(1.0)]
    long = [
        replace(t, width=("a name of many words that go on", 45)) if t.width else t for t in planted(1.0)
    ]
    for trials, side in ((short, "left"), (long, "right")):
        (figure,) = accuracy_compute(runs_of(trials))
        assert re.findall(r"'type': 'text'[^}]*'align': '(\w+)'", str(figure.spec)) == [side]


def test_packs_carry_them() -> None:
    whole = evidence(planted(1.0))
    ids, table = whole.packed
    plain = {t.id for t in whole.plain_trials}
    assert len(plain) == 5 and plain <= set(ids) and plain <= set(table["trial"])
    some = of_strategies(whole, ["joint", "baseline"])
    assert len(list(some.plain_trials)) == 5
    assert isinstance(some, Evidence) and not list(of_strategies(whole, ["joint"]).plain_trials)


def judged(runs: Runs, at: str, left: str, right: str, **more: object) -> Judgment:
    claim = Claim.model_validate(
        {
            **{"id": "a", "section": "here", "question": "more", "text": "so it is"},
            **{"measure": "accuracy-test", "is": "higher", "at": at, "strategies": left},
            **{"against": right, **more},
        }
    )
    (judgment,) = runs.evidence.judge([claim])
    return judgment


def test_a_claim_may_name_a_plain_network_at_equal_compute() -> None:
    """At its MACs, as a number, as a share, or by its name; a cascade and a coin have names too."""
    runs = runs_of(planted(1.0))
    (small,) = (control.label for control in runs.controls.cheaper)
    share = f"{100 * 20 / runs.trials[0].manifest.backbone_macs:.4f}%"
    for at in (small, "20", share):
        judgment = judged(runs, at, small, "joint")
        assert judgment.verdict == "supported" and judgment.decisive is not None
        assert judgment.decisive.left == pytest.approx(runs.controls.cheaper[0].accuracy().mean)
        assert judged(runs, at, "joint", small).verdict == "contradicted"
    level = runs.beside_controls[small]
    assert judged(runs, small, "joint", small).decisive.right == pytest.approx(level.means[small])  # type: ignore[union-attr]
    cascade = f"{small} then baseline"
    assert judged(runs, "50", cascade, COIN).compared == 1
    assert judged(runs_of(planted(-0.4)), "20", small, "joint").verdict == "contradicted"


def of_the_guide() -> str:
    """The claims file of `docs/claims.md` that names a plain network."""
    guide = (Path(__file__).parents[2] / "docs" / "claims.md").read_text()
    return textwrap.dedent(
        guide[guide.index("    claims:\n      - {id: small-wins") :].partition("\n\n")[0]
    )


@pytest.mark.parametrize(
    ("small", "wins", "loses"),
    [(1.0, "supported", "contradicted"), (-0.4, "contradicted", "supported")],
    ids=["it wins", "it loses"],
)
def test_a_claims_file_names_a_plain_network(
    small: float, wins: str, loses: str, tmp_path: Path
) -> None:
    """As the guide writes it, and the other way around, among a file's other claims."""
    text = of_the_guide()
    claim = yaml.safe_load(text.replace("joint-branch", "two-stage"))["claims"][0]
    swapped = {**claim, "strategies": claim["against"], "against": claim["strategies"]}
    file = tmp_path / "mine.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "claims": [
                    claim,
                    {**swapped, "id": "small-loses"},
                    {**claim, "id": "small-is-lower", "is": "lower"},
                    {k: v for k, v in claim.items() if k != "at"} | {"id": "at-no-compute"},
                ]
            }
        )
    )
    judgments = evidence(planted(small)).judge(read(file))
    assert [j.verdict for j in judgments] == [wins, loses, loses, "not testable here"]
    assert [j.compared for j in judgments[:3]] == [2, 2, 2]
    assert judgments[3].missing[0].startswith("`at`: width small")


def test_equal_plain_networks_are_no_finding_of_a_claim() -> None:
    """The same network at its own compute, and one that cannot spend so little."""
    runs = runs_of(planted(1.0))
    (small,) = (control.label for control in runs.controls.cheaper)
    assert judged(runs, small, "two-stage", "baseline").verdict == "not testable here"
    assert judged(runs, "no such network", small, "joint").verdict == "not testable here"
    assert judged(runs, "20", small, "tiny").missing == ("the strategy tiny",)


@pytest.mark.parametrize("wrong", [{"exits": [1]}, {"measure": "loss-test"}])
def test_a_claim_at_some_compute_is_of_accuracy_and_overall(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="accuracy-test and overall"):
        judged(runs_of(planted(1.0)), "20", "joint", "two-stage", **wrong)
