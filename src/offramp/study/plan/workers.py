"""How many processes should train at the same time here: `--workers auto`.

A trial's threads are part of its numerics, so more cores run more trials and never one trial wider. The
number is the smallest of four: trials for which there are cores, trials that fit into memory, phases
that the plan can ever train side by side, and processes that have enough to do to be worth starting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from offramp import device as devices
from offramp.data.dataset import FileSplit, Split
from offramp.engine.cost import saved_bytes
from offramp.errors import OfframpError
from offramp.meters.capacity import free_addresses, free_memory, usable_cores
from offramp.parts import backbone
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, grouped
from offramp.units import counted, size

SHARE = 0.6  # of free memory that a run may take in all: others live here too
PROCESS = 500 * 2**20  # bytes of a process with the libraries loaded
# While it is read a data set lies in memory as it came and, image by image, in its splits.
READING = 2
# Weights: what plans copy from, the drawn and the stored ones, the network that trains and that of a
# teacher, gradients, two values an optimizer keeps, the best epoch's.
COPIES = 9
# A backward pass holds what the forward one left, gradients on their way down, and a kernel's scratch.
STEP = 1.5
# Without it the sum came out at 0.76 (VGG-16) to 1.15 (MobileNetV2) of what was measured.
MARGIN = 1.35
# What is needed for certain: weights, their gradients, what the optimizer keeps; and most of what is
# saved for a backward pass through the whole network (not each phase passes all heads).
LEAST_COPIES, LEAST_SAVED = 3, 0.75
STACKS = 64 * 2**20  # bytes of address space for those of the threads that a run starts
WORTH = 10.0  # seconds of work, for which a process is started that loads libraries and data first
STEP_SECONDS, FAST = 0.002, 50e9  # of a step, however small; MACs a second


@dataclass(frozen=True)
class Need:
    """What a worker takes, in bytes."""

    trial: int  # all but caches
    cache: int  # all frozen values that the largest phase reads
    least: int = 0  # what training takes for certain, beside libraries and images
    images: int = 0  # what each process reads for itself, as they lie in memory


@dataclass(frozen=True)
class Workers:
    """A number of processes and where it comes from."""

    count: int
    reason: str  # in words
    # how many there are cores for; None, as of the others, where that was not looked at
    cores: int | None = None
    memory: int | None = None  # how many there is memory for, no more than the others have use for
    plan: int | None = None  # how many phases can train side by side
    work: int | None = None  # how many there is work for


def chosen(plan: Plan, count: int, cores: Callable[[], int] = usable_cores) -> Workers:
    """So many, as the user says; with what speaks against it.

    Raises:
        OfframpError: For several, where each phase is to train on several devices.
    """
    threads, available, ranks = plan.numerics.threads, cores(), plan.numerics.ranks
    if ranks > 1 and count > 1:
        raise OfframpError(
            f"{count} workers train phases side by side, and execution.devices {ranks} each on several "
            "devices; leave one of them out"
        )
    fit = max(1, available // threads)
    if count == 1:
        return Workers(1, "as asked for", fit)
    if plan.study.execution.mode == "plain":
        return Workers(count, "as asked for; times of plain execution compare with one worker only", fit)
    if count > fit and plan.numerics.device == "cpu":
        words = (
            f"as asked for; with {threads} threads each they slow each other on "
            f"{counted(available, 'core')}"
        )
        return Workers(count, f"{words}, where {fit} would be faster", fit)
    return Workers(count, "as asked for", fit)


def suited(
    plan: Plan,
    store: Store,
    device: torch.device,
    cores: Callable[[], int] = usable_cores,
    memory: Callable[[], int] = free_memory,
) -> Workers:
    """The number of workers that suits a plan, and why. What is finished in the store needs none."""
    if plan.study.execution.mode == "plain":
        return Workers(1, "in plain execution costs are results, so phases train one at a time")
    if plan.numerics.ranks > 1:
        return Workers(1, f"each phase trains on {plan.numerics.ranks} devices together")
    if devices.count(device) > 1:
        count, by_plan = devices.count(device), widest(plan, done(plan, store))
        words = f"one for each of {count} devices; phases side by side: {by_plan}"
        return Workers(max(1, min(count, by_plan)), words, plan=by_plan)
    if device.type != "cpu":
        return Workers(1, "what a GPU gains by several at once is not known; two workers try it")
    written = done(plan, store)
    by_plan = widest(plan, written)
    if not by_plan:
        return Workers(1, "nothing is left to train", plan=0)
    threads, available, free = plan.numerics.threads, cores(), memory()
    by_cores = max(1, available // threads)
    by_work = max(1, int(seconds(plan, written) / WORTH))
    most = min(by_cores, by_plan, by_work)
    room, limit = int(SHARE * free), plan.study.execution.cache_memory
    by_memory = fitting(need(plan), room, room if limit == "auto" else limit, most)
    reason = (
        f"{counted(available, 'core')} for {counted(threads, 'thread')} each: {by_cores}; "
        f"{size(free)} free memory: {by_memory}{' or more' if by_memory == most else ''}; "
        f"phases side by side: {by_plan}; enough work for {by_work}"
    )
    return Workers(by_memory, reason, by_cores, by_memory, by_plan, by_work)


def done(plan: Plan, store: Store) -> set[str]:
    """Keys of nodes that the store has."""
    return set() if plan.provisional else {key for key in plan.nodes if store.has_node(key)}


def seconds(plan: Plan, finished: Collection[str]) -> float:
    """The least time that what is left may take: on a fast machine, in one process."""
    left = [node for key, node in plan.nodes.items() if key not in finished]
    steps = sum(n.recipe.epochs * math.ceil(len(plan.data.train) / n.recipe.batch_size) for n in left)
    return steps * STEP_SECONDS + sum(plan.macs(node.key) for node in left) / FAST


def fitting(need: Need, room: int, limit: int, most: int) -> int:
    """How many workers fit into `room` bytes, 1 to `most`; of their caches no more than `limit` is in
    memory, together."""
    count = 1
    while count < most:
        more = count + 1
        if PROCESS + more * need.trial + min(limit, more * need.cache) > room:
            break
        count = more
    return count


def need(plan: Plan) -> Need:
    """The memory that a worker on this plan takes, by forecast."""
    splits = {id(split): split for split in plan.data.splits.values()}.values()
    pixels = sum(_pixels(split) for split in splits)
    weights = sum(t.nbytes for t in plan.net.parameters())
    nodes, trunk = plan.nodes.values(), set(backbone(plan.net.exits))
    batch = max([plan.numerics.frozen_batch, *(node.recipe.batch_size for node in nodes)])
    saved = saved_bytes(plan.net)
    step = int(STEP * batch * saved)
    execution = plan.study.execution
    cache = max((w.cache_bytes for w in plan.work.values()), default=0) if execution.cache else 0
    trial = PROCESS + int(MARGIN * (READING * pixels + COPIES * weights + step))
    least = LEAST_COPIES * weights
    whole = max((node.recipe.batch_size for node in nodes if trunk <= node.trained), default=0)
    least += int(LEAST_SAVED * whole * saved)
    return Need(trial, cache, least, pixels)


def check_memory(
    plan: Plan,
    count: int,
    memory: Callable[[], int] = free_memory,
    addresses: Callable[[], float] = free_addresses,
) -> None:
    """Refuse what cannot fit into memory.

    What this process holds, which has read the data and trains itself where it is the only one, counts
    for none: others have only the images again, and share the libraries. memory: bytes that all of them
    together may still take; addresses: bytes of address space that each may.

    Raises:
        OfframpError: Where what they take at the least is more.
    """
    needs = need(plan)
    least = needs.least
    taking = least if count == 1 else count * (needs.images + least)
    if taking > memory():
        free, limit = size(memory()), "memory is free (of the machine, or of the control group)"
        less = "" if count == 1 else "fewer workers, "
    elif least + STACKS > addresses():
        taking, less = least + STACKS, ""
        free, limit = size(addresses()), "address space is left (`ulimit -v`)"
    else:
        return
    raise OfframpError(
        f"training takes {size(taking)} more at the least, and {free} of {limit}; give more, or set "
        f"{less}a smaller recipe.batch_size or a smaller network"
    )


def _pixels(split: Split | FileSplit) -> int:
    """Bytes of the images that are held in memory."""
    if isinstance(split, Split):
        return split.images.nbytes
    return sum(image.width * image.height * len(image.getbands()) for image in split.memory or ())


def widest(plan: Plan, finished: Collection[str]) -> int:
    """The most groups of phases that can train side by side at any time, each group in one pass, if
    all that are ready take equally long. finished: keys of nodes."""
    done, most = set(finished), 0
    waiting = [node for node in plan.nodes.values() if node.key not in done]
    while waiting:
        ready = [node for node in waiting if done.issuperset(node.needs)]
        most = max(most, len(grouped(ready, plan.study.execution.fuse)))
        done |= {node.key for node in ready}
        waiting = [node for node in waiting if node.key not in done]
    return most


def on_a_machine(plan: Plan, device: torch.device) -> int:
    """How many groups of phases a machine of a cluster, equal to this one, trains at once."""
    if device.type == "cpu":
        return max(1, usable_cores() // plan.numerics.threads)
    return max(1, int(devices.count(device) / plan.study.execution.gpus_per_trial))
