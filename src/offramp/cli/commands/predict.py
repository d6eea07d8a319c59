"""`offramp predict`: from image files to a table of answers."""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp import units
from offramp.cli import options
from offramp.cli.options import argument, flag, option
from offramp.cli.render import emit
from offramp.cli.store import opened_for, trusted
from offramp.errors import OfframpError
from offramp.files import resolved
from offramp.store.place import Place
from offramp.terminal import console, show, table
from offramp.units import counted, duration, percent

if TYPE_CHECKING:
    from offramp.infer.image_files import FileAnswer, Network, Unreadable
    from offramp.infer.stream import Streamed


def predict(
    network: Annotated[
        str, argument("TRIAL|BUNDLE", "A trial's id, a bundle's folder, or hf:USER/NAME.")
    ],
    images: Annotated[list[Path] | None, argument("IMAGES", "Image files, and folders of them.")] = None,
    policy: options.PolicyOption = None,
    out: Annotated[Path, option("FILE", "The table of answers to write, as CSV.")] = Path("answers.csv"),
    batch: Annotated[int, option("N", "Images at once.", min=1)] = 64,
    stream: Annotated[
        bool,
        flag(
            "--stream",
            "Read one path a line from standard input; answer each at once on standard output.",
        ),
    ] = False,
    mean_latency: Annotated[
        str | None,
        option(
            "TIME",
            "With --stream: hold this time an image on average, such as 5ms, by moving thresholds.",
        ),
    ] = None,
    store: options.StoreOption = None,
    device: options.DeviceOption = None,
    trust: options.TrustOption = None,
    json: options.JsonOption = False,
) -> None:
    """Classify image files; each leaves at an exit.

    It writes a line for each image: file, class, confidence, exit, compute share. The share is its MACs
    against those of the plain network. An image that has left costs no more compute. Without a policy,
    all images go to the final exit. If a file has no answer, its line says why.

    With --stream there is no table: lines go to standard output, as CSV or, with --json, as JSON, with
    the milliseconds of each image. The next path is read after the answer. Standard error says how many
    images left at each exit lately. --mean-latency moves thresholds, so no guarantee holds then.

    Exit codes: 0; 1 if files had no answer (named, and skipped); 2 for a mistake; 130 if interrupted.

    \b
    Examples:
      offramp predict two-stage-resnet18-cifar10-s42 photos/ --policy policy.json
      offramp predict bundle/ photo.png --out answers.csv
      offramp predict hf:me/flowers photos/
      ls -d camera/* | offramp predict bundle/ --stream --mean-latency 5ms
    """
    from offramp.infer import image_files

    if stream:
        if images:
            raise OfframpError("--stream reads paths from standard input; leave the images out")
        target = (
            None if mean_latency is None else units.parse(mean_latency, units.TIME, "--mean-latency")
        )
        _stream(_opened(network, policy, options.named(store), device, trust), target, json)
        return
    if mean_latency is not None:
        raise OfframpError("--mean-latency goes with --stream")
    if not images:
        raise OfframpError("give images: files, or folders of them")
    if not out.parent.is_dir():
        raise OfframpError(f"there is no folder {out.parent} for --out; make it first")
    place = resolved(out)  # behind a link the file itself, so that the link stays
    taken = out.exists() and not (out.is_file() and os.access(out, os.W_OK))
    if taken or not os.access(place.parent, os.W_OK):  # the table is written beside it, then moved
        raise OfframpError(f"--out {out} cannot be written; name a file in a folder of yours")
    files = image_files.find(images)
    if place in {file.resolve() for file in files}:
        raise OfframpError(f"--out {out} is one of the images; name another file")
    found = _opened(network, policy, options.named(store), device, trust)
    good, damaged = image_files.check(files, found.preprocessing)
    rows: list[FileAnswer] = []
    interrupted = False
    try:
        _answer(found, good, batch, rows, damaged)
    except KeyboardInterrupt:
        interrupted = True
    _write(place, rows, damaged)
    _report(found, rows, damaged, out, json)
    if interrupted:
        typer.echo(f"Interrupted after {counted(len(rows), 'image')}; {out} has those.", err=True)
        raise typer.Exit(130)
    if damaged:
        raise typer.Exit(1)


COLUMNS = ("file", "class", "confidence", "exit", "compute_share", "error")


def _opened(
    network: str, policy: Path | None, root: Place, device: str | None, trust: bool | None
) -> Network:
    from offramp import device as devices
    from offramp.bundle import hub
    from offramp.infer import image_files

    fetched = hub.local(network)
    if fetched is not None or image_files.is_bundle(network):
        options.check_bundle_options(policy, device)
        return replace(image_files.open_bundle(fetched or Path(network)), name=network)
    store = opened_for(network, root)
    trust_code = trusted(store, store.find_trial(network), trust)
    found = image_files.open_trial(store, network, policy, devices.chosen(device), trust_code=trust_code)
    if policy is None:
        typer.echo("No --policy: every image goes to the final exit.", err=True)
    return found


