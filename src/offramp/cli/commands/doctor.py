"""`offramp doctor`: what this machine has, which meters work, what settings are worth here."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli.options import DeviceOption, JsonOption, flag, option
from offramp.cli.render import emit, say
from offramp.errors import OfframpError
from offramp.files import writing
from offramp.process import SPIN_VARIABLES, SPINS, bound_spinning, keep_freed_memory
from offramp.terminal import show, table
from offramp.units import counted, size

if TYPE_CHECKING:
    import torch

    from offramp.meters import Missing
    from offramp.study.plan.profiles import Gain, ProfileFile


def doctor(
    tune: Annotated[
        bool, flag("--tune", "Measure this machine (about two minutes) and write a numerics profile.")
    ] = False,
    name: Annotated[
        str | None, option("NAME", "With --tune: the profile's name.  [default: tuned]")
    ] = None,
    out: Annotated[Path | None, option("FILE", "With --tune: write the profile to this file.")] = None,
    anyway: Annotated[
        bool, flag("--anyway", "With --tune: measure even if the machine is busy.")
    ] = False,
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Check this machine, and say how to close each gap.

    It lists versions, device, cores, memory, meters of power and energy, numerics profiles and extras.

    Which settings are fast here? --tune times training steps of three networks with other threads,
    memory formats and precisions, two trials at once, and other ways for OpenMP to wait. It writes a
    numerics profile. A study uses it only with numerics: NAME, or numerics: FILE.

    \b
    Examples:
      offramp doctor --tune
      offramp run demo.yaml --set numerics=tuned
    """
    from offramp import device as devices

    if tune:
        _tune(devices.chosen(device), name or "tuned", out, anyway, json)
    elif name is not None or out is not None or anyway:
        raise OfframpError("--name, --out and --anyway are for measuring; add --tune")
    else:
        _doctor(devices.chosen(device), json)


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


@dataclass(frozen=True)
class Finding:
    """what: the thing that was checked.  found: what is here.  remedy: for a gap; empty without one."""

    what: str
    found: str
    remedy: str = ""


def _doctor(device: torch.device, as_json: bool) -> None:
    findings = [*_versions(device), *_machine(device), *_meters(device)]
    findings += [_profiles(device), *_environment(device), *_extras(), *_object_stores(), *_cluster()]
    if as_json:
        emit({"findings": [asdict(finding) for finding in findings]})
        return
    show(table(["", "here"], rows=[(f.what, f.found) for f in findings]), "This machine")
    gaps = [finding for finding in findings if finding.remedy]
    if gaps:
        typer.echo("What could be better")
        for finding in gaps:
            say(f"  {finding.what}: {finding.remedy}.", indent="    ")


def _versions(device: torch.device) -> list[Finding]:
    from offramp.store.archive import LIBRARIES
    from offramp.store.provenance import provenance

    made = provenance(device)
    libraries = ", ".join(f"{name} {getattr(made, name)}" for name in LIBRARIES)
    return [
        Finding("versions", f"{libraries}, Python {made.python}"),
        Finding("device", f"{made.device} ({device.type})"),
        _ranks(device),
    ]


def _ranks(device: torch.device) -> Finding:
    """What one training may be spread over (`execution.devices`), and by which library."""
    import torch.distributed as dist

    from offramp import device as devices

    what = "one training on several devices"
    library = devices.collectives(device)
    if not (dist.is_available() and dist.is_backend_available(library)):
        return Finding(what, f"no, this torch has no {library}", f"install a torch that has {library}")
    if device.type == "cpu":
        return Finding(what, "processes on this CPU, through gloo: to try it, no faster than one")
    count = devices.count(device)
    return Finding(what, f"{counted(count, 'device')} here, through {library}")


def _machine(device: torch.device) -> list[Finding]:
    import psutil

    from offramp.meters import usable_cores
    from offramp.numerics import PROFILES

    cores, memory = usable_cores(), psutil.virtual_memory()
    threads = PROFILES[device.type].threads
    found = [Finding("cores", f"{cores} to use, of which one trial takes {min(threads, cores)}")]
    free = f"{size(memory.available)} free of {size(memory.total)}"
    return [*found, Finding("memory", free), _load()]


