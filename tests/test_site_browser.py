"""The site in a headless Chromium, with its notebooks as they lie there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chromium import LOOKS, axe, blank, browser
from test_site import assemble

__all__ = ["browser"]

pytestmark = pytest.mark.long
PAGES = (
    "index",
    "README",
    "docs/calibration",
    "docs/results/README",
    "strategies/joint",
    "reference/python",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, built = (tmp_path_factory.mktemp(name) for name in ("source", "html"))
    assemble.main(source)
    command = [sys.executable, "-m", "sphinx", "--quiet", "-D", "nb_execution_mode=off", source, built]
    subprocess.run(command, check=True, capture_output=True)
    return built


@pytest.mark.parametrize(("width", "colors"), LOOKS)
@pytest.mark.parametrize("page", PAGES)
def test_nothing_scrolls_sideways_and_axe_finds_nothing_serious(
    browser: Any, site: Path, page: str, width: int, colors: str
) -> None:
    blank(browser, width, colors)
    browser.get((site / f"{page}.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    violations = axe(browser)
    assert violations == [], json.dumps(violations, indent=1)
