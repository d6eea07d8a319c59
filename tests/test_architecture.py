"""The committed picture of the house shows the layers that import-linter holds."""

import ast
import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from offramp import nets

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "offramp"
LAYER = r'y="(\d+)"[^>]*><tspan font-weight="bold">(\w+)/?<'
OF_DEVICES = re.compile(r"""\.type\s*[!=]=\s*["'](?!cpu)|is_nccl|torch\.cuda\b|backends\.cudnn""")


@cache
def nodes() -> dict[str, list[ast.AST]]:
    """Of every file, its module first."""
    return {
        path.relative_to(SOURCE).as_posix(): list(ast.walk(ast.parse(path.read_text())))
        for path in SOURCE.rglob("*.py")
    }


def test_the_picture_shows_the_layers_that_are_held() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in linter["contracts"] if c.get("containers") == ["offramp"])
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    drawn: dict[int, list[str]] = {}
    for y, name in re.findall(LAYER, picture):
        drawn.setdefault(int(y), []).append(name)
    assert [" | ".join(drawn[y]) for y in sorted(drawn)] == layers  # else `make house`


def test_the_picture_shows_how_large_each_part_is() -> None:
    """By about a fifth: it need not be drawn anew with every line."""
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    sizes = re.findall(r'bold">(\w+)(/?)</tspan> <tspan[^>]*>([\d,]+)<', picture)
    assert sizes
    for name, folder, count in sizes:
        files = (SOURCE / name).rglob("*.py") if folder else [SOURCE / f"{name}.py"]
        lines = sum(len(file.read_text().splitlines()) for file in files)
        assert abs(int(count.replace(",", "")) / lines - 1) < 0.2, f"{name}: `make house`"


def test_what_devices_differ_in_is_said_in_one_place() -> None:
    sources = {str(p.relative_to(SOURCE)): p.read_text() for p in SOURCE.rglob("*.py")}
    assert [name for name, text in sources.items() if OF_DEVICES.search(text)] == ["device.py"]


def test_a_type_s_name_means_one_thing() -> None:
    """Of classes, and of names that a file gives to types; arrays aside, which are `Floats` in many."""
    meanings: dict[str, set[str]] = {}
    for file, (module, *inner) in nodes().items():
        for node in inner:
            if isinstance(node, ast.ClassDef):
                meanings.setdefault(node.name, set()).add(f"a class of {file}:{node.lineno}")
        for node in module.body:  # type: ignore[attr-defined]
            if isinstance(node, ast.Assign) and isinstance(name := node.targets[0], ast.Name):
                value = ast.unparse(node.value)
                if re.fullmatch("[A-Z][A-Za-z]*[a-z][A-Za-z]*", name.id) and "NDArray" not in value:
                    meanings.setdefault(name.id, set()).add(value)
    several = {name: sorted(places) for name, places in meanings.items() if len(places) > 1}
    assert several == {}  # else give one of them another name


EMPTY = {
    *("found", "made", "given", "asked", "known", "said", "kept"),
    *("one", "held", "there", "told", "wanted", "shown", "taken"),
}
"""Words that say that something happened to a thing, and not what it is."""
IN_FILES = {  # fields of files that were written so, and of what is read of them
    "store/manifest.py": {"found", "asked", "kept"},
    "study/spec/models.py": {"found"},
}


def empty_names(module: Iterable[ast.AST]) -> set[str]:
    """Names among EMPTY that the nodes of a module bind."""
    names = (
        node.id if isinstance(node, ast.Name) else node.arg
        for node in module
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    )
    return EMPTY.intersection(names)


def test_a_name_says_what_a_thing_is() -> None:
    names = {file: empty_names(own) - IN_FILES.get(file, set()) for file, own in nodes().items()}
    empty = {file: those for file, those in names.items() if those}
    assert empty == {}  # else name the thing itself


def test_an_empty_name_is_noticed() -> None:
    """The control."""
    module = ast.walk(ast.parse("def f(given):\n    for one in given:\n        made = one"))
    assert empty_names(module) == {"given", "one", "made"}


def test_no_function_takes_more_than_seven_things_by_place() -> None:
    """But for options of data, which users write one by one, and what PyTorch calls."""
    long = []
    for where, module in nodes().items():
        if where.startswith("data/sources/") or where == "engine/norms.py":
            continue
        for node in module:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                by_place = [arg for arg in node.args.args if arg.arg not in ("self", "cls")]
                long += [f"{where}: {node.name}"] if len(by_place) > 7 else []
    assert long == []


# PyTorch's names with an underscore: only those that offramp/nets/__init__.py lists


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
