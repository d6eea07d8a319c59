"""A process whose forks are the ranks of one training. Orders are lines of JSON:

task: a function of `rank_tasks`.  ranks: how many of them.  args: for it.  out: a file for what rank 0
makes of it.  The answer is the statuses with which they ended.
"""

import json
import sys
import tempfile
from functools import partial
from typing import Any

import rank_tasks
from safetensors.torch import save_file

from forks import fork, status
from offramp.engine.ranks import RankInfo, joined
from support import CPU


def obey(rank: int, meeting: str, order: dict[str, Any]) -> None:
    task = getattr(rank_tasks, order["task"])
    with joined(RankInfo(rank, order["ranks"], meeting), CPU) as ranks:
        tensors = task(ranks, **order["args"])
    if rank == 0:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, order["out"])


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            meeting = f"file://{folder}/meeting"
            ranks = [fork(partial(obey, rank, meeting, order)) for rank in range(order["ranks"])]
            statuses = [status(rank) for rank in ranks]
        print(json.dumps(statuses), flush=True)
