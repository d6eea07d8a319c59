"""`offramp figures`: charts as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli import options
from offramp.cli.options import flag, option
from offramp.cli.progress.reading import moving
from offramp.cli.render import emit, show_names, tell_missing
from offramp.report.figures import FIGURES
from offramp.units import counted

if TYPE_CHECKING:
    from offramp.report.model import Figure


def figures(
    store: options.ResultsArgument = None,
    store_: options.StoreOption = None,
    out: Annotated[Path, option("FOLDER", "Where to write the files.")] = Path("figures"),
    only: options.OnlyOption = None,
    format_: Annotated[
        str, option("svg,pdf,png,json", "The kinds of file; json is Vega-Lite.", "--format")
    ] = "svg,pdf,png",
    list_: Annotated[bool, flag("--list", "List the figures and stop.")] = False,
    study: options.StudyOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Draw the paper's figures, and more.

    captions.md, beside the files, says what each figure shows. docs/figures.md says which figure
    of the paper each one matches.

    \b
    Examples:
      offramp figures --list
      offramp figures runs/demo --out figures
      offramp figures runs/demo --only curves --only significance --format pdf
    """
    from offramp.report import evidence
    from offramp.report.figures import draw
    from offramp.report.registry import listed
    from offramp.report.render.charts import checked, save

    if list_:
        show_names("figure", listed(FIGURES), json)
        return

    kinds = checked(format_.split(","))
    wanted = [name.strip() for names in (only or []) for name in names.split(",") if name.strip()]
    with moving("reading") as status:
        found = evidence.open(options.named(store, store_), study)
        status.update("drawing")
        drawn = draw(found, wanted)
        paths = []
        for done, figure in enumerate(drawn.figures, start=1):
            status.update(f"[{done}/{len(drawn.figures)}] {figure.name}")
            paths += save(figure, out, kinds)
            if not (quiet or json or status.console.is_terminal):
                typer.echo(f"[{done}/{len(drawn.figures)}] {figure.name}", err=True)
    if drawn.figures:
        _write_captions(out / "captions.md", drawn.figures)
    missing = [*found.missing, *drawn.missing]
    if json:
        told = ("name", "title", "caption", "paper", "about")
        names = [{key: getattr(figure, key) for key in told} for figure in drawn.figures]
        emit({"out": str(out), "figures": names, "files": list(map(str, paths)), "missing": missing})
        return
    tell_missing(missing)
    typer.echo(
        f"{counted(len(drawn.figures), 'figure')} as {', '.join(kinds)} in {out}"
        + (f"; what they show is in {out / 'captions.md'}." if drawn.figures else ".")
    )


def _write_captions(path: Path, figures: Sequence[Figure]) -> None:
    from offramp.escape import markdown
    from offramp.files import replacing, writing

    parts = []
    for f in figures:
        paper = f" (paper's {f.paper})" if f.paper else ""
        title, caption, alt = map(markdown, (f.title, f.caption, f.alt))
        parts.append(f"## {f.name}\n\n**{title}**{paper}. {caption}\n\n{alt}\n")
    with writing(path), replacing(path) as temporary:
        temporary.write_text("# Figures\n\n" + "\n".join(parts), encoding="utf-8")
