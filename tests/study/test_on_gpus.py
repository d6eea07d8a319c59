"""What only GPUs can show: ranks on devices of their own, through NCCL. Skipped where there are none."""

from pathlib import Path
from typing import Any

import pytest
import torch

from offramp.engine.settings import applied
from offramp.numerics import profile
from offramp.store.store import Store
from offramp.study.plan.caching import cache_folder
from offramp.study.plan.plan import make_plan
from offramp.study.run.events import Event, Failed
from offramp.study.run.processes import run_pooled
from offramp.study.run.run import RunConfig
from offramp.study.spec import file as spec

HERE = torch.cuda.device_count() if torch.cuda.is_available() else 0
one_gpu = pytest.mark.skipif(HERE < 1, reason="no GPU is here")
two_gpus = pytest.mark.skipif(HERE < 2, reason=f"two GPUs are needed, and {HERE} are here")


def trained(folder: Path, **changes: Any) -> dict[str, bytes]:
    """Bytes of the weights of all phases, by key."""
    study = {
        "seeds": [42],
        "strategies": ["joint-branch", "distillation"],
        "backbone": "digits-cnn",
        "data": "digits",
        "recipe": {"epochs": 2},
        **changes,
    }
    cuda, store = torch.device("cuda"), Store(folder)
    events: list[Event] = list(
        run_pooled(make_plan(spec.parse(study), cuda), store, RunConfig(cuda, cache_folder(), 1e9))
    )
    assert not [event for event in events if isinstance(event, Failed)]
    return {key: (folder / "nodes" / key / "weights.safetensors").read_bytes() for key in store.nodes()}


@one_gpu
@pytest.mark.parametrize("numerics", ["default", "cuda-bf16", "cuda-tf32"])
def test_a_gpu_repeats_itself_to_the_bit(tmp_path: Path, numerics: str) -> None:
    first = trained(tmp_path / "1", numerics=numerics)
    assert first and first == trained(tmp_path / "2", numerics=numerics)


@one_gpu
def test_no_step_waits_for_the_gpu(tmp_path: Path) -> None:
    """As `test_elsewhere` shows on `meta`; here torch itself watches."""
    with applied(profile("default", "cuda")):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning, match="synchronizing CUDA operation") as seen:
                trained(tmp_path)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not [w for w in seen if Path(w.filename).name in ("trainee.py", "losses.py", "norms.py")]


@two_gpus
def test_two_gpus_repeat_themselves_to_the_bit(tmp_path: Path) -> None:
    first = trained(tmp_path / "1", execution={"devices": 2})
    assert first and first == trained(tmp_path / "2", execution={"devices": 2})
