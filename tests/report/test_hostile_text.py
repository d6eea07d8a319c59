"""Names that would run, compute, read a file or steer a terminal: every page, table, card and picture
shows them, and nothing runs."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from handmade import evidence, simple
from markupsafe import escape
from page_contents import figure, panels
from test_page_browser import DRAW_ALL, show, wait

from offramp.api.deploy.predict import write as write_answers
from offramp.bundle import card
from offramp.escape import cell, html, markdown, printable
from offramp.infer.image_files import FileAnswer, Unanswered
from offramp.report import tables
from offramp.report.evidence import Evidence
from offramp.report.figures import draw
from offramp.report.model import Column, Contents, RunDetail, Table
from offramp.report.page.folder import assemble, page
from offramp.report.render import charts
from offramp.report.render.tables import FORMATS
from offramp.report.render.tables import latex_text as latex
from offramp.store.pack import _readme

SCRIPT = "window.ran=1;document.title='ran'"
RUNS = (
    f"</script><script>{SCRIPT}</script><img src=x onerror=\"window.ran=2\"><svg/onload='window.ran=3'>"
)
NAME = f"=cmd()|{RUNS}'\"`javascript:x`[a](javascript:x)\\input{{/etc/passwd}}^^5cinput{{x}}%&#x3c;$x$_*"
STEERS = "\x1b[31m\x9b2J\u202egnp.exe\u2066\x00\x07\ud800"
HOSTILE = f"{NAME}{STEERS}"
SPELLED = r"\x1b[31m\x9b2J\u202egnp.exe\u2066\x00\x07\ud800"


@pytest.fixture(scope="module")
def hostile_runs() -> Evidence:
    """Two strategies, a network, data and a study with such names, short enough for a chart."""
    names = {"model": "net</script><script>ran=1</script>", "data": "data<img src=x onerror=ran=2>"}
    labels = ("=a\u202e'\"<svg/onload=ran=3>", "@b\\input{x}<b>`$x$")
    study = f"study{NAME}"
    built = [
        simple(label, seed, 0.1 * seed, study=study, **names) for label in labels for seed in (1, 2)
    ]
    return evidence(built)


@pytest.fixture(scope="module")
def contents(hostile_runs: Evidence) -> Contents:
    drawn_figures = draw(hostile_runs).figures
    return assemble(hostile_runs, drawn_figures, title=HOSTILE)


RAN = "return window.ran ?? null"
FAILED = "return document.querySelectorAll('.chart.failed').length"
DRAWN = "return [...document.querySelectorAll('.chart svg')].map((s) => s.textContent).join(' ')"
LOADED = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
PROTECTION = '<meta http-equiv="Content-Security-Policy"[^>]*>'
STEERING = r"\\(input|def|write|catcode|csname|immediate)\b|\^\^"
"""What steers LaTeX."""


def hostile_table() -> Table:
    content = HOSTILE[:-1]  # no frame can hold half a character
    names = [content, f"@{content}", f"\t{content}"]
    frame = pd.DataFrame({"name": names, "value": [-1.5, 2, np.nan]})
    columns = (Column("name", HOSTILE), Column("value", "value", "number"))
    notes = (HOSTILE, HOSTILE)
    return Table("t", "more", HOSTILE, HOSTILE, frame, columns, paper=HOSTILE, about={}, notes=notes)


class Parts(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs


def sources(parts: Parts) -> list[str]:
    """From where its elements load something: charts that were drawn, where there is no JavaScript."""
    return [value or "" for name, value in parts.attributes if name == "src"]


def harmless(text: str) -> None:
    """Whether it holds nothing that steers a terminal or turns text around; any file can hold it."""
    assert printable(text, keep="\n\t") == text
    text.encode()


@pytest.fixture(scope="module")
def text(contents: Contents) -> str:
    more = {"answer": [HOSTILE], "missing": [HOSTILE], "how": [RunDetail(HOSTILE, [HOSTILE])]}
    rest = {name: getattr(contents, name) for name in ("lead", "figures", "tables")}
    hostile = figure("hostile", "rq1", panels(1) | {"title": HOSTILE}, model=HOSTILE, exit=HOSTILE)
    rest["figures"] = [*rest["figures"], hostile, figure("other", "rq1", panels(2), model="b")]
    return page(Contents(HOSTILE, claims=[hostile_table()], **rest, **more), ("svg",))


def test_a_page_holds_no_element_that_a_name_made(text: str) -> None:
    harmless(text)
    parts = Parts()
    parts.feed(text)
    assert not [name for name, _ in parts.attributes if name.startswith("on")]
    own = sources(parts)
    assert own and all(source.startswith("figures/") for source in own), own
    assert escape(printable(HOSTILE)) in text and HOSTILE not in text


def test_a_page_runs_nothing(browser: Any, text: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    show(browser, tmp_path)
    browser.execute_async_script(DRAW_ALL)
    assert [browser.execute_script(script) for script in (RAN, FAILED)] == [None, 0]
    assert browser.title == f"{printable(HOSTILE)} · offramp report"
    assert "@b\\input{x}<b>`$x$" in browser.execute_script(DRAWN)
    assert browser.execute_script(LOADED) == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "WARNING"] == []


def test_a_name_that_were_not_escaped_would_be_seen(browser: Any, text: str, tmp_path: Path) -> None:
    """The control of the two tests above: unescaped, with the policy and without."""
    raw = text.replace("</h1>", f"{RUNS}</h1>")
    free = re.sub(PROTECTION, "", raw)
    parts = Parts()
    parts.feed(raw)
    assert [name for name, _ in parts.attributes if name.startswith("on")] == ["onerror", "onload"]
    assert "x" in sources(parts)
    (tmp_path / "index.html").write_text(raw, encoding="utf-8")
    show(browser, tmp_path)
    wait(lambda: len(words := browser.get_log("browser")) > 0 and "Security Policy" in str(words))
    assert browser.execute_script(RAN) is None
    assert free != raw
    (tmp_path / "index.html").write_text(free, encoding="utf-8")
    show(browser, tmp_path)
    wait(lambda: browser.execute_script("return window.ran ?? 0") > 0)


def test_tables_in_every_format(hostile_runs: Evidence) -> None:
    built = [*tables.make(hostile_runs), hostile_table()]
    assert len(built) > 4
    for table in built:
        for name, (_, render) in FORMATS.items():
            written = render(table)
            harmless(written)
            if name == "csv":
                cells = [text for row in csv.reader(io.StringIO(written)) for text in row if text]
                assert not [text for text in cells if text[0] in "=+@-" and not number(text)]
            elif name == "latex":
                assert not re.search(STEERING, written)
            else:
                assert not re.search(r"(?<!\\)<[a-zA-Z/!]|(?<!\\)\]\(|(?<!\\)&#", written)


def number(text: str) -> bool:
    return cell(text) == text


def test_the_control_of_a_table() -> None:
    assert not number("=1+1") and not number("+a") and number("-1.5") and number("a")
    assert cell("=x\u202e") == r"'=x\u202e" and cell("\ta") == "'\ta" and cell(-1.5) == -1.5


def test_specifications_and_pictures(contents: Contents) -> None:
    for first in contents.figures:
        harmless(charts.text(first.spec))
    hostile = panels(1)
    hostile["data"]["values"][0]["strategy"] = HOSTILE
    svg = charts.drawn(charts.text(hostile | {"title": HOSTILE}), ("svg",))["svg"].decode()
    assert "<script" not in svg and "<img" not in svg and "&lt;script&gt;" in svg
    harmless(svg)


def test_cards_and_readmes(hostile_runs: Evidence) -> None:
    data = {"name": HOSTILE, "provenance": {"images": {HOSTILE: 5}}}
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    exit = {"exit": 1, "place": HOSTILE, "in_bundle": True, "threshold": 0.5, "accuracy": 0.5}
    exits = [exit | {"share_leaving": 1.0, "accuracy_of_leaving": None, "macs": 5}]
    names = ("accuracy", "full_accuracy", "accuracy_loss")
    recipe = {"epochs": 1, "optimizer": HOSTILE, "learning_rate": 0.1, "batch_size": 8}
    numerics = hostile_runs.trials[0].manifest.numerics.as_json()
    training = {"strategy": HOSTILE, "seeds": [1], "phases": [HOSTILE], "recipe": recipe}
    training |= {"program": "", "numerics": numerics}
    built = {
        **{"trial": HOSTILE, "data": data, "exits": exits, "plain_macs": 10, "unreliable": [HOSTILE]},
        "training": {**training, "made_with": dict.fromkeys(("torch", "device", "finished"), HOSTILE)},
        "network": {"backbone": HOSTILE, "input_shape": [1, 8, 8], "classes": 2, "own_trunks": False},
        "test": {"images": 5, "mean_macs": 5.0, **dict.fromkeys(names, share)},
        "calibration": dict.fromkeys(("statement", "device", "promised"), HOSTILE),
        **{"intended": HOSTILE, "check": None, "latency": {"reason": HOSTILE}},
        **{"labels": [HOSTILE, "b"], "takes_pictures": True},
    }
    manifests = [trial.manifest for trial in hostile_runs.trials]
    readme = _readme(hostile_runs.gathered.records, manifests, (HOSTILE,), {})
    for text in (card.markdown(built), readme):
        harmless(text)
        assert not re.search(r"(?<!\\)<[a-zA-Z/!]|(?<!\\)\]\(|(?<!\\)`javascript", text)
        assert markdown(HOSTILE) in text


def test_answers_for_a_spreadsheet(tmp_path: Path) -> None:
    name = Path(f"@{STEERS}")
    answers, damaged = [FileAnswer(name, HOSTILE, 0.5, 1, 0.1)], [Unanswered(name, HOSTILE)]
    write_answers(tmp_path / "a.csv", answers, damaged)
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    row, broken = list(csv.reader(io.StringIO(text)))[1:]
    assert broken[0] == row[0] and broken[-1].startswith("'=cmd()")
    assert row[0] == f"'@{SPELLED}" and row[1].startswith("'=cmd()") and row[2] == "0.500000"


def test_what_each_format_says() -> None:
    assert printable(STEERS) == SPELLED
    assert html(f"<a title='{STEERS}'>") == f"&lt;a title=&#x27;{SPELLED}&#x27;&gt;"
    assert latex("\\input{/etc/passwd}") == r"\textbackslash{}input\{/etc/passwd\}"
    assert latex("^^5cinput") == r"\textasciicircum{}\textasciicircum{}5cinput"
    assert markdown("&lt;b&gt; a & b") == r"\&lt;b\&gt; a & b"
    assert json.loads(charts.text({"a": [STEERS]})) == {"a": [SPELLED]}
