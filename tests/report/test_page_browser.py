"""The page in a headless Chromium: made-up contents, opened from disk."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from page_contents import NASTY, STRATEGIES, contents, numbers, write
from PIL import Image

from chromium import LOOKS, axe, blank
from offramp.report.model import Column, Table

DRAW_ALL = """
    const done = arguments[arguments.length - 1];
    for (const fold of document.querySelectorAll("details.fold")) fold.open = true;
    const next = () => {
      const all = [...document.querySelectorAll(".chart:not(.drawn):not(.failed)")];
      const left = all.filter((chart) => chart.clientWidth && chart.checkVisibility());
      if (!left.length) return done(true);
      left[0].scrollIntoView({ behavior: "instant" });
      setTimeout(next, 50);
    };
    next();
"""
SHOWN = (
    "return [...document.querySelectorAll('.item:not([hidden])')].map("
    "(item) => item.id.replace(/^(figure|table)-/, ''))"
)


def show(browser: Any, page: Path, width: int = 1400, colors: str = "light", at: str = "") -> None:
    """Open the page anew, at this width and in these colors of the system."""
    blank(browser, width, colors)
    browser.get((page / "index.html").as_uri() + at)
    wait(lambda: browser.execute_script("return document.readyState") == "complete")


def wait(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 300  # what takes longer hangs
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)  # the browser is another process and tells of no change


def choose(browser: Any, name: str, value: str) -> None:
    browser.execute_script(
        "const s = document.getElementById('filter-' + arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event('change', { bubbles: true }))",
        name,
        value,
    )


@pytest.mark.parametrize(("width", "colors"), LOOKS)
def test_all_charts_are_drawn_nothing_scrolls_sideways_and_axe_finds_nothing_serious(
    browser: Any, made_up: Path, width: int, colors: str
) -> None:
    show(browser, made_up, width, colors)
    browser.execute_async_script(DRAW_ALL)
    marks = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].map("
        "(c) => c.querySelectorAll('svg path[aria-roledescription=\"line mark\"]').length)"
    )
    assert len(marks) == 8
    assert sorted(marks)[0] == 0 and sorted(marks)[1] >= 6  # a line a strategy; one waits for its filter
    legend = "return document.querySelector('#figure-all svg').textContent"
    assert 'joint, "a"' in browser.execute_script(legend)
    # Never wider than its place.
    assert browser.execute_script(
        "return [...document.querySelectorAll('.chart svg')].every("
        "(s) => s.getBoundingClientRect().width <= s.parentElement.closest('.chart').clientWidth + 1)"
    )
    across = "return [document.documentElement.scrollWidth, innerWidth]"
    assert browser.execute_script(across) == [width, width]
    assert browser.get_log("browser") == []
    violations = axe(browser)
    assert violations == [], json.dumps(violations, indent=1)


def test_no_network_no_foreign_script(browser: Any, made_up: Path) -> None:
    """The policy refuses what the page's own scripts do not do; errors would be seen in the console."""
    show(browser, made_up)
    browser.execute_script("console.error('seen')")
    assert [entry["level"] for entry in browser.get_log("browser")] == ["SEVERE"]
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.foreign = 1';"
        "document.body.append(s); fetch('http://127.0.0.1:9/').catch(() => {});"
    )
    wait(lambda: len(browser.get_log("browser")) > 0)
    assert browser.execute_script("return window.foreign ?? null") is None


def test_what_users_name_stays_text(browser: Any, made_up: Path) -> None:
    show(browser, made_up)
    assert browser.title == f"made-up {NASTY} · offramp report"
    heading = "return document.querySelector('h1').textContent"
    assert browser.execute_script(heading) == f"made-up {NASTY}"
    claims = "return document.querySelector('#claims tbody th').textContent"
    assert browser.execute_script(claims) == NASTY


def test_the_answer_is_on_the_first_screen_and_filters_choose_its_figure(
    browser: Any, made_up: Path
) -> None:
    show(browser, made_up)
    browser.execute_script("document.querySelector('.missing').remove()")  # a study that is complete
    seen = browser.execute_script(
        "const all = (where) => [...document.querySelectorAll(where)];"
        "const seen = (where) => all(where).filter((e) => e.checkVisibility());"
        "const place = document.querySelector('.first').getBoundingClientRect();"
        "return [seen('.item').map((e) => e.id), seen('.answer > p').length,"
        "seen('.answer details p').length, place.bottom <= innerHeight,"
        "document.documentElement.scrollHeight < 2.5 * innerHeight]"
    )
    assert seen == [["table-main", "figure-panels-resnet18"], 3, 0, True, True]
    cut = (
        "return [...document.querySelectorAll('.first .wide')].filter("
        "(w) => w.scrollWidth > w.clientWidth).length"
    )
    assert browser.execute_script(cut) == 0
    first = (
        "return [...document.querySelectorAll('.first .figure')].filter((f) => f.checkVisibility())"
        ".map((f) => f.id)"
    )
    browser.execute_script("document.querySelectorAll('.also a')[1].click()")
    wait(lambda: browser.execute_script(first) == ["figure-panels-digits-cnn"])
    assert browser.execute_script("return location.hash") == "#model=digits-cnn&data=digits"


