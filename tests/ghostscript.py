"""An EPS, which Pillow would give to Ghostscript, and a Ghostscript that leaves a mark."""

import os
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def trap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `gs` first on PATH. Returns the file that it makes whenever it is started, which is proven
    here: Pillow, left to itself, starts it."""
    tools, mark = folder / "tools", folder / "started"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\necho started > '{mark}'\nexit 1\n")
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once
    (folder / "proof.png").write_bytes(EPS)
    with pytest.raises(Exception), Image.open(folder / "proof.png") as image:  # noqa: B017
        image.load()
    assert mark.exists()
    mark.unlink()
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark
