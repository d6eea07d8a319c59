"""What a store says, made by hand: whole records, of which a test changes what it is about."""

from dataclasses import is_dataclass, replace
from typing import Any

from offramp.hashing import digest
from offramp.store.manifest import Cost, Manifest, NodeRecord, SeedLog

SPLITS = ("validation", "calibration", "test")
RECIPE: dict[str, Any] = {
    **{"optimizer": "sgd", "epochs": 3, "learning_rate": 0.1, "batch_size": 16, "schedule": "constant"},
    **{"momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "warmup_epochs": 0.0, "patience": None},
}


def manifest(keys: tuple[str, ...] = (), **changes: Any) -> Manifest:
    """Of a trial with one exit. keys: its nodes.  changes: whole fields, in types of JSON."""
    metrics = {"accuracy": [0.5], "cross_entropy": [1.0]}
    whole: dict[str, Any] = {
        **{"strategy": "joint", "program": "joint", "options": {}, "study": "made", "seed": 1},
        "phases": [{"name": f"phase {n}", "node": key} for n, key in enumerate(keys)],
        **{"marginal": list(keys), "exits": [1], "places": ["p1"], "final": {"1": []}, "owners": [0]},
        **{"macs": [10], "backbone_macs": 10, "parameters": [1], "input_shape": [1, 8, 8]},
        **{"metrics": dict.fromkeys(SPLITS, metrics), "network": {"backbone": "net", "taps": None}},
        **{"classes": ["a", "b"], "mean": [0.3], "std": [0.4]},
        "data": {"name": "images", "provenance": {}, **{s: f"of {s}" for s in ("train", *SPLITS)}},
        "recipe": RECIPE,
        "execution": {"mode": "derived", "share": True, "cache": True, "fuse": True},
        "numerics": {"name": "cpu", "version": 1, "precision": "float32"},
        "provenance": {"finished": "2025-01-01", "torch": "2"},
    }
    return Manifest.model_validate(whole | changes)


def node(reads: dict[str, Any], epochs: int = 2, **changes: Any) -> NodeRecord:
    """Of a phase. reads: what its key is the digest of, beside network and exits."""
    reads = {"network": {}, "exits": {}} | reads
    summary = {"epochs": epochs, "best_epoch": 1, "selected_epoch": epochs, "validation_loss": 1.0}
    labels = {"phase": "joint", "seed": 1, "trains": [], "strategies": ["joint"]}
    whole = {"key": digest(reads), "reads": reads, "labels": labels, "summary": summary}
    return NodeRecord.model_validate({**whole, "provenance": {"torch": "2"}, **changes})


def cost(**changes: Any) -> Cost:
    """Of a phase that trained alone for a second and a half."""
    whole = {"seconds": {"train": 1.5}, "macs_written": 100, "macs_executed": 100, "comparable": True}
    return Cost.model_validate(whole | changes)


def seed_log(**changes: Any) -> SeedLog:
    """Of a study that may get six seeds and has not been looked at."""
    whole = {"study": "made", "trials": ["t"], "seeds": [1, 2, 3, 4, 5, 6], "first": 3}
    return SeedLog.model_validate({**whole, "difference": 0.005, "alpha": 0.05, "looks": {}} | changes)


def changed(record: Any, place: str = "", **fields: Any) -> Any:
    """A record with these fields, which are of what lies at `place` in it, such as data.provenance."""
    first, _, rest = place.partition(".")
    if first:
        fields = {first: changed(getattr(record, first), rest, **fields)}
    return replace(record, **fields) if is_dataclass(record) else record.model_copy(update=fields)


def remade(store: Any, key: str, without: tuple[str, ...] = (), **provenance: Any) -> None:
    """A node of a store as if it had been made elsewhere. without: kinds of seconds that it lacks."""
    old, weights = store.read_node(key), store.node_weights(key)
    history, spent = store.node_history(key), store.node_cost(key)
    seconds = {kind: value for kind, value in spent.seconds.items() if kind not in without}
    store.discard_node(key)
    new = changed(old, "provenance", **provenance)
    store.write_node(new, weights, history, changed(spent, seconds=seconds))
