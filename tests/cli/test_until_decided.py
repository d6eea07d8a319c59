"""`offramp run --until-decided`, and `--dry-run --power`: seeds are added, looked at, and planned."""

import re
import shutil
from pathlib import Path

import pytest
from command import STUDY, Answer, Cli, call, data, ok, untimed
from syrupy.assertion import SnapshotAssertion

from offramp.api.progress import display
from offramp.report import evidence
from offramp.report.page.how import facts
from offramp.store.archive import Archive
from offramp.store.pack import read

DECIDED = ("run", "s.yaml", "--until-decided", "--max-seeds", "4", "--difference", "0.01")
TWO = "strategies=[joint, two-stage]"
LEARNS = STUDY.replace("learning_rate: 0.01", "learning_rate: 3e-3, optimizer: adam")


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A study to which seeds were added, and what that said."""
    folder = tmp_path_factory.mktemp("decided")
    (folder / "s.yaml").write_text(LEARNS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        return folder, call(*DECIDED)


@pytest.fixture
def again(cli: Cli, decided: tuple[Path, Answer], tmp_path: Path) -> Cli:
    """`cli` beside a copy of it."""
    assert decided[1].code == 0, decided[1].err
    shutil.copytree(decided[0], tmp_path, dirs_exist_ok=True)
    return cli


@pytest.fixture
def fresh(cli: Cli) -> Cli:
    """`cli` beside the study, of which nothing was run."""
    Path("s.yaml").write_text(LEARNS)
    return cli


def ended(answer: Answer) -> str:
    """In which words seeds are no longer added."""
    (line,) = re.findall(r"^All .* seeds\b.*", answer.out, re.MULTILINE)
    return str(line)


@pytest.mark.journey
@pytest.mark.long
def test_seeds_are_added_until_they_are_spent(
    decided: tuple[Path, Answer], snapshot: SnapshotAssertion
) -> None:
    folder, answer = decided
    assert answer.code == 0
    looks = [line for line in untimed(answer.err) if line.startswith("Look at")]
    assert [*looks, ended(answer)] == snapshot
    assert max(map(len, answer.out.splitlines())) <= 80
    trials = Archive(folder / "runs").trials()
    assert len([t for t in trials if t.startswith("joint-")]) == 4
    assert len([t for t in trials if t.startswith("baseline-")]) == 3  # it is in no pair
    (log,) = Archive(folder / "runs").seed_logs().values()
    assert (log.seeds, log.first, sorted(log.looks)) == ((1, 2, 3, 4), 3, ["3", "4"])


def test_a_second_call_trains_nothing_and_says_so(again: Cli, decided: tuple[Path, Answer]) -> None:
    answer = again("run", "s.yaml", "--until-decided")
    assert answer.out == decided[1].out
    assert not [line for line in untimed(answer.err) if line.startswith("[")]
    said = data(again("run", "s.yaml", "--until-decided", "--json"))
    assert said["seeds"]["looks"]["4"][0]["verdict"] == "open" and len(said["trials"]) == 11
    assert said["workers"]["count"] == 1 and said["unreliable"] == []


def test_the_rule_cannot_be_changed_after_a_look(again: Cli, snapshot: SnapshotAssertion) -> None:
    answer = again("run", "s.yaml", "--until-decided", "--max-seeds", "9")
    assert answer.code == 2 and answer.err.splitlines()[-1] == snapshot


def test_an_interrupted_run_goes_on(
    fresh: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    watch, calls = display.watch, []

    def once(*given: object) -> None:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        watch(*given)  # type: ignore[arg-type]

    words = (*DECIDED, "--set", TWO)
    monkeypatch.setattr(display, "watch", once)
    answer = fresh(*words)
    assert answer.code == 130
    interrupted = untimed(answer.err)[-1]
    monkeypatch.setattr(display, "watch", watch)
    assert [interrupted, ended(ok(fresh(*words)))] == snapshot


@pytest.mark.long
def test_strategies_that_are_alike_enough_need_no_more_seeds(
    fresh: Cli, snapshot: SnapshotAssertion
) -> None:
    answer = ok(fresh("run", "s.yaml", "--until-decided", "--difference", "99"))
    assert ended(answer) == snapshot
    assert "alike" in answer.out and len(list(Path("runs/trials").glob("joint-*"))) == 3


def test_reports_pay_for_the_looks_from_store_and_pack_alike(
    again: Cli, snapshot: SnapshotAssertion
) -> None:
    store = evidence.from_store(Path("runs"))
    assert again("store", "pack", "runs", "--out", "pack").code == 0
    (log,) = read(Path("pack")).document.seed_logs.values()
    packed = evidence.from_pack(Path("pack"))
    assert store.logs == packed.logs == {next(iter(store.logs)): log}
    for found in (store, packed, evidence.join([packed, store])):
        (runs,) = found.runs
        assert runs.looks is not None and runs.looks.counts == (3, 4)
        assert runs.added == ()
    assert again("report", "--tables", "pack", "--only", "pairs", "--out", "tables").code == 0
    page = next(Path("tables").glob("pairs-*-overall.md")).read_text()
    adjusted = re.findall(r"[^.;\n]*every look[^.;\n]*", page)
    looks = [line for fact in facts(packed) for line in fact.values if " looks " in line]
    assert [*adjusted, *looks] == snapshot


def test_seeds_beside_the_rule_are_told(again: Cli, snapshot: SnapshotAssertion) -> None:
    assert again("run", "s.yaml", "-q", "--set", "seeds=[7]").code == 0
    (runs,) = evidence.from_store(Path("runs")).runs
    (told,) = runs.added
    assert told == snapshot
    assert again("report", "--tables", "runs", "--only", "pairs", "--out", "tables").code == 0
    assert told in next(Path("tables").glob("pairs-*-overall.md")).read_text()


@pytest.mark.long
def test_seeds_that_were_added_without_a_log_are_told(studied: Cli, snapshot: SnapshotAssertion) -> None:
    assert evidence.from_store(Path("runs")).runs[0].added == ()
    assert studied("run", "s.yaml", "-q", "--set", "seeds=[1, 2, 3]").code == 0
    (runs,) = evidence.from_store(Path("runs")).runs
    (told,) = runs.added
    assert told == snapshot
    assert studied("report", "--tables", "runs", "--only", "pairs", "--out", "tables").code == 0
    assert told in next(Path("tables").glob("pairs-*-overall.md")).read_text()


@pytest.mark.usefixtures("again")
def test_a_damaged_log_is_told() -> None:
    next(Path("runs/seeds").iterdir()).write_text("{}")
    found = evidence.from_store(Path("runs"))
    assert "p is not adjusted" in " ".join(found.missing)


def power(answer: Answer) -> str:
    """What a plan says of power."""
    said = " ".join(answer.out.split())
    return said[said.index("Power: ") :]


def test_power_says_how_many_seeds_a_difference_takes(again: Cli, snapshot: SnapshotAssertion) -> None:
    plan = ("run", "s.yaml", "--dry-run", "--power")
    answer = ok(again(*plan, "90"))
    assert max(map(len, answer.out.splitlines())) <= 80
    assert power(answer) == snapshot(name="seeds")
    assert data(again(*plan, "0.0001", "--json"))["power"]["typical"]["seeds"] is None
    assert power(again(*plan, "1", "--store", "none")) == snapshot(name="no store")
    assert again("run", "s.yaml", "-q", "--store", "one", "--set", "seeds=[1]").code == 0
    assert power(again(*plan, "1", "--store", "one")) == snapshot(name="one seed")
    assert data(again(*plan, "1", "--json", "--store", "one"))["power"]["typical"] is None


def test_one_strategy_leaves_nothing_to_decide(studied: Cli, snapshot: SnapshotAssertion) -> None:
    words = ("run", "s.yaml", "--until-decided", "--set", "strategies=[joint]")
    answer = studied(*words)
    assert answer.code == 2 and answer.err.splitlines()[-1] == snapshot
