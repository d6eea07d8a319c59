"""A bundle on the command line: what int8 and a page ask for, and its card in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from offramp.cli.render import say
from offramp.errors import OfframpError
from offramp.files import resolved
from offramp.terminal import show, table
from offramp.units import counted, macs, percent, share, size


@dataclass(frozen=True)
class Page:
    """A page to make from a bundle. runtime: of `offramp.bundle.web.find_runtime`."""

    out: Path
    runtime: Path
    force: bool

    def write(self, bundle: Path) -> None:
        from offramp.bundle import web

        web.write(bundle, self.out, self.runtime, self.force)

    def say(self) -> None:
        typer.echo(f"The page: python -m http.server --directory {self.out}, then http://localhost:8000")


def page_at(out: Path | None, runtime: Path | None, force: bool, bundle: Path) -> Page | None:
    """The page that --web asks for. bundle: where its bundle will be.

    Raises OfframpError, before the work, for a folder that is taken and a runtime that is missing.
    """
    if out is None:
        if runtime is not None:
            raise OfframpError("--onnxruntime-web goes with --web; leave it out")
        return None
    from offramp.bundle import web

    web.check_place(out, force)
    page, other = resolved(out), resolved(bundle)
    if page.is_relative_to(other) or other.is_relative_to(page):  # each replaces all of its folder
        raise OfframpError(
            f"--web {out} and --out {bundle} are one folder, or one in the other; name two apart"
        )
    return Page(out, web.find_runtime(runtime, Path.cwd()), force)


def int8_share(int8: bool, loss: str | None) -> float | None:
    """What --int8 and --int8-loss ask for, as `offramp.bundle.export.int8_share`."""
    from offramp.bundle import export

    given = None if loss is None else share(loss, "--int8-loss")
    if given is not None and not (int8 and 0 <= given < 1):
        raise OfframpError("--int8-loss is a share such as 0.01, and goes with --int8")
    return export.int8_share(int8 if given is None else given)


def describe(folder: Path, made: dict[str, Any]) -> None:
    """Print a bundle's card: a table and a few lines."""
    for reason in made["unreliable"]:
        say(f"Unreliable: {reason}.")
    listing = table(["exit"], ["threshold", "leave", "accuracy", "MACs"])
    for exit in made["exits"]:
        listing.add_row(
            str(exit["exit"]) + ("" if exit["in_bundle"] else " (left out)"),
            "–" if exit["threshold"] is None else f"{exit['threshold']:.4g}",
            percent(exit["share_leaving"]),
            percent(exit["accuracy"]),
            "–" if exit["macs"] is None else macs(exit["macs"]),
        )
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    show(listing, f"{made['trial']} in {folder}, {size(used)}")
    say(*_lines(made))
    typer.echo(f"Run it, without torch: python {folder}/run.py IMAGES")


def _check(check: dict[str, Any] | None) -> str:
    if check is None:
        return "Check: left out."
    said = f"Check: {check['images']:,} images ({check['what']}), "
    if "differing" in check:
        if check["share"] == check["accuracy"] == 0:
            return f"{said}shares of exits and accuracy as calibrated."
        return (
            f"{said}shares of exits within {100 * check['share']:.2g} points of what was calibrated, "
            f"accuracy within {100 * check['accuracy']:.2g}."
        )
    near = f"{check['near']} at a threshold"
    return f"{said}logits within {check['largest']:.1e} of PyTorch's, {near}."


def _lines(made: dict[str, Any]) -> list[str]:
    test, check, latency = made["test"], made["check"], made["latency"]
    lines = [
        f"Test: {100 * test['accuracy']['value']:.2f} % at "
        f"{percent(test['mean_macs'] / made['plain_macs'])} of the plain network's MACs; the full "
        f"network {100 * test['full_accuracy']['value']:.2f} %.",
        _check(check),
    ]
    if "int8" in made:
        old, new = made["int8"]["beside"]
        lines.append(
            f"In int8: {size(new['bytes'])} in {counted(new['stages'], 'stage')}, float32 "
            f"{size(old['bytes'])} in {old['stages']}; test accuracy "
            f"{100 * new['accuracy']:.2f} %, float32 {100 * old['accuracy']:.2f} %."
        )
        times = [one["mean_milliseconds_batch_1"] for one in (new, old)]
        if None not in times:
            lines[-1] += f" {times[0]:.3g} ms an image, float32 {times[1]:.3g}."
    if made["calibration"]["device"] is not None:
        lines += _promised(made["calibration"])
    lines.append(time_here(latency))
    return lines


def time_here(latency: dict[str, Any]) -> str:
    """How long an image takes on this machine, of the card's latency."""
    from offramp.policy.stage_times import SPREAD

    if "reason" in latency:
        return f"Time here: not measured ({latency['reason']})."
    said = (
        f"Time here: {latency['mean_milliseconds_batch_1']:.2f} ms an image, one at a time, on average"
    )
    rows = [row for row in latency["stages"] if row["batch"] == 1]
    if sum(row["p95"] for row in rows) > SPREAD * sum(row["p50"] for row in rows):
        return f"{said}; the times are unsteady, as beside other work: measure again when it is quiet."
    return f"{said}."


def _promised(calibration: dict[str, Any]) -> list[str]:
    """For which device the policy was solved, and the time that is promised there."""
    device, promised = calibration["device"], calibration["promised"]
    if promised is None:
        return [f"Solved for {device}."]
    return [f"Solved for {device}, and promised there: {promised}."]
