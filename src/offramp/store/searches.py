"""Where searches keep what they tried: Optuna's logs, in a folder of the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.errors import OfframpError
from offramp.files import TABLE, read_regular
from offramp.store.archive import SEARCH

if TYPE_CHECKING:
    from offramp.store.store import Store

FOLDER = "searches"


@contextmanager
def held_log(store: Store, name: str) -> Iterator[Path]:
    """The file of a search, mended, which this process then holds alone.

    Raises OfframpError for a store that is not a folder, and while another process runs the search.
    """
    if not isinstance(store.root, Path):
        raise OfframpError(
            f"a search needs a store in a folder, not {store.root}; name a folder with --store, and "
            "copy its results with `offramp store copy`"
        )
    lock = store.try_lock(f"{SEARCH}{name}")
    if lock is None:
        raise OfframpError("another process is at this very search; wait for it, or name another store")
    with lock:
        path = store.archive.files.path(FOLDER, f"{name}.log")
        assert isinstance(path, Path)
        path.parent.mkdir(exist_ok=True)
        _mend(path)
        yield path


def _mend(path: Path) -> None:
    """Take away what a killed writer left: Optuna's lock, and a last line that is not whole. In place:
    being killed here then loses no other line."""
    # The lock is a link to the path as it was given: of a relative one it leads nowhere, and Optuna
    # then waits for it forever.
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    try:
        data = read_regular(path, TABLE) if os.path.lexists(path) else b""
    except OSError as error:
        raise OfframpError(f"{path} cannot be read ({error.strerror}); remove it") from error
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
