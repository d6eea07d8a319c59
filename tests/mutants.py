"""Plant small faults, one at a time, and see which tests notice: `make mutants`.

    python tests/mutants.py                     60 faults over all folders, drawn with seed 0
    python tests/mutants.py --folder policy     of one folder
    python tests/mutants.py --fast              how many does `make test-fast` notice?
    python tests/mutants.py --seed 3 --count 20

Each fault is one change of one operator, constant, call or condition, in a copy of the sources; the
tests of the file's own folder run on the copy, until the first that fails. What survives is listed with
its line, to be judged by a person: docs/reliability.md lists the survivors, each with a reason.

Own code, since mutmut and cosmic-ray run one test command over all mutants of a package: neither draws
a sample, nor knows which tests are for which file, and all tests on each of some 40,000 mutants would
take years.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "offramp"

# Tests that notice faults of a folder, nearest first; of a file in no folder, its own come first.
TESTS = {
    "analysis": ("analysis", "report"),
    "api": ("test_api.py", "test_api_run.py", "test_api_deploy.py", "cli"),
    "bundle": ("bundle", "cli"),
    "cli": ("cli",),
    "data": ("data", "study"),
    "engine": ("engine", "contract"),
    "infer": ("infer", "bundle", "cli"),
    "meters": ("meters", "engine"),
    "nets": ("nets", "engine"),
    "paper": ("analysis", "report", "study"),
    "policy": ("policy", "infer", "bundle"),
    "report": ("report",),
    "serve": ("bundle",),
    "store": ("store", "study"),
    "strategies": ("test_strategies.py", "test_every_phase.py", "engine"),
    "study": ("study", "cli"),
    "track": ("track",),
    "": ("engine", "study", "policy", "cli"),
}
MINUTES = 8  # a fault that makes its tests run longer is one that they notice: they hang

SWAPPED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "reversed": "list"}
DROPPED = frozenset(
    {"detach", "copy", "clone", "mean", "abs", "strip", "lower"}
)  # methods without arguments


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes:
        path: Of the file, below `src/offramp`.
        line: Where it is.
        change: What it does, in words.
        text: The whole file with it.
    """

    path: Path
    line: int
    change: str
    text: str


def mutations(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may be planted at a node: words for it, and the node that stands there instead."""
    other = copy.deepcopy(node)
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in SWAPPED:
            other.ops = [SWAPPED[type(operator)]()]
            yield f"{ast.unparse(node)} → {ast.unparse(other)}", other
        case ast.BinOp(op=operator) if type(operator) in SWAPPED:
            other.op = SWAPPED[type(operator)]()
            yield f"{ast.unparse(node)} → {ast.unparse(other)}", other
        case ast.BoolOp(op=operator):
            other.op = SWAPPED[type(operator)]()
            yield f"{ast.unparse(node)} → {ast.unparse(other)}", other
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"{ast.unparse(node)} → {ast.unparse(operand)}", operand
        case ast.Constant(value=bool(value)):
            yield f"{value} → {not value}", ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)) if value == value:
            yield f"{value} → {value + 1}", ast.Constant(value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            other.func = ast.Name(CALLS[name])
            yield f"{ast.unparse(node)} → {ast.unparse(other)}", other
        case ast.Call(func=ast.Attribute(attr=name, value=inner), args=[], keywords=[]) if (
            name in DROPPED
        ):
            yield f"{ast.unparse(node)} → {ast.unparse(inner)}", inner
        case ast.IfExp():
            other.body, other.orelse = other.orelse, other.body
            yield f"{ast.unparse(node)} → {ast.unparse(other)}", other


def left_out(node: ast.AST) -> bool:
    """Whether a fault inside would change nothing that runs: imports, docstrings, types."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.Import() | ast.ImportFrom():
            return True
    return False


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None, ast.expr]]:
    """Every expression that runs, with its parent, the parent's field and the place in it."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        parent = waiting.pop()
        for name, value in ast.iter_fields(parent):
            if name in ("annotation", "returns", "type_comment", "decorator_list"):
                continue
            children = value if isinstance(value, list) else [value]
            for at, child in enumerate(children):
                if not isinstance(child, ast.AST) or left_out(child):
                    continue
                waiting.append(child)
                if isinstance(child, ast.expr) and not isinstance(
                    parent, ast.JoinedStr | ast.FormattedValue
                ):
                    yield parent, name, at if isinstance(value, list) else None, child


def mutants(path: Path) -> list[tuple[int, str, int]]:
    """Of a file: line, words and number of each. The number says which one `planted` makes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    changes = ((child, words) for *_, child in places(tree) for words, _ in mutations(child))
    return [(child.lineno, words, number) for number, (child, words) in enumerate(changes)]


