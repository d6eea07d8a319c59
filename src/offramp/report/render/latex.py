"""A table in LaTeX, for packages array, booktabs and graphicx."""

from __future__ import annotations

import re
from collections.abc import Sequence

from offramp.escape import printable
from offramp.report.model import Table
from offramp.report.render.cells import Cell, Layout, layout

LONG = 45  # rows; what is left over goes into another float
WIDE = 36  # characters; a wider column of words breaks between them
LEGEND = "Bold: the best. ≈: not significantly different from it."
WORDS = {
    **{sign: f"\\{sign}" for sign in "{}&%$#_"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"|": r"\textbar{}", '"': r"\textquotedbl{}", "…": r"\ldots{}", "²": r"\textsuperscript{2}"},
    **{"<": r"$<$", ">": r"$>$", "≈": r"$\approx$", "≥": r"$\geq$", "≤": r"$\leq$", "≠": r"$\neq$"},
    **{"−": r"$-$", "±": r"$\pm$", "→": r"$\rightarrow$", "×": r"$\times$", "·": r"$\cdot$"},
    **{"τ": r"$\tau$", "α": r"$\alpha$", "ε": r"$\varepsilon$", "η": r"$\eta$", "ω": r"$\omega$"},
    **{"–": "--", "—": "---", "“": "``", "”": "''", "’": "'", "‘": "`"},
}
TOKEN = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e([-+−]?)(\d+)(?!\w)|>>|[ωη]²|.")
PAIRS = {">>": r"$\gg$", "ω²": r"$\omega^2$", "η²": r"$\eta^2$"}
BEGUN = re.compile(r"\A[\[*]")  # after a line break LaTeX would read it as an argument


def latex(table: Table) -> str:
    r"""One `table`, or several where there are many rows, each scaled down where it is wider than the
    line; \label{tab:NAME} is the first one's. Title as caption, what else there is to say below the
    last. Ends with a line break."""
    found = layout(table)
    body = [f"{' & '.join(_cell(cell) for cell in row)} \\\\" for row in found.rows]
    parts = [body[i : i + LONG] for i in range(0, len(body), LONG)] or [[]]
    words = [table.caption + (f" {LEGEND}" if found.marked else ""), *table.notes]
    lines = [r"% needs \usepackage{array,booktabs,graphicx}"]
    for number, rows in enumerate(parts):
        named = f"\\caption{{{escape(table.title)}}}\\label{{tab:{table.name}}}"
        again = f"Table~\\ref{{tab:{table.name}}}, continued\\par\\smallskip"
        lines += _float(found, again if number else named, rows, words if rows is parts[-1] else [])
    return "\n".join(lines) + "\n"


def _float(found: Layout, head: str, rows: Sequence[str], words: Sequence[str]) -> list[str]:
    titles = " & ".join(_begun(escape(title)) for title in found.titles)
    return [
        r"\begin{table}[htbp]",
        r"\centering\small",
        head,
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        f"\\begin{{tabular}}{{{_columns(found)}}}",
        r"\toprule",
        f"{titles} \\\\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
        *([r"\par\smallskip\raggedright\footnotesize"] if words else []),
        *(f"{escape(text)}\\par" for text in words),
        r"\end{table}",
    ]


def _columns(found: Layout) -> str:
    """`l` for words, `r` for numbers, `p` for words that must break."""
    kinds = []
    for i, (title, numeric) in enumerate(zip(found.titles, found.numeric, strict=True)):
        width = max(len(title), *(len(row[i].text) for row in found.rows)) if found.rows else 0
        if width > WIDE and not numeric:
            kinds.append(f">{{\\raggedright\\arraybackslash}}p{{{WIDE / 2:g}em}}")
        else:
            kinds.append("r" if numeric else "l")
    return "".join(kinds)


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

    return TOKEN.sub(written, printable(" ".join(text.split())))
