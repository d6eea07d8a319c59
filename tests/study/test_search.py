"""Searches for settings: what is proposed, kept, given up, and which images are read."""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from disks import flip
from longer import long
from offramp.api.results.status import LiveStatus
from offramp.api.train.recipes import study_yaml
from offramp.engine.images import Images
from offramp.errors import OfframpError
from offramp.store.live import Reader
from offramp.store.searches import FOLDER, held_log
from offramp.store.store import Store
from offramp.study import search as searching
from offramp.study.plan.plan import make_plan
from offramp.study.run import events
from offramp.study.run.ledger import Ledger
from offramp.study.run.run import RunConfig, run
from offramp.study.search import (
    Proposed,
    Scored,
    SearchEvent,
    ValidationAccuracy,
    name_of,
    score,
    search,
)
from offramp.study.spec.file import StudyFile, as_text, read, study_files
from offramp.study.variants import (
    Best,
    SearchOptions,
    Space,
    Variants,
    check_keys,
    space,
    written,
)
from offramp.terminal import rendered
from refusal import refuses
from support import CPU

STUDY = """\
seeds: [1]
strategies: [joint]
backbone: digits-cnn
exits: {taps: [blocks.0], head: linear}
data: {name: digits, train_images: 100, test_images: 50}
recipe: {epochs: 2, batch_size: 16, learning_rate: 0.01, optimizer: adam}
"""
NET = """\
from torch import nn

def make_net(classes):
    stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)]
    return nn.Sequential(*stem, nn.Conv2d(4, 4, 3), nn.ReLU(), *head)
"""
RATES = space("[1.0e-9, 0.005, 1.0e-8, 0.01]", "--over")
OVER = {"recipe.learning_rate": RATES}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    return path


def as_read(study: Path, *settings: str) -> StudyFile:
    (file,) = study_files(study, (*settings, "search=null"))
    return file


def searched(study: Path, store: Path, options: SearchOptions, **about: Any) -> Iterator[SearchEvent]:
    """The steps of a search; its last value is what was found."""
    variants = Variants(as_read(study), options.label)
    best = yield from search(
        read(study), variants, options, Store(store), RunConfig(CPU, store.parent, **about)
    )
    yield best


def rewritten(
    study: Path, options: SearchOptions, best: Mapping[str | None, Best], *settings: str
) -> Path:
    """The study file with what a search brought, beside the study."""
    target = study.with_name("found.yaml")
    target.write_text(study_yaml(written(as_read(study, *settings), options, best)))
    return target


@pytest.mark.parametrize(
    ("text", "kind", "low", "high"),
    [
        ("log(1e-3,1)", "log", 1e-3, 1),
        (" uniform( 0 , .5 )", "uniform", 0, 0.5),
        ("int(8,64)", "int", 8, 64),
    ],
)
def test_ranges(text: str, kind: str, low: float, high: float) -> None:
    assert space(text, "--over") == Space(text.strip(), kind, low, high)
    assert space("[sgd, adam]", "--over").choices == ("sgd", "adam")


@pytest.mark.parametrize(
    "text",
    ["", "log(0,1)", "log(1,1)", "int(1,2.5)", "log(1)", "[a]", "[[1], [2]]", "log(a,b)", "exp(1,2)"],
)
def test_what_is_no_range_is_refused(text: str) -> None:
    refuses("--over x: ", space, text, "--over x")


def test_the_best_is_found_and_written_as_a_study(study: Path, tmp_path: Path) -> None:
    options = SearchOptions(OVER, 3, seed=40)
    study.write_text(STUDY.replace("train_images: 100", "train_images: 200"))  # else rates do not tell
    *steps, best = searched(study, tmp_path / "runs", options)
    assert isinstance(best, Best) and best.settings["recipe.learning_rate"] in (0.005, 0.01)
    scored = [step for step in steps if isinstance(step, Scored)]
    assert [s.number for s in scored] == [1, 2, 3]
    values = {s.settings["recipe.learning_rate"]: s.value for s in scored}
    assert best.value == max(v for v in values.values() if v is not None)
    target = rewritten(study, options, {None: best})
    again = read(target)
    assert again.recipe.learning_rate == best.settings["recipe.learning_rate"]
    assert again.search is not None
    assert again.search.over == {"recipe.learning_rate": RATES.text} and again.search.trials == 3
    refuses("remove 'search'", read, target, ["recipe.learning_rate=0.5"])
    assert list(searched(study, tmp_path / "runs", options)) == [best]  # all of it is known