def _answer(
    network: Network,
    files: Sequence[Path],
    batch: int,
    rows: list[FileAnswer],
    damaged: list[Unreadable],
) -> None:
    """Fill `rows` and `damaged`, so that what is there stays when the work is cut short."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from offramp.infer import image_files

    how = network.preprocessing
    screen = console(stderr=True)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = screen.is_terminal and not screen.is_dumb_terminal
    with (
        Progress(*columns, console=screen, transient=True, disable=not shown) as progress,
        ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool,
    ):
        task = progress.add_task("predicting", total=len(files))
        for start in range(0, len(files), batch):
            asked = files[start : start + batch]
            read, pixels, broken = image_files.read_all(asked, how, pool)
            damaged += broken
            if read:
                rows += network.of_files(read, network.answer(pixels))
            progress.advance(task, len(asked))


LATELY = 256  # images of which it is said where they left
PACE_S = 5.0  # between two such lines


def _stream(network: Network, target: float | None, as_json: bool) -> None:
    """Answer what comes on standard input. target: seconds an image, on average."""
    from offramp.infer.stream import answers

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files are bytes, whatever the letters
    named = (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
    try:
        found = answers(network, named, target)
    except ValueError as error:
        raise OfframpError(f"--mean-latency cannot be held: {error}") from None
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if not as_json:
        writer.writerow((*COLUMNS, "milliseconds"))
    lately: deque[tuple[int, float]] = deque(maxlen=LATELY)
    count, broken, interrupted, said = 0, False, False, time.monotonic()
    try:
        for one in found:
            _say(writer, as_json, one)
            if one.answer is None:
                broken = True
                continue
            count += 1
            lately.append((one.answer.exit, one.seconds))
            if time.monotonic() - said > PACE_S:
                said = time.monotonic()
                typer.echo(_lately(network, lately, count, target), err=True)
    except KeyboardInterrupt:
        interrupted = True
    if count:
        typer.echo(_lately(network, lately, count, target), err=True)
    for reason in network.unreliable:
        typer.echo(f"Unreliable: {reason}.", err=True)
    if interrupted:
        raise typer.Exit(130)
    if broken:
        raise typer.Exit(1)


def _say(writer: Any, as_json: bool, one: Streamed) -> None:
    """A line at once."""
    from offramp.escape import cell
    from offramp.hashing import finite

    row, milliseconds = one.answer, 1000 * one.seconds
    if as_json:
        found: dict[str, Any] = {"file": str(one.file)}
        if row is None:
            found["error"] = one.reason
        else:
            found |= {"class": row.label, "confidence": row.confidence, "exit": row.exit}
            found |= {"compute_share": row.compute, "milliseconds": milliseconds}
        print(dumps(finite(found)))
    elif row is None:
        writer.writerow((cell(str(one.file)), "", "", "", "", cell(one.reason), ""))
    else:
        share = f"{row.confidence:.6f}", row.exit, f"{row.compute:.6f}"
        writer.writerow((cell(str(one.file)), cell(row.label), *share, "", f"{milliseconds:.3f}"))
    sys.stdout.flush()


def _lately(
    network: Network, lately: Collection[tuple[int, float]], count: int, target: float | None
) -> str:
    """How many came, what they took and where they left."""
    mean = sum(seconds for _, seconds in lately) / len(lately)
    held = "" if target is None else f" (held: {duration(target)})"
    left = ", ".join(
        f"{exit}: {100 * sum(e == exit for e, _ in lately) / len(lately):.0f} %"
        for exit in network.exits
    )
    return (
        f"{counted(count, 'image')} · {1000 * mean:.3g} ms each lately{held} · left at exit {left} "
        f"(of the last {len(lately)})"
    )


def _write(out: Path, rows: Sequence[FileAnswer], damaged: Sequence[Unreadable]) -> None:
    from offramp.escape import cell
    from offramp.files import replacing, writing

    with writing(out), replacing(out) as made, made.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            share = f"{row.confidence:.6f}", row.exit, f"{row.compute:.6f}"
            writer.writerow((cell(str(row.file)), cell(row.label), *share, ""))
        for one in damaged:
            writer.writerow((cell(str(one.file)), "", "", "", "", cell(one.reason)))


def _report(
    network: Network, rows: Sequence[FileAnswer], damaged: Sequence[Unreadable], out: Path, as_json: bool
) -> None:
    for one in damaged:
        typer.echo(f"Skipped {one.file}: it has no answer ({one.reason}).", err=True)
    mean = sum(row.compute for row in rows) / len(rows) if rows else None
    exits: list[dict[str, Any]] = []
    for exit in network.exits:
        here = [row for row in rows if row.exit == exit]
        confidence = sum(row.confidence for row in here) / len(here) if here else None
        share = len(here) / len(rows) if rows else 0.0
        exits.append({"exit": exit, "images": len(here), "share": share, "confidence": confidence})
    if as_json:
        broken = [{"file": str(one.file), "reason": one.reason} for one in damaged]
        answer = {"network": network.name, "out": str(out), "images": len(rows), "damaged": broken}
        emit({**answer, "exits": exits, "compute_share": mean, "unreliable": network.unreliable})
        return
    for reason in network.unreliable:
        typer.echo(f"Unreliable: {reason}.", err=True)
    lines = []
    for line in exits:
        told = "–" if line["confidence"] is None else f"{line['confidence']:.3f}"
        lines.append((str(line["exit"]), str(line["images"]), percent(line["share"]), told))
    listing = table(["exit"], ["images", "share", "mean confidence"], lines)
    show(listing, f"{network.name}: where images left")
    spent = "" if mean is None else f"; on average {percent(mean)} of the plain network's MACs"
    typer.echo(f"{counted(len(rows), 'answer')} in {out}{spent}.")
    if damaged:
        typer.echo(f"{counted(len(damaged), 'file')} skipped, named above.", err=True)
