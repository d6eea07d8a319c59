"""`offramp doctor`: what this machine has, which meters work, and what to do about each gap."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import asdict, dataclass

import psutil
import torch
import typer

from offramp import device as devices
from offramp.allocator import keep_freed_memory
from offramp.cli.render import emit, show, table
from offramp.cli.tuning import machine
from offramp.meters import Gpu, Missing, Packages, busy_cores, find_packages, usable_cores
from offramp.numerics import PROFILES
from offramp.openmp import GIVEN, SPINS, bound_spinning
from offramp.store.archive import LIBRARIES
from offramp.store.provenance import provenance
from offramp.study.plan import profiles
from offramp.study.plan.profiles import ProfileFile
from offramp.study.run.costs import gpu_of
from offramp.study.tune import BESIDE, MEMORY, SPINNING
from offramp.units import size

EXTRAS = {
    "onnx": ("onnxruntime", "export and run bundles"),
    "hub": ("datasets", "read data sets through Hugging Face"),
    "energy": ("pynvml", "measure a GPU's power"),
}

ELSEWHERE = {  # docs/performance.md
    MEMORY: "on two server cores a step of MobileNetV2 without it took 1.02 to 1.19 times",
    SPINNING: "on two server cores it made a step of MobileNetV2 1.10 times as long",
    BESIDE: "beside a busy process 0.64 times",
}


@dataclass(frozen=True)
class Finding:
    """what: was looked at.  found: there.  remedy: what closes the gap; empty where there is none."""

    what: str
    found: str
    remedy: str = ""


def doctor(as_json: bool) -> None:
    device = devices.chosen()
    findings = [*_versions(device), *_machine(device), *_meters(device)]
    findings += [_profiles(device), *_environment(device), *_extras()]
    if as_json:
        emit({"findings": [asdict(finding) for finding in findings]})
        return
    listing = table(["", "here"])
    for finding in findings:
        listing.add_row(finding.what, finding.found)
    show(listing, "This machine")
    gaps = [finding for finding in findings if finding.remedy]
    if gaps:
        typer.echo("What could be better")
        for finding in gaps:
            typer.echo(f"  {finding.what}: {finding.remedy}.")


def _versions(device: torch.device) -> list[Finding]:
    made = provenance(device)
    libraries = ", ".join(f"{name} {made[name]}" for name in LIBRARIES)
    return [
        Finding("versions", f"{libraries}, Python {made['python']}"),
        Finding("device", f"{made['device']} ({device.type})"),
    ]


def _machine(device: torch.device) -> list[Finding]:
    cores, memory = usable_cores(), psutil.virtual_memory()
    threads = PROFILES[device.type].threads
    found = [Finding("cores", f"{cores} to use, of which one trial takes {min(threads, cores)}")]
    free = f"{size(memory.available)} free of {size(memory.total)}"
    return [*found, Finding("memory", free), _load()]


def _load() -> Finding:
    busy = busy_cores()
    remedy = "times measured now are not comparable; wait until other work is done"
    return Finding("other work", f"{busy:.1f} cores busy", remedy if busy > 0.5 else "")


def _meters(device: torch.device) -> list[Finding]:
    findings = [Finding("time", "yes"), Finding("memory of the process tree", "yes, once a second")]
    packages = find_packages()
    if isinstance(packages, Packages):
        findings.append(Finding("CPU power and energy", f"yes, RAPL: {', '.join(packages.names)}"))
    else:
        findings.append(_gap("CPU power and energy", packages))
    gpu = gpu_of(device)
    if isinstance(gpu, Missing):
        findings.append(_gap("GPU power, energy, memory", gpu))
    else:
        findings.append(Finding("GPU power, energy, memory", _sensors(gpu)))
    return findings


def _sensors(gpu: Gpu) -> str:
    sensors = {"power": gpu.watts(), "energy counter": gpu.joules(), "memory": gpu.memory()}
    return "NVML: " + ", ".join(
        name if value is not None else f"no {name}" for name, value in sensors.items()
    )


def _gap(what: str, missing: Missing) -> Finding:
    return Finding(what, f"no: {missing.reason}", missing.remedy)


def _environment(device: torch.device) -> list[Finding]:
    here = tuned(device)
    kept = "kept for the next use" if keep_freed_memory() else "left to the C library and MALLOC_…"
    return [
        Finding("freed memory", kept + _worth(here, MEMORY)),
        Finding("threads that wait", _waiting() + _worth(here, SPINNING, BESIDE)),
        Finding("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "unset")),
        Finding("OFFRAMP_DATA", os.environ.get("OFFRAMP_DATA", "unset")),
    ]


def _waiting() -> str:
    """How OpenMP's threads wait, and who says so."""
    if bound_spinning():
        return f"spin {SPINS:,} turns, then sleep"
    given = [f"{name}={os.environ[name]}" for name in GIVEN if name in os.environ]
    return f"as you set: {' '.join(given)}" if given else "as the library has it"


def _worth(here: ProfileFile | None, *what: str) -> str:
    """What `--tune` measured of a setting on this machine, else what is documented of it."""
    if here is None:
        return "".join(f"; {ELSEWHERE[one]}" for one in what if one in ELSEWHERE)
    said = []
    for one in what:
        gains = [f"{g.ratio:.2f} ({g.network})" for g in here.measured if g.what == one]
        said += [f"{one}: times {', '.join(gains)}"] if gains else []
    return f"; measured {(here.made or '')[:10]}, {'; '.join(said)}" if said else ""


def tuned(device: torch.device) -> ProfileFile | None:
    """The newest profile of the user's own that was measured on this machine."""
    own = [one for one in profiles.listed().values() if one.machine == machine(device)]
    return own[-1] if own else None


def _profiles(device: torch.device) -> Finding:
    shipped = [name for name, profile in PROFILES.items() if profile.device == device.type]
    own = [name for name, one in profiles.listed().items() if one.profile.device == device.type]
    remedy = "" if own else "to learn what suits this machine: offramp doctor --tune"
    return Finding("numerics profiles", ", ".join([*shipped, *own]), remedy)


def _extras() -> list[Finding]:
    findings = []
    for extra, (module, use) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        remedy = "" if there else f"to {use}: pip install 'offramp[{extra}]'"
        findings.append(Finding(f"extra {extra}", "installed" if there else "not installed", remedy))
    return findings
