"""The report as a folder: the page, through one template, one style sheet and one script, and beside it
figures, tables and data as files."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import zlib
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from offramp.errors import OfframpError
from offramp.escape import printable
from offramp.files import RECORDS, check_writable, folder_at, is_litter, read_regular, writing
from offramp.hashing import from_text
from offramp.report import figures, tables
from offramp.report.advice import answer, headline, listed, of_epochs
from offramp.report.claims import claims_table
from offramp.report.colors import both_colors, both_configs, themed
from offramp.report.evidence import Evidence
from offramp.report.model import Contents, Figure, Question, Table
from offramp.report.page import how
from offramp.report.render import charts
from offramp.report.render.cells import Layout, layout
from offramp.report.render.charts import check_room, text
from offramp.report.render.tables import FORMATS, write
from offramp.units import counted

MARKER = "report.json"  # says that the folder is ours, and what of it
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


def check(out: Path) -> None:
    """Raises OfframpError where a report must not go: what is there is not, or not only, a report, or
    nothing can be written."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OfframpError(f"{out} is not a folder; choose another --out")
    check_writable(out)
    if not out.exists():
        return
    paths = [path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]
    files = {path.relative_to(out).as_posix() for path in paths if not is_litter(path)}
    if not files:
        return
    try:
        ours = set(from_text(read_regular(out / MARKER, RECORDS))["files"])
    except (OSError, ValueError, LookupError, TypeError):
        raise OfframpError(
            f"{out} is there and is no earlier report; choose another --out, or remove it"
        ) from None
    if other := sorted(files - ours - {MARKER}):
        raise OfframpError(
            f"{out} holds {other[0]}, which no report wrote and a new one would remove; move it away "
            "or choose another --out"
        )


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder with places for figures, tables and data, that becomes `out` at the end of the block, in
    the place of an earlier report; on any failure `out` is what it was.

    Raises:
        OfframpError: As `check` does, and where `out` cannot be written.
    """
    check(out)
    with writing(out), folder_at(out) as folder:
        for name in ("figures", "tables", "data"):
            (folder / name).mkdir()
        yield folder
        _mark(folder)
        check(out)  # again: somebody may have put a file there meanwhile


def fill(folder: Path, contents: Contents, numbers: pd.DataFrame, formats: Sequence[str]) -> None:
    """Everything but the figures' files."""
    for figure in contents.figures:
        path = folder / "data" / f"{figure.name}.vl.json"
        path.write_text(text(themed(figure.spec)) + "\n", encoding="utf-8")
    write([*contents.tables, *contents.claims], folder / "tables", list(FORMATS))
    (folder / "index.html").write_text(page(contents, formats), encoding="utf-8", newline="\n")
    # Text columns as dictionaries: a million rows repeat a few words.
    words = [name for name in numbers.columns if numbers[name].dtype in (object, "str")]
    place, packed = folder / "data" / "numbers.parquet", dict.fromkeys(words, "category")
    place.write_bytes(numbers.astype(packed).to_parquet(None, index=False, compression="zstd"))


def _mark(folder: Path) -> None:
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    marker = {"made_by": "offramp report", "offramp": version("offramp"), "files": files}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def report(
    evidence: Evidence, out: Path, formats: Sequence[str], workers: int, title: str | None = None
) -> Generator[str, None, Contents]:
    """Write the report on `evidence` to `out`, as `folder.staged` does; yields what it is at, in words.

    Figures are drawn by `workers` processes while this one makes tables, statistics and the page.
    """
    yield "making figures"
    drawings = figures.draw(evidence).figures
    with (
        staged(out) as place,
        charts.started(drawings, place / "figures", formats, workers) as drawn,
    ):
        yield "making tables and statistics"
        contents = assemble(evidence, drawings, title)
        fill(place, contents, evidence.table, formats)
        for done, total in charts.progress(drawn):
            yield f"drawing figures: {done} of {total}"
    return contents


def assemble(evidence: Evidence, drawings: Sequence[Figure], title: str | None = None) -> Contents:
    """Everything that a report on `evidence` says. title: by default the names of the studies."""
    studies = sorted({t.manifest.study for t in evidence.trials if t.manifest.study})
    all_tables = tables.make(evidence)
    return Contents(
        title=title or ", ".join(studies) or "Strategies for early exits",
        lead=lead(evidence),
        headline=headline(evidence),
        answer=answer(evidence),
        figures=drawings,
        tables=all_tables,
        claims=[claims_table(list(evidence.judgments.values()))] if evidence.trials else [],
        how=how.facts(evidence),
        missing=[_sentence(note) for note in evidence.missing],
        wrong=[_sentence(note) for note in evidence.disagreements],
        first=first(evidence, [*(f.name for f in drawings), *(t.name for t in all_tables)]),
    )


def first(evidence: Evidence, names: Collection[str]) -> list[str]:
    """What answers in short: accuracy against compute of each network and data set, as a figure and as a
    table; where there are several, the table over all of them. names: of what there is."""
    figures = [runs.name("accuracy-compute") for runs in evidence.runs]
    own = [runs.name("equal") for runs in evidence.runs]
    main = [runs.name("main") for runs in evidence.runs]
    leading = next((kind for kind in (["overall"], own, main) if set(kind) & set(names)), [])
    return [name for name in (*leading, *figures) if name in names]


def lead(evidence: Evidence) -> str:
    """The extent of the runs in a line."""
    places = [runs.where for runs in evidence.runs]
    if len(places) > 2:
        models, data = {r.model for r in evidence.runs}, {r.data for r in evidence.runs}
        places = [counted(len(models), "network"), counted(len(data), "data set")]
    seeds = len({trial.seed for trial in evidence.trials})
    early = {trial.strategy for trial in evidence.trials if len(trial.exits) > 1}
    alone = [name for name in evidence.strategies if name not in early]
    strategies = counted(len(early or alone), "strategy", "strategies")
    if early and alone:
        strategies += f" with early exits, {listed(alone)} without"
    trials = counted(len(evidence.trials), "trial") + of_epochs(evidence.trials, evidence)
    return " · ".join((strategies, *places, counted(seeds, "seed"), trials))


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."


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
