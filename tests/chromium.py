"""One headless Chromium for the tests of pages, where there is one."""

import shutil
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from longer import long

LOOKS = [
    (1400, "light"),
    (390, "dark"),
    *long((1400, "dark"), (768, "light"), (768, "dark"), (390, "light")),
]
"""Widths of a desk, a tablet and a phone, in pixels, each in the colors that a system asks for."""
FLAGS = (
    *("--headless=new", "--no-sandbox", "--no-first-run", "--hide-scrollbars", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
    *("--disable-default-apps", "--disable-sync"),
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium driven by chromedriver. Skips, saying so, where either is not installed."""
    chromium = next((path for name in NAMES if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on the path: the page is not opened here")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_script_timeout(300)
    yield opened
    opened.quit()


def blank(browser: Any, width: int, colors: str) -> None:
    """An empty page and an empty log, at this width and in these colors of the system."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": colors}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get("about:blank")
    browser.get_log("browser")


def axe(browser: Any) -> list[list[Any]]:
    """Serious and critical violations, and headings out of order, each with its rule and the places."""
    source = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    browser.execute_cdp_cmd("Runtime.evaluate", {"expression": source})
    actual: list[list[Any]] = browser.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, { resultTypes: ['violations'] }).then((r) => done([...r.violations"
        ".filter((v) => ['serious', 'critical'].includes(v.impact) || v.id === 'heading-order'),"
        "...r.incomplete.filter((v) => v.nodes.length === 0)]"  # a rule that failed itself
        ".map((v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200))])))"
    )
    return actual
