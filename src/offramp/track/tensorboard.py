"""TensorBoard: a folder of event files for each trial, which MLflow and W&B can take as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.errors import OfframpError
from offramp.files import resolved, writing
from offramp.store.live import TrialProgress
from offramp.track.send import SentLog, TrialUpdate, settings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def tensorboard(address: str) -> Board:
    """Event files below the folder `address`."""
    import torch.utils.tensorboard  # noqa: F401  # raises ImportError where it is not installed

    folder = Path(address).expanduser()
    resolved(folder)  # refused where links lead in a circle
    if folder.exists() and not folder.is_dir():
        raise OfframpError(f"{folder} is a file; name a folder for TensorBoard's events")
    return Board(folder)


@dataclass(frozen=True)
class Board:
    folder: Path
    whole: bool = False

    def open(self, course: TrialProgress) -> SentLog:
        place = self.folder / course.trial
        log = SentLog.at(place / "offramp.json", partial(_write, place))
        if not log.epochs:
            with _writer(place) as writer:
                lines = (f"{name}: {value}" for name, value in settings(course).items())
                writer.add_text("settings", "\n\n".join(lines))
            log.remember(TrialUpdate())  # that they are there, before any epoch is
        return log


def _write(place: Path, update: TrialUpdate) -> None:
    with _writer(place) as writer:
        for epoch, numbers in update.curves:
            for name, value in numbers.items():
                writer.add_scalar(name, value, epoch)
        for name, value in (update.results or {}).items():
            writer.add_scalar(f"results/{name}", value, 0)
        if update.failed is not None:
            writer.add_text("failed", update.failed)


@contextmanager
def _writer(place: Path) -> Iterator[SummaryWriter]:
    from torch.utils.tensorboard import SummaryWriter

    with writing(place), SummaryWriter(str(place)) as writer:
        yield writer
