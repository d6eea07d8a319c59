"""From image files to a table of answers."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from offramp.api.answer import answer
from offramp.api.opening import opened_for, trusted
from offramp.api.options import (
    RUNS,
    CommandOption,
    Device,
    PolicyFile,
    Time,
    TrainingStore,
    TrustCode,
)
from offramp.errors import OfframpError
from offramp.escape import cell
from offramp.files import replacing, resolved, writing
from offramp.terminal import TextBlocks, TextTable, console
from offramp.units import counted, duration, percent

if TYPE_CHECKING:
    import torch

    from offramp.infer.image_files import FileAnswer, Network, Unanswered
    from offramp.infer.stream import Streamed
    from offramp.store.place import Place

COLUMNS = ("file", "class", "confidence", "exit", "compute_share", "error")
RECENT = 256  # images of which it is said where they left
PACE_S = 5.0  # between two such lines


@answer
class FileAnswers:
    """Answers for image files.

    Attributes:
        network: Its name.
        out: The table of answers.
        answers: One for each image.
        damaged: Files without an answer.
        unreliable: Why the answers are not to be trusted; empty for reliable ones.
        interrupted: Whether it was cut short.
    """

    network: str
    out: Path
    answers: Sequence[FileAnswer]
    damaged: Sequence[Unanswered]
    unreliable: Sequence[str]
    interrupted: bool
    _exits: Sequence[int]

    @property
    def exit_code(self) -> int:
        return 130 if self.interrupted else 1 if self.damaged else 0

    def as_json(self) -> dict[str, Any]:
        broken = [{"file": str(each.file), "reason": each.reason} for each in self.damaged]
        return {
            "network": self.network,
            "out": str(self.out),
            "images": len(self.answers),
            "damaged": broken,
            "exits": self._by_exit(),
            "compute_share": self._compute(),
            "unreliable": self.unreliable,
        }

    def warnings(self) -> Sequence[str]:
        lines = [f"Unreliable: {reason}." for reason in self.unreliable]
        if self.damaged:
            lines.append(f"{counted(len(self.damaged), 'file')} skipped, named above.")
        return lines

    def document(self) -> TextBlocks:
        rows = []
        for exit in self._by_exit():
            mean = "–" if exit["confidence"] is None else f"{exit['confidence']:.3f}"
            rows.append((str(exit["exit"]), str(exit["images"]), percent(exit["share"]), mean))
        title = f"{self.network}: where images left"
        compute = self._compute()
        spent = "" if compute is None else f"; on average {percent(compute)} of the plain network's MACs"
        return [
            TextTable(["exit"], ["images", "share", "mean confidence"], rows, title),
            f"{counted(len(self.answers), 'answer')} in {self.out}{spent}.",
        ]

    def _compute(self) -> float | None:
        rows = self.answers
        return sum(row.compute for row in rows) / len(rows) if rows else None

    def _by_exit(self) -> list[dict[str, Any]]:
        exits = []
        for exit in self._exits:
            rows = [row for row in self.answers if row.exit == exit]
            confidence = sum(row.confidence for row in rows) / len(rows) if rows else None
            share = len(rows) / len(self.answers) if self.answers else 0.0
            exits.append({"exit": exit, "images": len(rows), "share": share, "confidence": confidence})
        return exits


def predict(
    network: Annotated[str, CommandOption("TRIAL|BUNDLE")],
    images: Annotated[Sequence[Path], CommandOption("IMAGES")] = (),
    *,
    policy: PolicyFile = None,
    out: Path = Path("answers.csv"),
    batch: Annotated[int, CommandOption("N", least=1)] = 64,
    store: TrainingStore = RUNS,
    device: Device = None,
    trust_code: TrustCode = None,
) -> FileAnswers:
    """Classify image files; each leaves at an exit.

    It writes a line for each image: file, class, confidence, exit, compute share. The share is its MACs
    against those of the plain network. An image that has left costs no more compute. Without a policy,
    all images go to the final exit. If a file has no answer, its line says why. Of several labels an
    image, its classes are those whose probability is above a half, with | between them; a name that has
    a | in it is in quotes.

    Exit codes: 0; 1 if files had no answer (named, and skipped); 2 for a mistake; 130 if interrupted.

    Args:
        network: A trial's id, a bundle's folder, or hf:USER/NAME.
        images: Image files, and folders of them.
        policy: A policy file of offramp calibrate. A bundle has its own.
        out: The table of answers to write, as CSV.
        batch: Images at once.
        store: The store: a folder, or s3://BUCKET/NAME.
        device: Where the network runs.
        trust_code: Whether code that the store names may run.

    Raises:
        OfframpError: There is no such network, there are no images, or the table cannot be written.

    On the command line:
        offramp predict two-stage-resnet18-cifar10-s42 photos/ --policy policy.json
        offramp predict bundle/ photo.png --out answers.csv
        offramp predict hf:me/flowers photos/
    """
    from offramp.infer import image_files

    out = Path(out)
    if not images:
        raise OfframpError("give images: files, or folders of them")
    if not out.parent.is_dir():
        raise OfframpError(f"there is no folder {out.parent} for `out`; make it first")
    target = resolved(out)  # behind a link the file itself, so that the link stays
    blocked = out.exists() and not (out.is_file() and os.access(out, os.W_OK))
    if blocked or not os.access(target.parent, os.W_OK):  # the table is written beside it, then moved
        raise OfframpError(f"`out` {out} cannot be written; name a file in a folder of yours")
    files = image_files.find(list(map(Path, images)))
    if str(target) in set(map(os.path.realpath, files)):  # a loop of links has no real path
        raise OfframpError(f"`out` {out} is one of the images; name another file")
    runner = _opened(network, policy, store, device, trust_code)
    good, damaged = image_files.check(files, runner.preprocessing)
    rows: list[FileAnswer] = []
    interrupted = False
    try:
        _answer(runner, good, batch, rows, damaged)
    except KeyboardInterrupt:
        interrupted = True
    write(target, rows, damaged)
    for each in damaged:
        click.echo(f"Skipped {each.file}: it has no answer ({each.reason}).", err=True)
    if interrupted:
        click.echo(f"Interrupted after {counted(len(rows), 'image')}; {out} has those.", err=True)
    return FileAnswers(runner.name, out, rows, damaged, runner.unreliable, interrupted, runner.exits)


def check_bundle_options(policy: Any, device: torch.device | str | None = None) -> None:
    """Raises OfframpError for options that a bundle does not take."""
    if policy is not None:
        raise OfframpError("a bundle carries its policy; leave `policy` out")
    if str(device or "cpu") != "cpu":
        raise OfframpError("a bundle runs on the CPU; leave `device` out")


def _opened(
    network: str,
    policy: Path | None,
    store: Place | str,
    device: torch.device | str | None,
    trust_code: bool | None,
) -> Network:
    from offramp import device as devices
    from offramp.bundle import hub
    from offramp.infer import image_files

    fetched = hub.local(network)
    if fetched is not None or image_files.names_bundle(network):
        check_bundle_options(policy, device)
        return replace(image_files.open_bundle(fetched or Path(network)), name=network)
    source = opened_for(network, store)
    code_runs = trusted(source, source.find_trial(network), trust_code)
    runner = image_files.open_trial(
        source, network, policy, devices.chosen(device), trust_code=code_runs
    )
    if policy is None:
        click.echo("No --policy: every image goes to the final exit.", err=True)
    return runner


def _answer(
    network: Network,
    files: Sequence[Path],
    batch: int,
    rows: list[FileAnswer],
    damaged: list[Unanswered],
) -> None:
    """Fill `rows` and `damaged`, so that what is there stays when the work is cut short."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from offramp.engine.waiting import waits_by_load
    from offramp.infer import image_files

    screen = console(stderr=True)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    moves = screen.is_terminal and not screen.is_dumb_terminal
    with (
        Progress(*columns, console=screen, transient=True, disable=not moves) as progress,
        ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool,
        waits_by_load(),
    ):
        task = progress.add_task("predicting", total=len(files))
        for start in range(0, len(files), batch):
            part = files[start : start + batch]
            read, pixels, broken = image_files.read_all(part, network.preprocessing, pool)
            damaged += broken
            if read:
                outcomes = network.of_files(read, network.answer(pixels))
                rows += [each for each in outcomes if isinstance(each, image_files.FileAnswer)]
                damaged += [each for each in outcomes if isinstance(each, image_files.Unanswered)]
            progress.advance(task, len(part))


