"""A bundle as a folder of static files: a page that answers images in the browser, by onnxruntime-web.

onnxruntime-web comes from npm, and whoever exports installs it: `npm install onnxruntime-web`. Its files
are copied, so that the page needs no other server.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from offramp.bundle import folder as bundle
from offramp.errors import OfframpError
from offramp.files import folder_at, is_litter, writing
from offramp.units import counted, percent

PACKAGE = "onnxruntime-web"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = ("index.html", "style.css", "app.js", "network.js", "icon.svg")
INSTALL = f"npm install {PACKAGE}"
READERS = ("folder", "table")  # of any images: their names say nothing of the data


def find_runtime(package: Path | None, near: Path) -> Path:
    """The folder `dist` of onnxruntime-web, of an npm package, or of the `node_modules` of a folder or
    one above it, as node looks for it.

    Args:
        package: The npm package's folder; None looks near a folder.
        near: That folder.

    Raises:
        OfframpError: It is not there; says how to get it.
    """
    above = [near, *near.resolve().parents]
    places = [folder / "node_modules" / PACKAGE for folder in above] if package is None else [package]
    for place in places:
        if all((place / "dist" / name).is_file() for name in RUNTIME):
            return place / "dist"
    where = (
        f"{package} has no" if package is not None else f"no folder node_modules from {near} upwards has"
    )
    raise OfframpError(
        f"{where} {PACKAGE} with {', '.join(RUNTIME)}; get it with {INSTALL}, and name its folder by "
        "--onnxruntime-web where that is elsewhere"
    )


def check_place(out: Path, force: bool) -> None:
    """Check that a page can be written to `out`. Raises OfframpError for anything that is there and is
    no page of ours, or without `force` for a page."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OfframpError(f"{out} is not a folder; choose a new folder for the page")
    files = [p for p in out.rglob("*") if p.is_symlink() or not (p.is_dir() or is_litter(p))]
    if not files:
        return
    listed = out / bundle.SUMS
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.is_file() else []
    ours = {bundle.SUMS, *(line.partition("  ")[2] for line in lines)}
    foreign = [path for path in files if path.relative_to(out).as_posix() not in ours]
    if foreign or not {*PAGE, "bundle.json"} <= ours:
        raise OfframpError(f"{out} holds other files than a page's; choose a new folder for the page")
    if not force:
        raise OfframpError(f"{out} holds a page already; choose a new folder, or give --force")


def write(source: Path, out: Path, runtime: Path, force: bool = False) -> None:
    """Write the page of a bundle, whole or not at all.

    Args:
        source: The bundle's folder.
        out: The page's folder.
        runtime: Of `find_runtime`.
        force: Replace a page.

    Raises:
        OfframpError: A page cannot run the bundle, `out` is not free, or it cannot be written.
    """
    check_place(out, force)
    about = _about(source)
    with writing(out), folder_at(out) as folder:
        for name in PAGE:
            page = resources.files(__package__).joinpath("site", name)
            (folder / name).write_bytes(page.read_bytes())
        (folder / "ort").mkdir()
        for name in RUNTIME:
            shutil.copyfile(runtime / name, folder / "ort" / name)
        (folder / "stages").mkdir()
        for stage in about["stages"]:
            shutil.copyfile(source / stage["file"], folder / stage["file"])
        bundle.write_json(folder / "bundle.json", about)
        bundle.seal(folder)
        check_place(out, force)


def _about(source: Path) -> dict[str, Any]:
    """What the page reads of a bundle, which is checked."""
    loaded = bundle.opened(source, threads=1, pictures=False)
    if loaded.normalized:
        raise OfframpError(
            f"{source} takes numbers that were normalized beforehand, and how is not known; a page "
            "answers pictures"
        )
    if loaded.preprocessing.interpolation != "bilinear":
        raise OfframpError(f"{source} resizes by another filter than bilinear, which the page lacks")
    files = {name for name in loaded.files if name.endswith(".onnx.data")}
    if files:
        raise OfframpError(
            f"{source} has weights beside its graphs, too large for a page; export it with --int8"
        )
    layout = json.loads((source / "stages.json").read_text(encoding="utf-8"))
    card = json.loads((source / "card.json").read_text(encoding="utf-8"))
    stages = [
        {
            "file": row["file"],
            "exit": stage.exit,
            "after": stage.after,
            "threshold": stage.threshold,
            "temperature": stage.temperature,
            "gate": stage.gate,
            "macs": stage.macs,
        }
        for row, stage in zip(layout["stages"], loaded.stages, strict=True)
    ]
    test = card["test"]
    name, data = card["network"]["backbone"], _data(card["data"], len(loaded.labels))
    bytes_ = sum((source / row["file"]).stat().st_size for row in layout["stages"])
    return {
        "title": f"{name} with early exits, on {data}",
        "about": (
            f"{len(loaded.labels)} classes, {counted(len(stages), 'exit')}. An image leaves at the "
            "first exit that is sure enough of it; what comes after is not computed."
        ),
        "footer": (
            f"On {test['images']:,} test images: {percent(test['accuracy']['value'])} right at "
            f"{100 * test['mean_macs'] / layout['plain_macs']:.0f} % of the computation; the full "
            f"network {percent(test['full_accuracy']['value'])}. {loaded.precision}, "
            f"{bytes_ / 1e6:.1f} MB. Trial {card['trial']}."
        ),
        "unreliable": list(loaded.unreliable),
        "labels": list(loaded.labels),
        "score": loaded.score,
        "carry": loaded.carry,
        "plain_macs": layout["plain_macs"],
        "preprocessing": loaded.preprocessing.as_json(),
        "stages": stages,
    }


def _data(data: Mapping[str, Any], classes: int) -> str:
    """The name of the images. data: of a card.

    >>> _data({"name": "folder", "provenance": {"root": "pictures/photos"}}, 10)
    'photos'
    """
    if data["name"] not in READERS:
        return str(data["name"])
    provenance = data.get("provenance", {})
    own = (
        "" if "url" in provenance else Path(provenance.get("root", "")).name
    )  # what was fetched lies under a hash
    return own or f"{classes} classes of images"
