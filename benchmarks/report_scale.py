"""How long does a report on a large study take, and how large is its page?

    make demo
    python benchmarks/report_scale.py runs/demo

Makes a store of 8 networks and data sets x 9 strategies x 5 seeds x 200 epochs x 4 exits, two million
numbers, out of the trials of a small one: same structure of nodes, histories stretched to the epochs,
values and logits disturbed, no weights. Then times `offramp report` on it, in a process of its own,
and prints seconds, the largest process's memory, and bytes. Nothing is trained: no number of it means
anything.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offramp.store import sealed
from offramp.store.archive import FORMAT, NODE, TRIAL, Archive

NAMES = ("resnet18", "resnet50", "vgg16", "mobilenetv1", "mobilenetv2", "net-f", "net-g", "net-h")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a report on a large study.")
    parser.add_argument("template", type=Path, help="a small store, such as runs/demo")
    parser.add_argument("--pairs", type=int, default=8, help="networks and data sets (default 8)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--images", type=int, default=10_000, help="test images (default 10000)")
    parser.add_argument("--format", default="svg,pdf,png", help="as of offramp report")
    parser.add_argument("--keep", type=Path, help="make store and report here and leave them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = given.keep or Path(folder)
        store = place / "store"
        if not store.exists():
            rows = enlarge(Archive(given.template), store, given)
            print(f"store: {rows:,} rows of histories")
        measure(store, place / "report", given.format)


def measure(store: Path, out: Path, formats: str) -> None:
    command = [sys.executable, "-m", "offramp", "report", str(store), "--out", str(out), "--quiet"]
    began = time.monotonic()
    subprocess.run([*command, "--format", formats], check=True)
    spent = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    files = [path for path in out.rglob("*") if path.is_file()]
    print(
        f"report: {spent:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of {os.cpu_count()} cores), "
        f"largest process {used.ru_maxrss / 1024:.0f} MB\n"
        f"page: {(out / 'index.html').stat().st_size / 1e6:.2f} MB; {len(files)} files, "
        f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB"
    )


def enlarge(small: Archive, root: Path, given: argparse.Namespace) -> int:
    """Write the large store; rows of its histories, each counted for each of its trials."""
    seed = min(small.read_trial(trial)["seed"] for trial in small.trials())
    trials = [trial for trial in small.trials() if small.read_trial(trial)["seed"] == seed]
    root.mkdir(parents=True)
    (root / "store.json").write_bytes(sealed.text({"format": FORMAT}))
    rng = np.random.default_rng(0)
    rows = 0
    for pair in range(given.pairs):
        labels = {"model": NAMES[pair % len(NAMES)], "data": ("cifar10", "cifar100")[pair // 4 % 2]}
        for number in range(given.seeds):
            copied = Copy(small, root, rng, labels, 42 + number, given.epochs, given.images)
            rows += sum(copied.trial(trial) for trial in trials)
    return rows


class Copy:
    """Trials of a small store, as those of another network, data set and seed."""

    def __init__(
        self,
        small: Archive,
        root: Path,
        rng: np.random.Generator,
        labels: Mapping[str, str],
        seed: int,
        epochs: int,
        images: int,
    ) -> None:
        self.small, self.root, self.rng = small, root, rng
        self.labels, self.seed, self.epochs, self.images = labels, seed, epochs, images
        self.rows: dict[str, int] = {}  # of nodes already written

    def key(self, key: str) -> str:
        text = f"{key} {self.labels} {self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()

    def trial(self, trial: str) -> int:
        """Write one with its nodes; rows of their histories."""
        manifest = self.small.read_trial(trial)
        keys = [phase["node"] for phase in manifest["phases"]]
        rows = sum(self.node(key) for key in keys)
        for key in self.small.nodes():  # wherever a node is named
            manifest = json.loads(json.dumps(manifest).replace(key, self.key(key)))
        manifest["network"]["backbone"] = self.labels["model"]
        manifest["data"]["name"] = self.labels["data"]
        manifest["seed"] = self.seed
        manifest["recipe"]["epochs"] = self.epochs
        self._metrics(manifest)
        buffer = io.BytesIO()
        np.savez(buffer, **self._logits(trial, manifest))
        name = f"{manifest['strategy']}-{self.labels['model']}-{self.labels['data']}-s{self.seed}"
        self._write(TRIAL, name, {"manifest": manifest}, {"logits.npz": buffer.getvalue()})
        return rows

    def node(self, key: str) -> int:
        if key in self.rows:
            return self.rows[key]
        record, cost = self.small.read_node(key), self.small.node_cost(key)
        history = self._stretched(self.small.node_history(key))
        reads = {**record.reads, "recipe": {**record.reads["recipe"], "epochs": self.epochs}}
        summary = {**record.summary, "epochs": self.epochs, "selected_epoch": self.epochs}
        seconds = {k: v * float(self.rng.uniform(0.9, 1.1)) for k, v in cost["seconds"].items()}
        parts = {
            "reads": reads,
            "labels": record.labels,
            "provenance": record.provenance,
            "summary": summary,
        }
        files = {
            "weights.safetensors": b"",
            "history.parquet": history.to_parquet(None, index=False),
            "cost.json": sealed.text({**cost, "seconds": seconds}),
        }
        self._write(NODE, self.key(key), parts, files)
        self.rows[key] = len(history)
        return len(history)

    def _write(
        self, kind: sealed.Kind, name: str, parts: dict[str, Any], files: dict[str, bytes]
    ) -> None:
        folder = self.root / kind.folder / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        (folder / kind.manifest).write_bytes(sealed.text(sealed.document(name, parts, files)))

    def _stretched(self, history: pd.DataFrame) -> pd.DataFrame:
        """Every curve over the wanted epochs, with noise."""
        frames = []
        columns = ["split", "exit", "metric"]
        for labels, curve in history.groupby(columns, dropna=False, sort=False):
            if len(curve) < 2:
                frames.append(curve.assign(epoch=self.epochs))
                continue
            epoch = np.arange(1, self.epochs + 1)
            at = np.linspace(curve["epoch"].min(), curve["epoch"].max(), self.epochs)
            values = np.interp(at, curve["epoch"], curve["value"])
            values = values * (1 + 0.01 * self.rng.normal(size=self.epochs))
            long = pd.DataFrame({"epoch": epoch, "value": values})
            frames.append(long.assign(**dict(zip(columns, labels, strict=True))))
        return pd.concat(frames, ignore_index=True)[list(history.columns)]

    def _metrics(self, manifest: dict[str, Any]) -> None:
        for i, exit in enumerate(manifest["exits"]):
            factor = float(self._of(manifest, exit).uniform(0.97, 1.0))
            for metrics in manifest["metrics"].values():
                for values in metrics.values():
                    values[i] *= factor

    def _logits(self, trial: str, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
        found = self.small.trial_logits(trial)
        images = np.random.default_rng(self.seed)
        rows = images.integers(len(found["test_labels"]), size=self.images)
        for name in ("test", "test_labels"):
            found[name] = found[name][rows]
        for i, exit in enumerate(manifest["exits"]):
            shape = found["test"][:, i].shape
            found["test"][:, i] += self._of(manifest, exit).normal(scale=0.3, size=shape)
        return found

    def _of(self, manifest: dict[str, Any], exit: int) -> np.random.Generator:
        """Randomness of an exit's weights: where trials share them they share it."""
        text = json.dumps(manifest["final"][str(exit)], sort_keys=True)
        return np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16))


if __name__ == "__main__":
    main()
