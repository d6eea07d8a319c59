"""What was sent of a trial, in a small file, for trackers that cannot be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from offramp.files import replacing
from offramp.store.live import LivePhase
from offramp.track.send import TrialUpdate

CLOSED, FAILED = "closed", "failed"


@dataclass(frozen=True)
class SentLog:
    path: Path
    known: dict[str, int]

    def sent(self, phase: LivePhase) -> int:
        """The last epoch of a phase that was sent; 0 for none."""
        return self.known.get(phase.key, 0)

    def closed(self) -> bool:
        return CLOSED in self.known

    def is_news(self, news: TrialUpdate) -> bool:
        """Whether any of it was not sent."""
        failure = news.failed is not None and not self.known.get(FAILED)
        return bool(news.phases) or news.results is not None or failure

    def remember(self, news: TrialUpdate) -> None:
        """That all of it was sent."""
        self.known.update({phase.key: max(steps) for phase, steps in news.phases})
        self.known[FAILED] = int(news.failed is not None)
        if news.results is not None:
            self.known[CLOSED] = 1
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
