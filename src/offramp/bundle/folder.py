"""A bundle on the disk: which files it has, and how they come to be, all or none."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from offramp.bundle.runtime import SUMS, Bundle, BundleError
from offramp.errors import OfframpError, check_installed
from offramp.files import DOCUMENT, check_writable, folder_at, is_litter, read_regular
from offramp.hashing import file_digest

REQUIREMENTS = "requirements.txt"
PACKAGES = ("numpy", "onnxruntime", "pillow")  # all that a bundle imports
SOURCES = {
    "run.py": "bundle/runtime.py",
    "scoring.py": "policy/scoring.py",
    "preprocessing.py": "preprocessing.py",
}
"""What runs a bundle, and the files here that it is a copy of."""

MEASURE_S = 600.0


def check_runtime() -> None:
    """Raises OfframpError without what runs bundles, an extra."""
    check_installed("a bundle", "onnx", "onnxruntime")


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle; its files are read only when it is opened."""
    return (folder / SUMS).is_file()


def opened(folder: Path, threads: int | None = None, pictures: bool = True) -> Bundle:
    """A bundle, checked and loaded. pictures: whether one that answers none is refused. Raises
    OfframpError without onnxruntime, and for a bundle that is damaged or changed."""
    check_runtime()
    with refusing():
        loaded = Bundle(folder, threads)
        if pictures:
            loaded.check_pictures()
        return loaded


@contextmanager
def refusing() -> Iterator[None]:
    """What a bundle refuses is refused here: its BundleError becomes an OfframpError."""
    try:
        yield
    except BundleError as error:
        raise OfframpError(str(error)) from None


def check_place(
    out: Path,
    force: bool,
    kind: str = "bundle",
    parts: Sequence[str] = ("stages.json", "policy.json", *SOURCES),
) -> None:
    """Check that a bundle, or the page of one, can be written to `out`. Raises OfframpError for a file,
    a link, a folder with something else in it, one in which nothing can be written, or without `force`
    another bundle. parts: files that tell one."""
    if out.is_symlink():
        raise OfframpError(f"{out} is a link, which a {kind} would replace; choose a folder")
    if out.exists() and not out.is_dir():
        raise OfframpError(f"{out} is a file; choose a folder for the {kind}")
    check_writable(out)
    if not out.exists() or all(map(is_litter, out.iterdir())):
        return
    foreign = _foreign(out, parts)
    if foreign is not None:
        raise OfframpError(
            f"{out} holds {foreign}, which is not part of a {kind}; move it away or choose a new folder"
        )
    if not force:
        raise OfframpError(f"{out} holds a {kind} already; choose a new folder, or give `force=True`")


def _foreign(out: Path, parts: Sequence[str]) -> str | None:
    """The first file in a folder that nothing here wrote; replacing the folder would lose it."""
    whole = all((out / name).is_file() for name in (SUMS, *parts))
    lines: list[str] = []
    if whole:
        with suppress(OSError):  # larger than any list
            lines = read_regular(out / SUMS, DOCUMENT).decode(errors="replace").splitlines()
    ours = {SUMS, *(line.partition("  ")[2] for line in lines)}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_symlink() or (name not in ours and not path.is_dir() and not is_litter(path)):
            return name
    return None


@contextmanager
def writing(out: Path, force: bool) -> Iterator[Path]:
    """A folder that becomes `out` when the block succeeds and leaves no trace otherwise. Raises
    OfframpError as `check_place`, also for what was put there meanwhile, and where it cannot be written.
    """
    check_place(out, force)
    try:
        with folder_at(out) as folder:
            yield folder
            check_place(out, force)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OfframpError(f"cannot write the bundle {out} ({reason}); choose another folder") from error


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def copy_sources(folder: Path, runtimes: Sequence[str] = ()) -> None:
    """What runs a bundle, byte by byte as it is here, and which packages that needs, in the versions
    that offramp itself takes. runtimes: other than onnxruntime, whose packages are not among them."""
    ranges = (need.partition(";")[0].strip() for need in requires("offramp") or ())
    packages = sorted({need for need in ranges if re.match(f"({'|'.join(PACKAGES)})\\b", need)})
    (folder / REQUIREMENTS).write_text("\n".join(packages) + "\n", encoding="utf-8")
    here = Path(__file__).parents[1]
    others = {f"on_{runtime}.py": f"bundle/on_{runtime}.py" for runtime in runtimes}
    for name, source in (SOURCES | others).items():
        shutil.copyfile(here / source, folder / name)


def seal(folder: Path) -> None:
    """List every file with its SHA-256, in the form of sha256sum."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / SUMS)
    rows = (f"{file_digest(p)}  {p.relative_to(folder).as_posix()}\n" for p in files)
    (folder / SUMS).write_text("".join(rows), encoding="utf-8")


def measured(folder: Path, runtime: str | None = None) -> Mapping[str, Any]:
    """The times of a sealed bundle's stages, of `run.py --measure` in a process of its own (onnxruntime
    and torch take each other's cores in one); {"reason": …} where they cannot be had."""
    command = [sys.executable, "-B", str(folder / "run.py"), "--measure"]
    command += [] if runtime is None else ["--runtime", runtime]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MEASURE_S, check=True)
    except subprocess.TimeoutExpired:  # what it has said so far is no reason, and bytes
        return {"reason": f"it took over {MEASURE_S / 60:g} minutes"}
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return {"reason": lines[-1] if lines else "it said nothing"}
    times: dict[str, Any] = json.loads(done.stdout)
    return times
