"""Draw the house from the code: python docs/architecture.py (make house)

Layers are those of import-linter in pyproject.toml, sentences the first of each docstring, numbers
lines of Python to two digits. An arc is imports of a lower layer by a higher one, thicker where there
are more.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
WIDTH, BOXES, GAP, LINE = 800, 610, 8, 15  # of the picture, of a layer's boxes; pixels
INK, PALE, ARC = "#24292f", "#57606a", "#0969da"


def layers() -> list[list[str]]:
    """The modules of each layer by name, the highest first."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    rows = next(c["layers"] for c in linter["contracts"] if c.get("containers") == ["offramp"])
    return [[name.strip() for name in row.split("|")] for row in rows]


def summary(name: str) -> tuple[str, str, str]:
    """A module's title, about how many lines it has, and what it is for."""
    path = ROOT / "src" / "offramp" / name
    folder = path.is_dir()
    files = list(path.rglob("*.py")) if folder else [path.with_suffix(".py")]
    lines = sum(len(file.read_text().splitlines()) for file in files)
    first = path / "__init__.py" if folder else files[0]
    text = ast.get_docstring(ast.parse(first.read_text())) or ""
    sentence = text.partition("\n\n")[0].replace("\n", " ").partition(". ")[0].rstrip(".")
    return f"{name}/" if folder else name, f"{float(f'{lines:.2g}'):,.0f}", sentence


def imports(rows: list[list[str]]) -> Counter[tuple[int, int]]:
    """How many modules of a layer import one of another, by the layers' places."""
    graph = grimp.build_graph("offramp", exclude_type_checking_imports=True)
    place = {name: at for at, row in enumerate(rows) for name in row}
    pairs = ((m, n) for m in graph.modules for n in graph.find_modules_directly_imported_by(m))
    tops = ([place.get(name.partition(".")[2].partition(".")[0]) for name in pair] for pair in pairs)
    return Counter((a, b) for a, b in tops if a is not None and b is not None and a != b)


def draw(rows: list[list[str]], arcs: Counter[tuple[int, int]]) -> Iterator[str]:
    """The lines of the SVG."""
    y, middles, boxes = GAP, [], []
    for row in rows:
        width = (BOXES - GAP * (len(row) - 1)) / len(row)
        texts = [summary(name) for name in row]
        wrapped = [textwrap.wrap(text, int(width / 5.6)) if width > 140 else [] for *_, text in texts]
        height = 24 + LINE * max(map(len, wrapped))
        for at, ((title, lines, _), words) in enumerate(zip(texts, wrapped, strict=True)):
            x = GAP + at * (width + GAP)
            place = f'x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="4"'
            fill = "#ddf4ff" if title.endswith("/") else "#f6f8fa"
            boxes.append(f'<rect {place} fill="{fill}" stroke="#afb8c1"/>')
            name = f'<tspan font-weight="bold">{title}</tspan>'
            count = f'<tspan fill="{PALE}" font-size="9">{lines}</tspan>'
            boxes.append(_text(x, y + 16, 11, f"{name} {count}"))
            boxes += [_text(x, y + 16 + LINE * n, 11, escape(line)) for n, line in enumerate(words, 1)]
        middles.append(y + height // 2)
        y += height + GAP
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif">'
        "<title>Layers of offramp: folders and files, their lines, and imports</title>"
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>'
    )
    yield from boxes
    edge, room = BOXES + GAP, WIDTH - BOXES - 3 * GAP
    for (a, b), count in sorted(arcs.items()):
        out = edge + room * (b - a) / (len(rows) - 1) * 4 / 3  # a curve reaches three quarters of it
        start, end = middles[a] + 4, middles[b] - 4
        path = f"M{edge} {start} C{out:.0f} {start} {out:.0f} {end} {edge + 5} {end}"
        style = f'stroke-opacity=".4" stroke-width="{min(5, 0.6 + count**0.5 / 2):.1f}"'
        yield f'<path d="{path}" fill="none" stroke="{ARC}" {style}/>'
        yield f'<path d="M{edge} {end} l7 -4 v8 z" fill="{ARC}"/>'
    yield "</svg>"


def _text(x: float, y: int, size: int, inner: str) -> str:
    return f'<text x="{x + 6:.0f}" y="{y}" font-size="{size}" fill="{INK}">{inner}</text>'


def main() -> None:
    rows = layers()
    (ROOT / "docs" / "architecture.svg").write_text("\n".join(draw(rows, imports(rows))) + "\n")


if __name__ == "__main__":
    main()
