"""The page in a headless Chromium: made-up contents, opened from disk."""

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
from offramp.report.model import Column, RunDetail, Table

DRAW_ALL = """
    const done = arguments[arguments.length - 1];
    for (const fold of document.querySelectorAll("details.fold")) fold.open = true;
    const next = () => {
      const all = [...document.querySelectorAll(".chart:not(.drawn):not(.failed)")];
      const left = all.filter((chart) => chart.clientWidth && chart.checkVisibility());
      if (!left.length) return done(true);
      left[0].scrollIntoView({ behavior: "instant" });
      setTimeout(next, 10);
    };
    next();
"""
EDGE = """
    const w = document.querySelector(arguments[1]);
    w.scrollIntoView({ behavior: "instant", block: "center" });
    w.scrollLeft = arguments[0];
    const r = w.getBoundingClientRect();
    const over = w.scrollWidth > w.clientWidth || w.scrollHeight > w.clientHeight;
    return [over, r.left, r.right, r.top, r.bottom, innerWidth];
"""
FOREIGN = """
    const s = document.createElement("script");
    s.textContent = "window.foreign = 1";
    document.body.append(s);
    fetch("http://127.0.0.1:9/").catch(() => {});
"""
DOWNLOADS = {"SVG", "CSV", "LaTeX", "Markdown", "Vega-Lite and data"}
SMALL = "digits-cnn"
# Expressions, for `js`
ADDRESS = "location.hash"
BLANK_ON_PAPER = "window.print=()=>{window.blank=all('.chart:not(.drawn)').map(c=>c.dataset.spec)}"
BEYOND_PLACE = "s.getBoundingClientRect().width-s.parentElement.closest('.chart').clientWidth"
BREAKS_BELOW_TITLES = "all('.item > header, .fold > summary').map(e=>getComputedStyle(e).breakAfter)"
CHART_BEYOND_PLACE = f"Math.max(...all('.chart svg').map(s=>{BEYOND_PLACE}))"
FIRST_NUMBER_FROM = "one('.first .wide td').getBoundingClientRect().left"
FIRST_NUMBER_HEIGHT = "one('.first .wide th.n').offsetHeight"
FIRST_TABLES_CUT = "all('.first .wide').filter(w=>w.scrollWidth>w.clientWidth)"
FOCUS = "(e=>e.id||e.className||e.textContent.trim())(document.activeElement)"
FOCUS_RING = "getComputedStyle(document.activeElement).outlineStyle"
GROUND = "getComputedStyle(document.body).backgroundColor"
HIDDEN_PARTS = "['#main .item', '#main dl'].map(s=>all(s).length-seen(s).length).reduce((a,b)=>a+b)"
LETTERS_OF_TABLE = "new Set(all('table, table *').map(e=>getComputedStyle(e).fontSize)).size"
LINE = "svg path[aria-roledescription='line mark']"
LINES = f'all(".chart").map(c=>c.querySelectorAll("{LINE}").length)'
NAMELESS_FILTER = "one('select').id='other'"
NO_SCRIPTS = ".chart noscript"
NOT_DRAWN = "getComputedStyle(one('.fold .chart:not(.drawn)'), '::after').content"
NOWHERE = "document.activeElement===document.body"
ON_FIRST_SCREEN = "one('.first').getBoundingClientRect().bottom<=innerHeight"
PALE_ANSWER = "one('.answer p').style.color='#ddd'"
PANELS_WIDTH = "one('#figure-panels-resnet18 svg')?.clientWidth??0"
PARTS_OF_NOTHING = "all('.nothing:not([hidden])').map(n=>n.closest('.part').id)"
SCREENS = "document.documentElement.scrollHeight/innerHeight"
UNFOLDED = "all('.fold[open]').map(f=>f.parentElement.id)"
WIDTHS = "[document.documentElement.scrollWidth,innerWidth]"
SHOWN = "all('.item:not([hidden])').map(e => e.id.replace(/^(figure|table)-/, ''))"


def show(browser: Any, page: Path, width: int = 1400, colors: str = "light", at: str = "") -> None:
    """Open the page anew, at this width and in these colors of the system."""
    blank(browser, width, colors)
    browser.get((page / "index.html").as_uri() + at)
    wait(lambda: js(browser, "document.readyState") == "complete")


