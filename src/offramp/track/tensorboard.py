"""TensorBoard: a folder of event files for each trial, which MLflow and W&B can take as well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from offramp.errors import OfframpError
from offramp.store.live import LivePhase, TrialProgress
from offramp.track.ledger import SentLog, ledger
from offramp.track.send import TrialUpdate, settings


def tensorboard(address: str) -> Board:
    """Event files below the folder `address`."""
    folder = Path(address).expanduser()
    if folder.exists() and not folder.is_dir():
        raise OfframpError(f"{folder} is a file; name a folder for TensorBoard's events")
    return Board(folder)


@dataclass(frozen=True)
class Board:
    folder: Path

    @property
    def whole(self) -> bool:
        return False

    def open(self, course: TrialProgress) -> Events:
        place = self.folder / course.trial
        events = Events(place, ledger(place / "offramp.json"))
        if not events.ledger.known:
            with events.writer() as writer:
                lines = (f"{name}: {value}" for name, value in settings(course).items())
                writer.add_text("settings", "\n\n".join(lines))
            events.ledger.remember(TrialUpdate())  # that they are there, before any epoch is
        return events


@dataclass(frozen=True)
class Events:
    place: Path
    ledger: SentLog

    def writer(self) -> SummaryWriter:
        return SummaryWriter(str(self.place))

    def closed(self) -> bool:
        return self.ledger.closed()

    def sent(self, phase: LivePhase) -> int:
        return self.ledger.sent(phase)

    def send(self, news: TrialUpdate) -> None:
        if not self.ledger.is_news(news):
            return
        with self.writer() as writer:
            for phase, steps in news.phases:
                for epoch, numbers in steps.items():
                    for name, value in numbers.items():
                        writer.add_scalar(f"{phase.title}/{name}", value, epoch)
            for name, value in (news.results or {}).items():
                writer.add_scalar(f"results/{name}", value, 0)
            if news.failed is not None:
                writer.add_text("failed", news.failed)
        self.ledger.remember(news)
