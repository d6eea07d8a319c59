"""What Linux alone has is missed by no import: everything else of the package may still be of use."""

import subprocess
import sys

import pytest

CODE = """
import importlib, multiprocessing, os, pkgutil, signal, sys
import offramp

lacking = set()  # whose extra is not installed

def all_modules(first=False):
    for module in pkgutil.walk_packages(offramp.__path__, "offramp."):
        if module.name.rpartition(".")[2] in ("__main__", "runtime") or module.name in lacking:
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if not first or error.name.startswith("offramp"):
                raise
            lacking.add(module.name)

all_modules(first=True)  # other packages, which may import what they like
for name in [name for name in sys.modules if name.partition(".")[0] == "offramp"]:
    del sys.modules[name]
for name in ("fcntl", "resource", "grp", "pwd", "termios", "tty", "pty"):
    sys.modules[name] = None
missing = {signal: "pthread_sigmask SIGCHLD SIGHUP", os: "sched_getaffinity getuid fork"}
for module, names in missing.items():
    for name in names.split():
        delattr(module, name)
multiprocessing.get_all_start_methods = lambda: ["spawn"]
EXTRA
import offramp
all_modules()
from offramp.errors import OfframpError
from offramp.meters.capacity import free_addresses, usable_cores
from offramp.report.render.charts import check_room
from offramp.study.plan.caching import cache_folder
from offramp.study.run.processes import server
check_room()
assert cache_folder().name.startswith("offramp-cache-")
assert free_addresses() > 2**40 and usable_cores() >= 1
try:
    server()
except OfframpError as error:
    print(error)
"""


def ran(extra: str = "") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", CODE.replace("EXTRA", extra)]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.long
def test_every_module_is_imported_where_what_is_linux_s_alone_is_missing() -> None:
    answer = ran()
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "WSL" in answer.stdout and len(answer.stdout.splitlines()) == 1
    control = ran("sys.modules['rich.live'] = None")
    assert control.returncode != 0 and "rich.live" in control.stderr
