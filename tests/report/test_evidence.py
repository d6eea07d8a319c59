import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from handmade import evidence, simple
from syrupy.assertion import SnapshotAssertion
from table_evidence import TabledTrial
from table_evidence import evidence as tabled

from longer import long_where
from offramp.analysis.claims.claim import DataSet
from offramp.analysis.measures import MEASURES, of_metric
from offramp.analysis.recommend import Preference
from offramp.api.keep.store import pack as api_pack
from offramp.errors import OfframpError
from offramp.metrics import Metric
from offramp.report import advice, tables
from offramp.report import evidence as reading
from offramp.report.claims import regimes
from offramp.report.evidence import Evidence
from offramp.report.figures import FIGURES, draw
from offramp.report.render.charts import text
from offramp.report.select import chosen
from offramp.store import pack as packed
from offramp.store.record import PhaseRecord
from offramp.store.store import Damaged, Store
from offramp.store.table import COLUMNS, tidy
from records import changed, seed_log
from support import run_all, tiny_plan, tiny_study
from wording import refusal

ROOT = Path(__file__).parents[2]
HOME = "/home/me/{}.py:{}"
CODE = {"model": HOME.format("net", "make"), "data": HOME.format("data", "make")}
MINE = HOME.format("my", "students")
STRATEGIES = ["two-stage", "baseline", "joint", "joint-branch", "separate"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    plan = tiny_plan(tiny_study(STRATEGIES, seeds=(42, 43), recipe={"epochs": 1}))
    return run_all(plan, tmp_path_factory.mktemp("store"))[0]


@pytest.fixture(scope="module")
def whole(store: Store) -> Evidence:
    return reading.open(store.root)


@pytest.fixture(scope="module")
def packed_runs(whole: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of it; treat it as read-only."""
    out = tmp_path_factory.mktemp("kept") / "pack"
    pack(whole, out)
    return out


@pytest.fixture
def copied(packed_runs: Path, tmp_path: Path) -> Path:
    """A pack of its own."""
    return Path(shutil.copytree(packed_runs, tmp_path / "pack"))


def pack(actual: Evidence, out: Path) -> dict[str, int]:
    return packed.write(
        out, actual.gathered.records, [t.id for t in actual.trials], actual.table, actual.missing
    )


def test_the_table_and_the_records_say_what_the_store_says(store: Store, whole: Evidence) -> None:
    assert whole.missing == ()
    assert list(whole.table.columns) == list(COLUMNS)
    pd.testing.assert_frame_equal(
        whole.table.sort_values(list(COLUMNS), ignore_index=True),
        tidy(store, store.trials()).sort_values(list(COLUMNS), ignore_index=True),
    )
    assert {t.id for t in whole.trials} == set(store.trials())
    assert whole.strategies == ("baseline", "joint", "separate", "two-stage", "joint-branch")
    assert [runs.place for runs in whole.runs] == ["digits-cnn, custom"]
    for trial in whole.trials:
        logits, labels = whole.logits(trial.id, "test")
        right = (logits.argmax(2) == labels[:, None]).mean(0)
        assert np.allclose(right, trial.manifest.metrics["test"].accuracy)
        assert not trial.comparable


def test_a_phase_says_what_it_trained(whole: Evidence) -> None:
    named = {
        (t.strategy, p.name): (p.exits, p.parts) for t in whole.trials for p in t.phases if t.seed == 42
    }
    segments = tuple(f"segment {k}" for k in (1, 2, 3, 4))
    assert named["two-stage", "backbone"] == ((4,), (*segments, "head 4"))
    assert named["two-stage", "exit 2"] == ((2,), ("head 2",))
    assert named["joint", "joint"][0] == (1, 2, 3, 4)
    assert named["separate", "exit 2"] == ((2,), ("segment 1", "segment 2", "head 2"))


def test_a_pack_gives_the_same_up_to_rounding(whole: Evidence, tmp_path: Path) -> None:
    sizes = pack(whole, tmp_path / "pack")
    assert sorted(p.name for p in (tmp_path / "pack").iterdir()) == sorted(sizes)
    again = reading.open(tmp_path / "pack")
    pd.testing.assert_frame_equal(again.table, whole.table)
    assert again.missing == whole.missing
    for first, other in zip(whole.trials, again.trials, strict=True):
        assert packed.portable(first.manifest.as_json()) == other.manifest.as_json()
        assert first.seconds == other.seconds
        assert [(p.name, p.exits, p.parts, p.cost) for p in first.phases] == [
            (p.name, p.exits, p.parts, p.cost) for p in other.phases
        ]
        for split in ("validation", "calibration", "test"):
            (x, labels), (y, same) = whole.logits(first.id, split), again.logits(first.id, split)
            assert y.dtype == np.float16 and (labels == same).all()
            assert np.allclose(x, y, rtol=2**-11, atol=2**-24)


@pytest.mark.long
def test_figures_of_a_pack_are_those_of_the_store(whole: Evidence, packed_runs: Path) -> None:
    again = draw(reading.open(packed_runs))
    rounded = ("reliability", "confidence-quality", "accuracy-compute", "overthinking", "agreement")
    first = {f.name: f for f in draw(whole).figures}
    assert [f.name for f in again.figures] == list(first)
    for figure in again.figures:
        if not figure.name.startswith(rounded):  # these are made of rounded logits
            assert text(figure.spec) == text(first[figure.name].spec), figure.name


def test_packing_twice_gives_the_same_bytes(whole: Evidence, packed_runs: Path, tmp_path: Path) -> None:
    ids = [t.id for t in whole.trials][::-1]
    packed.write(tmp_path / "again", whole.gathered.records, ids, whole.table, whole.missing)
    pack(reading.open(packed_runs), tmp_path / "of a pack")
    for path in packed_runs.iterdir():
        for other in ("again", "of a pack"):
            assert path.read_bytes() == (tmp_path / other / path.name).read_bytes()


def test_a_pack_tells_nothing_of_anybodys_folders() -> None:
    sentence = {
        "spec": {"root": "/home/somebody/photos", "size": 8},
        "files": ["C:/photos/a.png", "a/b"],
    }
    assert packed.portable(sentence) == {
        "spec": {"root": "photos", "size": 8},
        "files": ["a.png", "a/b"],
    }
    built = {"provenance": {"machine": "my-laptop", "device": "a CPU", "git": None}}
    assert packed.portable([built]) == [{"provenance": {"device": "a CPU", "git": None}}]
    results = ROOT / "docs" / "results"
    assert not [p for p in results.glob("*/trials.json") if re.search(r'"/\w', p.read_text())]


def test_a_pack_has_one_name_for_what_was_named_by_a_whole_path(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    seeds = {"joint": (1, 2, 3), MINE: (1, 2)}
    actual = evidence([simple(x, seed, seed / 10, **CODE) for x, some in seeds.items() for seed in some])
    pack(actual, tmp_path / "pack")
    again = reading.open(tmp_path / "pack")
    assert_named(again)
    assert again.missing == snapshot
    assert "/home" not in (tmp_path / "pack" / "README.md").read_text()
    table = pd.read_parquet(tmp_path / "pack" / "table.parquet")
    assert not table[["strategy", "model", "data"]].map(lambda word: "/home" in word).any(axis=None)


def test_a_pack_of_an_earlier_offramp_has_the_names_of_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its table had whole paths."""
    actual = evidence(
        [simple(x, seed, seed / 10, **CODE) for x in ("joint", MINE) for seed in (1, 2, 3)]
    )
    monkeypatch.setattr(packed, "_short", lambda _: {})
    pack(actual, tmp_path / "pack")
    assert_named(reading.open(tmp_path / "pack"))


def assert_named(actual: Evidence) -> None:
    assert actual.runs[0].strategies == ["joint", "my.py:students"]
    assert len(actual.runs[0].values(MEASURES["accuracy-test"])) == len(actual.trials)
    assert tables.make(actual, ["main", "pairs", "exits"])


def test_a_pack_may_be_given_a_title(copied: Path, tmp_path: Path) -> None:
    """Its logits stay to the byte, and so does every number."""
    api_pack([copied], out=tmp_path / "titled", title="Imagenette")
    before, after = reading.open(copied), reading.open(tmp_path / "titled")
    assert {t.data for t in after.trials} == {"Imagenette"} == set(after.table["data"])
    assert before.table["value"].equals(after.table["value"])
    bytes_ = [(folder / "logits.npz").read_bytes() for folder in (copied, tmp_path / "titled")]
    assert bytes_[0] == bytes_[1]


def test_equal_logits_are_kept_once(packed_runs: Path) -> None:
    with np.load(packed_runs / "logits.npz") as arrays:
        names = list(arrays.files)
    # The final exits of baseline, separate and two-stage are one network, those of joint and
    # joint-branch another; labels are the same for all.
    exits = {"baseline": 1, "separate": 3, "two-stage": 3, "joint": 4, "joint-branch": 3}
    assert len([n for n in names if n.startswith("logits")]) == 2 * 3 * sum(exits.values())
    assert len([n for n in names if n.startswith("labels")]) <= 3


def test_what_is_damaged_or_unfinished_is_left_out_and_said(store: Store, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(store.root, tmp_path / "runs"))
    store = Store(copied)
    first, second, third = store.trials()[:3]
    (copied / "trials" / first / "logits.npz").write_bytes(b"harmed")
    (copied / "trials" / second / "trial.json").unlink()
    node = store.read_trial(third).keys[0]
    (copied / "nodes" / node / "cost.json").write_text("{}")
    store.plan_trial("waiting-s44", [])
    actual = reading.open(copied)
    left = {t.id for t in actual.trials}
    assert not {first, second, third} & left and left
    wording = " ".join(actual.missing)
    for word in (first, second, third, "logits.npz", "cost.json", "waiting-s44 is not"):
        assert word in wording
    assert draw(actual, ["accuracy-by-exit"]).figures  # what is whole is drawn


def test_an_empty_store_is_no_crash(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    Store(tmp_path / "runs").plan_trial("joint-s42", [])
    actual = reading.open(tmp_path / "runs")
    assert actual.trials == () and len(actual.table) == 0
    assert actual.missing == snapshot
    drawn = draw(actual)
    assert drawn.figures == () and len(drawn.missing) == len(FIGURES)


def test_a_folder_that_is_neither_is_refused(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert refusal(reading.open, tmp_path) == snapshot
    (tmp_path / "trials.json").write_text('{"format": "other"}')
    assert refusal(reading.open, tmp_path) == snapshot


def test_a_folder_of_packs_is_all_of_them(whole: Evidence, tmp_path: Path) -> None:
    for seed in (42, 43):
        its = [t.id for t in whole.trials if t.seed == seed]
        table = whole.table[whole.table["trial"].isin(its)]
        packed.write(tmp_path / str(seed), whole.gathered.records, its, table, ())
    (tmp_path / "notes").mkdir()
    actual = reading.open(tmp_path)
    assert {t.id for t in actual.trials} == {t.id for t in whole.trials}
    assert len(actual.table) == len(whole.table)


def test_an_altered_pack_is_refused(copied: Path, snapshot: SnapshotAssertion) -> None:
    (copied / "table.parquet").write_bytes(b"harmed")
    assert refusal(reading.open, copied) == snapshot


def test_one_digit_changed_in_a_pack_is_refused(
    whole: Evidence, copied: Path, snapshot: SnapshotAssertion
) -> None:
    path = copied / "trials.json"
    text = path.read_text()
    for number in (*re.findall(r":(\d+\.\d+)", text)[:3], *re.findall(r":(\d+\.\d+)", text)[-3:]):
        other = ("2" if number[0] == "1" else "1") + number[1:]  # a last digit may change no bit
        path.write_text(text.replace(f":{number}", f":{other}", 1))
        assert refusal(reading.open, copied) == snapshot
    path.write_text(re.sub(r',"seal":"\w+"', "", text))
    with pytest.raises(Damaged, match="seal"):
        reading.open(copied)
    path.write_text(text.replace(packed.FORMAT, "offramp-pack-1"))
    assert refusal(reading.open, copied) == snapshot
    path.write_text(text)
    assert len(reading.open(copied).trials) == len(whole.trials)


PACKS = [path.parent for path in sorted((ROOT / "docs" / "results").rglob("trials.json"))]


@pytest.mark.parametrize(
    "pack",
    long_where(PACKS, lambda pack: pack.name.isdigit()),
    ids=lambda pack: str(pack.relative_to(ROOT / "docs" / "results")),
)
def test_the_committed_packs_read(pack: Path) -> None:
    assert packed.read(pack).trials() and len(PACKS) >= 5


@pytest.mark.parametrize(
    "present",
    [
        {"README.md": "mine", "trials.json": "[]"},
        {"README.md": "mine", "trials.json": '{"format": "of a hospital"}'},
        {"README.md": "mine"},
        {"trials.json": '{"format": "offramp-pack-1"}', "logits.npz/mine.txt": "mine"},
    ],
)
def test_packing_spares_files_of_the_same_names(
    whole: Evidence, tmp_path: Path, present: dict[str, str], snapshot: SnapshotAssertion
) -> None:
    for name, words in present.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(words)
    assert refusal(pack, whole, tmp_path / "out") == snapshot
    assert all((tmp_path / "out" / name).read_text() == words for name, words in present.items())


def test_packing_leaves_what_lies_beside_the_pack(whole: Evidence, tmp_path: Path) -> None:
    (tmp_path / ".pack.staging").mkdir()
    (tmp_path / ".pack.staging" / "mine.txt").write_text("years of work")
    for _ in range(2):
        pack(whole, tmp_path / "pack")
        assert sorted(p.name for p in tmp_path.iterdir()) == [".pack.staging", "pack"]
        assert (tmp_path / ".pack.staging" / "mine.txt").read_text() == "years of work"


def test_packing_spares_what_is_no_pack(whole: Evidence, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all I have")
    with pytest.raises(OfframpError, match="holds something else"):
        pack(whole, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "all I have"
    (tmp_path / "empty").mkdir()
    for out in (copied, tmp_path / "empty"):  # a pack is replaced, and what a file manager left there
        (out / ".DS_Store").touch()
        pack(whole, out)


def test_one_setting_is_compared_and_the_others_are_said(snapshot: SnapshotAssertion) -> None:
    many = [simple("joint", seed) for seed in (1, 2)]
    other = [simple("joint", 1, study="short", recipe={"learning_rate": 0.5})]
    actual = evidence([*other, *many])
    assert [(t.seed, t.manifest.study) for t in actual.trials] == [(1, "made"), (2, "made")]
    assert actual.missing == snapshot
    alone = [simple("joint", 1, study=None, recipe={"learning_rate": 0.5})]
    assert evidence([*alone, *many]).missing == snapshot


@pytest.mark.parametrize(
    ("specs", "count"),
    [
        ([{"root": "/data/photos"}, {"root": "photos"}, {"root": None}], 3),
        ([{"url": "https://a/b.zip", "sha256": "0" * 64}, {"root": "b"}, {"split_file": "s.json"}], 3),
        ([{"size": 32}, {"size": 32}, {"size": 64}], 2),
        # No digest that seeds share says that these are the same photos.
        ([{"root": root, "split_seed": "trial"} for root in ("a", "a", "b")], 2),
    ],
)
def test_where_images_lie_makes_no_other_setting(specs: list[dict[str, Any]], count: int) -> None:
    actual = evidence([simple("joint", seed) for seed in (1, 2, 3)]).gathered.trials
    manifests = {}
    for (id, trial), spec in zip(actual.items(), specs, strict=True):
        manifests[id] = changed(trial.manifest, "data", spec=spec)
    assert len(chosen(manifests).compared) == count


def test_data_are_called_by_their_newest_title() -> None:
    """All trials of the same data, those before the title too; others, and keys of a setting, are as
    they were."""
    built = [TabledTrial("joint", 1, {1: 0.5}), TabledTrial("joint", 2, {1: 0.5})]
    built.append(TabledTrial("joint", 3, {1: 0.5}, data="other"))
    made = tabled(built)
    first, second, other = (changed(t, "manifest.data", spec={"name": t.data}) for t in made.trials)
    spec = {"name": "images", "title": "Imagenette"}
    titled = second.manifest.data.titled("Imagenette")
    assert titled.label == "Imagenette" and titled.spec == spec
    second = changed(second, "manifest", data=titled)
    frames = {t.id: made.table[made.table["trial"] == t.id] for t in made.trials}
    frames[second.id] = frames[second.id].assign(data="Imagenette")
    read = reading.Gathered(made.gathered.records, {t.id: t for t in (first, second, other)}, frames)
    whole = reading.gather(read)
    assert [(t.seed, t.data) for t in whole.trials] == [
        (1, "Imagenette"),
        (2, "Imagenette"),
        (3, other.data),
    ]
    assert set(whole.table["data"]) == {"Imagenette", other.data} and len(whole.runs) == 2
    assert whole.runs[0].where == f"{first.model} on Imagenette"
    assert not [text for text in whole.missing if "another setting" in text]
    claims = regimes(whole.trials)[first.model, "Imagenette"]
    assert claims.source == "images"
    assert not DataSet(name="images").off(first.model, "Imagenette", claims)


def test_of_two_trials_of_a_strategy_and_seed_the_newer_is_kept(snapshot: SnapshotAssertion) -> None:
    old = simple("joint", 1, study="a", finished="2025-01-01")
    new = simple("joint", 1, study="b", finished="2025-02-01")
    one, other = (evidence(order) for order in ([old, new], [new, old]))
    assert [t.manifest.study for each in (one, other) for t in each.trials] == ["b", "b"]
    assert one.missing == other.missing
    assert [note.replace(old.id, "OLD") for note in one.missing] == snapshot


def test_seeds_of_other_options_are_not_taken_for_one_strategy() -> None:
    """Two studies gave them one label, and no seed has both."""
    trials = [simple("joint", seed, finished=f"2025-01-0{seed}") for seed in (1, 2, 3, 4)]
    manifests = {id: t.manifest for id, t in evidence(trials).gathered.trials.items()}
    early, late = [t.id for t in trials[:2]], [t.id for t in trials[2:]]
    for trial in late:
        manifests[trial] = changed(manifests[trial], options={"weights": "equal"})
    selection = chosen(manifests)
    assert selection.compared == late
    (note,) = selection.notes
    assert "other options" in note and all(trial in note for trial in early)


def test_a_choice_is_a_trial_of_the_data_set_that_it_is_told_of() -> None:
    """Whose options `build` takes; another data set may have given the same label others."""
    both = [
        simple(s, n, data=data)
        for data in ("one", "two")
        for s in ("joint", "separate")
        for n in (1, 2, 3)
    ]
    choice = advice.choice(evidence(both), Preference("accuracy"), "net")
    assert choice is not None
    trial, words = choice
    assert trial.data == "one" and words.startswith("net on one: ")


def test_missing_seeds_and_strategies_are_said(snapshot: SnapshotAssertion) -> None:
    actual = evidence([simple("joint", 1), simple("joint", 2), simple("separate", 1)])
    assert actual.missing == snapshot
    two = [simple("joint", 1), simple("separate", 1), simple("joint", 1, model="other")]
    assert evidence(two).missing == snapshot


def test_strategies_come_in_the_papers_order_then_by_name() -> None:
    labels = ["zeta", "two-stage", "joint", "alpha", "baseline"]
    actual = evidence([simple(label, 1) for label in labels])
    assert actual.strategies == ("baseline", "joint", "two-stage", "alpha", "zeta")


def test_studies_can_be_told_apart(snapshot: SnapshotAssertion) -> None:
    both = [simple("joint", 1), simple("joint", 1, study="short", recipe={"epochs": 1})]
    actual = evidence(both, study="short")
    assert [t.manifest.study for t in actual.trials] == ["short"] and actual.missing == ()
    assert refusal(evidence, both, study="long") == snapshot


def test_strategies_that_another_study_trained_are_said_to_be_left_out(
    snapshot: SnapshotAssertion,
) -> None:
    """A study that found them in the store has them too, and they are another's all the same."""
    both = [simple("joint", 1), simple("joint", 2), simple("separate", 1, study="own")]
    assert evidence(both, study="own").missing == snapshot


def test_seeds_of_some_strategies_were_added_by_the_rule_of_all() -> None:
    trials = [simple(label, seed) for label in ("joint", "separate", "two-stage") for seed in (1, 2, 3)]
    actual = evidence(trials).gathered
    whole = reading.gather(
        replace(actual, logs={"log": seed_log(trials=[trial.id for trial in trials])})
    )
    some = reading.of_strategies(whole, ["joint", "separate"])
    assert some.logs == whole.logs
    assert some.runs[0].looks == whole.runs[0].looks is not None
    ids = [trial.id for trial in trials]
    rules = {"few": seed_log(trials=ids[:2], first=3), "most": seed_log(trials=ids, first=2)}
    (runs,) = reading.gather(replace(actual, logs=rules)).runs
    assert runs.looks is not None and runs.looks.first == 2  # that of most trials here
    assert "2 rules" in runs.added[0]


@pytest.mark.parametrize(
    ("phases", "heads"),
    [
        ([((3,), ("segment 1", "head 3")), ((1,), ("head 1",))], True),
        ([((1,), ("head 1",)), ((2,), ("head 2",))], True),  # of a network that came trained
        ([((1,), ("segment 1", "head 1")), ((2,), ("head 2",))], False),
        ([((3,), ("segment 1", "head 3")), ((1,), ("segment 1", "head 1"))], False),
    ],
)
def test_a_given_backbone_stays_where_heads_alone_train(phases: list[Any], heads: bool) -> None:
    (trial,) = evidence([simple("two-stage", 1)]).trials
    built = tuple(PhaseRecord("", "", *phase, trial.phases[0].cost) for phase in phases)
    assert replace(trial, phases=built).heads_only is heads


def test_a_measure_is_tested_over_images_by_its_metric() -> None:
    """A user's own too; without values on images, over seeds alone."""
    actual = evidence(simple(label, seed) for label in ("joint", "separate") for seed in (1, 2))
    (runs,) = actual.runs

    def ramp(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.arange(float(len(labels)))[:, None] + np.zeros(logits.shape[1])

    own = Metric(lambda *answers: ramp(*answers).mean(axis=0), on_images=ramp)
    for measure in of_metric("own", own, "test"):
        images = runs.images(measure)
        assert images is not None
        assert sorted(images) == [(s, x) for s in ("joint", "separate") for x in "12"]
        assert [values.tolist() for values in images.values()] == [[0.0, 1.0, 2.0, 3.0]] * 4
    assert runs.images(of_metric("none", replace(own, on_images=None), "test")[0]) is None
    assert runs.images(MEASURES["accuracy-validation"]) is None


def test_the_final_exits_images_are_its_own() -> None:
    right = {1: (True, False, False, False), 2: (True, True, False, False), 3: (False, True, True, True)}
    (runs,) = evidence([simple("joint", seed, right=right) for seed in (1, 2)]).runs
    images = runs.images(MEASURES["final-accuracy-test"])
    assert images is not None
    assert [values.tolist() for values in images.values()] == [[0.0, 1, 1, 1]] * 2


def test_logits_that_say_nothing_leave_nothing_to_compare() -> None:
    """NaN throughout: no image leaves, and less than the full network takes nobody can spend."""
    whole = evidence([simple(label, seed, sure=float("nan")) for label in "ab" for seed in (1, 2)])
    (runs,) = whole.runs
    assert [level.macs for level in runs.levels] == [max(runs.trials[0].macs)]
    assert tables.make(whole)


def test_long_names_make_names_of_files() -> None:
    whole = evidence([simple("a", 1, model="m" * 300 + end) for end in "xy"])
    first, second = (runs.place_slug for runs in whole.runs)
    assert first != second and max(len(first), len(second)) < 200


def test_values_that_are_not_finite_are_no_sample() -> None:
    whole = evidence([simple(label, seed) for label in "ab" for seed in (1, 2)])
    lost = replace(whole, table=whole.table.assign(value=np.inf))
    (runs,) = lost.runs
    assert runs.sample(MEASURES["accuracy-test"]) is None
