"""Evidence from several places as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offramp.report import evidence
from offramp.report.evidence import Evidence
from offramp.report.select import chosen, gaps
from offramp.store.archive import NodeRecord, Records


@dataclass(frozen=True, eq=False)
class Several:
    """Records of several places. trials, nodes: where each is."""

    trials: Mapping[str, Records]
    nodes: Mapping[str, Records]

    def read_trial(self, trial: str) -> dict[str, Any]:
        return self.trials[trial].read_trial(trial)

    def trial_logits(self, trial: str) -> dict[str, np.ndarray]:
        return self.trials[trial].trial_logits(trial)

    def read_node(self, key: str) -> NodeRecord:
        return self.nodes[key].read_node(key)

    def node_cost(self, key: str) -> dict[str, Any]:
        return self.nodes[key].node_cost(key)


def open_all(paths: Sequence[Path], study: str | None = None) -> Evidence:
    """The evidence in stores and packs together; a trial that several have counts once, from the first.

    study: only trials that a study of that name made; each place has to have some.
    Raises OfframpError as `evidence.open` does.
    """
    found = [evidence.open(path, study) for path in dict.fromkeys(paths)]
    return found[0] if len(found) == 1 else join(found)


def join(found: Sequence[Evidence]) -> Evidence:
    """Several as one: what is comparable is chosen anew over all of them, and so is what is missing."""
    owners: dict[str, Evidence] = {}
    for one in found:
        for trial in one.trials:
            owners.setdefault(trial.id, one)
    manifests = {id: owner.by_id[id].manifest for id, owner in owners.items()}
    kept, left_out = chosen(manifests)
    trials = sorted(
        (owners[id].by_id[id] for id in kept), key=lambda t: (t.model, t.data, t.rank, t.seed, t.id)
    )
    own = [note for one in found for note in one.missing if note not in set(gaps(one.trials))]
    parts = []
    for one in found:
        mine = {t.id for t in trials if owners[t.id] is one}
        parts.append(one.table[one.table["trial"].isin(mine)])
    records = Several(
        {t.id: owners[t.id].records for t in trials},
        {p.node: owners[t.id].records for t in trials for p in t.phases},
    )
    notes = tuple(dict.fromkeys([*own, *left_out, *gaps(trials)]))
    return Evidence(pd.concat(parts, ignore_index=True), tuple(trials), notes, records)