def planted(path: Path, number: int) -> str:
    """The file's text with the fault of this number."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    count = 0
    for parent, field, at, child in places(tree):
        for _, other in mutations(child):
            if count == number:
                if at is None:
                    setattr(parent, field, other)
                else:
                    getattr(parent, field)[at] = other
                return ast.unparse(ast.fix_missing_locations(tree))
            count += 1
    raise IndexError(number)


def sample(count: int, seed: int, folder: str | None) -> list[Mutant]:
    """`count` faults; a folder's share goes by the square root of its size, so small ones are seen."""
    generator = random.Random(seed)
    by_folder: dict[str, list[tuple[Path, int, str, int]]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        inner = path.relative_to(SOURCE)
        top = inner.parts[0] if len(inner.parts) > 1 else ""
        if folder is None or top == folder:
            by_folder.setdefault(top, []).extend((path, *mutant) for mutant in mutants(path))
    weights = {top: len(faults) ** 0.5 for top, faults in by_folder.items()}
    drawn = generator.choices(list(weights), list(weights.values()), k=count)
    chosen = []
    for top in sorted(drawn):
        path, line, words, number = by_folder[top].pop(generator.randrange(len(by_folder[top])))
        chosen.append(Mutant(path.relative_to(SOURCE), line, words, planted(path, number)))
    return chosen


def noticed(mutant: Mutant, copied: Path, fast: bool) -> str | None:
    """The first test that notices a fault, None if none does. copied: a copy of `src`, as it was."""
    file = copied / "offramp" / mutant.path
    original = file.read_text(encoding="utf-8")
    top = mutant.path.parts[0] if len(mutant.path.parts) > 1 else ""
    own = ROOT / "tests" / f"test_{mutant.path.stem}.py"
    nearest = [own] if not top and own.exists() else []
    folders = [*nearest, *(ROOT / "tests" / name for name in TESTS[top])]
    options = [
        "-x",
        "-q",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-p",
        "no:cacheprovider",
        *(["--fast"] if fast else []),
    ]
    try:
        file.write_text(mutant.text, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(copied), "PYTHONDONTWRITEBYTECODE": "1"}
        for tests in folders:
            command = [sys.executable, "-m", "pytest", *options, str(tests)]
            try:
                run = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=60 * MINUTES,
                )
            except subprocess.TimeoutExpired:
                return f"{tests.name} hangs"
            if run.returncode not in (0, 5):  # 5: no test was collected
                failed = [
                    line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))
                ]
                return failed[0].split(" - ")[0] if failed else tests.name
        return None
    finally:
        file.write_text(original, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="one of " + ", ".join(filter(None, TESTS)))
    parser.add_argument("--fast", action="store_true", help="with the tests of make test-fast alone")
    parser.add_argument("--list", action="store_true", help="show the faults, run nothing")
    options = parser.parse_args()
    faults = sample(options.count, options.seed, options.folder)
    caught, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copied)
        for at, mutant in enumerate(faults, 1):
            place = f"{mutant.path}:{mutant.line}: {' '.join(mutant.change.split())[:100]}"
            if options.list:
                print(place)
                continue
            by = noticed(mutant, copied, options.fast)
            caught += by is not None
            print(
                f"{at}/{len(faults)} {place}\n    {f'caught by {by}' if by else 'SURVIVES'}", flush=True
            )
    if not options.list:
        print(f"{caught} of {len(faults)} caught, in {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
