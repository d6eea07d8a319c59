"""What was sent of a trial, in a small file, for trackers that cannot be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from offramp.files import replacing
from offramp.store.live import LivePhase

CLOSED = "closed"


@dataclass(frozen=True)
class SentLog:
    path: Path
    known: dict[str, int]

    def sent(self, phase: LivePhase) -> int:
        """The last epoch of a phase that was sent; 0 for none."""
        return self.known.get(phase.key, 0)

    def closed(self) -> bool:
        return CLOSED in self.known

    def remember(self, key: str, epoch: int = 1) -> None:
        """key: of a phase, or CLOSED."""
        self.known[key] = epoch
        with replacing(self.path) as new:
            new.write_text(json.dumps(self.known), encoding="utf-8")


def ledger(path: Path) -> SentLog:
    """The ledger at `path`; an empty one where there is none that can be read."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    pairs = known.items() if isinstance(known, dict) else ()
    return SentLog(path, {str(k): v for k, v in pairs if isinstance(v, int)})