def js(browser: Any, expression: str, *given: object) -> Any:
    """What an expression comes to on the page: `one` is the first element of a selector, `all` are all,
    `seen` those that a reader sees, `over` is how far its content goes beyond its width."""
    return browser.execute_script(
        "const one = (s) => document.querySelector(s), all = (s) => [...document.querySelectorAll(s)];"
        "const seen = (s) => all(s).filter((e) => e.checkVisibility());"
        f"const over = (s) => one(s).scrollWidth - one(s).clientWidth; return {expression};",
        *given,
    )


def text(browser: Any, place: str) -> str:
    """Of the first element of a selector."""
    return str(js(browser, f"one({json.dumps(place)}).textContent"))


def ids(browser: Any, places: str) -> list[str]:
    """Of the elements of a selector that a reader sees."""
    return list(js(browser, f"seen({json.dumps(places)}).map(e=>e.id)"))


def click(browser: Any, place: str) -> None:
    js(browser, f"one({json.dumps(place)}).click()")


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
    marks = js(browser, LINES)
    assert len(marks) == 8
    assert sorted(marks)[0] == 0 and sorted(marks)[1] >= 6  # a line a strategy; one waits for its filter
    assert 'joint, "a"' in text(browser, "#figure-all svg")
    assert js(browser, CHART_BEYOND_PLACE) <= 1  # never wider than its place
    assert js(browser, WIDTHS) == [width, width]
    assert browser.get_log("browser") == []
    violations = axe(browser)
    assert violations == [], json.dumps(violations, indent=1)


def test_long_paths_scroll_nothing_sideways(browser: Any, tmp_path: Path) -> None:
    """A network, a data set and a strategy of a user's own are named by paths, which have no spaces."""
    path = f"/{'a_long_folder/' * 6}file.py:function"
    (main, *_) = contents().tables
    frame = main.frame.replace({"strategy": {"joint": path}})
    named = replace(main, title=path, frame=frame, about={"model": path, "data": path})
    made = replace(contents(), tables=[named], how=[RunDetail("Networks and data", [path])])
    list(write(made, numbers(), tmp_path / "page", (), 1))
    show(browser, tmp_path / "page", 390)
    browser.execute_async_script(DRAW_ALL)
    assert js(browser, WIDTHS) == [390, 390]
    assert js(browser, FIRST_NUMBER_FROM) < 390  # such a name leaves room for it


def test_no_network_no_foreign_script(browser: Any, made_up: Path) -> None:
    """The policy refuses what the page's own scripts do not do; errors would be seen in the console."""
    show(browser, made_up)
    browser.execute_script("console.error('seen')")
    assert [entry["level"] for entry in browser.get_log("browser")] == ["SEVERE"]
    browser.execute_script(FOREIGN)
    wait(lambda: len(browser.get_log("browser")) > 0)
    assert js(browser, "window.foreign??null") is None


def test_what_users_name_stays_text(browser: Any, made_up: Path) -> None:
    show(browser, made_up)
    assert browser.title == f"made-up {NASTY} · offramp report"
    assert text(browser, "h1") == f"made-up {NASTY}"
    assert text(browser, "#claims tbody th") == NASTY


def test_the_answer_is_on_the_first_screen_and_filters_choose_its_figure(
    browser: Any, made_up: Path
) -> None:
    show(browser, made_up)
    js(browser, "one('.missing').remove()")  # a study that is complete
    assert ids(browser, ".item") == ["table-main", "figure-panels-resnet18"]
    assert len(js(browser, "seen('.answer > p')")) == 3
    assert js(browser, "seen('.answer details p')") == []
    assert js(browser, ON_FIRST_SCREEN) and js(browser, SCREENS) < 2.5
    assert js(browser, FIRST_TABLES_CUT) == []
    js(browser, "all('.also a')[1].click()")
    wait(lambda: ids(browser, ".first .figure") == [f"figure-panels-{SMALL}"])
    assert js(browser, ADDRESS) == f"#model={SMALL}&data=digits"


def test_filters_hide_what_shows_other_values_and_live_in_the_address(
    browser: Any, made_up: Path
) -> None:
    count = "#rq1 .count"
    show(browser, made_up)
    every = js(browser, SHOWN)
    assert len(every) == 12 and text(browser, count) == "4 figures"
    choose(browser, "model", "resnet18")
    on_page = js(browser, SHOWN)
    assert text(browser, count) == "2 figures"
    assert set(every) - set(on_page) == {
        *("panels-digits-cnn", "loss-digits-cnn-1", "loss-digits-cnn-2", "wide-digits-cnn")
    }
    choose(browser, "exit", "2")
    choose(browser, "data", "cifar10")
    on_page = js(browser, SHOWN)
    assert on_page == ["main", "panels-resnet18", "all", "loss-resnet18-2", "wide-resnet18", "claims"]
    assert text(browser, "[aria-live]").startswith("6 of 12 figures")
    assert js(browser, PARTS_OF_NOTHING) == ["rq3"]

    show(browser, made_up, at=js(browser, ADDRESS))
    assert js(browser, SHOWN) == on_page
    click(browser, ".filters [type=reset]")
    wait(lambda: len(js(browser, SHOWN)) == 12)
    choose(browser, "model", "resnet18")
    choose(browser, "data", "digits")
    assert text(browser, count).startswith("nothing for")


