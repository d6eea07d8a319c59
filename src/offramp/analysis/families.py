"""Families of strategies that are compared with each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StrategyFamilies:
    """Strategies that are compared with each other."""

    core: tuple[str, ...] = ()  # those that everything starts from
    # of each hybrid, the core strategies that it is made of
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def among(self, labels: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Families with at least two of `labels`, by name: `core`, and each hybrid's."""
        families = {"core": self.core} | {h: (h, *parents) for h, parents in self.parents.items()}
        present = {name: tuple(m for m in family if m in labels) for name, family in families.items()}
        return {
            name: members
            for name, members in present.items()
            if len(members) > 1 and (name == "core" or name in members)
        }

    def expanded(self, names: Collection[str]) -> list[str]:
        """Names of strategies, `core` and `hybrids` standing for several."""
        groups = {"core": self.core, "hybrids": tuple(self.parents)}
        return list(dict.fromkeys(s for name in names for s in groups.get(name, (name,))))


NO_FAMILIES = StrategyFamilies()
