"""What this machine has, and what it lacks."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.api.answer import answer
from offramp.api.options import RUNS, Device, StorePlace
from offramp.errors import OfframpError
from offramp.files import check_writable
from offramp.terminal import TextBlocks, TextTable

if TYPE_CHECKING:
    from offramp.store.place import Place


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
