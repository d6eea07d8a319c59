"""What this machine has, what it lacks, and a numerics profile for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer
from offramp.api.options import RUNS, CommandOption, Device, StepWatcher, StorePlace
from offramp.errors import OfframpError
from offramp.files import check_replaceable, check_writable
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted

if TYPE_CHECKING:
    import torch

    from offramp.store.place import Place
    from offramp.study.plan.profiles import Gain, ProfileFile


@dataclass(frozen=True)
class Finding:
    """A thing that was looked at. what: its name.  here: what this machine has.  remedy: for a gap."""

    what: str
    here: str
    remedy: str = ""


@answer
class MachineReport:
    """What this machine has, and how to close each gap. findings: each thing that was looked at."""

    findings: Sequence[Finding]

    def as_json(self) -> dict[str, Any]:
        return {
            "findings": [{"what": f.what, "found": f.here, "remedy": f.remedy} for f in self.findings]
        }

    def document(self) -> TextBlocks:
        rows = [(f.what, f.here) for f in self.findings]
        gaps = [f"  {f.what}: {f.remedy}." for f in self.findings if f.remedy]
        return [
            TextTable(["", "here"], rows=rows, title="This machine"),
            *(["What could be better", *gaps] if gaps else []),
        ]


@answer
class TunedProfile:
    """A numerics profile for this machine.

    Attributes:
        path: Its file.
        profile: What it says, and what was measured.
        name: As a study names it.
    """

    path: Path
    profile: ProfileFile
    name: str

    def as_json(self) -> dict[str, Any]:
        return {"path": str(self.path), **self.profile.model_dump(mode="json")}

    def document(self) -> TextBlocks:
        from offramp.numerics import CUSTOM

        profile = self.profile.numerics
        threads = counted(profile.threads, "thread")
        same = "" if profile.name == CUSTOM else f" It is the same as '{profile.name}', so keys are too."
        return [
            _gains(self.profile.measured),
            f"Profile {self.path}: {threads} a trial, {profile.precision}.{same}\n"
            f"A study asks for it with numerics: {self.name} (or --set numerics={self.name}). "
            "No default has changed.\n"
            "Lower precision is not chosen for you. To have it: numerics: "
            f"{profile.device}-bf16, or precision: bfloat16 in the file.",
        ]


def doctor(*, store: StorePlace = RUNS, device: Device = None) -> MachineReport:
    """Check this machine, and say how to close each gap.

    It lists versions, device, whether the store can be written, and extras.

    Args:
        store: The store: a folder, or s3://BUCKET/NAME.
        device: Where networks would run.

    Raises:
        OfframpError: There is no such device here.

    Example:
        >>> machine = offramp.doctor()
        >>> machine.findings[0].what
        'versions'
    """
    from offramp import device as devices
    from offramp.store.archive import LIBRARIES
    from offramp.store.provenance import provenance

    chosen = devices.chosen(device)
    facts = provenance(chosen)
    libraries = ", ".join(f"{name} {getattr(facts, name)}" for name in LIBRARIES)
    return MachineReport(
        [
            Finding("versions", f"{libraries}, Python {facts.python}"),
            Finding("device", f"{facts.device} ({chosen.type})"),
            _store(store),
            *_extras(),
        ]
    )


def tune(
    *,
    name: Annotated[str, CommandOption("NAME")] = "tuned",
    out: Path | None = None,
    anyway: bool = False,
    device: Device = None,
    watch: StepWatcher = None,
) -> TunedProfile:
    """Measure this machine (about two minutes) and write a numerics profile.

    It times training steps of three networks with other threads, memory formats and precisions, two
    trials at once, and other ways for OpenMP to wait. A study uses the profile only with
    numerics: NAME, or numerics: FILE.

    Args:
        name: The profile's name.
        out: Write the profile to this file.
        anyway: Measure even if the machine is busy.
        device: Where networks run.
        watch: Called with each step.

    Raises:
        OfframpError: The name is taken, the file cannot be written, or the machine is busy.

    On the command line:
        offramp doctor --tune
        offramp run demo.yaml --set numerics=tuned
    """
    from offramp import device as devices
    from offramp.meters.capacity import BUSY, busy_cores, usable_cores
    from offramp.study import tune as tuner
    from offramp.study.plan import profiles
    from offramp.study.plan.profiles import Gain, ProfileFile

    chosen = devices.chosen(device)
    path = profiles.place(name, out)
    check_replaceable(path)  # before minutes of measuring
    busy = busy_cores()
    if busy > BUSY and not anyway:
        raise OfframpError(
            f"other programs use {busy:.1f} cores of this machine, so times measured now would "
            "mislead; try again when they are done, or give `anyway`"
        )
    gains = []
    for event in tuner.measure(chosen.type, usable_cores()):
        if isinstance(event, Gain):
            gains.append(event)
        elif watch is not None:
            watch(f"[{event.number}/{event.of}] {event.what}")
    profile = ProfileFile(
        numerics=tuner.chosen(chosen.type, gains),
        machine=machine(chosen) + (f", while others used {busy:.1f} cores" if busy > BUSY else ""),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        measured=tuple(gains),
    )
    profiles.write(path, profile)
    return TunedProfile(path, profile, name if out is None else str(path))


EXTRAS = {
    "onnx": ("onnxruntime", "export and run bundles"),
    "openvino": ("openvino", "run bundles as Intel's processors do best"),
    "executorch": ("executorch", "run bundles as phones do"),
    "hub": ("datasets", "read data sets through Hugging Face"),
    "energy": ("pynvml", "measure a GPU's power"),
    "ray": ("ray", "train on many machines"),
    "cloud": ("s3fs", "keep a store in an object store"),
    "serve": ("starlette", "serve a bundle over HTTP"),
    "track": ("tensorboard", "show runs in TensorBoard, MLflow or W&B"),
    "search": ("optuna", "search for settings"),
}


def _store(named: Place | str) -> Finding:
    from offramp.store.place import place

    root = place(named)
    if not isinstance(root, Path):
        return Finding("store", f"{root}: a run that starts there tries it")
    try:
        check_writable(root / "trials")
    except OfframpError as error:
        return Finding("store", f"{root} cannot be written", str(error))
    return Finding("store", f"{root} can be written")


def _extras() -> list[Finding]:
    findings = []
    for extra, (module, use) in EXTRAS.items():
        installed = importlib.util.find_spec(module) is not None
        remedy = "" if installed else f"to {use}: pip install 'offramp[{extra}]'"
        state = "installed" if installed else "not installed"
        findings.append(Finding(f"extra {extra}", state, remedy))
    return findings


def machine(device: torch.device) -> str:
    """This machine, as a profile remembers it."""
    from offramp.store.provenance import provenance

    facts = provenance(device)
    return f"{facts.device}, {facts.cores} cores"


def _gains(gains: Sequence[Gain]) -> TextTable:
    networks = list(dict.fromkeys(gain.network for gain in gains))
    rows = []
    for what in dict.fromkeys(gain.what for gain in gains):
        ratios = {gain.network: f"{gain.ratio:.2f}" for gain in gains if gain.what == what}
        rows.append((what, *(ratios.get(network, "") for network in networks)))
    return TextTable(["how many times faster a training step is"], networks, rows, "Speed here")
