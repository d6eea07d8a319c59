"""TensorBoard: a folder of event files for each trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from offramp.files import new_folder, writing
from offramp.track.send import TrialRun


@dataclass(frozen=True)
class Board:
    folder: Path

    def has(self, trial: str) -> bool:
        return (self.folder / trial).is_dir()

    def send(self, run: TrialRun) -> None:
        whole = new_folder(self.folder / run.trial, self.folder)
        with writing(self.folder), whole as place, SummaryWriter(str(place)) as writer:
            lines = (f"{name}: {value}" for name, value in run.settings.items())
            writer.add_text("settings", "\n\n".join(lines))
            for epoch, numbers in (*run.curves.items(), (0, run.results)):
                for name, value in numbers.items():
                    writer.add_scalar(name, value, epoch)


def connect(address: str) -> Board:
    return Board(Path(address).expanduser())