def test_the_first_table_fits_a_phone(browser: Any, tmp_path: Path) -> None:
    """Accuracy at equal compute has five columns of one number each."""
    rows = pd.DataFrame({"strategy": [*STRATEGIES, "pretrained-branch"]})
    visible = [Column("strategy", "strategy")]
    for k, macs in enumerate(("28.3 M", "47.1 M", "65.8 M", "84.6 M", "103 M")):
        rows[f"at_{k}"] = 0.876
        visible.append(Column(f"at_{k}", f"{macs} MACs", "percent", 1))
    equal = Table("equal", "answer", "At equal compute", "Mean.", rows, visible)
    page = tmp_path / "page"
    list(write(replace(contents(), tables=[equal], first=["equal"]), numbers(), page, (), 0))
    show(browser, page, 390)
    assert js(browser, "over('.first .wide')") <= 0
    assert js(browser, FIRST_NUMBER_HEIGHT) < 3 * 24  # two lines: a number stays with its unit


def ink(
    browser: Any, left: int, table: str = "#table-wide-resnet18 .wide", below: bool = False
) -> float:
    """How dark the last column of pixels of a table is, most of it, scrolled so far; or its last row."""
    over, *box = browser.execute_script(EDGE, left, table)
    start, right, top, bottom, width = map(int, box)
    assert over and right < width
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L")
    edge = (right - 1, max(60, top), right, bottom)
    if below:  # without the names of rows, which stay where they are, and the line below
        edge = (start + (right - start) * 2 // 3, bottom - 3, right - 20, bottom - 2)
    return 255.0 - float(np.median(np.asarray(picture.crop(edge))))


def test_what_must_be_scrolled_to_is_shaded_at_its_edge(browser: Any, made_up: Path) -> None:
    show(browser, made_up, at="#table-wide-resnet18")
    wait(lambda: ink(browser, 0) > 20)  # a busy machine paints after the script has answered
    wait(lambda: ink(browser, 10**6) < 5)


def test_what_is_unfolded_lives_in_the_address(browser: Any, made_up: Path) -> None:
    show(browser, made_up)
    assert js(browser, UNFOLDED) == []
    for key in ("rq1", "claims"):
        click(browser, f"#fold-{key}")
    wait(lambda: js(browser, ADDRESS) == "#open=rq1.claims")
    show(browser, made_up, at="#open=rq1.claims")
    assert js(browser, UNFOLDED) == ["rq1", "claims"]
    show(browser, made_up, at="#table-wide-resnet18")  # in a fold
    assert js(browser, UNFOLDED) == ["rq2"]


@pytest.mark.parametrize("scripts", [True, False])
def test_print_unfolds_everything(browser: Any, made_up: Path, scripts: bool) -> None:
    try:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        show(browser, made_up)
        assert js(browser, HIDDEN_PARTS) > 8
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert js(browser, HIDDEN_PARTS) == 0
        assert js(browser, LETTERS_OF_TABLE) == 1  # a larger head took the room of its numbers
        assert set(js(browser, BREAKS_BELOW_TITLES)) == {"avoid"}
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_paper_says_how_to_print_charts_that_are_not_drawn(browser: Any, made_up: Path) -> None:
    """The browser's own menu waits for no chart."""
    show(browser, made_up)
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert "Ctrl-P" in js(browser, NOT_DRAWN)
        browser.execute_async_script(DRAW_ALL)
        assert js(browser, "one('.chart:not(.drawn)')") is None
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_long_tables_are_shaded_below_and_tall_charts_keep_their_letters(
    browser: Any, tmp_path: Path
) -> None:
    """Of sixty strategies the table showed sixteen, and nothing told of more; letters had 6 pixels."""
    (main, *_), (first, *_) = contents().tables, contents().figures
    frame = pd.concat([main.frame] * 10, ignore_index=True)
    tall = replace(first, spec={**first.spec, "height": 900})
    made = replace(contents(), tables=[replace(main, frame=frame)], figures=[tall])
    made = replace(made, first=[main.name, tall.name])
    list(write(made, numbers(), tmp_path / "page", (), 0))
    show(browser, tmp_path / "page")
    wait(lambda: js(browser, "one('.first .chart.drawn')") is not None)
    assert js(browser, "one('.first .chart svg').clientHeight") > 600  # 27rem are 432
    wait(lambda: ink(browser, 0, ".first .wide", below=True) > 20)
    js(browser, "one('.first .wide').scrollTop=10**6")
    wait(lambda: ink(browser, 0, ".first .wide", below=True) < 5)


PRESS = "dispatchEvent(new KeyboardEvent('keydown',{ctrlKey:true,key:'P',cancelable:true}))"


@pytest.mark.parametrize("ask", ["one('#print').click()", PRESS])
def test_all_charts_are_drawn_before_printing(browser: Any, made_up: Path, ask: str) -> None:
    """Those too of which the screen has the first alone; and those that are drawn at this moment. With
    Caps Lock the key is P."""
    show(browser, made_up)
    js(browser, BLANK_ON_PAPER)
    js(browser, ask)
    wait(lambda: js(browser, "window.blank??null") is not None)
    assert js(browser, "window.blank") == []
    assert len(js(browser, "all('.first .figure')")) == 2
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("at", ["#model=none&at=nowhere&x=1", "#100%"])
def test_an_address_with_unknown_values_shows_all(browser: Any, made_up: Path, at: str) -> None:
    show(browser, made_up, at=at)
    assert len(js(browser, SHOWN)) == 12
    assert browser.get_log("browser") == []


def test_charts_fill_a_new_width(browser: Any, made_up: Path) -> None:
    show(browser, made_up, at="#figure-panels-resnet18")
    wait(lambda: js(browser, PANELS_WIDTH) > 400)
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wait(lambda: 200 < js(browser, PANELS_WIDTH) < 390)


def test_dark_and_light_follow_the_system_until_the_reader_chooses(browser: Any, made_up: Path) -> None:
    show(browser, made_up, colors="dark")
    dark = js(browser, GROUND)
    assert js(browser, "one('#theme').ariaPressed") == "true"
    show(browser, made_up, colors="light")
    assert js(browser, GROUND) != dark
    click(browser, "#theme")
    assert js(browser, GROUND) == dark
    show(browser, made_up, colors="light")  # kept
    assert js(browser, GROUND) == dark
    js(browser, "localStorage.clear()")


def test_keyboard_reaches_everything(browser: Any, made_up: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    show(browser, made_up)
    reached = []
    for _ in range(150):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        name = js(browser, FOCUS)
        if js(browser, NOWHERE):
            break
        reached.append((name, js(browser, FOCUS_RING)))
        if name.startswith("fold-"):
            ActionChains(browser).send_keys(Keys.ENTER).perform()
    names = [name for name, _ in reached]
    assert names[0] == "skip"
    assert {"print", "theme", "filter-model", "filter-data", "filter-exit"} <= set(names)
    assert names.count("wide") == 4  # # every table can be scrolled
    assert DOWNLOADS - set(names) == {"SVG"}
    assert all(ring == "solid" for _, ring in reached)


def test_contents_move_focus_along(browser: Any, made_up: Path) -> None:
    show(browser, made_up)
    choose(browser, "model", "resnet18")
    click(browser, "nav a[href='#rq2']")
    assert js(browser, "document.activeElement.id") == "fold-rq2"
    wait(lambda: "open" in js(browser, ADDRESS))
    assert js(browser, ADDRESS)[1:].split("&") == ["model=resnet18", "at=rq2", "open=rq2"]


def test_axe_would_find_something(browser: Any, made_up: Path) -> None:
    show(browser, made_up)
    for broken in (PALE_ANSWER, NAMELESS_FILTER):
        js(browser, broken)
    assert [rule for rule, *_ in axe(browser)] == ["color-contrast", "select-name"]


def test_without_javascript_everything_but_charts_and_filters_is_there(
    browser: Any, made_up: Path
) -> None:
    try:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        show(browser, made_up)
        assert js(browser, "seen('.filters')") == []
        assert js(browser, "seen('nav')") and js(browser, "seen('#main table')")
        assert js(browser, f"one('{NO_SCRIPTS}').offsetHeight")
        assert "JavaScript" in text(browser, NO_SCRIPTS)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
