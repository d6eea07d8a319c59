"""A table in LaTeX, for packages booktabs and longtable."""

from __future__ import annotations

import re
from collections.abc import Sequence

from offramp.report.cells import Cell, Layout, layout
from offramp.report.model import Table

LONG = 45  # rows; a longer table breaks over pages
WIDE = 28  # characters; a wider column of words gets a width, in which it breaks
NARROW = 0.98  # of the line, which columns that break share
LEGEND = r"Bold: the best. $\approx$: not significantly different from it."
WORDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≠": r"$\neq$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "²": r"\textsuperscript{2}",
    "“": "``",
    "”": "''",
    "’": "'",
    "‘": "`",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "ε": r"$\varepsilon$",
    "η": r"$\eta$",
    "ω": r"$\omega$",
}
TOKEN = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e([-+−]?)(\d+)(?!\w)|>>|[ωη]²|.")
PAIRS = {">>": r"$\gg$", "ω²": r"$\omega^2$", "η²": r"$\eta^2$"}
BEGUN = re.compile(r"\A[\[*]")  # after a line break LaTeX would read it as an argument


def latex(table: Table) -> str:
    r"""A `table`, or a `longtable` where it has many rows; \label{tab:NAME}. Ends with a line break."""
    found = layout(table)
    columns = _columns(found)
    head = f"{' & '.join(_begun(escape(title)) for title in found.titles)} \\\\"
    body = [f"{' & '.join(_cell(cell) for cell in row)} \\\\" for row in found.rows]
    caption = f"\\caption{{{escape(table.title)}. {_caption(table, found)}}}"
    label = f"\\label{{tab:{table.name}}}"
    notes = [f"\\par\\footnotesize {escape(note)}" for note in table.notes]
    if len(body) > LONG:
        return _long(columns, head, body, f"{caption}{label}", notes)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[htbp]",
        r"\centering\small",
        caption,
        label,
        *_within_line(found, [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]),
        *body,
        r"\bottomrule",
        r"\end{tabular}" + (r"}" if _is_wide(found) else ""),
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _long(columns: str, head: str, body: Sequence[str], caption: str, notes: Sequence[str]) -> str:
    lines = [
        r"% needs \usepackage{booktabs,longtable}",
        r"{\small",
        f"\\begin{{longtable}}{{{columns}}}",
        caption + r" \\",
        r"\toprule",
        head,
        r"\midrule",
        r"\endfirsthead",
        r"\toprule",
        head,
        r"\midrule",
        r"\endhead",
        *body,
        r"\bottomrule",
        r"\end{longtable}",
        *notes,
        r"}",
    ]
    return "\n".join(lines) + "\n"


def _within_line(found: Layout, begin: list[str]) -> list[str]:
    """Many columns of numbers do not break: they are made to fit the line."""
    if not _is_wide(found):
        return begin
    return ["% needs \\usepackage{graphicx}", r"\resizebox{\linewidth}{!}{%", *begin]


def _is_wide(found: Layout) -> bool:
    widths = _widths(found)
    broken = any(w > WIDE and not n for w, n in zip(widths, found.numeric, strict=True))
    return not broken and sum(widths) + 2 * len(widths) > 85


def _widths(found: Layout) -> list[int]:
    return [
        max(len(title), *(len(row[i].text) for row in found.rows)) if found.rows else len(title)
        for i, title in enumerate(found.titles)
    ]


def _columns(found: Layout) -> str:
    """`l` for words, `r` for numbers, `p` for words that must break; their widths share the line."""
    widths = _widths(found)
    long = [w > WIDE and not n for w, n in zip(widths, found.numeric, strict=True)]
    taken = sum(w for w, is_long in zip(widths, long, strict=True) if not is_long) / 95
    room = max(0.2, NARROW - taken - 0.03 * len(widths))
    whole = sum(min(w, 90) for w, is_long in zip(widths, long, strict=True) if is_long)
    kinds = []
    for width, is_long, numeric in zip(widths, long, found.numeric, strict=True):
        share = room * min(width, 90) / max(whole, 1)
        breaking = f">{{\\raggedright\\arraybackslash}}p{{{share:.3f}\\linewidth}}"
        kinds.append(breaking if is_long else "r" if numeric else "l")
    return "".join(kinds)


def _caption(table: Table, found: Layout) -> str:
    return escape(table.caption) + (f" {LEGEND}" if found.marked else "")


def _cell(cell: Cell) -> str:
    text = _begun(escape(cell.text))
    if cell.mark == "best":
        return f"\\textbf{{{text}}}"
    return f"{text} $\\approx$" if cell.mark == "alike" else text


def _begun(text: str) -> str:
    return BEGUN.sub(lambda found: f"{{{found[0]}}}", text)


def escape(text: str) -> str:
    r"""What LaTeX would take for its own, and signs that its fonts lack; `4.64e-96` becomes a power."""

    def written(found: re.Match[str]) -> str:
        if found[1] is not None:
            sign = "-" if found[2] in ("-", "−") else ""
            return f"${found[1]}\\times10^{{{sign}{int(found[3])}}}$"
        return PAIRS.get(found[0], WORDS.get(found[0], found[0]))

    return TOKEN.sub(written, " ".join(text.split()))
