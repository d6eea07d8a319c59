"""PyTorch's names with an underscore: only those that `offramp/nets/__init__.py` lists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from offramp import nets

FOLDER = Path(nets.__file__).parent


def private_names(text: str) -> set[str]:
    """Attributes, methods and modules with one underscore that the text reads or overrides, but for
    those that it defines or sets itself."""
    tree = ast.parse(text)
    own, read = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self"
            (own if is_own else read).add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            read |= set((node.module or "").split("."))
        elif isinstance(node, ast.alias):
            read |= set(node.name.split("."))
    return {name for name in read - own if re.match("_[^_]", name)}


def test_private_names_of_pytorch_are_listed() -> None:
    listed = set(re.findall(r"\b_[a-z]\w+", (FOLDER / "__init__.py").read_text()))
    files = {path.name: private_names(path.read_text()) for path in FOLDER.rglob("*.py")}
    assert {name: names - listed for name, names in files.items() if names - listed} == {}
    assert set().union(*files.values()) >= {"_buffers", "_version", "_python_dispatch"}
    assert private_names("import torch._dynamo.config\nx._private = y._grad") == {
        *("_dynamo", "_private", "_grad")
    }, "the control"