@pytest.mark.parametrize("change", ["changed", *long("deleted")])
def test_a_study_file_is_read_once(study: Path, tmp_path: Path, change: str) -> None:
    """What became of it during a search changed later proposals, and what was written."""
    options, file = SearchOptions(OVER, 2), as_read(study)
    steps = search(
        file.study(), Variants(file), options, Store(tmp_path / "runs"), RunConfig(CPU, tmp_path)
    )
    assert isinstance(next(steps), Proposed)
    if change == "changed":
        study.write_text(STUDY.replace("epochs: 2", "epochs: 3"))
    else:
        study.unlink()
    happened = list(steps)
    assert {step.report.epoch for step in happened if isinstance(step, events.Epoch)} == {1, 2}
    document = written(file, options, {None: Best({"recipe.learning_rate": 0.01}, 0.9, 2)})
    assert document["recipe"]["epochs"] == 2


def test_a_study_says_how_many_were_tried_whatever_was_asked_for_last(study: Path) -> None:
    best = Best({"recipe.learning_rate": 0.01}, 0.9, 40)
    document = written(as_read(study), SearchOptions(OVER, 20), {None: best})
    assert document["search"]["trials"] == 40


def test_what_one_strategy_found_has_the_keys_of_the_study_that_is_written(study: Path) -> None:
    """Also where a whole number was tried of a setting that takes any: all was trained again."""
    options = SearchOptions({"recipe.weight_decay": space("[0, 0.1]", "--over")}, 1, "joint")
    settings = {"recipe.weight_decay": 0}
    tried = make_plan(Variants(as_read(study), "joint").study(settings), CPU)
    target = rewritten(study, options, {"joint": Best(settings, 0.9, 1)})
    assert make_plan(read(target), CPU).nodes.keys() == tried.nodes.keys()


@pytest.mark.parametrize("scale", ["in the file", "as a flag"])
def test_what_a_rehearsal_found_is_read_as_it_was_tried(study: Path, scale: str) -> None:
    """scale: small set its own epochs again beside those that were found or given as a flag."""
    flags, settings = ("scale=small", "recipe.epochs=7", "name=mine"), {"data.train_images": 300}
    if scale == "in the file":
        study.write_text(STUDY + "scale: small\n")
        flags, settings = ("name=mine",), {"recipe.epochs": 7, **settings}
    options = SearchOptions({key: space("int(5,400)", "--over") for key in settings}, 3)
    target = rewritten(study, options, {None: Best(settings, 0.9, 3)}, *flags)
    tried, found = Variants(as_read(study, *flags)).study(settings), read(target)
    assert (found.recipe.epochs, found.data.train_images) == (7, 300)
    assert (found.name, tried.name) == ("mine-found", "mine")  # reports tell them apart
    assert as_text(read(target, ["search=null"])) == as_text(
        tried.model_copy(update={"scale": "full", "name": "mine-found"})
    )


def test_no_test_image_is_read(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one of calibration. The negative control: an ordinary run of the same plan looks."""

    def guarded(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(images: Images, split: str, *rest: Any) -> Any:
            assert split in ("train", "validation"), f"looks at {split}"
            return look(images, split, *rest)

        return looked

    for name in ("count", "labels", "read", "reads"):
        monkeypatch.setattr(Images, name, guarded(getattr(Images, name)))
    *_, best = searched(study, tmp_path / "runs", SearchOptions(OVER, 1))
    assert isinstance(best, Best) and Store(tmp_path / "runs").trials() == []
    plan = make_plan(read(study, [f"recipe.learning_rate={best.settings['recipe.learning_rate']}"]), CPU)
    with pytest.raises(AssertionError, match="looks at"):
        list(run(plan, Store(tmp_path / "runs"), RunConfig(CPU, tmp_path)))


def test_an_interrupted_search_goes_on(study: Path, tmp_path: Path) -> None:
    """With what it was at, from its checkpoint; what was done is not done again."""
    options, store = SearchOptions(OVER, 3), tmp_path / "runs"
    first = searched(study, store, options, checkpoint_seconds=0)
    proposed: list[Proposed] = []
    scored: list[Scored] = []
    for step in first:
        scored += [step] if isinstance(step, Scored) else []
        if isinstance(step, Proposed):
            proposed.append(step)
        if len(proposed) == 2 and isinstance(step, events.Epoch):
            break
    first.close()  # type: ignore[attr-defined]  # a generator
    log = next((store / FOLDER).glob("*.log"))
    log.write_bytes(log.read_bytes() + b'{"op_code": 4, "work')  # killed while it wrote
    *steps, best = searched(study, store, options)
    later = [step for step in steps if isinstance(step, Proposed)]
    assert [p.number for p in later] == [2, 3] and later[0].settings == proposed[1].settings
    scores = [step for step in steps if isinstance(step, Scored)]
    values = [step.value or 0.0 for step in (*scored, *scores)]
    bests = [max(values[:2]), max(values)]
    assert [step.best for step in scores] == bests  # of what was tried before too
    began = [step for step in steps if isinstance(step, events.GroupStarted)]
    assert began[0].epoch == 1 and isinstance(best, Best) and best.tried == 3


def test_lists_that_the_trials_cover_are_tried_once_each(study: Path, tmp_path: Path) -> None:
    """Whatever was tried before, and repeated, as proposals that are drawn may be."""
    over = {"recipe.batch_size": space("[50, 25]", "--over"), "recipe.epochs": space("[1, 2]", "--over")}
    every = [(50, 1), (50, 2), (25, 1), (25, 2)]
    tried = []
    for trials in (1, 20, 20):
        steps = searched(study, tmp_path / "runs", SearchOptions(over, trials))
        tried += [tuple(step.settings.values()) for step in steps if isinstance(step, Proposed)]
        assert len(tried) == (1 if trials == 1 else 4)
    assert sorted(tried) == sorted(every) and tried[1:] == [each for each in every if each != tried[0]]
    rest = space("uniform(0, 1)", "--over")
    assert SearchOptions(over, 3).grid == SearchOptions({**over, "k": rest}, 20).grid == []


def test_a_search_that_was_killed_while_it_wrote_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's is a link, which leads nowhere where the store is named by a relative path."""
    monkeypatch.chdir(tmp_path)
    store, log = Store(Path("runs")), Path("runs", FOLDER, "name.log")
    with held_log(store, "name"):
        pass
    link = log.with_name("name.log.lock")
    link.symlink_to(log)
    assert link.is_symlink() and not link.exists()
    with held_log(store, "name"):
        assert not link.is_symlink()


def test_it_is_watched(study: Path, tmp_path: Path) -> None:
    """It writes no trial: who watched saw nothing, and that it was over."""
    store = tmp_path / "runs"
    steps = searched(study, store, SearchOptions(OVER, 1), checkpoint_seconds=0)
    while not (isinstance(step := next(steps), events.Epoch) and step.report.epoch == 2):
        pass  # the first was saved by then
    reader = Reader(Store(store).archive)
    assert list(reader.courses()) == [] and reader.archive.more_comes()
    (phase,) = reader.loose([])
    assert (phase.name, phase.epoch, phase.epochs) == ("joint", 1, 2)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rendered(LiveStatus("runs", [], [phase]).document(), 80))
    assert "a search" in (text := console.export_text()) and "joint, by " in text
    list(steps)
    assert not reader.archive.more_comes() and not reader.loose([])


