"""Plant small faults, one at a time, and see which tests notice: `make mutants`.

    python tests/mutants.py                     60 faults over all folders, drawn with seed 0
    python tests/mutants.py --folder policy     of one folder
    python tests/mutants.py --seed 3 --count 20
    python tests/mutants.py --only 7 31         of the 60, these two again

Each fault is one change of one operator, constant, call or condition, in a copy of the sources. The
tests of the file's folder run on it until one fails: what `make test-fast` has of them first, and of
these those that import the file. What survives is listed with its line, to be judged
by a person: docs/reliability.md has a reason for each. Other tests might notice more.

Own code, since mutmut and cosmic-ray run one test command over all mutants of a package: neither draws
a sample, nor knows which tests are for which file, and all tests on each of some 40,000 mutants would
take years.
"""

import argparse
import ast
import copy
import importlib
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import pytest

from longer import slow_file

HERE = Path(__file__).parent
ROOT = HERE.parent
SOURCE = ROOT / "src" / "offramp"

# Tests of a folder: folders and files of `tests`. "": of a file that lies in none.
TESTS = {
    "analysis": ("analysis", "report"),
    "api": ("test_api.py", "test_api_run.py", "test_api_deploy.py", "cli"),
    "bundle": ("bundle", "cli"),
    "cli": ("cli",),
    "data": ("data", "cli/test_data_command.py"),
    "engine": ("engine", "contract"),
    "infer": ("infer", "bundle", "cli/test_predict_command.py", "cli/test_benchmark_command.py"),
    "meters": ("meters",),
    "nets": ("nets", "engine"),
    "paper": ("report", "analysis", "study"),
    "policy": ("policy", "infer", "bundle"),
    "report": ("report",),
    "serve": ("bundle/test_serving.py", "bundle/test_batching.py"),
    "store": ("store", "study", "track"),
    "strategies": ("test_strategies.py", "test_every_phase.py", "engine"),
    "study": ("study", "cli"),
    "track": ("track",),
    "": ("engine", "study", "policy", "cli"),
}
LARGE = (
    *("numpy", "scipy.stats", "torch", "torchvision", "timm", "pandas", "pyarrow.parquet"),
    *("statsmodels.api", "sklearn.metrics", "pydantic", "rich", "click", "safetensors.torch"),
)
"""Libraries that take long to import."""
SECONDS = 120  # a test that runs longer has noticed the fault: it hangs

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
        number: Among the faults of the file.
    """

    path: Path
    line: int
    change: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.change.split())[:100]}"


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
        chosen.append(Mutant(path.relative_to(SOURCE), line, words, number))
    return chosen


def tests_of(path: Path, near: bool = False, fast: bool = False) -> list[Path]:
    """The tests of a file's folder, first those that are named after the file, then those that import
    it. path: below `src/offramp`. near: no others, if there are such. fast: what `--fast` runs."""
    top = path.parts[0] if len(path.parts) > 1 else ""
    module = ".".join(("offramp", *path.with_suffix("").parts)).removesuffix(".__init__")
    parent, _, name = module.rpartition(".")
    names = re.compile(rf"\b{re.escape(module)}\b|from {re.escape(parent)} import .*\b{name}\b")
    files: dict[Path, None] = {}
    own = HERE / f"test_{path.stem}.py"
    for place in (own, *(HERE / name for name in TESTS[top])):
        every = sorted(place.rglob("test_*.py")) if place.is_dir() else [place] if place.exists() else []
        files |= dict.fromkeys(every)

    def far(file: Path) -> int:
        if file.stem == f"test_{path.stem}":
            return 0
        return 1 if names.search(file.read_text(encoding="utf-8")) else 2

    files = {file: None for file in files if not (fast and slow_file(file))}
    nearest = [file for file in files if far(file) < 2]
    return sorted(nearest if near and nearest else files, key=far)


class Noticed:
    """A plugin of pytest: what is quick runs first, and the first failure is kept."""

    def __init__(self) -> None:
        self.first = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.get_closest_marker("slow") is not None)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        file = ROOT / report.nodeid.partition("::")[0]
        if report.failed:
            self._failed(report.nodeid, slow_file(file))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed(report.nodeid, "slow" in report.keywords)

    def _failed(self, test: str, slow: bool) -> None:
        self.first = self.first or f"make test{'' if slow else '-fast'}: {test}"


def failure(tests: Sequence[Path], copied: Path, more: Sequence[str] = ()) -> str:
    """Who notices a fault in a copy of `src`, and the first test that fails; empty if none does. more:
    options of pytest.

    The tests run in a fork of this process, which has imported the large libraries already.
    """
    how = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", f"timeout={SECONDS}"]
    how += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of libraries that are imported already
    result = copied / "failure.txt"
    result.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        status = 3
        try:
            output = os.open(copied / "output.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.chdir(ROOT)
            os.environ |= {"PYTHONPATH": str(copied), "PYTHONDONTWRITEBYTECODE": "1"}
            sys.path[:] = [str(copied), str(ROOT), *(place for place in sys.path if place != str(HERE))]
            sys.argv, sys.modules["__main__"] = ["pytest"], ModuleType("__main__")  # as workers see it
            noticed = Noticed()
            status = int(pytest.main([*how, *more, *map(str, tests)], plugins=[noticed]))
            result.write_text(noticed.first or f"pytest ends with {status}: no test failed")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status == 0:
        return ""
    if not result.exists():  # killed, or a fault of this script
        return f"pytest ended early: {(copied / 'output.txt').read_text()[-300:]}"
    return result.read_text()


def verdict(at: int, mutant: Mutant, copies: Path, near: bool, fast: bool) -> str:
    """Whether the tests notice a fault, in a line. copies: has a folder for each process, which holds a
    copy of `src`."""
    copied = copies / str(os.getpid())
    if not copied.exists():
        shutil.copytree(ROOT / "src", copied)
    file = copied / "offramp" / mutant.path
    original, tests = file.read_text(encoding="utf-8"), tests_of(mutant.path, near, fast)
    more = ["--fast"] if fast else []
    while True:
        file.write_text(planted(file, mutant.number), encoding="utf-8")
        who, _, test = (failure(tests, copied, more) if tests else "").partition(": ")
        file.write_text(original, encoding="utf-8")
        if not who or not test.startswith("tests/") or not failure([ROOT / test], copied):
            break
        # It fails without the fault too: here, in a fork.
        tests = [file for file in tests if file != ROOT / test]
        more.append(f"--deselect={test}")
    print(f"{at}. {mutant}\n    {who or 'SURVIVES'} {test}", flush=True)
    return who


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="one of " + ", ".join(filter(None, TESTS)))
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these of the faults")
    parser.add_argument("--near", action="store_true", help="with tests that import the file alone")
    parser.add_argument("--fast", action="store_true", help="with the tests of make test-fast alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="faults at a time")
    parser.add_argument("--list", action="store_true", help="show the faults, run nothing")
    options = parser.parse_args()
    faults = dict(enumerate(sample(options.count, options.seed, options.folder), 1))
    faults = {at: faults[at] for at in options.only or faults}
    if options.list:
        for at, mutant in faults.items():
            print(at, mutant)
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as tests/conftest.py says; read as torch is imported
    for name in LARGE:
        importlib.import_module(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, get_context("fork").Pool(options.jobs) as pool:
        work = [(at, mutant, Path(folder), options.near, options.fast) for at, mutant in faults.items()]
        counts = Counter(pool.starmap(verdict, work, chunksize=1))
    fast = counts["make test-fast"]
    print(
        f"Of {len(faults)}, make test catches {fast + counts['make test']}, make test-fast {fast}, in "
        f"{(time.monotonic() - began) / 60:.0f} minutes"
    )


if __name__ == "__main__":
    main()
