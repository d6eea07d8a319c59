"""Whether code that a store's record names may run: asked once, before anything of it does."""

from __future__ import annotations

import sys

import typer

from offramp import usercode
from offramp.store.store import Store
from offramp.study.run.trials import recorded_code


def trusted(store: Store, trial: str, trust: bool | None, data: bool = False) -> bool:
    """Whether code that the record of a trial names may run. trust: as the options say; None asks, on a
    terminal.  data: that of its data is meant too.

    Files that are gone or changed are not asked about: they are refused where they would run.

    Raises OfframpError for code that is forbidden, and where nobody can be asked or says no.
    """
    found = recorded_code(store, trial, data)
    if trust is False:
        usercode.forbid(found)
    if trust is not None or not found:
        return bool(trust)
    files = [
        usercode.described(name, recorded.sha256)
        for name, recorded in found.items()
        if recorded.sha256 is not None and usercode.is_recorded(name, recorded)
    ]
    if not files:
        return False
    asked = f"The store names code to run, {' and '.join(files)}. Run it?"
    if not (sys.stdin.isatty() and sys.stderr.isatty() and typer.confirm(asked, err=True)):
        raise usercode.untrusted(*files)
    return True
