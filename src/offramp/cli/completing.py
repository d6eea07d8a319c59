"""Names that a shell completes, beside commands, options and files. Each function takes what was typed
so far."""

from __future__ import annotations

from offramp.errors import OfframpError


def strategies(incomplete: str) -> list[str]:
    from offramp.strategies import STRATEGIES

    return [name for name in STRATEGIES if name.startswith(incomplete)]


def trials(incomplete: str) -> list[str]:
    """Of the store `runs`, where there is one."""
    from offramp.cli.options import RUNS
    from offramp.store.archive import Archive

    try:
        return [trial for trial in Archive(RUNS).trials() if trial.startswith(incomplete)]
    except (OfframpError, OSError):
        return []
