"""A store in an object store against one in a folder: a node put and got, and thousands listed.

The object store is an S3 server on the loopback (moto, one process of Python), so most of these seconds
are the server's own; the requests that each step takes say what another one would take.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from urllib.request import Request, urlopen

import pandas as pd
import torch

from benchmarks.contest import Result, against, in_turns, middle
from offramp.hashing import digest
from offramp.store import sealed, tensors
from offramp.store.archive import NODE, Archive
from offramp.store.manifest import Cost, NodeRecord
from offramp.store.store import Store

SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
SMALL, LARGE = 100_000, 25_000_000  # weights: of the demo's network, of ResNet-50's quarter
NODES = 10_000
HISTORY = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4]})
COST = Cost.model_validate(
    {"seconds": {"train": 1.5}, "macs_written": 1, "macs_executed": 1, "comparable": True}
)


def measure(quick: bool) -> Iterator[Result]:
    rounds = 5 if quick else 20
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as root:
        for name, size in (("0.4 MB", SMALL), ("100 MB", LARGE)):
            yield from one(Path(folder), f"{root}/{size}", name, size, rounds if size == SMALL else 3)
        yield from many(f"{root}/many", NODES // 20 if quick else NODES)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of an empty place on an S3 server of its own; nothing is kept of what is fetched."""
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        os.environ |= {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": endpoint,
            "OFFRAMP_CACHE": str(folder / "cache"),
        }
        urlopen(Request(f"{endpoint}/bench", method="PUT")).close()
        yield "s3://bench"
    finally:
        server.stdin.close()
        server.stdout.close()
        server.kill()
        server.wait()


def one(folder: Path, url: str, name: str, size: int, rounds: int) -> Iterator[Result]:
    """A node of so many weights, put into a store and got from it as by a fresh machine."""
    stores = {"s3": Store(url), "folder": Store(folder / str(size))}
    weights = {"a": torch.rand(size)}
    for what, work in (("put", put), ("got", got)):
        numbers = {which: count() for which in stores}
        timed = {w: partial(work, s, weights, numbers[w]) for w, s in stores.items()}
        times = in_turns(timed, rounds)
        for which, spent in times.items():
            note = f"seconds, weights of {name}, median of {rounds}"
            yield middle(f"store: a node {what}, {which}, {name}, seconds", spent, note=note)
        note = "what an object store on the loopback takes over what a folder takes"
        ratio = f"store: a node {what}, s3 over folder, {name}"
        yield against(ratio, times["s3"], times["folder"], note=note)


def put(store: Store, weights: dict[str, torch.Tensor], number: Iterator[int]) -> float:
    made = record(next(number))
    began = time.perf_counter()
    store.write_node(made, weights, HISTORY, COST)
    return time.perf_counter() - began


def got(store: Store, _: dict[str, torch.Tensor], number: Iterator[int]) -> float:
    """By a machine that has fetched nothing yet."""
    shutil.rmtree(os.environ["OFFRAMP_CACHE"], ignore_errors=True)
    fresh, key = Store(store.root), record(next(number)).key
    began = time.perf_counter()
    fresh.verify_node(key)
    return time.perf_counter() - began


def many(url: str, nodes: int) -> Iterator[Result]:
    """So many small nodes, listed and their manifests read: by a fresh machine, and again."""
    store, weights = Store(url), {"a": torch.ones(10)}
    with store.lock("filling"), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: keep(store, record(number), weights), range(nodes)))
    shutil.rmtree(os.environ["OFFRAMP_CACHE"])
    for which in ("cold", "warm"):
        note = (
            f"{nodes} nodes; a fresh process, {'which has' if which == 'warm' else 'nothing is'} cached"
        )
        archive = Archive(url)
        began = time.perf_counter()
        keys = archive.nodes()
        listed = time.perf_counter() - began
        for key in keys:
            archive.read_node(key)
        read = time.perf_counter() - began
        yield middle(f"store: nodes listed, {which}, seconds", [listed], note=note)
        yield middle(
            f"store: nodes listed and their manifests read, {which}, seconds", [read], note=note
        )


def keep(store: Store, made: NodeRecord, weights: dict[str, torch.Tensor]) -> None:
    """As `Store.write_node` does, without a lock for each: nobody else is there."""
    parts = {name: value for name, value in made.as_json().items() if name != "key"}
    files = {
        "weights.safetensors": tensors.pack(weights),
        "history.parquet": HISTORY.to_parquet(None, index=False),
        "cost.json": sealed.text(COST.as_json()),
    }
    manifest = sealed.document(made.key, parts, files)
    sealed.write(store.archive.files, NODE, made.key, manifest, files, over=False)


def record(number: int) -> NodeRecord:
    """Of a node that reads nothing but its number."""
    reads = {"network": {}, "exits": {}, "number": number}
    summary = {"epochs": 2, "best_epoch": 1, "selected_epoch": 2, "validation_loss": 1.0}
    labels = {"phase": "joint", "seed": 1, "trains": [], "strategies": ["joint"]}
    whole = {"key": digest(reads), "reads": reads, "labels": labels, "summary": summary}
    return NodeRecord.model_validate({**whole, "provenance": {"torch": "2"}})
