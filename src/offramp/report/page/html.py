"""Contents to HTML, through one template, one style sheet and one script."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, get_args

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from offramp.escape import printable
from offramp.report.colors import both_colors, both_configs
from offramp.report.model import Contents, Figure, Question, Table
from offramp.report.render.cells import Layout, layout
from offramp.report.render.charts import check_room, text
from offramp.units import counted

# Section → short name for the navigation, heading, what it answers.
HEADINGS: dict[str, tuple[str, str, str]] = {
    "answer": (
        "Accuracy and time",
        "How accurate is each exit, and how long does training take?",
        "",
    ),
    "compute": (
        "Accuracy and compute",
        "What accuracy does compute buy?",
        "What an exit, or a confidence threshold, gives for its multiply–accumulates (MACs).",
    ),
    "rq1": (
        "RQ1 · Learning",
        "How does each strategy learn?",
        "Convergence, accuracy at each exit, and the gap between training and unseen data.",
    ),
    "rq2": (
        "RQ2 · Cost",
        "What does each strategy cost?",
        "Time, memory, power and energy of training, and how steadily it goes.",
    ),
    "rq3": (
        "RQ3 · Hybrids",
        "Do hybrids help?",
        "Combinations of strategies beside the strategies that they are made of: overfitting at late "
        "exits, strength of early ones.",
    ),
    "more": (
        "Beyond the paper",
        "What does the paper not ask?",
        "Calibration, overthinking, agreement of exits, costs counted in other ways, tests in full.",
    ),
    "claims": ("Claims", "Which findings hold?", "Findings as statements, each tested on these runs."),
}

FILTERS = MappingProxyType({"model": "Model", "data": "Data set", "exit": "Exit"})  # key → its label
BROAD = 8  # columns of a table that fits beside a figure
SENTENCES = 3  # of the answer, before the rest is unfolded
SHORT = 160  # characters of a caption that are always shown


@dataclass(frozen=True)
class PageSection:
    """A heading and what stands below it."""

    key: str
    short: str
    heading: str
    about: str
    figures: Sequence[Figure]
    tables: Sequence[tuple[Table, Layout]]

    @property
    def broad(self) -> bool:
        """Whether a table has no room beside a figure."""
        return any(len(words.titles) > BROAD for _, words in self.tables)

    @property
    def count(self) -> str:
        """What is below it, in words."""
        kinds = ((len(self.figures), "figure"), (len(self.tables), "table"))
        return ", ".join(counted(number, noun) for number, noun in kinds if number)


def page(contents: Contents, formats: Sequence[str]) -> str:
    """The whole page.

    Every text is escaped; scripts run only where their hash is the policy's, and nothing is loaded.

    Args:
        formats: Of the figures' files that lie beside it, for their links.
    """
    scripts = [_script("theme.js"), _vega(), _script("page.js")]
    policy = (
        "default-src 'none'; "
        f"script-src {' '.join(_hash(script) for script in scripts)}; "
        "style-src 'unsafe-inline'; img-src 'self' data: file:; base-uri 'none'; form-action 'none'"
    )
    items: list[Figure | Table] = [*contents.figures, *contents.tables, *contents.claims]
    text: str = _template().render(
        contents=contents,
        sections=_sections(contents),
        first=_first(contents),
        sentences=SENTENCES - bool(contents.headline),
        filters=[(key, FILTERS[key], values) for key, values in choices(items).items()],
        labels=FILTERS,
        formats=formats,
        kinds=[(format.upper(), format) for format in formats],
        policy=policy,
        charts=both_configs(),
        style=Markup(_file("page.css")),
        theme=scripts[0],
        vega=scripts[1],
        script=scripts[2],
    )
    return text


def _first(contents: Contents) -> PageSection:
    """What a reader sees before any heading."""
    tables = [(t, layout(t)) for t in contents.tables if t.name in contents.first]
    figures = [f for f in contents.figures if f.name in contents.first]
    return PageSection("first", "", "", "", figures, tables)


def _sections(contents: Contents) -> list[PageSection]:
    """The headings that have something below them, in the reader's order."""
    sections = []
    for key in (*(question for question in get_args(Question) if question != "how"), "claims"):
        shown_first = set(contents.first)
        figures = [f for f in contents.figures if f.question == key and f.name not in shown_first]
        tables = [t for t in contents.tables if t.question == key and t.name not in shown_first]
        if key == "claims":
            tables = list(contents.claims)
        if figures or tables:
            short, heading, about = HEADINGS[key]
            laid_out = [(table, layout(table)) for table in tables]
            sections.append(PageSection(key, short, heading, about, figures, laid_out))
    return sections


def choices(items: Sequence[Figure | Table]) -> Mapping[str, Sequence[str]]:
    """What can be filtered by: the values of each key of FILTERS that has several, in order of
    appearance, exits by number."""
    by_key: dict[str, dict[str, None]] = {key: {} for key in FILTERS}
    for item in items:
        for key, value in item.about.items():
            if key in by_key:
                by_key[key][value] = None
    ordered = {key: list(values) for key, values in by_key.items() if len(values) > 1}
    if "exit" in ordered:
        ordered["exit"].sort(key=lambda exit: (0, int(exit)) if exit.isdigit() else (1, 0))
    return ordered


def begun(caption: str) -> tuple[str, str]:
    """A caption's first sentences, SHORT characters or a little more, and what a reader unfolds."""
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z≥=])", caption)
    first = sentences[0]
    for count, sentence in enumerate(sentences[1:], start=1):
        if len(first) + len(sentence) > SHORT:
            return first, " ".join(sentences[count:])
        first = f"{first} {sentence}"
    return first, ""


def bound(title: str) -> str:
    """A column's title whose units stay on the line of what they are of: `28.3 M`, `written, s`."""
    return re.sub(r"(?<=\d) (?=[kMGT]\b)|(?<=,) (?=\S{1,2}$)", "\N{NO-BREAK SPACE}", title)


@functools.cache
def _template() -> Any:
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    environment.filters["json"] = _json
    environment.filters["packed"] = _packed
    environment.filters["colored"] = both_colors
    environment.filters["begun"] = begun
    environment.filters["bound"] = bound
    return environment.from_string(_file("page.html"))


@functools.cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _script(name: str) -> Markup:
    return _inline(_file(name))


@functools.cache
def _vega() -> Markup:
    """Vega-Embed and what it needs of Vega and Vega-Lite, as vl-convert carries them."""
    check_room()
    from vl_convert import javascript_bundle

    return _inline(javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _inline(script: str) -> Markup:
    """A script as the text of a script element, which `</script` and `<!--` would end or confuse."""
    return Markup(re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE))


def _json(spec: Any) -> Markup:
    """A specification, or a part of one, as the text of a script element: JSON without any `<`."""
    return Markup(text(spec).replace("<", "\\u003c"))


def _packed(spec: Any) -> str:
    """A specification with its data, compressed to a third: zlib, base64. The browser unpacks it."""
    return base64.b64encode(zlib.compress(text(spec).encode(), 9)).decode()


def _hash(script: str) -> str:
    """As a content security policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