def _load() -> Finding:
    from offramp.meters import BUSY, busy_cores

    busy = busy_cores()
    remedy = "times measured now are not comparable; wait until other work is done"
    return Finding("other work", f"{busy:.1f} cores busy", remedy if busy > BUSY else "")


def _meters(device: torch.device) -> list[Finding]:
    from offramp.meters import Missing, Packages, find_packages
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
        told = ", ".join(f"no {name}" if value is None else name for name, value in sensors.items())
        findings.append(Finding("GPU power, energy, memory", f"NVML: {told}"))
    return findings


def _gap(what: str, missing: Missing) -> Finding:
    return Finding(what, f"no: {missing.reason}", missing.remedy)


def _environment(device: torch.device) -> list[Finding]:
    from offramp.study.tune import BESIDE, MEMORY, SPINNING

    here = tuned(device)
    kept = "kept for the next use" if keep_freed_memory() else "left to the C library and MALLOC_…"
    return [
        Finding("freed memory", kept + _worth(here, MEMORY)),
        Finding("threads that wait", _waiting() + _worth(here, SPINNING, BESIDE)),
        Finding("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "unset")),
        Finding("OFFRAMP_DATA", os.environ.get("OFFRAMP_DATA", "unset")),
        Finding("OFFRAMP_DEVICE", os.environ.get("OFFRAMP_DEVICE", "unset")),
    ]


def _waiting() -> str:
    """How OpenMP's threads wait, and who says so."""
    if bound_spinning():
        return f"spin {SPINS:,} turns, then sleep"
    given = [f"{name}={os.environ[name]}" for name in SPIN_VARIABLES if name in os.environ]
    return f"as you set: {' '.join(given)}" if given else "as the library has it"


def _worth(here: ProfileFile | None, *what: str) -> str:
    """What `--tune` measured of a setting on this machine, else what is documented of it."""
    from offramp.study.tune import BESIDE, MEMORY, SPINNING

    elsewhere = {  # docs/performance.md
        MEMORY: "on two server cores a step of MobileNetV2 took 1.02 to 1.19 times as long without it",
        SPINNING: "on two server cores it made a step of MobileNetV2 1.10 times as long",
        BESIDE: "beside a busy process 0.64 times as long",
    }
    if here is None:
        return "".join(f"; {elsewhere[one]}" for one in what if one in elsewhere)
    said = []
    for one in what:
        gains = [f"{g.ratio:.2f} ({g.network})" for g in here.measured if g.what == one]
        said += [f"{one}: times {', '.join(gains)}"] if gains else []
    return f"; measured {(here.made or '')[:10]}, {'; '.join(said)}" if said else ""


def tuned(device: torch.device) -> ProfileFile | None:
    """The newest profile of the user's own that was measured on this machine."""
    from offramp.study.plan import profiles

    own = [one for one in profiles.listed().values() if one.machine == machine(device)]
    return own[-1] if own else None


def _profiles(device: torch.device) -> Finding:
    from offramp.numerics import PROFILES
    from offramp.study.plan import profiles

    shipped = [name for name, profile in PROFILES.items() if profile.device == device.type]
    own = [name for name, one in profiles.listed().items() if one.numerics.device == device.type]
    remedy = "" if own else "to learn what suits this machine: offramp doctor --tune"
    return Finding("numerics profiles", ", ".join([*shipped, *own]), remedy)


def _extras() -> list[Finding]:
    findings = []
    for extra, (module, use) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        remedy = "" if there else f"to {use}: pip install 'offramp[{extra}]'"
        findings.append(Finding(f"extra {extra}", "installed" if there else "not installed", remedy))
    return findings


def _object_stores() -> list[Finding]:
    """Object stores that can be used, and their credentials; nothing without a library for one."""
    from offramp.store.local_cache import USUAL

    kinds = [kind for kind, module in ADDRESSES.items() if importlib.util.find_spec(module)]
    if not kinds:
        return []
    signs_in = any(os.environ.get(name) for name in SIGNED_IN) or SIGNED_IN_FILE.expanduser().exists()
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    said = ", ".join(kinds) + (f" at {server}" if server else "")
    said += "" if signs_in else "; no credentials for s3:// seen"
    remedy = "" if signs_in else "to use s3://, sign in (aws configure), unless this machine's role does"
    kept = os.environ.get("OFFRAMP_CACHE_SIZE", USUAL)
    return [
        Finding("object stores", said, remedy),
        Finding("object store cache", f"at most {kept} (OFFRAMP_CACHE_SIZE)"),
    ]


def _cluster() -> list[Finding]:
    """Ray's version and cluster; nothing where it is not installed."""
    from importlib import metadata

    from offramp.study.run.cluster import TOKEN_FILE, TOKENS, is_safe

    if importlib.util.find_spec("ray") is None:
        return []
    version = metadata.version("ray")
    newer = "lets web pages run code in a cluster (CVE-2025-62593): pip install 'offramp[ray]'"
    found = [Finding("Ray", version, "" if is_safe(version) else newer)]
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        return [
            *found,
            Finding("cluster", "none named; --on ray starts Ray here, for this machine alone"),
        ]
    given = any(os.environ.get(name) for name in TOKENS) or (Path.home() / TOKEN_FILE).exists()
    safe = os.environ.get("RAY_AUTH_MODE") == "token" and given
    remedy = "anyone who reaches it can run anything there: set RAY_AUTH_MODE=token on all its machines"
    said = f"{address} (RAY_ADDRESS), {'with a token' if safe else 'without a token'}"
    return [*found, Finding("cluster", said, "" if safe else remedy)]


def _tune(device: torch.device, name: str, out: Path | None, anyway: bool, as_json: bool) -> None:
    """Measure, show, write. Raises OfframpError for a name that is taken, and on a busy machine."""
    from offramp.meters import BUSY, busy_cores
    from offramp.study import tune as tuner
    from offramp.study.plan import profiles
    from offramp.study.plan.profiles import ProfileFile

    path = profiles.place(name, out)
    _check_writable(path)
    busy = busy_cores()
    if busy > BUSY and not anyway:
        raise OfframpError(
            f"other programs use {busy:.1f} cores of this machine, so times measured now would "
            "mislead; try again when they are done, or give --anyway"
        )
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
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def machine(device: torch.device) -> str:
    """This machine, as a profile remembers it."""
    from offramp.store.provenance import provenance

    known = provenance(device)
    return f"{known.device}, {known.cores} cores"


def _measured(device: str, quiet: bool) -> list[Gain]:
    from offramp.meters import usable_cores
    from offramp.study import tune as tuner
    from offramp.study.plan.profiles import Gain

    gains = []
    for event in tuner.measure(device, usable_cores()):
        if isinstance(event, Gain):
            gains.append(event)
        elif not quiet:
            typer.echo(f"[{event.number}/{event.of}] {event.what}", err=True)
    return gains


def _show(gains: Sequence[Gain]) -> None:
    networks = list(dict.fromkeys(gain.network for gain in gains))
    rows = []
    for what in dict.fromkeys(gain.what for gain in gains):
        ratios = {gain.network: f"{gain.ratio:.2f}" for gain in gains if gain.what == what}
        rows.append((what, *(ratios.get(network, "") for network in networks)))
    show(table(["how many times faster a training step is"], networks, rows), "Speed here")


def _conclude(made: ProfileFile, asked_as: str, path: Path) -> None:
    from offramp.numerics import CUSTOM

    profile = made.numerics
    threads = counted(profile.threads, "thread")
    same = "" if profile.name == CUSTOM else f" It is the same as '{profile.name}', so keys are too."
    typer.echo(
        f"Profile {path}: {threads} a trial, {profile.precision}.{same}\n"
        f"A study asks for it with numerics: {asked_as} (or --set numerics={asked_as}). "
        "No default has changed.\n"
        "Lower precision is not chosen for you. To have it: numerics: "
        f"{profile.device}-bf16, or precision: bfloat16 in the file."
    )
