"""A bundle as a folder of static files: a page that answers images in the browser, by onnxruntime-web.

onnxruntime-web comes from npm, and whoever exports installs it: `npm install onnxruntime-web`. Its files
are copied, so that the page needs no other server.
"""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from offramp.bundle import folder as bundle
from offramp.bundle.card import data_title
from offramp.errors import OfframpError
from offramp.files import folder_at, writing
from offramp.units import counted, percent

PACKAGE = "onnxruntime-web"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = ("index.html", "style.css", "app.js", "network.js", "icon.svg")
OF_STAGE = ("exit", "after", "threshold", "temperature", "gate", "macs")
INSTALL = f"npm install {PACKAGE}"


def find_runtime(package: Path | None, near: Path) -> Path:
    """The folder `dist` of onnxruntime-web, of the npm `package` given, or of the `node_modules` of
    `near` or of a folder above it, as node looks for it. Raises OfframpError where it is not, with how
    to get it."""
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
    """Check that a page can be written to `out`, as a bundle could."""
    bundle.check_place(out, force, "page", (*PAGE, "bundle.json"))


def write(source: Path, out: Path, runtime: Path, force: bool = False) -> None:
    """Write the page of a bundle, whole or not at all. runtime: of `find_runtime`. Raises OfframpError
    for a bundle that a page cannot run, and where `out` is not free or cannot be written."""
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
    if loaded.several:
        raise OfframpError(
            f"{source} answers several labels an image, and the page shows one class; run.py, the "
            "server and predict answer with all labels"
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
        {"file": row["file"], **{name: getattr(stage, name) for name in OF_STAGE}}
        for row, stage in zip(layout["stages"], loaded.stages, strict=True)
    ]
    test = card["test"]
    bytes_ = sum((source / row["file"]).stat().st_size for row in layout["stages"])
    return {
        "title": f"{card['network']['backbone']} with early exits, on {data_title(card)}",
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