def test_filters_hide_what_shows_other_values_and_live_in_the_address(
    browser: Any, made_up: Path
) -> None:
    count = "return document.querySelector('#rq1 .count').textContent"
    show(browser, made_up)
    every = browser.execute_script(SHOWN)
    assert len(every) == 12 and browser.execute_script(count) == "4 figures"
    choose(browser, "model", "resnet18")
    on_page = browser.execute_script(SHOWN)
    assert browser.execute_script(count) == "2 figures"
    assert set(every) - set(on_page) == {
        *("panels-digits-cnn", "loss-digits-cnn-1", "loss-digits-cnn-2", "wide-digits-cnn")
    }
    choose(browser, "exit", "2")
    choose(browser, "data", "cifar10")
    on_page = browser.execute_script(SHOWN)
    assert on_page == ["main", "panels-resnet18", "all", "loss-resnet18-2", "wide-resnet18", "claims"]
    text = "return document.querySelector('[aria-live]').textContent"
    assert browser.execute_script(text) == "6 of 12 figures and tables shown."
    nothing = (
        "return [...document.querySelectorAll('.nothing:not([hidden])')].map(n => n.closest('.part').id)"
    )
    assert browser.execute_script(nothing) == ["rq3"]

    address = browser.execute_script("return location.hash")
    show(browser, made_up, at=address)
    assert browser.execute_script(SHOWN) == on_page
    browser.execute_script("document.querySelector('.filters [type=reset]').click()")
    wait(lambda: len(browser.execute_script(SHOWN)) == 12)
    choose(browser, "model", "resnet18")
    choose(browser, "data", "digits")
    assert browser.execute_script(count) == "nothing for these filters"


def test_the_first_table_fits_a_phone(browser: Any, tmp_path: Path) -> None:
    """Accuracy at equal compute has five columns of one number each."""
    rows = pd.DataFrame({"strategy": [*STRATEGIES, "pretrained-branch"]})
    visible = [Column("strategy", "strategy")]
    for k, macs in enumerate(("28.3 M", "47.1 M", "65.8 M", "84.6 M", "103 M")):
        rows[f"at_{k}"] = 0.876
        visible.append(Column(f"at_{k}", f"{macs} MACs", "percent", 1))
    equal = Table("equal", "answer", "Accuracy at equal compute", "Mean.", rows, visible)
    page = tmp_path / "page"
    list(write(replace(contents(), tables=[equal], first=["equal"]), numbers(), page, (), 0))
    show(browser, page, 390)
    across = (
        "const w = document.querySelector('.first .wide');"
        "return [w.scrollWidth - w.clientWidth, w.querySelector('th.n').offsetHeight]"
    )
    over, height = browser.execute_script(across)
    assert over <= 0
    assert height < 3 * 24  # two lines: a number stays with its unit


def test_what_must_be_scrolled_to_is_shaded_at_its_edge(browser: Any, made_up: Path) -> None:
    show(browser, made_up, at="#table-wide-resnet18")
    edge = (
        "const w = document.querySelector('#table-wide-resnet18 .wide');"
        "w.scrollIntoView({ behavior: 'instant', block: 'center' }); w.scrollLeft = arguments[0];"
        "const r = w.getBoundingClientRect();"
        "return [w.scrollWidth > w.clientWidth, r.right, r.top, r.bottom, innerWidth]"
    )

    def ink(left: int) -> float:
        """How dark the last column of pixels is, most of it."""
        over, right, top, bottom, width = browser.execute_script(edge, left)
        assert over and right < width
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L")
        last = int(right) - 1
        column = np.asarray(picture.crop((last, max(60, int(top)), last + 1, int(bottom))))
        return 255.0 - float(np.median(column))

    assert ink(0) > 20
    assert ink(10**6) < 5


def test_what_is_unfolded_lives_in_the_address(browser: Any, made_up: Path) -> None:
    opened = "return [...document.querySelectorAll('.fold[open]')].map((f) => f.parentElement.id)"
    show(browser, made_up)
    assert browser.execute_script(opened) == []
    for key in ("rq1", "claims"):
        browser.execute_script("document.getElementById('fold-' + arguments[0]).click()", key)
    wait(lambda: browser.execute_script("return location.hash") == "#open=rq1.claims")
    show(browser, made_up, at="#open=rq1.claims")
    assert browser.execute_script(opened) == ["rq1", "claims"]
    show(browser, made_up, at="#table-wide-resnet18")  # in a fold
    assert browser.execute_script(opened) == ["rq2"]


