"""The device is the one that is asked for, and what is drawn leaves the generators as they were."""

import pytest
import torch
from torch import nn

from offramp import device as devices
from offramp.device import chosen, seeded
from offramp.nets import NetSpec, attach, build
from offramp.nets.network import redrawn
from offramp.study.plan.plan import numerics_named
from wording import refusal


class FakeCuda:
    """Two devices, each with a generator whose state is the seed it was given last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, initialized: bool) -> None:
        self.states = [torch.tensor([n]) for n in (11, 12)]
        for name, fake in {
            "is_initialized": lambda: initialized,
            "_is_in_bad_fork": lambda: False,
            "device_count": lambda: 2,
            "get_rng_state": self.read,
            "set_rng_state": self.write,
            "manual_seed_all": self.seed_all,
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        self.reads = 0

    def read(self, device: int | torch.device) -> torch.Tensor:
        self.reads += 1
        return self.states[torch.device("cuda", device).index if isinstance(device, int) else 0]

    def write(self, state: torch.Tensor, device: int | torch.device) -> None:
        self.states[device if isinstance(device, int) else 0] = state

    def seed_all(self, seed: int) -> None:
        self.states = [torch.tensor([seed])] * 2

    @property
    def seeds(self) -> list[int]:
        return [int(state) for state in self.states]


def test_draws_put_the_generators_of_every_device_back(monkeypatch):
    cuda = FakeCuda(monkeypatch, initialized=True)
    with seeded(7):
        assert cuda.seeds == [7, 7]
    assert cuda.seeds == [11, 12]
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10)
    )
    before = torch.get_rng_state()
    for make in (
        lambda: redrawn(build(NetSpec("digits-cnn"), (1, 8, 8), 10, seed=1), 2),
        lambda: attach(module, ["0"], (1, 8, 8)),
    ):
        make()
        assert cuda.seeds == [11, 12]
        assert torch.equal(torch.get_rng_state(), before)


def test_draws_do_not_start_cuda(monkeypatch):
    cuda = FakeCuda(monkeypatch, initialized=False)
    with seeded(7):
        numbers = torch.rand(3)
    assert cuda.reads == 0
    with seeded(7):
        assert torch.equal(torch.rand(3), numbers)
    with seeded(8):
        assert not torch.equal(torch.rand(3), numbers)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_an_argument_goes_before_the_environment_and_that_before_what_is_there(monkeypatch):
    monkeypatch.delenv("OFFRAMP_DEVICE", raising=False)
    assert chosen() == torch.device("cuda")
    monkeypatch.setenv("OFFRAMP_DEVICE", "cpu")
    assert chosen() == torch.device("cpu")
    assert chosen("cuda:1") == chosen(torch.device("cuda:1")) == torch.device("cuda:1")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["cudda", "cuda:2", "cuda:", "CPU"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(monkeypatch, name, snapshot):
    assert refusal(chosen, name) == snapshot
    monkeypatch.setenv("OFFRAMP_DEVICE", name)
    assert refusal(chosen) == snapshot


def test_without_an_accelerator_it_is_the_cpu(monkeypatch, snapshot):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("OFFRAMP_DEVICE", raising=False)
    device = chosen()
    assert device.type == "cpu" and devices.name(device)
    assert devices.free_memory(device) is devices.peak_memory(device) is None
    assert devices.nvidia_uuid(device) is None
    assert refusal(chosen, "gpu") == snapshot


@pytest.fixture
def mac(monkeypatch):
    """A Mac's GPU, with the functions that torch's module of it has, and no others."""
    calls = []
    fakes = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "synchronize": lambda: calls.append("synchronize"),
        "manual_seed": lambda seed: calls.append(seed),
        "get_rng_state": lambda _="mps": torch.tensor([calls.count("drawn")]),
        "set_rng_state": lambda state, _="mps": calls.append(("put back", int(state))),
        "recommended_max_memory": lambda: 100,
        "driver_allocated_memory": lambda: 30,
    }
    for name, fake in fakes.items():
        assert hasattr(torch.mps, name)
        monkeypatch.setattr(torch.mps, name, fake)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("OFFRAMP_DEVICE", raising=False)
    return calls


def test_the_gpu_of_a_mac_is_a_device_that_has_to_be_named(mac, monkeypatch, snapshot):
    assert chosen() == torch.device("cpu")  # where nobody has tried it
    device = chosen("mps")
    monkeypatch.setenv("OFFRAMP_DEVICE", "mps")
    assert chosen() == device == torch.device("mps")
    assert refusal(chosen, "cuda") == snapshot
    assert devices.count(device) == 1 and devices.spread(device, 2) == [torch.device("mps", 0)] * 2
    assert refusal(devices.several, device, 2) == snapshot
    assert devices.collectives(device) is None and devices.nvidia_uuid(device) is None
    assert refusal(devices.elsewhere, "mps", "cpu") == snapshot
    devices.synchronize(device)
    devices.reseed(7)
    assert mac == ["synchronize", 7]
    assert devices.free_memory(device) == 70 and devices.peak_memory(device) is None
    assert devices.name.__wrapped__(device) == "Apple M3"
    assert devices.arithmetic(device) == devices.Arithmetic()
    cpu, own = devices.random_state(device)
    assert torch.equal(cpu, torch.get_rng_state()) and own == 0
    with devices.random_state_restored(device):
        mac.append("drawn")
    with seeded(3):
        mac.append("drawn")
    assert [call for call in mac if isinstance(call, tuple)] == [("put back", 0), ("put back", 1)]


@pytest.mark.usefixtures("mac")
def test_a_mac_computes_as_a_plain_loop_does():
    """Its numerics: weights in order, and torch's own loop over them (docs/decisions/numerics.md)."""
    exact, soon = (numerics_named(name, torch.device("mps")) for name in ("exact", "fast"))
    for numerics in (exact, soon):
        assert (numerics.memory_format, numerics.fused_optimizer) == ("contiguous", False)
        assert (numerics.precision, numerics.tf32) == ("float32", False)
    assert exact.deterministic and not soon.deterministic


