"""Opening the store that a job reads, and whether code that a store or a study names may run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from offramp import usercode
from offramp.api.reporter import Reporter
from offramp.errors import OfframpError
from offramp.store.place import Place, place

if TYPE_CHECKING:
    from offramp.store.archive import Archive
    from offramp.store.store import Store
    from offramp.study.spec.models import Study


def archived(store: Place | str) -> Archive:
    """A store to be read, which takes no torch.

    Raises:
        OfframpError: There is none.
    """
    from offramp.store.archive import Archive, elsewhere
    from offramp.store.pack import is_pack

    archive = Archive(place(store))
    if not archive.exists():
        root = archive.root
        if isinstance(root, Path) and any(map(is_pack, (root, *root.glob("*")))):
            raise OfframpError(
                f"{root} has packed results, and this takes a store; report, compare, recommend and "
                "claims take both"
            )
        raise OfframpError(f"there is no store at {root}; {elsewhere(root)}")
    return archive


def awaited(store: Place | str) -> Archive:
    """A store to be read; where nothing is there yet, it waits for a run to begin."""
    from offramp.store.archive import Archive

    root = place(store)
    if isinstance(root, Path) and not root.exists():
        click.echo(f"There is nothing at {root} yet. Waiting for a store; Ctrl-C ends.", err=True)
        while not Archive(root).exists():  # a folder is there before what makes it a store
            time.sleep(1)
    return archived(root)


def opened(store: Place | str) -> Store:
    """A store to be written too. Raises OfframpError where there is none."""
    from offramp.store.store import Store

    return Store(archived(store).root)


def opened_for(network: str, store: Place | str) -> Store:
    """The store of a trial that is named where a bundle's folder would do as well."""
    try:
        return opened(store)
    except OfframpError as error:
        raise OfframpError(f"{network} is no bundle's folder, and {error}") from None


def places(stores: Sequence[Place | str] | Place | str) -> list[Place]:
    """Stores that count as one."""
    several = isinstance(stores, Sequence) and not isinstance(stores, str)
    listed = cast("Sequence[Place | str]", stores if several else [stores])
    return [place(store) for store in listed]


def trusted(store: Store, trial: str, trust_code: bool | None, data: bool = False) -> bool:
    """Whether code that the record of a trial names may run.

    Files that are gone or changed are not asked about: they are refused where they would run.
    trust_code: what the caller says; None asks, on a terminal. data: whether the code of its data is
    meant too.

    Raises:
        OfframpError: The code is forbidden, or nobody can be asked, or says no.
    """
    from offramp.study.run.trials import recorded_code

    code = recorded_code(store, trial, data)
    if trust_code is False:
        usercode.forbid(code)
    if trust_code is not None or not code:
        return bool(trust_code)
    files = [
        usercode.described(name)
        for name, recorded in code.items()
        if usercode.is_recorded(name, recorded)
    ]
    if not files:
        return False
    question = f"The store names code to run, {' and '.join(files)}. Run it?"
    if not (sys.stdin.isatty() and sys.stderr.isatty() and click.confirm(question, err=True)):
        raise usercode.untrusted(*files)
    return True


def name_code(studies: Iterable[Study], allowed: bool, reporter: Reporter) -> None:
    """Tell what files of code studies name. Raises OfframpError as `code_line` does."""
    if line := code_line(studies, allowed):
        reporter.say(line, must=True)


def code_line(studies: Iterable[Study], allowed: bool) -> str | None:
    """What files of code studies name, to be told before any of it runs; None without any.

    Raises:
        OfframpError: They name code, and it is not allowed.
    """
    names = dict.fromkeys(name for study in studies for name in study.code_names)
    if not allowed:
        usercode.forbid(names)
    files = {usercode.file_of(name): name for name in names}
    described = [usercode.described(name) for file, name in files.items() if file.is_file()]
    return f"Code that this runs: {', '.join(described)}." if described else None