def write(out: Path, rows: Sequence[FileAnswer], damaged: Sequence[Unanswered]) -> None:
    """Write the table of answers."""
    with (
        writing(out),
        replacing(out) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_cells(row.file, row) for row in rows)
        writer.writerows(_cells(each.file, None, each.reason) for each in damaged)


def _cells(file: Path, row: FileAnswer | None, reason: str = "") -> list[object]:
    """Of COLUMNS: an answer, or why there is none."""
    if row is None:
        return [cell(str(file)), "", "", "", "", cell(reason)]
    shares = f"{row.confidence:.6f}", str(row.exit), f"{row.compute:.6f}"
    return [cell(str(file)), cell(row.label), *shares, ""]


@answer
class AnswerStream:
    """Answers for paths on standard input, one at a time.

    Attributes:
        network: Its name.
        mean_latency: Seconds an image to keep to, on average; None for any.
    """

    network: str
    mean_latency: float | None
    _runner: Network

    def as_json(self) -> dict[str, Any]:
        return {"network": self.network, "mean_latency": self.mean_latency}

    def document(self) -> TextBlocks:
        return [f"{self.network}: answers a path a line; call run()."]

    def run(self, as_json: bool = False, show: Callable[[], None] = lambda: None) -> int:  # noqa: ARG002
        """Answer what comes on standard input, to its end."""
        from offramp.infer.stream import answers

        network = self._runner
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # names of files are bytes, whatever letters
        paths = (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
        try:
            stream = answers(network, paths, self.mean_latency)
        except ValueError as error:
            raise OfframpError(f"`mean_latency` cannot be held: {error}") from None
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if not as_json:
            writer.writerow((*COLUMNS, "milliseconds"))
        recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        count, code, latest = 0, 0, time.monotonic()
        try:
            for streamed in stream:
                _print_line(writer, as_json, streamed)
                if streamed.answer is None:
                    code = 1
                    continue
                count += 1
                recent.append((streamed.answer.exit, streamed.seconds))
                if time.monotonic() - latest > PACE_S:
                    latest = time.monotonic()
                    click.echo(self._summary(recent, count), err=True)
        except KeyboardInterrupt:
            code = 130
        if count:
            click.echo(self._summary(recent, count), err=True)
        for reason in network.unreliable:
            click.echo(f"Unreliable: {reason}.", err=True)
        return code

    def _summary(self, recent: Collection[tuple[int, float]], count: int) -> str:
        """How many came, what they took and where they left."""
        mean = sum(seconds for _, seconds in recent) / len(recent)
        limit = self.mean_latency
        target = "" if limit is None else f" (held: {duration(limit)})"
        left = ", ".join(
            f"{exit}: {100 * sum(e == exit for e, _ in recent) / len(recent):.0f} %"
            for exit in self._runner.exits
        )
        return (
            f"{counted(count, 'image')} · {1000 * mean:.3g} ms each lately{target} · left at exit "
            f"{left} (of the last {len(recent)})"
        )


def stream(
    network: Annotated[str, CommandOption("TRIAL|BUNDLE")],
    *,
    mean_latency: Time = None,
    policy: PolicyFile = None,
    store: TrainingStore = RUNS,
    device: Device = None,
    trust_code: TrustCode = None,
) -> AnswerStream:
    """Read one path a line from standard input; answer each at once on standard output.

    There is no table: lines go to standard output, as CSV or, with --json, as JSON, with the
    milliseconds of each image. The next path is read after the answer. Standard error says how many
    images left at each exit lately. `mean_latency` moves thresholds, so no guarantee holds then.

    Args:
        network: A trial's id, a bundle's folder, or hf:USER/NAME.
        mean_latency: Hold this time an image on average, such as 5ms, by moving thresholds.
        policy: A policy file of offramp calibrate. A bundle has its own.
        store: The store: a folder, or s3://BUCKET/NAME.
        device: Where the network runs.
        trust_code: Whether code that the store names may run.

    Returns:
        What answers, once its `run` is called; a command calls it.

    Raises:
        OfframpError: There is no such network.

    On the command line:
        ls -d camera/* | offramp predict bundle/ --stream --mean-latency 5ms
    """
    runner = _opened(network, policy, store, device, trust_code)
    return AnswerStream(runner.name, mean_latency, runner)


def _print_line(writer: Any, as_json: bool, streamed: Streamed) -> None:
    """A line at once."""
    from offramp.bundle.runtime import answer_fields

    row, milliseconds = streamed.answer, 1000 * streamed.seconds
    if as_json:
        record: dict[str, Any] = {"file": str(streamed.file)}
        if row is None:
            record["error"] = streamed.reason
        else:
            record |= answer_fields(row.label, row.labels)
            record |= {"confidence": row.confidence, "exit": row.exit}
            record |= {"compute_share": row.compute, "milliseconds": milliseconds}
        print(json.dumps(record))
    else:
        spent = "" if row is None else f"{milliseconds:.3f}"
        writer.writerow([*_cells(streamed.file, row, streamed.reason), spent])
    sys.stdout.flush()