def test_of_a_cluster_a_class_of_devices_is_chosen(monkeypatch, snapshot):
    monkeypatch.delenv("OFFRAMP_DEVICE", raising=False)
    assert devices.elsewhere(None, "cuda") == torch.device("cuda")
    monkeypatch.setenv("OFFRAMP_DEVICE", "cpu")
    assert devices.elsewhere(None, "cuda") == torch.device("cpu")
    assert devices.elsewhere("cuda", "cpu") == torch.device("cuda")
    for name in ("gpu", "cuda:1", "tpu"):
        assert refusal(devices.elsewhere, name, "cuda") == snapshot
        monkeypatch.setenv("OFFRAMP_DEVICE", name)
        assert refusal(devices.elsewhere, None, "cuda") == snapshot


def test_processes_are_spread_over_the_devices_that_are_here(monkeypatch, snapshot):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    every, second, cpu = torch.device("cuda"), torch.device("cuda:1"), torch.device("cpu")
    assert [str(d) for d in devices.spread(every, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices.spread(every, 1) == [every] and devices.spread(second, 2) == [second, second]
    assert devices.spread(cpu, 2) == devices.several(cpu, 2) == [cpu, cpu]
    assert [str(d) for d in devices.several(every, 2)] == ["cuda:0", "cuda:1"]
    assert [str(d) for d in devices.several(every, 1)] == ["cuda:0"]
    assert devices.several(second, 1) == [second]
    for place, number in ((every, 3), (second, 2)):
        assert refusal(devices.several, place, number) == snapshot


def test_torchrun_says_which_process_this_is(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert devices.launched() is None
    variables = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (variables | {"TORCHELASTIC_RUN_ID": "x"}).items():
        monkeypatch.setenv(name, value)
    assert devices.launched() == devices.Launched(3, 4, 1, 2)
