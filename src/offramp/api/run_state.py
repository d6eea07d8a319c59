"""The state of a run, from its events: what is done, how fast, and what is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, final

from offramp.units import counted, duration

if TYPE_CHECKING:
    from offramp.engine.fit import EpochReport
    from offramp.study.plan.plan import Plan
    from offramp.study.run.events import Event


@final
class RunState:
    """How far a run is.

    Attributes:
        plan: What there is to do.
        trials: Finished trials, by id; True for one that was finished before.
        failed: Why phases failed, by key.
        trained: Keys of phases that this run trained.
        reused: Keys of phases that the store had.
        at_work: Keys of phases that are being trained.
        latest: The last epoch of each phase.
        interrupted: What cut the run short.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.trials: dict[str, bool] = {}
        self.failed: dict[str, str] = {}
        self.trained: set[str] = set()
        self.reused: set[str] = set()
        self.at_work: set[str] = set()
        self.latest: dict[str, EpochReport] = {}
        self.interrupted: KeyboardInterrupt | None = None
        self._titles = plan.titles
        self._users: dict[str, list[tuple[str, str]]] = {key: [] for key in plan.nodes}
        for trial in plan.trials:
            for key in trial.keys:
                self._users[key].append((trial.label, trial.id))
        self._began = time.monotonic()
        self._share: dict[str, float] = {}  # of a node's epochs that are done
        self._skipped = 0.0  # work done by earlier runs, or that failed, in MACs
        self._room = 0  # groups that a cluster trains at once; 0 on this machine alone
        self._pace = [0.0, 0.0]  # MACs of finished epochs, and the seconds that they took
        self._training: float | None = None  # since when: processes start and images are read before

    def see(self, event: Event) -> None:
        """Take in one event."""
        from offramp.study.run import events

        match event:
            case events.Reused(key):
                if key not in self.trained:
                    self.reused.add(key)
                    self._skip(key, 1.0)
            case events.GroupStarted(keys, epoch):
                self.at_work |= set(keys)
                for key in keys:
                    self._skip(key, epoch / self.epochs(key))
            case events.Epoch(report):
                if self._training is None:
                    self._training = time.monotonic() - report.seconds
                self.latest[report.key] = report
                self._share[report.key] = report.epoch / self.epochs(report.key)
                self._pace[0] += self.plan.macs(report.key) / self.epochs(report.key)
                self._pace[1] += report.seconds
            case events.GroupEnded(keys):
                self.at_work -= set(keys)
            case events.Room(groups):
                self._room = groups
            case events.Finished(key):
                self.at_work.discard(key)
                self.trained.add(key)
                self._share[key] = 1.0
            case events.Failed(key, reason):
                self.at_work.discard(key)
                self.failed[key] = reason
                self._skip(key, 1.0)  # no more is done of it
            case events.TrialDone(trial, reused):
                self.trials[trial] = reused and self.trials.get(trial, True)

    def _skip(self, key: str, share: float) -> None:
        """A share of a node was done before this run, or is not done at all."""
        self._skipped += self.plan.macs(key) * max(0.0, share - self._share.get(key, 0.0))
        self._share[key] = share

    def epochs(self, key: str) -> int:
        return self.plan.nodes[key].recipe.epochs

    @property
    def phases(self) -> str:
        """How many are done: `3/10`."""
        return f"{len(self.trained | self.reused)}/{len(self.plan.nodes)}"

    @property
    def share(self) -> float:
        """Of the work, 0 to 1."""
        return self._work / max(1, self._whole)

    @property
    def _whole(self) -> int:
        return sum(self.plan.macs(key) for key in self.plan.nodes)

    @property
    def _work(self) -> float:
        return sum(self.plan.macs(key) * share for key, share in dict(self._share).items())

    @property
    def seconds_left(self) -> float | None:
        """What is left, at the pace of this run; None before there is one.

        On a cluster, with the machines that there are now, and no less than the longest chain of phases
        takes.
        """
        left = self._whole - self._work
        if left <= 0:
            return 0.0
        if self._room:
            from offramp.study.plan.schedule import Schedule

            if not self._pace[1]:
                return None
            over = frozenset(self.trained | self.reused | self.failed.keys())
            chain = Schedule(self.plan, over).critical
            return max(chain, left / self._room) * self._pace[1] / self._pace[0]
        fresh = self._work - self._skipped
        if self._training is None or fresh <= 0:
            return None
        return (time.monotonic() - self._training) * left / fresh

    def describe(self, key: str) -> str:
        """`seed 42 · joint and 2 more · branch 1`"""
        return self._titles[key]

    def named(self, key: str) -> dict[str, Any]:
        """What a phase is, for programs: `trial` is the first of its `trials`."""
        node, users = self.plan.nodes[key], self._users[key]
        about = {"trial": users[0][1], "trials": len(users), "strategy": users[0][0], "seed": node.seed}
        return {**about, "phase": node.name, "node": key}

    def failures(self) -> list[dict[str, Any]]:
        """The trials that failed, with the reason."""
        failures = []
        for trial in self.plan.trials:
            reasons = [self.failed[key] for key in trial.keys if key in self.failed]
            if reasons:
                failures.append({"strategy": trial.label, "seed": trial.seed, "reason": reasons[0]})
        return failures

    def finished(self) -> list[str]:
        """Ids of finished trials, in the plan's order."""
        return [trial.id for trial in self.plan.trials if trial.id in self.trials]

    def closing(self, store: str) -> str:
        """One sentence on what was done."""
        total = len(self.plan.trials)
        if len(self.trials) == total and all(self.trials.values()) and not self.trained:
            every = "The trial was" if total == 1 else f"All {total} trials were"
            return f"{every} in the store {store} already; nothing was trained."
        return (
            f"{len(self.trials)} of {counted(total, 'trial')} in {store}: "
            f"{counted(len(self.trained), 'phase')} trained, {len(self.reused)} reused, "
            f"in {duration(time.monotonic() - self._began)}."
        )
