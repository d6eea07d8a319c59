"""OpenMP's threads wait long on a quiet machine and short beside other work, whenever torch came.
What the user set stays. Told by the processor time of threads that wait, which differs a hundredfold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from offramp.engine.waiting import SPIN_VARIABLES, LoadSample, crowded, load

LIBRARY = next((Path(torch.__file__).parent / "lib").glob("libgomp*"), None)
with_openmp = pytest.mark.skipif(
    LIBRARY is None or (os.cpu_count() or 1) < 2, reason="no GNU OpenMP, or no second core"
)
COST = f"""
import ctypes, json, os, threading, time
from pathlib import Path
from offramp.engine import waiting
LIBRARY = Path({str(LIBRARY)!r})
gomp = ctypes.CDLL(str(LIBRARY))  # as torch loads it, in a hundredth of the time
nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)

def cost():
    "Seconds of the processor for a piece of parallel work that is nothing, and the wait behind it."
    gomp.GOMP_parallel(nothing, None, 2, 0)
    began = time.process_time()
    for _ in range(20):
        gomp.GOMP_parallel(nothing, None, 2, 0)
        time.sleep(0.01)
    return (time.process_time() - began) / 20

"""
STATES = """
busy = threading.Event()
looks = threading.Semaphore(0)
at = [0.0, 0.0]
def sample():
    "A machine whose other work is as the test says, a second a look."
    at[0] += 1.0
    at[1] += busy.is_set() * os.cpu_count()
    looks.release()
    return waiting.LoadSample(at[0], at[1], 0.0)

def settled():
    "Two whole looks from now on: what the first one saw has happened."
    while looks.acquire(blocking=False): pass
    for _ in range(3): looks.acquire()

costs = []
with waiting.waits_by_load(2, sample, pause=0.01):
    for state in (False, True, False):
        busy.set() if state else busy.clear()
        settled()
        costs.append(cost())
    busy.set()
    settled()
costs.append(cost())
print(json.dumps([costs, threading.active_count()]))
"""


def ran(code: str, **variables: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in SPIN_VARIABLES}
    words = [sys.executable, "-c", code]
    return subprocess.run(
        words, env={**clean, **variables}, capture_output=True, text=True, check=True
    ).stdout


@with_openmp
def test_threads_wait_by_what_others_leave_of_the_machine() -> None:
    (quiet, beside, again, after), threads = json.loads(ran(COST + STATES))
    assert min(quiet, again, after) > 8 * beside
    assert threads == 1  # none is left


@with_openmp
@pytest.mark.parametrize("variables", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "200000"}])
def test_what_the_user_set_stays(variables: dict[str, str]) -> None:
    code = COST + "with waiting.waits_by_load(2, pause=0.01): print(threading.active_count())"
    assert ran(code, **variables) == "1\n" and ran(code) == "2\n"


@pytest.mark.long
@with_openmp
@pytest.mark.parametrize("first", ["import offramp, torch", "import torch, offramp"])
def test_training_from_python_has_its_threads_wait_so(first: str, tmp_path: Path) -> None:
    """Whether torch was imported before or after: a machine that is full has them wait short."""
    code = f"""
import json, threading
{first}
from offramp.engine import waiting
used = []
usual = waiting.short_waits
def noted(path):
    used.append(path.name)
    return usual(path)
waiting.short_waits = noted
waiting.crowded = lambda *_: True
waiting.LOOK_S = 0.01
study = {{"seeds": [1], "strategies": ["baseline"], "backbone": "digits-cnn",
         "data": {{"name": "digits", "train_images": 400}}, "recipe": {{"epochs": 30}}}}
offramp.run(study, store={str(tmp_path / "store")!r})
print(json.dumps(used))
"""
    assert [name.split(".")[0] for name in json.loads(ran(code))] == ["libgomp"]


def test_without_room_for_threads_nothing_is_started() -> None:
    """A library that cannot start a thread ends the process."""
    code = COST + (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20, -1)); "
        "waiting.os.cpu_count = lambda: 200\n"
        "with waiting.short_waits(LIBRARY): print(threading.active_count())"
    )
    if LIBRARY is not None:
        assert ran(code) == "1\n"


@pytest.mark.parametrize(
    ("others", "threads", "cores", "short"),
    [
        (0.0, 2, 2, False),
        (0.2, 2, 2, False),  # a desktop that does little
        (1.0, 2, 2, True),
        (1.0, 1, 2, False),  # one thread waits for none
        (6.0, 2, 8, False),  # three more workers
        (7.0, 2, 8, True),
        (1.0, 64, 64, True),
    ],
)
def test_short_waits_are_for_a_machine_that_is_full(
    others: float, threads: int, cores: int, short: bool
) -> None:
    assert crowded(others, threads, cores) is short


def test_what_others_use_is_what_this_process_does_not() -> None:
    before = LoadSample(10.0, 100.0, 50.0)
    assert LoadSample(12.0, 104.0, 53.0).others(before) == 0.5
    assert LoadSample(12.0, 102.0, 53.0).others(before) == 0.0  # clocks that tick differently
    assert LoadSample(10.0, 104.0, 50.0).others(before) == 0.0
    first, then = load(), load()
    assert then.cores >= first.cores > 0 and then.own > first.own and then.clock > first.clock
