"""Power, energy and memory of one NVIDIA GPU, through NVIDIA's own NVML binding (nvidia-ml-py)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from offramp.meters.missing import Missing

NO_GPU = "this runs on no GPU"
Nvml = Any  # the module pynvml, or one with its functions


class Gpu:
    """One GPU. What it has no sensor for is None."""

    def __init__(self, nvml: Nvml, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._first = self._millijoules()

    def joules(self) -> float | None:
        """Joules since this was made."""
        now = self._millijoules()
        return None if now is None or self._first is None else (now - self._first) / 1e3

    def watts(self) -> float | None:
        found = self._told(self._nvml.nvmlDeviceGetPowerUsage)
        return None if found is None else float(found) / 1e3

    def memory(self) -> int | None:
        """Bytes in use on the GPU, by every process."""
        found = self._told(self._nvml.nvmlDeviceGetMemoryInfo)
        return None if found is None else int(found.used)

    def _millijoules(self) -> int | None:
        found = self._told(self._nvml.nvmlDeviceGetTotalEnergyConsumption)  # not by GPUs before Volta
        return None if found is None else int(found)

    def _told(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return ask(self._handle)
        except self._nvml.NVMLError:
            return None


def find_gpu(uuid: str | None, nvml: Nvml | None = None) -> Gpu | Missing:
    """The GPU of this UUID (None: the run uses none)."""
    if uuid is None:
        return Missing(NO_GPU)
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return Missing(
                "NVIDIA's management library has no Python binding here",
                "install it with: pip install 'offramp[energy]'",
            )
    try:
        nvml.nvmlInit()
        return Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError as error:
        return Missing(f"NVML does not answer ({error})", "check that nvidia-smi works here")
