"""Tables as files: Markdown, LaTeX, and CSV with values unrounded."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from offramp.escape import cells, printable
from offramp.escape import markdown as escape
from offramp.files import write_whole, writing
from offramp.report.model import Table
from offramp.report.render.cells import Cell, Layout, layout

# Sizes are counted in characters and lines, those of an article of 10 pt in one column: the narrowest
# that a table of full width meets.
LINES, PAGE = 38, 44  # of a table in one float; with what is said below it
FLOATS = 12  # one after another: LaTeX holds few, so these are set before the next
LINE = 74  # characters of `small` in the text's width
COLUMN = 40  # and in a column of two
GAP = 2.7  # between columns
WORDY, LEAST = 24, 14  # a wider column of words breaks between them; one of several keeps this much
FINE = 84  # characters of `footnotesize` in a line
# Those of which LaTeX has a command; the others look as Latin letters.
GREEK = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta"},
    **{"η": "eta", "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu"},
    **{"ξ": "xi", "π": "pi", "ρ": "rho", "ς": "varsigma", "σ": "sigma", "τ": "tau", "υ": "upsilon"},
    **{"φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta"},
    **{"Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi"},
    "Ω": "Omega",
}
WORDS = {
    **{sign: f"\\{sign}" for sign in "{}&%$#_"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"|": r"\textbar{}", '"': r"\textquotedbl{}", "…": r"\ldots{}", "²": r"\textsuperscript{2}"},
    **{"<": r"$<$", ">": r"$>$", "≈": r"$\approx$", "≥": r"$\geq$", "≤": r"$\leq$", "≠": r"$\neq$"},
    **{"−": r"$-$", "±": r"$\pm$", "→": r"$\rightarrow$", "×": r"$\times$", "·": r"$\cdot$"},
    **{letter: f"$\\{name}$" for letter, name in GREEK.items()},
    **{"–": "--", "—": "---", "“": "``", "”": "''", "’": "'", "‘": "`"},
}
TOKEN = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e([-+−]?)(\d+)(?!\w)|>>|[ωη]²|--+|.")
PAIRS = {">>": r"$\gg$", "ω²": r"$\omega^2$", "η²": r"$\eta^2$"}
BEGUN = re.compile(r"\A[\[*]")  # after a line break LaTeX would read it as an argument


@dataclass(frozen=True)
class Typesetting:
    """How a table is set."""

    kinds: str  # of its columns, as `tabular` wants them
    widths: tuple[float, ...]  # characters in a line of each column
    wide: bool  # whether it takes both columns of a page that has two


def latex(table: Table) -> str:
    r"""A table as a float of LaTeX, or as several where there are many lines.

    Columns of words break, so that the table is as wide as the line; what is still wider is scaled down.
    A wide one takes both columns of a page with two. Title as caption, what else there is to say below
    the last one, or in floats of its own where that is long.

    Returns:
        The source, which ends with a line break; \label{tab:NAME} is the first float's.
    """
    words_of = layout(table)
    plan = _plan(words_of)
    words = [table.caption + words_of.legend("Bold"), *table.notes]
    rows = [_lines(row, plan) for row in words_of.rows]
    parts = _pages(rows)
    bodies = [_tabular(words_of, plan, words_of.rows[part]) for part in parts]
    if sum(rows[parts[-1]]) + sum(map(_fine, words)) <= PAGE:
        bodies[-1] += _words(words)
    else:
        pieces = [piece for text in words for piece in textwrap.wrap(text, FINE * LINES // 2)]
        bodies += [_words(pieces[part]) for part in _pages(list(map(_fine, pieces)))]
    lines = [r"% needs \usepackage{array,booktabs,graphicx}"]
    for number, body in enumerate(bodies):
        named = f"\\caption{{{latex_text(table.title)}}}\\label{{tab:{table.name}}}"
        again = f"Table~\\ref{{tab:{table.name}}}, continued\\par\\smallskip"
        lines += [r"\clearpage"] if number and number % FLOATS == 0 else []
        lines += _float(again if number else named, body, plan.wide)
    return "\n".join(lines) + "\n"


def _plan(words_of: Layout) -> Typesetting:
    columns = range(len(words_of.titles))
    widths = [max(len(words_of.titles[i]), *(len(r[i].text) for r in words_of.rows), 0) for i in columns]
    broken = [widths[i] > WORDY and not words_of.numeric[i] for i in columns]
    gaps = GAP * len(widths)
    wide = sum(min(w, WORDY) for w in widths) + gaps > COLUMN
    room = LINE - gaps - sum(w for w, breaks in zip(widths, broken, strict=True) if not breaks)
    whole = sum(w for w, breaks in zip(widths, broken, strict=True) if breaks)
    # Wordier columns get more, by the root: each then takes about as many lines as the next.
    roots = sum(math.sqrt(w) for w, breaks in zip(widths, broken, strict=True) if breaks)
    least = LEAST if sum(broken) > 1 else WORDY  # alone, it breaks no text that is not wordy
    kinds, widths_shown = [], []
    for i, width in enumerate(widths):
        if not broken[i] or whole <= room:
            kinds.append("r" if words_of.numeric[i] else "l")
            widths_shown.append(float(width))
            continue
        widths_shown.append(max(least, room * math.sqrt(width) / roots))
        kinds.append(f">{{\\raggedright\\arraybackslash}}p{{{widths_shown[i] / LINE:.3f}\\linewidth}}")
    return Typesetting("".join(kinds), tuple(widths_shown), wide or whole > room)


def _lines(row: Sequence[Cell], plan: Typesetting) -> int:
    """That a row takes. A broken line is seldom full."""
    cells = zip(row, plan.widths, strict=True)
    return max(
        (math.ceil(1.15 * len(c.text) / w) if len(c.text) > w else 1 for c, w in cells), default=1
    )


def _fine(text: str) -> int:
    """Lines of a text below the table."""
    return math.ceil(len(text) / FINE)


def _pages(lines: Sequence[int]) -> list[slice]:
    """Things that take so many lines in runs of at most LINES."""
    starts, used = [0], 0
    for i, more in enumerate(lines):
        if i > starts[-1] and used + more > LINES:
            starts.append(i)
            used = 0
        used += more
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(lines)], strict=True)]


def _float(head: str, body: Sequence[str], wide: bool) -> list[str]:
    kind, place = ("table*", "tp") if wide else ("table", "htbp")
    return [f"\\begin{{{kind}}}[{place}]", r"\centering\small", head, *body, f"\\end{{{kind}}}"]


def _tabular(words_of: Layout, plan: Typesetting, rows: Sequence[Sequence[Cell]]) -> list[str]:
    titles = " & ".join(_begun(latex_text(title)) for title in words_of.titles)
    return [
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        f"\\begin{{tabular}}{{{plan.kinds}}}",
        r"\toprule",
        f"{titles} \\\\",
        r"\midrule",
        *(f"{' & '.join(_latex_cell(cell) for cell in row)} \\\\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}}",
    ]


def _words(texts: Sequence[str]) -> list[str]:
    return [r"\par\smallskip\raggedright\footnotesize", *(f"{latex_text(text)}\\par" for text in texts)]


def _latex_cell(cell: Cell) -> str:
    text = _begun(latex_text(cell.text))
    if cell.mark == "best":
        return f"\\textbf{{{text}}}"
    return f"{text} $\\approx$" if cell.mark == "alike" else text


def _begun(text: str) -> str:
    return BEGUN.sub(lambda match: f"{{{match[0]}}}", text)


def latex_text(text: str) -> str:
    r"""What LaTeX would take for its own, and signs that its fonts lack; `4.64e-96` becomes a power."""

    def written(match: re.Match[str]) -> str:
        if match[1] is not None:
            sign = "-" if match[2] in ("-", "−") else ""
            return f"${match[1]}\\times10^{{{sign}{int(match[3])}}}$"
        if match[0].startswith("--"):  # of an option, such as --max-macs, and no dash
            return "{}".join(match[0])
        return PAIRS.get(match[0], WORDS.get(match[0], match[0]))

    return TOKEN.sub(written, printable(" ".join(text.split())))


def markdown(table: Table) -> str:
    """Title, caption, the table and its notes. Ends with a line break."""
    words = layout(table)
    rules = ["---:" if right else ":---" for right in words.numeric]
    paper = f" (the paper's {escape(table.paper)})" if table.paper else ""
    lines = [
        f"**{escape(table.title)}**{paper}",
        "",
        *_markdown_rows(words.titles, rules, words.rows),
        "",
        escape(table.caption) + words.legend("**Bold**"),
    ]
    if table.notes:
        lines += ["", *(f"- {escape(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _markdown_rows(
    titles: Sequence[str], rules: Sequence[str], rows: Sequence[Sequence[Cell]]
) -> list[str]:
    """Columns padded, so that the source can be read too."""
    body = [[escape(title) for title in titles], *([_markdown_cell(c) for c in row] for row in rows)]
    widths = [max(len(rules[i]), *(len(row[i]) for row in body)) for i in range(len(titles))]
    right = [rule.endswith(":") for rule in rules]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    ruler = [
        "-" * (width - 1) + ":" if to_right else ":" + "-" * (width - 1)
        for width, to_right in zip(widths, right, strict=True)
    ]
    return [line(body[0]), line(ruler), *(line(row) for row in body[1:])]


def _markdown_cell(cell: Cell) -> str:
    text = escape(cell.text) or " "
    if cell.mark == "best":
        return f"**{text}**"
    return f"{text} ≈" if cell.mark == "alike" else text


def csv(table: Table) -> str:
    """The frame's columns, the printed ones first, each followed by its deviation. Where values are
    marked, a column `KEY_mark` says `best` or `alike`. Missing values are empty. Text that a spreadsheet
    would compute begins with an apostrophe."""
    keys: list[str] = []
    for column in table.columns:
        keys += [key for key in (column.key, column.spread) if key is not None and key not in keys]
    rest = [key for key in table.frame.columns if key not in keys]
    frame = table.frame[[*keys, *rest]].copy()
    for key in sorted({key for _, key in table.best | table.alike}):
        marks = [table.mark(label, key) for label in frame.index]
        frame.insert(list(frame.columns).index(key) + 1, f"{key}_mark", marks)
    return str(cells(frame).to_csv(index=False, lineterminator="\n"))


FORMATS: Mapping[str, tuple[str, Callable[[Table], str]]] = MappingProxyType(
    {"md": ("md", markdown), "latex": ("tex", latex), "csv": ("csv", csv)}
)


def write(tables: Sequence[Table], folder: Path, chosen: Sequence[str]) -> tuple[Path, ...]:
    """Write each table in each format, `folder/NAME.md`, `.tex`, `.csv`, replacing files of that name.
    Files appear whole or not at all.

    Raises:
        OfframpError: Where the folder is a file or cannot be written.
    """
    paths = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for name in chosen:
            ending, render = FORMATS[name]
            path = folder / f"{table.name}.{ending}"
            write_whole(path, render(table))
            paths.append(path)
    return tuple(paths)
