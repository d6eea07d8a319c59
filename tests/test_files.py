"""Where a result cannot be written is said before the work, not after it."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

import offramp.api.results.report as results
import offramp.api.train.data as data
import offramp.study.search as searching
from offramp.api.chart import check_file
from offramp.api.train.search import search
from offramp.bundle import folder as bundles
from offramp.bundle import web
from offramp.errors import Unwritable
from offramp.files import check_replaceable, check_writable, folder_at
from offramp.report.page import folder as reports

CHECKS: dict[str, Callable[[Path], None]] = {
    "folder": check_writable,
    "file": check_replaceable,
    "chart": check_file,
    "bundle": lambda out: bundles.check_place(out, force=False),
    "page of a bundle": lambda out: web.check_place(out, force=True),
    "report": reports.check,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_a_place_that_takes_nothing_is_refused(check: Callable[[Path], None]) -> None:
    with pytest.raises(Unwritable, match=r"^cannot write /proc/new\.svg \("):
        check(Path("/proc/new.svg"))  # where root can write nothing either


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_a_place_that_can_be_written_is_left_as_it_is(
    check: Callable[[Path], None], tmp_path: Path
) -> None:
    check(tmp_path / "new.svg")
    assert [*tmp_path.iterdir()] == []


def test_folders_on_the_way_are_not_needed_yet(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "file")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "a").write_text("")
    with pytest.raises(Unwritable, match="cannot write"):
        check_writable(tmp_path / "a" / "b" / "file")


@pytest.mark.parametrize("taken", [False, True], ids=["one more is there", "the old one is gone"])
def test_of_two_folders_that_are_written_at_once_the_last_is_whole(
    taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process comes between two steps: after the old one was moved away, or before. On a disk
    that cannot let names change places."""
    monkeypatch.setattr("offramp.files._exchanged", lambda *_: False)
    out, replace, names = tmp_path / "out", Path.replace, ("a", "b")

    def write(content: str) -> None:
        with folder_at(out) as folder:
            for name in names:
                (folder / name).write_text(content)

    def others_first(path: Path, target: Path) -> Path:
        if (path if taken else target) == out:
            patch.undo()
            if taken:
                shutil.rmtree(out)
            else:
                write("other")
        return replace(path, target)

    write("old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", others_first)
        write("new")
    assert Path.replace is replace and [*tmp_path.iterdir()] == [out]
    assert [(out / name).read_text() for name in names] == ["new", "new"]


@pytest.mark.skipif(sys.platform != "linux", reason="there are two renames elsewhere")
def test_of_a_folder_in_the_place_of_another_there_is_one_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two renames would leave none to whoever is killed between them."""
    out = tmp_path / "out"
    for content in ("old", "new"):
        with folder_at(out) as folder:
            (folder / "a").write_text(content)
        monkeypatch.setattr(Path, "replace", None)
    assert (out / "a").read_text() == "new" and [*tmp_path.iterdir()] == [out]


def test_what_a_file_cannot_replace_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(Unwritable, match=f"cannot write {place}"):
            check_replaceable(place)


STUDY = """
strategies: [baseline]
backbone: digits-cnn
data: digits
recipe: {epochs: 1, learning_rate: 0.1, batch_size: 64}
seeds: [1]
"""


@pytest.mark.parametrize("command", ["numbers", "describe", "split", "search"])
def test_long_work_begins_with_where_its_file_goes(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worked(*_: object, **__: object) -> NoReturn:
        raise AssertionError("this is the work")

    (study := tmp_path / "s.yaml").write_text(STUDY)
    monkeypatch.setattr(results, "places", worked)
    monkeypatch.setattr("offramp.data.audit.open_data", worked)
    monkeypatch.setattr(searching, "search", worked)
    nowhere = Path("/proc/new.csv")
    run: dict[str, Callable[[], object]] = {
        "numbers": lambda: results.numbers(tmp_path, numbers=nowhere),
        "describe": lambda: data.describe_data("digits", sheet=nowhere),
        "split": lambda: data.split_data("digits", out=nowhere),
        "search": lambda: search(
            study, tmp_path, over=["recipe.learning_rate=log(1e-3,1)"], out=nowhere, watch=False
        ),
    }
    with pytest.raises(Unwritable, match=r"^cannot write /proc/new\.csv \("):
        run[command]()
