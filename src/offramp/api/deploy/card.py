"""A bundle that was written: its card in words, and what int8 and a page need."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp import units
from offramp.api.answer import answer
from offramp.api.options import CommandOption
from offramp.errors import OfframpError
from offramp.files import resolved
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted, macs, percent, size

if TYPE_CHECKING:
    from collections.abc import Mapping


Int8 = Annotated[
    bool | float,
    CommandOption(help="Quantize the stages to 8 bits, and choose thresholds again for their answers."),
]
Int8Loss = Annotated[float | None, CommandOption("SHARE", parse=units.share, default="0.01")]
Runtimes = Annotated[Sequence[str], CommandOption("NAME")]
WebFolder = Annotated[Path | None, CommandOption("FOLDER")]


def int8_share(int8: bool | float, loss: float | None) -> float | None:
    """The accuracy that int8 may cost; None without int8.

    Raises:
        OfframpError: A loss without int8, or no share.
    """
    from offramp.bundle import export

    if loss is not None and not (int8 and 0 <= loss < 1):
        raise OfframpError("`int8_loss` is a share such as 0.01, and goes with `int8`")
    return export.int8_share(int8 if loss is None else loss)


def check_page(web: Path | None, runtime: Path | None, force: bool, bundle: Path) -> Path | None:
    """The runtime that a page needs; None without a page. runtime: the folder of onnxruntime-web; None
    looks for it. bundle: where it will be.

    Raises:
        OfframpError: Before the work: the folder is taken, or there is no runtime.
    """
    from offramp.bundle import web as pages

    if web is None:
        if runtime is not None:
            raise OfframpError("`onnxruntime_web` goes with `web`; leave it out")
        return None
    pages.check_place(web, force)
    page, other = resolved(web), resolved(bundle)
    if page.is_relative_to(other) or other.is_relative_to(page):  # each replaces all of its folder
        raise OfframpError(
            f"`web` {web} and `out` {bundle} are one folder, or one in the other; name two apart"
        )
    return pages.find_runtime(runtime, Path.cwd())


def check_one_class(**options: object) -> None:
    """Raise OfframpError, before the work, for an option that does not go with several labels."""
    for name, setting in options.items():
        if setting:
            raise OfframpError(
                f"`{name}` is for one class an image, and these have several labels; leave it out"
            )


@answer
class BundleReport:
    """A bundle that was written.

    Attributes:
        folder: Of the bundle.
        card: What the network is, what it loses and what it costs, in types of JSON.
        web: The folder of the page for browsers; None without one.
        to_measure: Whether it is there to time its stages on a device.
    """

    folder: Path
    card: Mapping[str, Any]
    web: Path | None = None
    to_measure: bool = False

    def as_json(self) -> dict[str, Any]:
        page = {} if self.web is None else {"web": str(self.web)}
        return {"bundle": str(self.folder), **page, "card": self.card}

    def document(self) -> TextBlocks:
        line = f"On the device: python {self.folder}/run.py --measure --out times.json"
        last = [line] if self.to_measure else []
        return [*card_document(self.folder, self.card), *page_lines(self.web), *last]


def page_lines(web: Path | None) -> list[str]:
    """How to open a page."""
    if web is None:
        return []
    serve = shlex.join(["python", "-m", "http.server", "--directory", str(web)])
    return [f"The page: {serve}, then http://localhost:8000"]


def card_document(folder: Path, card: Mapping[str, Any]) -> list[str | TextTable]:
    """A bundle's card: a table and a few lines."""
    rows = [
        (
            str(exit["exit"]) + ("" if exit["in_bundle"] else " (left out)"),
            "–" if exit["threshold"] is None else f"{exit['threshold']:.4g}",
            percent(exit["share_leaving"]),
            percent(exit["accuracy"]),
            "–" if exit["macs"] is None else macs(exit["macs"]),
        )
        for exit in card["exits"]
    ]
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    title = f"{card['trial']} in {folder}, {size(used)}"
    return [
        *(f"Unreliable: {reason}." for reason in card["unreliable"]),
        *(f"{note}." for note in card.get("notes", ())),
        TextTable(["exit"], ["threshold", "leave", "accuracy", "MACs"], rows, title),
        *_lines(card),
        f"Run it, without torch: {shlex.join(['python', str(folder / 'run.py')])} IMAGES",
    ]


def check_words(check: Mapping[str, Any] | None) -> str:
    """How far a bundle's answers were compared with PyTorch's."""
    if check is None:
        return "Check: left out."
    images = f"Check: {check['images']:,} images ({check['what']}), "
    if "differing" in check:
        if check["share"] == check["accuracy"] == 0:
            return f"{images}shares of exits and accuracy as calibrated."
        return (
            f"{images}shares of exits within {100 * check['share']:.2g} points of what was calibrated, "
            f"accuracy within {100 * check['accuracy']:.2g}."
        )
    near = f"{check['near']} at a threshold"
    return f"{images}logits within {check['largest']:.1e} of PyTorch's, {near}."


def _lines(card: Mapping[str, Any]) -> list[str]:
    from offramp.bundle.card import label_lines

    test = card["test"]
    lines = [
        *([f"{card['beside']['why']}."] if "beside" in card else []),
        f"Test: {100 * test['accuracy']['value']:.2f} % at "
        f"{percent(test['mean_macs'] / card['plain_macs'])} of the plain network's MACs; the full "
        f"network {100 * test['full_accuracy']['value']:.2f} %.",
        *(f"{line[0].upper()}{line[1:]}." for line in label_lines(card)),
        check_words(card["check"]),
    ]
    if "int8" in card:
        lines.append(_int8_line(*card["int8"]["beside"]))
    calibration = card["calibration"]
    if calibration["device"] is not None:
        promised = calibration["promised"]
        more = "" if promised is None else f", and promised there: {promised}"
        lines.append(f"Solved for {calibration['device']}{more}.")
    return [*lines, time_here(card["latency"])]


def _int8_line(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    line = (
        f"In int8: {size(now['bytes'])} in {counted(now['stages'], 'stage')}, float32 "
        f"{size(before['bytes'])} in {before['stages']}; test accuracy "
        f"{100 * now['accuracy']:.2f} %, float32 {100 * before['accuracy']:.2f} %."
    )
    times = [each["mean_milliseconds_batch_1"] for each in (now, before)]
    return line if None in times else f"{line} {times[0]:.3g} ms an image, float32 {times[1]:.3g}."


def time_here(latency: Mapping[str, Any]) -> str:
    """How long an image takes on this machine, of the card's latency."""
    from offramp.policy.stage_times import SPREAD

    if "reason" in latency:
        return f"Time here: not measured ({latency['reason']})."
    mean = (
        f"Time here: {latency['mean_milliseconds_batch_1']:.2f} ms an image, one at a time, on average"
    )
    rows: Sequence[Mapping[str, Any]] = [row for row in latency["stages"] if row["batch"] == 1]
    if sum(row["p95"] for row in rows) > SPREAD * sum(row["p50"] for row in rows):
        return f"{mean}; the times are unsteady, as beside other work: measure again when it is quiet."
    return f"{mean}."
