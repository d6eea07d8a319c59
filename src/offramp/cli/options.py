"""The options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Execution(StrEnum):
    derived = "derived"
    plain = "plain"


StoreOption = Annotated[
    Path,
    typer.Option("--store", metavar="FOLDER", help="Where finished work is kept and found again."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting for this run: recipe.epochs=3, seeds='[42]'. Repeatable.",
    ),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="FOLDER",
        help="The folder of the data set's files, in place of the study's data.root. Without either, "
        "the folder of the data set's name in $OFFRAMP_DATA.",
    ),
]
DryOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the work, what is shared and the cost; start nothing."),
]
WorkersOption = Annotated[
    str,
    typer.Option(
        metavar="N",
        help="Processes that train at the same time; auto takes as many as cores, free memory and the "
        "study have use for.",
    ),
]
ExecutionOption = Annotated[
    Execution | None,
    typer.Option(
        help="derived: cache, fuse and share, which changes no result. plain: each phase alone, as "
        "the paper does. By default what the study says, else derived."
    ),
]
CacheMemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory for frozen values that are read every epoch, of all workers together: 4GB, 0 or "
        "auto. By default what the study says, else auto: with training 60 % of what is free at most.",
    ),
]
CacheDiskOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Disk for those that memory has no room for, as above; auto: half of what is free.",
    ),
]
TrustOption = Annotated[
    bool | None,
    typer.Option(
        "--trust-code/--no-user-code",
        help="Where the store names code to run, such as my.py:make_net: run it, if it is what was "
        "recorded, or never. Without either you are asked.",
        show_default=False,
    ),
]
NoUserCodeOption = Annotated[
    bool,
    typer.Option("--no-user-code", help="Refuse a study that names code, such as my.py:make_net."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the tables.")]
RUNS = Path("runs")
ResultsArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="A store, or results packed by offramp pack.")
]
StudyOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only trials made by the study of this name.")
]
