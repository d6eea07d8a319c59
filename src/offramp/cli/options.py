"""The arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from offramp.errors import OfframpError


class Execution(StrEnum):
    derived = "derived"
    plain = "plain"


RUNS = Path("runs")
StoreArgument = Annotated[
    Path | None, typer.Argument(metavar="STORE", help="The store to read.  [default: runs]")
]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="STORE", help="The store to read, given as an option.")
]
ResultsArgument = Annotated[
    Path | None,
    typer.Argument(metavar="STORE", help="A store, or a folder of offramp pack.  [default: runs]"),
]
TrainingStoreOption = Annotated[
    Path, typer.Option("--store", metavar="STORE", help="Where finished work is kept and found again.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where networks run: cpu, cuda, cuda:1. By default $OFFRAMP_DEVICE, else a GPU if there "
        "is one.",
    ),
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
        help="The folder of the data set's files. By default the study's data.root, else the folder of "
        "the data set's name in $OFFRAMP_DATA.",
    ),
]
DryOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the work, what is shared and the time; start nothing."),
]
WorkersOption = Annotated[
    str,
    typer.Option(
        metavar="N",
        help="Processes that train at the same time. auto: as many as the cores, the free memory and "
        "the study can use.",
    ),
]
ExecutionOption = Annotated[
    Execution | None,
    typer.Option(
        help="derived: share phases, keep frozen values; no result changes. plain: each phase alone, as "
        "in the paper. By default what the study says, else derived."
    ),
]
CacheMemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory for frozen values that every epoch reads, over all workers: 4GB, 0 or auto. By "
        "default what the study says, else auto: together with training at most 60 % of what is free.",
    ),
]
CacheDiskOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Disk for the values that memory has no room for: 4GB, 0 or auto, half of what is free.",
    ),
]
TrustOption = Annotated[
    bool | None,
    typer.Option(
        "--trust-code/--no-user-code",
        help="May code that the store names run, such as my.py:make_net? It runs only if it is what was "
        "recorded. Without either you are asked.",
        show_default=False,
    ),
]
NoUserCodeOption = Annotated[
    bool,
    typer.Option("--no-user-code", help="Refuse a study that names code, such as my.py:make_net."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the results.")]
StudyOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only the trials of the study of this name.")
]


def named(*given: Path | None) -> Path:
    """The store that was named, as an argument or with --store; `runs` without either.

    Raises OfframpError where both name one, and not the same.
    """
    found = dict.fromkeys(path for path in given if path is not None)
    if len(found) > 1:
        raise OfframpError(f"two stores are named, {' and '.join(map(str, found))}; leave one out")
    return next(iter(found), RUNS)


def check_bundle_options(policy: Path | None, device: str | None) -> None:
    """Raises OfframpError for what a bundle does not leave open."""
    if policy is not None:
        raise OfframpError("a bundle carries its policy; leave --policy out")
    if device not in (None, "cpu"):
        raise OfframpError("a bundle runs on the CPU; leave --device out")
