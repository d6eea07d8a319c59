"""What this machine has, and which meters work."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.api.answer import answer
from offramp.api.options import Device
from offramp.process import keep_freed_memory
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted, size

if TYPE_CHECKING:
    import torch

    from offramp.meters.meter import Missing


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


def doctor(*, device: Device = None) -> MachineReport:
    """Check this machine, and say how to close each gap.

    It lists versions, device, cores, memory, meters of power and energy, numerics profiles and extras.

    Args:
        device: Where networks would run.

    Raises:
        OfframpError: There is no such device here.

    Example:
        >>> machine = offramp.doctor()
        >>> machine.findings[0].what
        'versions'
    """
    from offramp import device as devices

    chosen = devices.chosen(device)
    findings = [*_versions(chosen), *_machine(chosen), *_meters(chosen)]
    findings += [_profiles(chosen), *_environment(), *_extras(), _runtimes()]
    findings += [*_object_stores(), *_cluster()]
    return MachineReport(findings)


EXTRAS = {
    "onnx": ("onnxruntime", "export and run bundles"),
    "hub": ("datasets", "read data sets through Hugging Face"),
    "energy": ("pynvml", "measure a GPU's power"),
    "ray": ("ray", "train on many machines"),
    "cloud": ("s3fs", "keep a store in an object store"),
    "serve": ("starlette", "serve a bundle over HTTP"),
    "track": ("tensorboard", "show runs in TensorBoard, MLflow or W&B"),
    "search": ("optuna", "search for settings"),
}


ADDRESSES = {"s3://": "s3fs", "gs://": "gcsfs", "az://": "adlfs"}  # and their libraries
SIGNED_IN = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
SIGNED_IN_FILE = Path("~/.aws/credentials")


def _versions(device: torch.device) -> list[Finding]:
    from offramp.store.archive import LIBRARIES
    from offramp.store.provenance import provenance

    facts = provenance(device)
    libraries = ", ".join(f"{name} {getattr(facts, name)}" for name in LIBRARIES)
    return [
        Finding("versions", f"{libraries}, Python {facts.python}"),
        Finding("device", f"{facts.device} ({device.type})"),
        _ranks(device),
    ]


def _ranks(device: torch.device) -> Finding:
    """What one training may be spread over (`execution.devices`), and by which library."""
    import torch.distributed as dist

    from offramp import device as devices

    what = "one training on several devices"
    library = devices.collectives(device)
    if library is None:
        return Finding(what, f"no, torch has no library for it on {device.type}")
    if not (dist.is_available() and dist.is_backend_available(library)):
        return Finding(what, f"no, this torch has no {library}", f"install a torch that has {library}")
    if device.type == "cpu":
        return Finding(what, "processes on this CPU, through gloo: to try it, no faster than one")
    count = devices.count(device)
    return Finding(what, f"{counted(count, 'device')} here, through {library}")


def _machine(device: torch.device) -> list[Finding]:
    import psutil

    from offramp.meters.capacity import usable_cores
    from offramp.numerics import PROFILES

    cores, memory = usable_cores(), psutil.virtual_memory()
    threads = PROFILES[device.type].threads
    free = f"{size(memory.available)} free of {size(memory.total)}"
    return [
        Finding("cores", f"{cores} to use, of which one trial takes {min(threads, cores)}"),
        Finding("memory", free),
        _load(),
    ]


def _load() -> Finding:
    from offramp.meters.capacity import BUSY, busy_cores

    busy = busy_cores()
    remedy = "times measured now are not comparable; wait until other work is done"
    return Finding("other work", f"{busy:.1f} cores busy", remedy if busy > BUSY else "")


def _meters(device: torch.device) -> list[Finding]:
    from offramp.meters.meter import Missing, Packages, find_packages
    from offramp.study.run.costs import gpu_of

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
        sensors = {"power": gpu.watts(), "energy counter": gpu.joules(), "memory": gpu.memory()}
        names = ", ".join(f"no {name}" if value is None else name for name, value in sensors.items())
        findings.append(Finding("GPU power, energy, memory", f"NVML: {names}"))
    return findings


def _gap(what: str, missing: Missing) -> Finding:
    return Finding(what, f"no: {missing.reason}", missing.remedy)


def _environment() -> list[Finding]:
    freed = "kept for the next use" if keep_freed_memory() else "left to the C library and MALLOC_…"
    return [
        Finding("freed memory", freed),
        Finding("threads that wait", _waiting()),
        Finding("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "unset")),
        Finding("OFFRAMP_DATA", os.environ.get("OFFRAMP_DATA", "unset")),
        Finding("OFFRAMP_DEVICE", os.environ.get("OFFRAMP_DEVICE", "unset")),
    ]


def _waiting() -> str:
    """How OpenMP's threads wait, and who says so."""
    from offramp.engine.waiting import SHORT, SPIN_VARIABLES, library

    own = [f"{name}={os.environ[name]}" for name in SPIN_VARIABLES if name in os.environ]
    if own:
        return f"as you set: {' '.join(own)}"
    if library() is None:
        return "as the library has it"
    return f"spin as the library has it, and beside other work {SHORT} turns, then sleep"


