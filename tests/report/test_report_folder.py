"""The report's folder: what is in it, and that it appears whole or not at all."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from page_contents import contents, curve, figure, numbers, write
from syrupy.assertion import SnapshotAssertion

from offramp.errors import OfframpError
from offramp.report.model import Contents
from offramp.report.page import folder
from offramp.report.page.folder import choices
from offramp.report.render.charts import PICTURES
from wording import refusal

LINK = r'href="((?:figures|tables|data)/[^"]+)"'
OUTWARD = r'(?:src|href)="(?!#|figures/|tables/|data/)'


def small() -> Contents:
    return replace(contents(), figures=contents().figures[:2])


def written(out: Path, contents_: Contents | None = None, formats: tuple[str, ...] = ()) -> None:
    for _ in write(contents_ or small(), numbers(), out, formats, workers=2):
        pass


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_everything_is_there_and_named_in_the_marker(tmp_path: Path) -> None:
    out = tmp_path / "report"
    steps = list(write(small(), numbers(), out, PICTURES, workers=1))
    assert steps == [(1, 2), (2, 2)]
    paths = files(out)
    names = ("all", "panels-resnet18")
    assert set(paths) == {
        *("index.html", "report.json", "data/numbers.parquet"),
        *(f"figures/{name}.{ending}" for name in names for ending in PICTURES),
        *(f"data/{name}.vl.json" for name in names),
        *(
            f"tables/{table.name}.{ending}"
            for table in [*small().tables, *small().claims]
            for ending in ("csv", "tex", "md")
        ),
    }
    assert set(json.loads(paths["report.json"])["files"]) == set(paths) - {"report.json"}
    assert paths["figures/all.svg"].startswith(b"<svg")
    assert paths["figures/all.pdf"].startswith(b"%PDF")
    assert paths["figures/all.png"].startswith(b"\x89PNG")
    assert json.loads((out / "data" / "all.vl.json").read_text())["mark"]["type"] == "line"
    back = pd.read_parquet(out / "data" / "numbers.parquet")
    pd.testing.assert_frame_equal(back, numbers(), check_dtype=False, check_categorical=False)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]  # nothing is left beside it


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    other = replace(small(), title="other")
    written(tmp_path / "c", other)
    assert files(tmp_path / "a") != files(tmp_path / "c")


@pytest.mark.long
def test_links_of_the_page_lead_to_files(tmp_path: Path) -> None:
    out = tmp_path / "report"
    written(out, formats=("svg",))
    page = (out / "index.html").read_text(encoding="utf-8")
    links = set(re.findall(LINK, page))
    assert len(links) == 2 + 2 + 1 + 3 * 4
    assert all((out / link).is_file() for link in links)
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(OUTWARD, markup)  # none from elsewhere


def test_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "report"
    written(out, contents())
    (out / ".DS_Store").touch()
    written(out)
    assert not (out / "data" / "hybrids.vl.json").exists()


@pytest.mark.parametrize(
    ("present", "words"),
    [
        ({"notes.txt": "mine"}, "no earlier report"),
        ({"report.json": "{}", "index.html": ""}, "no earlier report"),
        ({"report.json": '{"files": ["index.html"]}', "index.html": "", "my.txt": ""}, "holds my.txt"),
    ],
)
def test_what_is_no_report_is_never_removed(
    tmp_path: Path, present: Mapping[str, str], words: str
) -> None:
    out = tmp_path / "report"
    out.mkdir()
    for name, text in present.items():
        (out / name).write_text(text)
    before = files(out)
    with pytest.raises(OfframpError, match=words):
        written(out)
    assert files(out) == before


def test_hidden_files_links_and_what_lies_beside_a_report_stay(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    out = tmp_path / "report"
    beside = tmp_path / ".report.tmp"
    beside.write_text("mine")
    written(out)
    (out / ".env").write_text("mine")
    assert refusal(written, out) == snapshot
    (out / ".env").unlink()
    (out / "link").symlink_to(tmp_path)
    assert refusal(written, out) == snapshot
    (out / "link").unlink()
    with pytest.raises(OfframpError, match=r"holds late\.txt"), folder.staged(out):
        (out / "late.txt").write_text("mine")
    (out / "late.txt").unlink()
    written(out)
    assert beside.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".report.tmp", "report"]


def test_a_file_and_a_link_are_no_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("file", "link"):
        with pytest.raises(OfframpError, match="is not a folder"):
            written(tmp_path / name)
    written(tmp_path / "folder")  # an empty one is taken
    with pytest.raises(OfframpError, match="cannot write"):
        written(tmp_path / "file" / "report")


@pytest.mark.parametrize("formats", [(), pytest.param(("svg",), marks=pytest.mark.long)])
def test_a_failure_leaves_the_earlier_report(tmp_path: Path, formats: tuple[str, ...]) -> None:
    out = tmp_path / "report"
    written(out)
    before = files(out)
    broken = replace(contents(), figures=[*contents().figures, figure("bad", "more", {"mark": 3})])
    if formats:  # drawing fails, in another process
        with pytest.raises(ValueError, match="conversion failed"):
            written(out, broken, formats)
    else:  # whoever reads the steps stops
        steps = write(broken, numbers(), out, ("svg",), workers=1)
        next(steps)
        steps.close()
    assert files(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    spec = curve(1, 0)
    spec["data"]["values"][0]["loss"] = float("nan")
    out = tmp_path / "report"
    written(out, replace(small(), figures=[figure("gap", "more", spec)]))
    text = (out / "data" / "gap.vl.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["data"]["values"][0]["loss"] is None


def test_choices_are_what_several_figures_differ_in() -> None:
    fields = [figure(f"f{k}", "more", {}, exit=k, model="m") for k in ("10", "2", "1")]
    assert choices(fields) == {"exit": ["1", "2", "10"]}
