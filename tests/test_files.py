"""Where a result cannot be written is said before the work, not after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from offramp.api.chart import check_file
from offramp.bundle import folder as bundles
from offramp.bundle import web
from offramp.errors import Unwritable
from offramp.files import check_writable
from offramp.report.page import folder as reports

CHECKS: dict[str, Callable[[Path], None]] = {
    "file": check_writable,
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
