"""`offramp pack` and `offramp figures`: results without weights, and charts as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.status import Status

from offramp.cli.render import counted, emit
from offramp.files import replacing
from offramp.report import evidence
from offramp.report.figures import draw
from offramp.report.model import Figure
from offramp.report.save import checked, save
from offramp.store import pack as packed
from offramp.store.sealed import writing
from offramp.units import size


def pack(store: Path, out: Path, study: str | None, as_json: bool) -> None:
    found = evidence.open(store, study)
    trials = [trial.id for trial in found.trials]
    with _status(f"packing {counted(len(trials), 'trial')}"):
        sizes = packed.write(out, found.records, trials, found.table, found.missing)
    if as_json:
        emit({"out": str(out), "trials": len(trials), "bytes": sizes, "missing": list(found.missing)})
        return
    _tell(found.missing)
    files = ", ".join(f"{name} {size(count)}" for name, count in sizes.items())
    typer.echo(
        f"{counted(len(trials), 'trial')} packed into {out}, {size(sum(sizes.values()))}: {files}."
    )


def figures(
    store: Path,
    out: Path,
    only: Sequence[str],
    formats: str,
    study: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    kinds = checked(formats.split(","))
    wanted = [name.strip() for names in only for name in names.split(",") if name.strip()]
    with _status("reading") as status:
        found = evidence.open(store, study)
        status.update("drawing")
        drawn = draw(found, wanted)
        paths = []
        for done, figure in enumerate(drawn.figures, start=1):
            status.update(f"[{done}/{len(drawn.figures)}] {figure.name}")
            paths += save(figure, out, kinds)
            if not (quiet or as_json or status.console.is_terminal):
                typer.echo(f"[{done}/{len(drawn.figures)}] {figure.name}", err=True)
    if drawn.figures:
        _write_captions(out / "captions.md", drawn.figures)
    missing = [*found.missing, *drawn.missing]
    if as_json:
        names = [
            {
                "name": f.name,
                "title": f.title,
                "caption": f.caption,
                "paper": f.paper,
                "about": dict(f.about),
            }
            for f in drawn.figures
        ]
        emit({"out": str(out), "figures": names, "files": list(map(str, paths)), "missing": missing})
        return
    _tell(missing)
    typer.echo(
        f"{counted(len(drawn.figures), 'figure')} as {', '.join(kinds)} in {out}"
        + (f"; what they show is in {out / 'captions.md'}." if drawn.figures else ".")
    )


def _write_captions(path: Path, figures: Sequence[Figure]) -> None:
    parts = []
    for figure in figures:
        paper = f" (paper's {figure.paper})" if figure.paper else ""
        parts.append(
            f"## {figure.name}\n\n**{figure.title}**{paper}. {figure.caption}\n\n{figure.alt}\n"
        )
    with writing(path), replacing(path) as temporary:
        temporary.write_text("# Figures\n\n" + "\n".join(parts), encoding="utf-8")


def _tell(missing: Sequence[str]) -> None:
    for note in missing:
        typer.echo(f"Missing: {note}.", err=True)


@contextmanager
def _status(text: str) -> Iterator[Status]:
    """A moving line on a terminal; nothing elsewhere."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    status = console.status(text)
    if not console.is_terminal:
        yield status
        return
    with status:
        yield status
