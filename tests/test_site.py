"""The site: what it is made of, cheaply; that Sphinx makes it, with --long (as `make docs` does)."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
sys.path.insert(0, str(SITE))

import assemble  # noqa: E402
from docstrings import as_rst  # noqa: E402

from offramp.strategies import STRATEGIES  # noqa: E402
from test_pages import COLUMN  # noqa: E402

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.md"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assemble.main(folder)
    return folder


def test_every_page_has_a_place_in_the_contents(source: Path) -> None:
    index = (source / "index.md").read_text()
    listed = set(re.findall(r"^([\w/-]+)$", index, re.MULTILINE))
    pages = {page.relative_to(source).with_suffix("").as_posix() for page in source.rglob("*.md")}
    below = {page for page in pages if page.startswith("strategies/") and page != "strategies/index"}
    assert listed == pages - below - {"index"}
    assert below == {f"strategies/{name}" for name in STRATEGIES}


def test_no_two_pages_have_one_title(source: Path) -> None:
    """README is titled as the site is, and is its second page."""
    texts = [assemble.FENCE.sub("", page.read_text()) for page in source.rglob("*.md")]
    firsts = [re.findall(r"^# (.*)$", text, re.MULTILINE)[0] for text in texts]
    assert len(set(firsts)) == len(firsts)
    assert (source / "README.md").read_text().startswith("# Start\n\nAn **early-exit network**")


def test_a_page_of_a_strategy_has_its_box_its_options_and_its_picture(source: Path) -> None:
    page = (source / "strategies" / "distillation.md").read_text()
    assert "1. train the teacher: the backbone with the final exit" in page
    assert "- `temperature`, by default `3.0`" in page and "](distillation.svg)" in page
    assert "(source code" not in page and page.count('"""') == 2


def test_the_reference_names_what_is_public_and_commands_say_their_help(source: Path) -> None:
    reference = (source / "reference" / "python.md").read_text()
    assert ".. autofunction:: fit" in reference and ".. autoclass:: Recipe" in reference
    commands = (source / "reference" / "commands.md").read_text()
    assert "## offramp data check" in commands and "--log-format" in commands
    assert commands.count("-h, --help") == commands.count("## offramp ")
    assert max(len(line) for line in commands.splitlines()) <= COLUMN


def test_code_in_docstrings_can_be_copied(source: Path) -> None:
    """Quotes stay straight; the site's style sheet lies where its configuration names it."""
    settings = runpy.run_path(str(source / "conf.py"))
    assert settings["smartquotes"] is False
    (static,), (sheet,) = settings["html_static_path"], settings["html_css_files"]
    assert (source / static / sheet).is_file()


def test_a_link_that_leads_nowhere_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text("`[a](b)` [words](other.md)\n```\n[code](gone.md)\n```\n[x](docs)")
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(assemble, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"page.md: the link to .* leads nowhere"):
        assemble.relinked(Path("page.md"), tmp_path / "out")
    (tmp_path / "other.md").write_text("here")
    (tmp_path / "b").write_text("here")
    monkeypatch.setattr(assemble, "pages", lambda: [Path("other.md")])
    text = assemble.relinked(Path("page.md"), tmp_path / "out")
    assert "[words](other.md)" in text and "[code](gone.md)" in text and text.endswith("\nx")


def test_docstrings_become_markup() -> None:
    assert list(as_rst(["One `net` and *args, my_ one."])) == ["One ``net`` and \\*args, my\\_ one."]
    assert list(as_rst([">>> f(*a)", "`1`", "", "`2`"])) == [">>> f(*a)", "`1`", "", "``2``"]


def test_the_cells_of_notebooks_are_python() -> None:
    assert len(NOTEBOOKS) == 4
    for page in NOTEBOOKS:
        cells = re.findall(
            r"^```\{code-cell\} python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
        )
        assert cells and page.read_text().startswith("---\nfile_format: mystnb")
        for cell in cells:
            assert "!" not in cell.splitlines()[0]  # whose failure would be nobody's
            if not cell.startswith("%%bash"):
                ast.parse(re.sub(r"^%%.*$", "", cell, flags=re.MULTILINE))


def test_each_notebook_is_a_file_to_download(source: Path) -> None:
    """Of the page's cells, its words between them, and none of its front matter."""
    files = sorted((source / "_static" / "notebooks").glob("*.ipynb"))
    assert [file.stem for file in files] == [page.stem for page in NOTEBOOKS]
    for file, page in zip(files, NOTEBOOKS, strict=True):
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        assert len(code) == page.read_text().count("```{code-cell}")
        assert not any(cell.source.startswith((":", "---")) for cell in notebook.cells)
        assert f"_static/notebooks/{file.name}" in (source / "docs/notebooks" / page.name).read_text()


@pytest.mark.long
def test_the_site_is_made_without_a_warning(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("myst_nb")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", source, tmp_path / "html"],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    pages = tmp_path / "html" / "docs" / "notebooks"
    assert "accuracy" in (pages / "compare.html").read_text()
    printed = re.sub("<.*?>", "", (pages / "folder-to-bundle.html").read_text())
    assert "train  validation  calibration  test\n" in printed  # by a command, in one piece
