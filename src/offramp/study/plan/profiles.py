"""Numerics profiles in files: measured or written for one machine, asked for by name or by path.

A file's own name means nothing to keys, which are made of what it says (`offramp.numerics.custom`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import Field, PlainSerializer, PlainValidator

from offramp import device as devices
from offramp.device import DeviceClass
from offramp.errors import OfframpError, nearest
from offramp.files import home, write_whole
from offramp.meters.capacity import computing_cores
from offramp.numerics import CUSTOM, EXACT, FAST, PROFILES, Numerics, fast, fitting, profile, registered
from offramp.sections import Section, mapping
from offramp.study.spec.fields import reader
from offramp.study.spec.places import validated
from offramp.study.spec.yaml_lines import parse, text_of

SUFFIXES = (".json", ".yaml", ".yml")


# What one may choose; the other fields have one value that results can be trusted with.
CHOICES = ("device", "threads", "precision", "memory_format", "tf32", "fused_optimizer", "frozen_batch")
_read = reader(Numerics)


def _numerics(value: Any) -> Numerics:
    """A profile of what stands in a file. One that says what a profile that comes with offramp says is
    that profile, and has its keys."""
    if isinstance(value, Numerics):
        return value
    return registered(_read({"name": CUSTOM, "version": 1, **mapping(value, CHOICES)}))


def _choices(profile: Numerics) -> dict[str, Any]:
    return {name: getattr(profile, name) for name in CHOICES}


class Gain(Section):
    """How many times faster one way was than another. network: on which it was measured."""

    what: str
    network: str
    ratio: Annotated[float, Field(gt=0)]


class ProfileFile(Section):
    """What stands in a file."""

    numerics: Annotated[Numerics, PlainValidator(_numerics), PlainSerializer(_choices)]
    # where `offramp doctor --tune` measured; this and the next are for people to read
    machine: str | None = None
    made: str | None = None  # when
    measured: Annotated[tuple[Gain, ...], Field(strict=False)] = ()  # what came of it


def folder() -> Path:
    """Where the user's own profiles lie."""
    return home("XDG_CONFIG_HOME", ".config") / "profiles"


def find(name: str, device: str | torch.device, step_macs: float = math.inf, ranks: int = 1) -> Numerics:
    """The profile that a study names: one that comes with offramp, one of the user's own, or a file.
    device: that it must be made for, or its class; step_macs: of a training step, by which `fast` has
    threads; ranks: processes that share the cores.

    Raises:
        OfframpError: For an unknown name, a file that cannot be read, another device.
    """
    place = torch.device(device)
    if name == FAST:
        has = devices.arithmetic(place)
        kind = cast(DeviceClass, place.type)
        return fast(kind, max(1, computing_cores() // ranks), step_macs, has.tf32, has.bfloat16)
    if name in ("default", EXACT, *PROFILES):
        return profile(name, place.type)
    own = {path.stem: path for path in _files()}
    if name.endswith(SUFFIXES) or "/" in name:
        path = Path(name).expanduser()
    elif name in own:
        path = own[name]
    else:
        hint = nearest(name, [*PROFILES, EXACT, FAST, *own])
        raise OfframpError(f"unknown numerics profile '{name}'{hint}")
    return fitting(read(path).numerics, place.type, name)


def read(path: Path) -> ProfileFile:
    """A profile's file. Raises OfframpError, one line that names the place, for anything wrong in it."""
    text = text_of(path, "no such numerics profile; offramp doctor --tune writes one")
    document = parse(text, str(path))
    return validated(ProfileFile.model_validate, document.value, document.places(str(path)))


def listed() -> Mapping[str, ProfileFile]:
    """The user's own profiles that can be read, by name, the newest last."""
    profiles = {}
    for path in sorted(_files(), key=lambda path: path.stat().st_mtime):
        try:
            profiles[path.stem] = read(path)
        except OfframpError:
            continue
    return profiles


def place(name: str, out: Path | None) -> Path:
    """Where a new profile goes. Raises OfframpError for a name that is in use or cannot be asked for."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise OfframpError(f"profile name '{name}' cannot be used; take letters, digits, - and _")
    if out is None and name in ("default", EXACT, FAST, *PROFILES):
        raise OfframpError(f"profile '{name}' comes with offramp and stays; give another --name")
    path = out or folder() / f"{name}.json"
    if not path.name.endswith(SUFFIXES):
        raise OfframpError(f"{path} could not be asked for as a profile; let --out end in .json")
    if path.exists():
        raise OfframpError(
            f"{path} is there already, and studies may go by it; "
            f"give another {'--name' if out is None else '--out'}, or delete it"
        )
    return path


def write(path: Path, content: ProfileFile) -> None:
    """Write a profile's file."""
    write_whole(path, json.dumps(content.model_dump(mode="json"), indent=1) + "\n")


def _files() -> list[Path]:
    return [path for suffix in SUFFIXES for path in folder().glob(f"*{suffix}") if path.is_file()]
