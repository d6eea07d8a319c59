"""What training was asked for, and where it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from offramp.cli import options
from offramp.cli.progress.log import Log
from offramp.errors import OfframpError
from offramp.store.place import Place
from offramp.units import counted

if TYPE_CHECKING:
    import torch

    from offramp.study.plan.plan import Plan
    from offramp.study.plan.workers import Workers
    from offramp.study.run.cluster import Cluster
    from offramp.study.run.run import RunConfig


@dataclass(frozen=True)
class SeedBudget:
    """When to stop adding seeds. seeds: the most.  difference: in accuracy, 0 to 1.  None: the default,
    or what an earlier run took."""

    seeds: int | None
    difference: float | None


@dataclass(frozen=True)
class RunOptions:
    """How a run is asked for. on: a cluster's address, `ray`, or None for this machine alone.  cluster:
    it, once it is joined.  price: of one of its machines an hour.  workers: None for as many as suit.
    log: what is said meanwhile.  speed: of another device, in MACs a second, for the forecast.  here: of
    this one, where it was measured already.  user_code: whether a study may name code of its own.
    place: the device's name, as `offramp.device.chosen` takes it.  anyway: train for a time that is too
    short too.  unreliable: that it was.  fits: settings that a budget came to; None without one.  power:
    a difference in accuracy, 0 to 1, that a dry run counts seeds for.  until: where seeds are to be
    added."""

    root: Place
    dry_run: bool = False
    workers: int | None = None
    as_json: bool = False
    log: Log = field(default_factory=Log)
    speed: float | None = None
    here: float | None = None
    user_code: bool = True
    place: str | None = None
    anyway: bool = False
    unreliable: tuple[str, ...] = ()
    fits: tuple[str, ...] | None = None
    power: float | None = None
    until: SeedBudget | None = None
    on: str | None = None
    cluster: Cluster | None = None
    price: float | None = None

    @property
    def device(self) -> torch.device:
        from offramp import device as devices

        if self.cluster is not None:  # whose devices need not be here
            return devices.elsewhere(self.place, self.cluster.device)
        return devices.chosen(self.place)


def settings(
    given: list[str] | None,
    execution: options.Execution | None,
    cache_memory: str | None,
    cache_disk: str | None,
) -> list[str]:
    from offramp import units

    settings = [*(given or []), *([f"execution.mode={execution.value}"] if execution else [])]
    for name, text in (("cache_memory", cache_memory), ("cache_disk", cache_disk)):
        if text is not None:
            flag = f"--{name.replace('_', '-')}"
            if text != "auto":
                text = str(int(units.parse(text, units.SIZE, flag, also="auto")))
            settings.append(f"execution.{name}={text}")
    return settings


def processes(text: str) -> int | None:
    """The number of `--workers`; None for `auto`. Raises OfframpError for anything else."""
    if text == "auto":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise OfframpError(f"--workers must be auto or a number from 1 on; got '{text}'")
    return int(text)


def place(text: str) -> str | None:
    """The cluster of `--on`; None for `local`. Raises OfframpError for anything else."""
    if text == "local":
        return None
    if text != "ray" and not re.fullmatch(r"ray://[^\s/]+:[0-9]{1,5}", text):
        raise OfframpError(f"--on must be local, ray or ray://HOST:PORT; got '{text}'")
    return text


@contextmanager
def reached(how: RunOptions) -> Iterator[RunOptions]:
    """Join the cluster that was asked for, if one was and anything is to run."""
    if how.on is None or how.dry_run:
        yield how
        return
    from offramp.study.run.cluster import joined

    with joined(how.on) as cluster:
        yield replace(how, cluster=cluster)


def conduct(device: torch.device, workers: int) -> RunConfig:
    """How work is done on this machine."""
    from offramp.study.plan.limits import cache_folder
    from offramp.study.run.run import RunConfig

    return RunConfig(device=device, cache_folder=cache_folder(), workers=workers)


def staff(plan: Plan, how: RunOptions) -> Workers:
    """The workers of a run: as many as were asked for, else as many as suit."""
    from offramp.store.store import Store
    from offramp.study.plan.workers import Workers, chosen, suited

    if how.cluster is not None:
        from offramp.study.run.driver import needs_of

        room = how.cluster.room(needs_of(plan))
        here = ", started here" if how.cluster.own else ""
        return Workers(room.groups, f"on Ray{here}: {counted(room.machines, 'machine')} by now")
    if how.workers is not None:
        return chosen(plan, how.workers)
    return suited(plan, Store(how.root), how.device)