def test_a_search_of_other_code_is_another_one(study: Path, tmp_path: Path) -> None:
    """It went on with the scores of the code before."""
    code, options = tmp_path / "net.py", SearchOptions(OVER, 1)
    study.write_text(STUDY.replace("digits-cnn", f"{code}:make"))
    names = []
    for text in ("def make(classes): ...\n", "def make(classes): return None\n"):
        code.write_text(text)
        names += [name_of(read(study), options)]
    assert names[0] != names[1] and name_of(read(study), options) == names[1]


def test_two_cannot_be_at_one_search(study: Path, tmp_path: Path) -> None:
    options, store = SearchOptions(OVER, 1), tmp_path / "runs"
    with (
        Store(store).lock(f"search-{name_of(read(study), options)}"),
        pytest.raises(OfframpError, match="this very search"),
    ):
        list(searched(study, store, options))


@pytest.mark.long
def test_what_is_worse_than_the_median_is_given_up(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before there is a median, and never where nothing is to be given up."""
    monkeypatch.setattr(searching, "STARTUP", 2)
    *steps, _ = searched(study, tmp_path / "runs", SearchOptions(OVER, 5))
    ends = [step.why for step in steps if isinstance(step, Scored)]
    assert not any(ends[:2]) and searching.WORSE in ends
    assert not Store(tmp_path / "runs").archive.checkpoints()
    *steps, _ = searched(study, tmp_path / "runs", SearchOptions(OVER, 5, prune=False))
    assert not any(step.why for step in steps if isinstance(step, Scored))


def heads_searched(study: Path, store: Store, trials: int) -> list[SearchEvent]:
    """The steps of a search for the rate of heads on one backbone."""
    study.write_text(STUDY.replace("[joint]", "[two-stage]"))
    over = {"strategies.0.phases.exit *.learning_rate": space("log(1e-3,1e-1)", "--over")}
    fixed = 'strategies=[{name: two-stage, phases: {"exit *": {learning_rate: 0.1}}}]'
    about = (SearchOptions(over, trials), store, RunConfig(CPU, store.root.parent))
    return list(search(read(study), Variants(as_read(study, fixed)), *about))


def test_phases_that_proposals_share_are_trained_once(study: Path, tmp_path: Path) -> None:
    steps = heads_searched(study, Store(tmp_path / "runs"), 3)
    assert len([s for s in steps if isinstance(s, events.Finished)]) == 1 + 3
    assert len([s for s in steps if isinstance(s, events.Reused)]) == 2


@pytest.mark.parametrize("file", ["weights.safetensors", *long("history.parquet")])
def test_a_damaged_phase_that_proposals_share_is_made_anew(
    study: Path, tmp_path: Path, file: str
) -> None:
    """It ended the search, or each proposal that read it was given up."""
    store = Store(tmp_path / "runs")
    heads_searched(study, store, 1)
    (key,) = (key for key in store.nodes() if store.read_node(key).labels.phase == "backbone")
    flip(tmp_path / "runs" / "nodes" / key / file)
    scores = heads_searched(study, store, 2)
    (note,) = (step.text for step in scores if isinstance(step, events.Note))
    assert f"{file} does not match" in note and "computed again" in note
    assert [step.why for step in scores if isinstance(step, Scored)] == [""]
    store.verify_node(key)


def test_a_phase_that_another_process_finished_meanwhile_counts_once(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told twice, and its epochs were counted twice: proposals were compared at other epochs."""
    plan, store = make_plan(read(study), CPU), Store(tmp_path / "runs")
    (key,) = plan.nodes
    begin = Ledger.begin

    def later(ledger: Ledger, with_trials: bool) -> Iterator[events.Event]:
        yield from begin(ledger, with_trials)
        with monkeypatch.context() as other:
            other.setattr(Ledger, "begin", begin)
            list(run(plan, Store(store.root), RunConfig(CPU, tmp_path)))  # which is another one's work

    monkeypatch.setattr(Ledger, "begin", later)
    happened = list(run(plan, store, RunConfig(CPU, tmp_path), with_trials=False))
    assert happened == [events.Reused(key)]


def test_a_proposal_that_diverges_is_told_and_the_search_goes_on(study: Path, tmp_path: Path) -> None:
    over = {"recipe.learning_rate": space("[1.0e+30, 0.01]", "--over")}
    study.write_text(STUDY.replace("optimizer: adam", "optimizer: sgd"))
    *steps, best = searched(study, tmp_path / "runs", SearchOptions(over, 2, seed=41))
    assert isinstance(best, Best) and best.settings["recipe.learning_rate"] == 0.01
    assert any("is not finite" in s.why for s in steps if isinstance(s, Scored))
    with pytest.raises(OfframpError, match="none of 2 proposals"):
        wild = {"recipe.learning_rate": space("[1.0e+30, 1.0e+29]", "--over")}
        list(searched(study, tmp_path / "runs", SearchOptions(wild, 2)))


def test_settings_that_do_not_go_together_are_told_and_the_search_goes_on(
    study: Path, tmp_path: Path
) -> None:
    """They ended it, and the same command took them up again each time."""
    over = {
        "recipe.epochs": space("int(1,2)", "--over"),
        "recipe.warmup_epochs": space("uniform(3,4)", "--over"),
    }
    scored: list[Scored] = []
    with pytest.raises(OfframpError, match="none of 2 proposals"):
        for step in searched(study, tmp_path / "runs", SearchOptions(over, 2)):
            scored += [step] if isinstance(step, Scored) else []
    assert [step.number for step in scored] == [1, 2]
    assert all("warmup_epochs must" in step.why for step in scored)
    assert all(step.best is None for step in scored), "none was scored"
    with pytest.raises(OfframpError, match="none of 2 proposals"):
        list(searched(study, tmp_path / "runs", SearchOptions(over, 2, label="joint")))


@pytest.mark.parametrize("name", ["backbone.width", "data.width", "net.py"])
def test_what_no_setting_would_mend_ends_a_search(study: Path, tmp_path: Path, name: str) -> None:
    """It tried all of them."""
    if name == "net.py":
        net = tmp_path / name
        net.write_text(NET)
        study.write_text(STUDY.replace("digits-cnn", f"{net}:make_net").replace("blocks.0", "'1'"))
        name = "backbone.width"
    over = {name: space("int(8,64)", "--over")}
    steps: list[SearchEvent] = []
    with pytest.raises(OfframpError, match=r"(has no option|takes no argument) 'width'"):
        steps.extend(searched(study, tmp_path / "runs", SearchOptions(over, 20)))
    assert not [step for step in steps if isinstance(step, Scored)]


def test_more_is_never_less_while_a_proposal_trains(study: Path, tmp_path: Path) -> None:
    """So that proposals at the same epoch can be compared, whatever phase they are in."""
    plan, store = make_plan(read(study, ["strategies=[two-stage]"]), CPU), Store(tmp_path / "runs")
    accuracy, values = ValidationAccuracy(plan), [0.0]
    for event in run(replace(plan, trials=plan.trials), store, RunConfig(CPU, tmp_path)):
        if isinstance(event, events.Finished):
            accuracy.see(event, store)
            values.append(accuracy.mean)
    assert values == sorted(values) and len(values) == 3
    assert accuracy.mean == pytest.approx(score(plan, store))
    final = store.read_trial(plan.trials[0].id).metrics["validation"].accuracy
    assert accuracy.mean == pytest.approx(sum(final) / len(final))


def test_a_strategy_has_settings_of_the_recipe_alone() -> None:
    check_keys(OVER, True)
    check_keys({"data.train_images": RATES}, False)
    for key in ("data.train_images", "recipe.temperature", "recipe.learning_rat"):
        refuses("has no", check_keys, {key: RATES}, True)
