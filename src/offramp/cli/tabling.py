"""`offramp tables`: the tables of a paper from a store or packed results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption
from offramp.errors import OfframpError


def tables(
    source: Annotated[
        Path, typer.Argument(metavar="STORE|PACK", help="A store, or a folder of packed results.")
    ] = RUNS,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go.")] = Path("tables"),
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Write this table only, as main. Repeatable."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="md,latex,csv", help="Kinds of file.")
    ] = "md,latex,csv",
    show: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Print this table and write no file. Repeatable."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the tables and stop.")] = False,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only trials that this study made.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write the tables that the paper has, and more.

    As Markdown, LaTeX (booktabs) and CSV (unrounded). The best value of a column is bold, and what
    does not differ significantly from it is marked. What could not be tested is said below the table.

    \b
    Examples:
      offramp tables runs --show main          print one
      offramp tables runs --out tables         write all
      offramp tables runs --only anova --only order-costs --format latex
      offramp tables --list                    what there is

    docs/tables.md maps the paper's tables to these and gives the rules.
    """
    from offramp.cli import table_view
    from offramp.cli.render import emit
    from offramp.report import evidence
    from offramp.report.render import write
    from offramp.report.tables import TABLES, about, make

    if list_ and json:
        emit({name: about(name) for name in TABLES})
        return
    if list_:
        for name in TABLES:
            typer.echo(f"{name:16}{about(name)}")
        return
    chosen = write.formats([name.strip() for name in format_.split(",") if name.strip()])
    if not chosen:
        raise OfframpError("--format names no kind of file; write some of md, latex, csv")
    wanted = [*(show or []), *(only or [])]
    found = evidence.open(source, study)
    made = make(found, wanted)
    if not made:
        what = f"for {', '.join(wanted)}" if wanted else "in any finished trial"
        raise OfframpError(
            f"{source} has nothing {what}; run a study first, or see offramp tables --list"
        )
    for note in () if json else found.missing:
        typer.echo(f"Missing: {note}.", err=True)
    if show and json:
        emit({"tables": list(map(table_view.values, made)), "missing": list(found.missing)})
        return
    if show:
        for table in made:
            table_view.show(table)
        return
    paths = write.write(made, out, chosen)
    if json:
        names = [table.name for table in made]
        emit({"tables": names, "files": list(map(str, paths)), "missing": list(found.missing)})
        return
    typer.echo(f"{len(made)} tables in {len(paths)} files: {out}")
