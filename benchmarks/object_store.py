"""A store in an object store against one in a folder: a node put and got, and thousands listed.

The object store is an S3 server on the loopback (moto, one process of Python), so most of these seconds
are the server's own; the requests that each step takes say what another one would take.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save

from benchmarks.contest import Result, against, in_turns, middle
from offramp.hashing import digest, text
from offramp.store import sealed
from offramp.store.archive import Archive
from offramp.store.manifest import Cost, NodeRecord
from offramp.store.store import Store

SERVE = """
import sys
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from benchmarks.object_store import objects
backend = s3_backends["123456789012"]["aws"]
for bucket in ("bench", "many"):
    backend.create_bucket(bucket, "us-east-1")
for name, data in objects(int(sys.argv[1])):
    backend.put_object("many", name, data)
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
    rounds, nodes = (5, NODES // 20) if quick else (20, NODES)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), nodes):
        for name, size in (("0.4 MB", SMALL), ("100 MB", LARGE)):
            some = rounds if size == SMALL else 3
            yield from measure_size(Path(folder), f"s3://bench/{size}", name, size, some)
        yield from many("s3://many/runs", nodes)


@contextmanager
def serving(folder: Path, nodes: int) -> Iterator[None]:
    """An S3 server with the buckets `bench`, which is empty, and `many`, a store of so many nodes."""
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVE, str(nodes)],
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
        yield
    finally:
        server.stdin.close()
        server.stdout.close()
        server.kill()
        server.wait()


def measure_size(folder: Path, url: str, name: str, size: int, rounds: int) -> Iterator[Result]:
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
    manifest = record(next(number))
    began = time.perf_counter()
    store.write_node(manifest, weights, HISTORY, COST)
    return time.perf_counter() - began


def got(store: Store, _: dict[str, torch.Tensor], number: Iterator[int]) -> float:
    """By a machine that has fetched nothing yet."""
    shutil.rmtree(os.environ["OFFRAMP_CACHE"], ignore_errors=True)
    fresh, key = Store(store.root), record(next(number)).key
    began = time.perf_counter()
    fresh.verify_node(key)
    return time.perf_counter() - began


def many(url: str, nodes: int) -> Iterator[Result]:
    """So many small nodes listed, their manifests read: by a fresh machine, again, and by a fresh one
    with an index."""
    shutil.rmtree(os.environ["OFFRAMP_CACHE"], ignore_errors=True)
    for which in ("cold", "warm", "indexed"):
        note = f"{nodes} nodes; {'manifests are' if which == 'warm' else 'nothing is'} cached here"
        if which == "indexed":
            note += ", and the store has an index"
            Store(url).index()
            shutil.rmtree(os.environ["OFFRAMP_CACHE"], ignore_errors=True)
        archive = Archive(url)
        began = time.perf_counter()
        keys = archive.nodes()
        listed = time.perf_counter() - began
        for key in keys:
            archive.read_node(key)
        read = time.perf_counter() - began
        yield middle(f"store: nodes listed, {which}, seconds", [listed], note=note)
        yield middle(f"store: nodes listed and read, {which}, seconds", [read], note=note)


def objects(nodes: int) -> Iterator[tuple[str, bytes]]:
    """A store of so many nodes, by names in a bucket, as `cloud` lays it out."""
    yield "runs/store.json", b'{"format": 1}'
    files = {
        "weights.safetensors": save({"a": torch.ones(10)}),
        "history.parquet": HISTORY.to_parquet(None, index=False),
        "cost.json": text(COST.as_json()),
    }
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for number in range(nodes):
        node = record(number)
        parts = {name: value for name, value in node.as_json().items() if name != "key"}
        for name, data in files.items():
            yield f"runs/blobs/nodes/{node.key}/{name}.{sums[name]}", data
        manifest = sealed.document(node.key, parts, files)
        yield f"runs/nodes/{node.key}/node.json", text(manifest)


def record(number: int) -> NodeRecord:
    """Of a node that reads nothing but its number."""
    reads = {"network": {}, "exits": {}, "number": number}
    summary = {"epochs": 2, "best_epoch": 1, "selected_epoch": 2, "validation_loss": 1.0}
    labels = {"phase": "joint", "seed": 1, "trains": [], "strategies": ["joint"]}
    whole = {"key": digest(reads), "reads": reads, "labels": labels, "summary": summary}
    return NodeRecord.model_validate({**whole, "provenance": {"torch": "2"}})
