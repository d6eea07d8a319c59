"""What searches tried, as Optuna keeps it in a folder of the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from offramp.errors import OfframpError
from offramp.files import TABLE, check_regular, read_regular
from offramp.store import manifest
from offramp.store.archive import SEARCH, Archive, Damaged
from offramp.store.live import COLUMNS, LivePhase, Proposal, Reader, TrialProgress

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from offramp.store.store import Store

FOLDER = "searches"
PLANNED, WHY = "planned", "why"  # what Optuna keeps of a proposal beside: its plan, why it was given up
WORSE = "worse than the median at this point"


def searched(archive: Archive) -> list[Path]:
    """A file for each search; none where the store is no folder."""
    files = archive.files
    paths = [files.path(FOLDER, name) for name in files.names(FOLDER) if name.endswith(".log")]
    return [path for path in paths if isinstance(path, Path)]


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


def proposals(reader: Reader) -> Iterator[TrialProgress]:
    """Everything that searches tried, by number. What is damaged or goes away meanwhile is left out.
    Raises ImportError without Optuna, where there is any."""
    paths = searched(reader.archive)
    if not paths:
        return
    import optuna
    from optuna.storages.journal import JournalFileBackend

    for path in paths:
        try:
            check_regular(path, TABLE)
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
            tried = optuna.load_study(study_name=path.stem, storage=storage).get_trials(deepcopy=False)
        except Exception:  # of an altered file, or without a study yet, it raises whatever it likes
            continue
        number = 1
        latest: dict[int, FrozenTrial] = {}
        for trial in tried:
            if trial.params:  # an interrupted one leaves its number to the next, which goes on with it
                latest[number] = trial
            number += trial.state.name in ("COMPLETE", "PRUNED")
        for number, trial in latest.items():
            with suppress(Damaged):
                yield _course(reader, path, number, trial)


def _course(reader: Reader, path: Path, number: int, trial: FrozenTrial) -> TrialProgress:
    why = str(trial.user_attrs.get(WHY, WORSE))  # an earlier offramp kept no reasons, and no plans
    given_up = "pruned" if why == WORSE else "failed"
    state = {"COMPLETE": "complete", "PRUNED": given_up}.get(trial.state.name)
    about = {"search": path.stem, "proposal": number, "state": state, **trial.params}
    times = (trial.datetime_start, trial.datetime_complete)
    began, ended = (None if time is None else time.timestamp() for time in times)
    proposal = Proposal(about, state, trial.value if state == "complete" else None, why, ended)
    plan = manifest.read(manifest.TrialPlan, trial.user_attrs.get(PLANNED, {"nodes": ()}), path)
    phases = [replace(reader.phase(phase.node), name=phase.name) for phase in plan.phases]
    # The search's own curve: all that stays of a phase that was given up.
    means, over = trial.intermediate_values, state is not None
    rows = [(epoch, "validation", "mean", "accuracy", value) for epoch, value in means.items()]
    history, last = pd.DataFrame(rows, columns=COLUMNS), max(means, default=0)
    phases.append(LivePhase("mean", "search", last, last, over, history, began=began, ended=ended))
    return TrialProgress(f"search-{path.stem}-{number}", tuple(phases), plan, proposal=proposal)
