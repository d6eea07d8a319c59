"""`offramp doctor --tune`: what settings are worth here, and a numerics profile of that name."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
import typer

from offramp import device as devices
from offramp.cli.render import emit, show, table
from offramp.errors import OfframpError
from offramp.meters import busy_cores, usable_cores
from offramp.numerics import CUSTOM
from offramp.store.provenance import provenance
from offramp.study import tune as tuner
from offramp.study.plan import profiles
from offramp.study.plan.profiles import Gain, ProfileFile

BUSY = 0.5  # cores that others use, from which on nothing is measured


def tune(name: str, out: Path | None, anyway: bool, as_json: bool) -> None:
    """Measure, show, write. Raises OfframpError for a name that is taken, and on a busy machine."""
    path = profiles.place(name, out)
    _check_writable(path)
    busy = busy_cores()
    if busy > BUSY and not anyway:
        raise OfframpError(
            f"other programs use {busy:.1f} cores of this machine, so what is measured now would "
            "mislead; try again when they are done, or give --anyway"
        )
    device = devices.chosen()
    gains = _measured(device.type, quiet=as_json)
    made = ProfileFile(
        numerics=tuner.chosen(device.type, gains),
        machine=machine(device) + (f", while others used {busy:.1f} cores" if busy > BUSY else ""),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        measured=tuple(gains),
    )
    profiles.write(path, made)
    if as_json:
        emit({"path": str(path), **made.model_dump(mode="json")})
        return
    _show(gains)
    _conclude(made, str(path) if out is not None else name, path)


def _check_writable(path: Path) -> None:
    """Now, not after minutes of measuring."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OfframpError(f"{path} cannot be written ({reason}); give another --out") from None


def machine(device: torch.device) -> str:
    """This machine, as a profile remembers it."""
    known = provenance(device)
    return f"{known['device']}, {known['cores']} cores"


def _measured(device: str, quiet: bool) -> list[Gain]:
    gains = []
    for event in tuner.measure(device, usable_cores()):
        if isinstance(event, Gain):
            gains.append(event)
        elif not quiet:
            typer.echo(f"[{event.number}/{event.of}] {event.what}", err=True)
    return gains


def _show(gains: Sequence[Gain]) -> None:
    networks = list(dict.fromkeys(gain.network for gain in gains))
    listing = table(["how many times faster a training step is"], networks)
    for what in dict.fromkeys(gain.what for gain in gains):
        ratios = {gain.network: f"{gain.ratio:.2f}" for gain in gains if gain.what == what}
        listing.add_row(what, *(ratios.get(network, "") for network in networks))
    show(listing, "What it is worth here")


def _conclude(made: ProfileFile, asked_as: str, path: Path) -> None:
    profile = made.profile
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    same = "" if profile.name == CUSTOM else f" It says what '{profile.name}' says: the same keys."
    typer.echo(
        f"Profile {path}: {threads} a trial, {profile.precision}.{same}\n"
        f"A study asks for it with numerics: {asked_as} (or --set numerics={asked_as}). "
        "No default has changed.\n"
        "Less precision is not chosen for you: numerics: "
        f"{profile.device}-bf16, or precision: bfloat16 in the file."
    )
