"""The committed picture of the house shows the layers that import-linter holds."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "offramp"
LAYER = r'y="(\d+)"[^>]*><tspan font-weight="bold">(\w+)/?<'
OF_DEVICES = re.compile(r"""\.type\s*[!=]=\s*["'](?!cpu)|is_nccl|torch\.cuda\b|backends\.cudnn""")


@cache
def trees() -> dict[str, ast.Module]:
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")
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
    for file, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                meanings.setdefault(node.name, set()).add(f"a class of {file}:{node.lineno}")
        for node in tree.body:
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
    "study/plan/profiles.py": {"made"},
    "study/spec/models.py": {"found"},
}


def empty_names(tree: ast.Module) -> set[str]:
    """Names among EMPTY that a module binds."""
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return EMPTY & (bound | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)})


def test_a_name_says_what_a_thing_is() -> None:
    names = {file: empty_names(tree) - IN_FILES.get(file, set()) for file, tree in trees().items()}
    empty = {file: those for file, those in names.items() if those}
    assert empty == {}  # else name the thing itself


def test_an_empty_name_is_noticed() -> None:
    """The control."""
    assert empty_names(ast.parse("def f(given):\n    for one in given:\n        made = one")) == {
        *("given", "one", "made")
    }


def test_no_function_takes_more_than_seven_things_by_place() -> None:
    """But for options of data, which users write one by one, and what PyTorch calls."""
    long = []
    for where, tree in trees().items():
        if where.startswith("data/sources/") or where == "engine/norms.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                by_place = [arg for arg in node.args.args if arg.arg not in ("self", "cls")]
                long += [f"{where}: {node.name}"] if len(by_place) > 7 else []
    assert long == []
