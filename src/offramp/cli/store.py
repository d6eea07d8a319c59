"""Opening a store that a command reads, and whether code that a store or a study names may run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from offramp.cli.options import named
from offramp.errors import OfframpError
from offramp.store.place import Place

if TYPE_CHECKING:
    from offramp.store.archive import Archive
    from offramp.store.store import Store
    from offramp.study.spec.models import Study


def archived(*given: Place | None) -> Archive:
    """The store that was named, to be read, which takes no torch. given: see `named`.

    Raises OfframpError where there is none.
    """
    from offramp.store.archive import Archive, stores_in

    archive = Archive(named(*given))
    if not archive.exists():
        below = " or ".join(map(str, stores_in(archive.root)[:3]))
        such = f", such as {below}" if below else ""
        raise OfframpError(
            f"there is no store at {archive.root}; name one with --store{such}, or run a study first"
        )
    return archive


def awaited(*given: Place | None) -> Archive:
    """As `archived`, for who looks on: where nothing is there yet, it waits for a run to begin."""
    from offramp.store.archive import Archive

    root = named(*given)
    if isinstance(root, Path) and not root.exists():
        typer.echo(f"There is nothing at {root} yet. Waiting for a store; Ctrl-C ends.", err=True)
        while not Archive(root).exists():  # a folder is there before what makes it a store
            time.sleep(1)
    return archived(*given)


def opened(*given: Place | None) -> Store:
    """The store that was named, to be written too. Raises OfframpError where there is none."""
    from offramp.store.store import Store

    return Store(archived(*given).root)


def opened_for(network: str, *given: Place | None) -> Store:
    """The store of a trial that is named where a bundle's folder would do as well."""
    try:
        return opened(*given)
    except OfframpError as error:
        raise OfframpError(f"{network} is no bundle's folder, and {error}") from None


def trusted(store: Store, trial: str, trust: bool | None, data: bool = False) -> bool:
    """Whether code that the record of a trial names may run. trust: as the options say; None asks, on a
    terminal.  data: that of its data is meant too.

    Files that are gone or changed are not asked about: they are refused where they would run.

    Raises OfframpError for code that is forbidden, and where nobody can be asked or says no.
    """
    from offramp import usercode
    from offramp.study.run.trials import recorded_code

    found = recorded_code(store, trial, data)
    if trust is False:
        usercode.forbid(found)
    if trust is not None or not found:
        return bool(trust)
    files = [
        usercode.described(name)
        for name, recorded in found.items()
        if usercode.is_recorded(name, recorded)
    ]
    if not files:
        return False
    asked = f"The store names code to run, {' and '.join(files)}. Run it?"
    if not (sys.stdin.isatty() and sys.stderr.isatty() and typer.confirm(asked, err=True)):
        raise usercode.untrusted(*files)
    return True


def announce(studies: Iterable[Study], allowed: bool) -> None:
    """Say on standard error what `code_named` says. Raises OfframpError as it does."""
    if said := code_named(studies, allowed):
        typer.echo(said, err=True)


def code_named(studies: Iterable[Study], allowed: bool) -> str | None:
    """What files of code studies name, a sentence to say before any of it runs.

    Raises OfframpError for code that is not allowed.
    """
    from offramp import usercode

    names = dict.fromkeys(name for study in studies for name in study.code_names)
    if not allowed:
        usercode.forbid(names)
    files = {usercode.file_of(name): name for name in names}
    found = [usercode.described(n) for file, n in files.items() if file.is_file()]
    return f"Code that this runs: {', '.join(found)}." if found else None