def _profiles(device: torch.device) -> Finding:
    from offramp.numerics import PROFILES

    names = [name for name, profile in PROFILES.items() if profile.device == device.type]
    return Finding("numerics profiles", ", ".join(names))


def _extras() -> list[Finding]:
    findings = []
    for extra, (module, use) in EXTRAS.items():
        installed = importlib.util.find_spec(module) is not None
        remedy = "" if installed else f"to {use}: pip install 'offramp[{extra}]'"
        state = "installed" if installed else "not installed"
        findings.append(Finding(f"extra {extra}", state, remedy))
    return findings


def _runtimes() -> Finding:
    """What can run a bundle's stages beside onnxruntime; no gap, since few want any."""
    from offramp.bundle.runtimes import RUNTIMES

    installed = [r.title for r in RUNTIMES.values() if not r.missing]
    return Finding("other runtimes of bundles", ", ".join(installed) or "none installed")


def _object_stores() -> list[Finding]:
    """Object stores that can be used, and their credentials; nothing without a library for one."""
    from offramp.store.cloud import CACHE_SIZE

    kinds = [kind for kind, module in ADDRESSES.items() if importlib.util.find_spec(module)]
    if not kinds:
        return []
    signs_in = any(os.environ.get(name) for name in SIGNED_IN) or SIGNED_IN_FILE.expanduser().exists()
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    here = ", ".join(kinds) + (f" at {server}" if server else "")
    here += "" if signs_in else "; no credentials for s3:// seen"
    remedy = "" if signs_in else "to use s3://, sign in (aws configure), unless this machine's role does"
    most = os.environ.get("OFFRAMP_CACHE_SIZE", CACHE_SIZE)
    return [
        Finding("object stores", here, remedy),
        Finding("object store cache", f"at most {most} (OFFRAMP_CACHE_SIZE)"),
    ]


def _cluster() -> list[Finding]:
    """Ray's version and cluster; nothing where it is not installed."""
    from importlib import metadata

    from offramp.study.run.cluster import TOKEN_FILE, TOKENS, is_safe

    if importlib.util.find_spec("ray") is None:
        return []
    version = metadata.version("ray")
    newer = "lets web pages run code in a cluster (CVE-2025-62593): pip install 'offramp[ray]'"
    ray = Finding("Ray", version, "" if is_safe(version) else newer)
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        return [
            ray,
            Finding("cluster", "none named; --on ray starts Ray here, for this machine alone"),
        ]
    has_token = any(os.environ.get(name) for name in TOKENS) or (Path.home() / TOKEN_FILE).exists()
    safe = os.environ.get("RAY_AUTH_MODE") == "token" and has_token
    remedy = "anyone who reaches it can run anything there: set RAY_AUTH_MODE=token on all its machines"
    here = f"{address} (RAY_ADDRESS), {'with a token' if safe else 'without a token'}"
    return [ray, Finding("cluster", here, "" if safe else remedy)]