@pytest.mark.parametrize("scripts", [True, False])
def test_print_unfolds_everything(browser: Any, made_up: Path, scripts: bool) -> None:
    hidden = (
        "return [...document.querySelectorAll('#main .item, #main dl')]"
        ".filter((e) => !e.checkVisibility()).length"
    )
    try:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        show(browser, made_up)
        assert browser.execute_script(hidden) > 8
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert browser.execute_script(hidden) == 0
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


PRESS = "dispatchEvent(new KeyboardEvent('keydown', { ctrlKey: true, key: 'P', cancelable: true }))"


@pytest.mark.parametrize("ask", ["document.getElementById('print').click()", PRESS])
def test_all_charts_are_drawn_before_printing(browser: Any, made_up: Path, ask: str) -> None:
    """Those too of which the screen has the first alone; and those that are drawn at this moment. With
    Caps Lock the key is P."""
    show(browser, made_up)
    browser.execute_script(
        "const blank = () => [...document.querySelectorAll('.chart:not(.drawn)')];"
        "window.print = () => { window.blank = blank().map((chart) => chart.dataset.spec); };" + ask
    )
    wait(lambda: browser.execute_script("return window.blank ?? null") is not None)
    assert browser.execute_script("return window.blank") == []
    assert browser.execute_script("return document.querySelectorAll('.first .figure').length") == 2
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("at", ["#model=none&at=nowhere&x=1", "#100%"])
def test_an_address_with_unknown_values_shows_all(browser: Any, made_up: Path, at: str) -> None:
    show(browser, made_up, at=at)
    assert len(browser.execute_script(SHOWN)) == 12
    assert browser.get_log("browser") == []


def test_charts_fill_a_new_width(browser: Any, made_up: Path) -> None:
    show(browser, made_up, at="#figure-panels-resnet18")
    width = (
        "const s = document.querySelector('#figure-panels-resnet18 svg'); return s ? s.clientWidth : 0"
    )
    wait(lambda: browser.execute_script(width) > 400)
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wait(lambda: 200 < browser.execute_script(width) < 390)


def test_dark_and_light_follow_the_system_until_the_reader_chooses(browser: Any, made_up: Path) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    pressed = "return document.getElementById('theme').getAttribute('aria-pressed')"
    show(browser, made_up, colors="dark")
    dark = browser.execute_script(ground)
    assert browser.execute_script(pressed) == "true"
    show(browser, made_up, colors="light")
    light = browser.execute_script(ground)
    assert light != dark
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(ground) == dark
    show(browser, made_up, colors="light")  # kept
    assert browser.execute_script(ground) == dark
    browser.execute_script("localStorage.clear()")


def test_keyboard_reaches_everything(browser: Any, made_up: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    show(browser, made_up)
    reached = []
    for _ in range(150):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        place = browser.execute_script(
            "const e = document.activeElement, ring = getComputedStyle(e).outlineStyle;"
            "return e === document.body ? null : [e.id || e.className || e.textContent.trim(), ring]"
        )
        if place is None:
            break
        reached.append(place)
        if place[0].startswith("fold-"):
            ActionChains(browser).send_keys(Keys.ENTER).perform()
    names = [name for name, _ in reached]
    assert names[0] == "skip"
    assert {"print", "theme", "filter-model", "filter-data", "filter-exit"} <= set(names)
    assert names.count("wide") == 4  # # every table can be scrolled
    assert {"SVG", "CSV", "LaTeX", "Markdown", "Vega-Lite and data"} - set(names) == {"SVG"}
    assert all(ring == "solid" for _, ring in reached)


def test_contents_move_focus_along(browser: Any, made_up: Path) -> None:
    show(browser, made_up)
    choose(browser, "model", "resnet18")
    browser.execute_script("document.querySelector('nav a[href=\"#rq2\"]').click()")
    assert browser.execute_script("return document.activeElement.id") == "fold-rq2"
    wait(lambda: "open" in browser.execute_script("return location.hash"))
    assert browser.execute_script("return location.hash") == "#model=resnet18&at=rq2&open=rq2"


def test_axe_would_find_something(browser: Any, made_up: Path) -> None:
    show(browser, made_up)
    browser.execute_script("document.querySelector('.answer p').style.color = '#ddd'")
    browser.execute_script("document.querySelector('select').id = 'other'")
    assert [rule for rule, *_ in axe(browser)] == ["color-contrast", "select-name"]


def test_without_javascript_everything_but_charts_and_filters_is_there(
    browser: Any, made_up: Path
) -> None:
    try:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        show(browser, made_up)
        from selenium.webdriver.common.by import By

        assert browser.find_element(By.CSS_SELECTOR, ".filters").is_displayed() is False
        assert browser.find_element(By.CSS_SELECTOR, "nav").is_displayed()
        assert browser.find_element(By.CSS_SELECTOR, "#main table").is_displayed()
        note = browser.find_element(By.CSS_SELECTOR, ".chart noscript")
        visible = "return [arguments[0].textContent, arguments[0].offsetHeight > 0]"
        assert browser.execute_script(visible, note) == ["Charts are drawn by JavaScript.", True]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
