"""Tables through LaTeX, where there is one: what does not fit on the page."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

HEAD = r"""\documentclass[%s]{article}
\usepackage[T1]{fontenc}\usepackage{lmodern}\usepackage{array,booktabs,graphicx}
\hbadness=10000 \vbadness=10000
\begin{document}
"""
PACKAGES = ("lmodern.sty", "booktabs.sty", "graphicx.sty")
TROUBLE = re.compile(r"Overfull.*|.*Float too large.*|^!.*", re.MULTILINE)
BEGINS = re.compile(r"^table (\S+)$", re.MULTILINE)


def needs_latex() -> pytest.MarkDecorator:
    """Skips, saying what lacks, where there is no LaTeX with its fonts."""
    lacks = [] if shutil.which("pdflatex") else ["pdflatex"]
    lacks = lacks or [name for name in PACKAGES if not _has(name)]
    reason = f"no {', '.join(lacks)} here (apt: texlive-latex-recommended, lmodern): nothing is typeset"
    return pytest.mark.skipif(bool(lacks), reason=reason)


def _has(package: str) -> bool:
    """Whether LaTeX finds a package."""
    return bool(subprocess.run(["kpsewhich", package], capture_output=True, check=False).stdout.strip())


def trouble(tables: Mapping[str, str], folder: Path, columns: str) -> dict[str, list[str]]:
    """Typeset tables, each on pages of its own. columns: `onecolumn` or `twocolumn`.

    Returns, by name, what LaTeX says of boxes wider than the line and floats taller than the page.
    """
    body = [f"\\typeout{{table {name}}}\n{text}\n\\clearpage\n" for name, text in tables.items()]
    document = f"{HEAD % columns}{''.join(body)}\\end{{document}}\n"
    (folder / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=500, check=False)
    log = (folder / "t.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    parts = BEGINS.split(log)
    overfull = {
        name: TROUBLE.findall(lines) for name, lines in zip(parts[1::2], parts[2::2], strict=True)
    }
    assert set(overfull) == set(tables)
    return {name: lines for name, lines in overfull.items() if lines}
