"""What each dependency costs, as a table for docs/decisions/dependencies.md: python docs/costs.py

MB are of installed files: a library's own, and with all that it alone brings. Seconds are those of its
import in a new process, the best of three, with what it imports; they overlap.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution

MODULES = {
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "vl-convert-python": "vl_convert",
}
NAME = re.compile(r"[A-Za-z0-9._-]+")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needs(name: str) -> list[str]:
    """What a library requires by itself, of what is installed."""
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:
        return []
    return [plain(name[0]) for line in lines if "extra ==" not in line and (name := NAME.match(line))]


def closure(names: Iterable[str]) -> set[str]:
    """These and all that they require."""
    closed: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := waiting.pop()) not in closed:
            closed.add(name)
            waiting += needs(name)
    return closed


def size(name: str) -> int:
    """Bytes of a library's installed files."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return 0
    places = (file.locate() for file in files)
    return sum(place.stat().st_size for place in places if place.is_file())  # type: ignore[union-attr]


def seconds(module: str) -> float:
    code = (
        f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    )
    runs = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(3)
    )
    return min(float(run.stdout) for run in runs)


def main() -> None:
    direct = needs("offramp")
    whole = sum(map(size, closure(direct)))
    print("| library | MB | with what it alone brings | import, s |\n|---|---|---|---|")
    rows = []
    for name in direct:
        others = closure(other for other in direct if other != name)
        rows.append((sum(map(size, closure([name]) - others)), name))
    for alone, name in sorted(rows, reverse=True):
        module = MODULES.get(name, name.replace("-", "_"))
        print(f"| {name} | {size(name) / 1e6:.1f} | {alone / 1e6:.1f} | {seconds(module):.2f} |")
    print(f"| all | {whole / 1e6:,.0f} | | {seconds('offramp'):.2f} (`import offramp`) |")


if __name__ == "__main__":
    main()
