"""Plant small faults, one at a time, and see which tests notice: `make mutants`.

    python tests/mutants.py --frozen               the faults of mutants.json: which are noticed
    python tests/mutants.py --frozen --unmeasured  those without a result, which it writes there; --whole
                                                   adds those that survived the quick tests
    python tests/mutants.py                        60 faults of the code as it is, drawn with seed 0
    python tests/mutants.py --folder policy --seed 3 --count 20 --whole
    python tests/mutants.py --only 7 31            of the 60, these two again

Each fault is one change of one operator, constant, call or condition, in a copy of the sources. The
quick tests (`--fast`) that import its file run on it until one fails; with --whole, all of its folder.
What survives is to be judged by a person: docs/reliability.md has reasons.

A fault of the frozen list is a text within a function, class or constant of a name, so it outlives edits
elsewhere and a move of the file. If its name is gone, a person says why in its field `void`.

Own code, since mutmut and cosmic-ray run one test command over all mutants of a package: neither draws
a sample, nor knows which tests are for which file, and all tests on each of some 40,000 mutants would
take years.
"""

import argparse
import ast
import copy
import importlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import pytest

from longer import slow_file

HERE = Path(__file__).parent
ROOT = HERE.parent
SOURCE = ROOT / "src" / "offramp"
FROZEN = HERE / "mutants.json"

# Tests of a folder: folders and files of `tests`. "": of a file that lies in none.
TESTS = {
    "analysis": ("analysis", "report"),
    "api": (
        "test_api.py",
        "test_api_run.py",
        "test_api_deploy.py",
        "test_adopt.py",
        "test_decide.py",
        "cli",
    ),
    "bundle": ("bundle", "cli"),
    "cli": ("cli",),
    "data": ("data", "cli/test_data_command.py", "study/test_own_splits.py"),
    "engine": ("engine", "contract"),
    "infer": ("infer", "bundle", "test_api_deploy.py", "cli/test_predict_command.py"),
    "meters": ("meters", "study/test_costs.py"),
    "nets": ("nets", "engine", "contract"),
    "paper": ("report", "analysis", "study"),
    "policy": ("policy", "infer", "bundle"),
    "report": ("report", "cli/test_report_command.py", "test_several_deployed.py"),
    "serve": ("bundle",),
    "store": ("store", "study", "track", "cli/test_store_command.py"),
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
SURVIVED_QUICK = "survived the quick tests"
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

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
PLAIN = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr, ast.Raise, ast.Assert)
"""Statements without others inside."""


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes:
        file: Where it was drawn, below `src/offramp`.
        within: The function, class or constant around it, by its qualified name.
        before: What stands there: an expression or a statement, which its scope has once.
        after: What is planted instead.
        result: The test that failed first when it was frozen, "survived" (all tests of the folder),
            SURVIVED_QUICK, or nothing: not measured.
        void: Why no code does this any more, in a person's words.
    """

    file: str
    within: str
    before: str
    after: str
    result: str = ""
    void: str = ""

    def __str__(self) -> str:
        change = " ".join(f"{self.before} → {self.after}".split())
        return f"{self.file}, {self.within}: {change[:150]}"


def mutations(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    other = copy.deepcopy(node)
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in SWAPPED:
            other.ops = [SWAPPED[type(operator)]()]
            yield other
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in SWAPPED:
            other.op = SWAPPED[type(operator)]()
            yield other
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)) if value == value:
            yield ast.Constant(value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            other.func = ast.Name(CALLS[name])
            yield other
        case ast.Call(func=ast.Attribute(attr=name, value=inner), args=[], keywords=[]) if (
            name in DROPPED
        ):
            yield inner
        case ast.IfExp():
            other.body, other.orelse = other.orelse, other.body
            yield other


def left_out(node: ast.AST) -> bool:
    """Whether a fault inside would change nothing that runs: imports, docstrings, types."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.Import() | ast.ImportFrom():
            return True
    return False


def scopes(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Functions, classes and a module's constants, by their qualified names."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield prefix + name, child
                yield from scopes(child, f"{prefix}{name}.")
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if (
                isinstance(node, ast.Module) and name != "__all__"
            ):
                yield name, child
            case ast.stmt() if not left_out(child):
                yield from scopes(child, prefix)


def places(scope: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every expression and plain statement of a scope that runs, but for scopes inside, with its parent,
    the parent's field and the place in it."""
    waiting = [scope]
    while waiting:
        parent = waiting.pop()
        for name, value in ast.iter_fields(parent):
            if name in ("annotation", "returns", "type_comment", "decorator_list"):
                continue
            children = value if isinstance(value, list) else [value]
            for at, child in enumerate(children):
                if not isinstance(child, ast.AST) or isinstance(child, SCOPES) or left_out(child):
                    continue
                waiting.append(child)
                if isinstance(child, (ast.expr, *PLAIN)) and not isinstance(
                    parent, ast.JoinedStr | ast.FormattedValue
                ):
                    yield parent, name, at if isinstance(value, list) else None, child


def put(parent: ast.AST, field: str, at: int | None, node: ast.AST) -> None:
    if at is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[at] = node


def faults_of(file: str) -> Iterator[Fault]:
    """All faults of a file that can be told by a text: that of the node, or the least around it that its
    scope has once and that is more than a constant."""
    for within, scope in scopes(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
        spots = list(places(scope))
        around = {child: parent for parent in ast.walk(scope) for child in ast.iter_child_nodes(parent)}
        texts = {child: ast.unparse(child) for *_, child in spots}
        often = Counter((text, isinstance(child, ast.stmt)) for child, text in texts.items())
        for parent, field, at, child in spots:
            for other in mutations(child):
                node: ast.AST | None = child
                while node is not None and (
                    isinstance(node, ast.Constant | ast.Starred | ast.Slice)
                    or often[texts.get(node, ""), isinstance(node, ast.stmt)] != 1
                ):
                    node = around.get(node)
                if node is None:
                    continue
                put(parent, field, at, other)
                after = ast.unparse(other if node is child else node)
                put(parent, field, at, child)
                yield Fault(file, within, texts[node], after)


def planted(fault: Fault, source: Path) -> tuple[Path, str] | str:
    """The file below `source` that has the place now, and its text with the fault; or why none has."""
    named = False
    for file in sorted(source.rglob("*.py"), key=lambda path: path != source / fault.file):
        text = file.read_text(encoding="utf-8")
        if fault.within.rpartition(".")[2] not in text:
            continue
        tree = ast.parse(text)
        for scope in [scope for name, scope in scopes(tree) if name == fault.within]:
            named = True
            for parent, field, at, child in places(scope):
                if ast.unparse(child) == fault.before:
                    (other,) = ast.parse(fault.after).body
                    inside = isinstance(child, ast.expr) and isinstance(other, ast.Expr)
                    put(parent, field, at, other.value if inside else other)
                    return file, ast.unparse(ast.fix_missing_locations(tree))
    return "not located" if named else "gone"


def drawn(count: int, seed: int, folder: str | None, without: str | None) -> list[Fault]:
    """Different faults; each file is drawn in proportion to its lines."""
    generator, chosen = random.Random(seed), dict[Fault, None]()
    files = [path.relative_to(SOURCE).as_posix() for path in sorted(SOURCE.rglob("*.py"))]
    files = [file for file in files if folder is None or f"/{file}".startswith(f"/{folder}/")]
    lines = [len((SOURCE / file).read_text(encoding="utf-8").splitlines()) for file in files]
    while len(chosen) < count:
        (file,) = generator.choices(files, lines)
        faults = [f for f in faults_of(file) if not (without and re.search(without, f"{f.file} {f}"))]
        if faults:
            chosen[generator.choice(faults)] = None
    return sorted(chosen, key=lambda fault: (fault.file, fault.within))


def tests_of(path: Path, whole: bool) -> list[Path]:
    """The tests of a file's folder, first those that are named after the file, then those that import
    it. path: below `src/offramp`. whole: else no others, if there are such, and what `--fast` runs."""
    top = path.parts[0] if len(path.parts) > 1 else ""
    module = ".".join(("offramp", *path.with_suffix("").parts)).removesuffix(".__init__")
    parent, _, name = module.rpartition(".")
    names = re.compile(rf"\b{re.escape(module)}\b|from {re.escape(parent)} import .*\b{name}\b")
    files: dict[Path, None] = {}
    own = HERE / f"test_{path.stem}.py"
    for place in (own, *(HERE / name for name in TESTS.get(top, TESTS[""]))):
        every = sorted(place.rglob("test_*.py")) if place.is_dir() else [place] if place.exists() else []
        files |= dict.fromkeys(every)

    def far(file: Path) -> int:
        if file.stem == f"test_{path.stem}":
            return 0
        return 1 if names.search(file.read_text(encoding="utf-8")) else 2

    files = {file: None for file in files if whole or not slow_file(file)}
    nearest = [file for file in files if far(file) < 2]
    return sorted(files if whole or not nearest else nearest, key=far)


class Noticed:
    """A plugin of pytest that keeps the first failure."""

    def __init__(self) -> None:
        self.first = ""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.first = self.first or (report.nodeid if report.failed else "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.first = self.first or (report.nodeid if report.failed else "")


def failure(tests: Sequence[Path], copied: Path, more: Sequence[str] = ()) -> str:
    """The first test that fails on a copy of `src`; empty if none does. more: options of pytest.

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
            result.write_text(noticed.first or f"pytest ends with {status}")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) in (0, 5):  # 5: no test is left
        return ""
    if not result.exists():  # killed, or a fault of this script
        return f"pytest ended early: {(copied / 'output.txt').read_text()[-300:]}"
    return result.read_text()


def verdict(work: tuple[int, Fault, Path, bool]) -> tuple[int, str]:
    """Number and fate of a fault: the test that notices it, "survived", or why it is not planted. What
    noticed it when it was frozen runs first. The folder has a copy of `src` for each process."""
    at, fault, copies, whole = work
    copied = copies / str(os.getpid())
    if not copied.exists():
        shutil.copytree(ROOT / "src", copied)
    spot = "void" if fault.void else planted(fault, copied / "offramp")
    if isinstance(spot, str):
        return at, spot
    (file, text), more = spot, [] if whole else ["--fast"]
    original = file.read_text(encoding="utf-8")

    def noticed(tests: list[Path], *more: str) -> str:
        while tests:
            file.write_text(text, encoding="utf-8")
            test = failure(tests, copied, more)
            file.write_text(original, encoding="utf-8")
            if not test.startswith("tests/") or not failure([ROOT / test], copied):
                return test
            # It fails without the fault too: here, in a fork.
            tests = [path for path in tests if path != ROOT / test]
            more = (*more, f"--deselect={test}")
        return ""

    before = noticed([ROOT / fault.result]) if fault.result.startswith("tests/") else ""
    if before.startswith("tests/"):
        return at, before
    who = noticed(tests_of(file.relative_to(copied / "offramp"), whole), *more)
    return at, who or ("survived" if whole else SURVIVED_QUICK)


def save(faults: Sequence[Fault]) -> None:
    rows = ",\n".join(json.dumps(asdict(fault), ensure_ascii=False) for fault in faults)
    FROZEN.with_suffix(".new").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    FROZEN.with_suffix(".new").replace(FROZEN)


def state(result: str) -> str:
    if result.startswith("survived"):
        return "survived"
    return result if result in ("void", "gone", "not located") else "killed"


def summary(faults: dict[int, Fault], results: dict[int, str]) -> str:
    """How many of each state, by folder; and the share killed, beside that of the same when frozen."""
    counts: dict[str, Counter[str]] = {}
    for at, result in results.items():
        top = faults[at].file.partition("/")[0] if "/" in faults[at].file else "(no folder)"
        counts.setdefault(top, Counter())[state(result)] += 1
    lines = [f"{top:12} {dict(counter)}" for top, counter in sorted(counts.items())]
    if gone := [at for at, result in results.items() if state(result) == "gone"]:
        lines.append(f"Say why in `void` of {FROZEN.name}: {gone}")
    judged = [at for at, result in results.items() if state(result) in ("killed", "survived")]
    killed = sum(state(results[at]) == "killed" for at in judged)
    lines.append(f"{killed} of {len(judged)} killed ({killed / max(len(judged), 1):.0%})")
    if then := [state(faults[at].result) for at in judged if faults[at].result]:
        lines[-1] += f"; when frozen, {then.count('killed')} of {len(then)} of these"
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frozen", action="store_true", help="the faults of mutants.json")
    parser.add_argument(
        "--unmeasured", action="store_true", help="those without a result of such tests; writes it"
    )
    parser.add_argument("--freeze", action="store_true", help="write what is drawn to mutants.json")
    parser.add_argument("--without", metavar="REGEX", help="draw no fault whose line has this")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="of faults to draw")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these of the faults")
    parser.add_argument("--whole", action="store_true", help="all tests of the folder, slow ones too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="faults at a time")
    parser.add_argument("--list", action="store_true", help="show the faults, run nothing")
    options = parser.parse_args()
    if options.frozen:
        every = [Fault(**row) for row in json.loads(FROZEN.read_text(encoding="utf-8"))]
    else:
        every = drawn(options.count, options.seed, options.folder, options.without)
    if options.freeze:
        save(every)
    faults = dict(enumerate(every, 1))
    finished = set() if not options.unmeasured else {at for at in faults if faults[at].result}
    if options.whole:
        finished = {at for at in finished if faults[at].result != SURVIVED_QUICK}
    chosen = [at for at in options.only or faults if at not in finished]
    if options.list or options.freeze:
        for at in chosen:
            print(f"{at}. {faults[at]}\n    {faults[at].void or faults[at].result or 'not measured'}")
        print(summary(faults, {at: fault.result for at, fault in faults.items() if fault.result}))
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as tests/conftest.py says; read as torch is imported
    for name in LARGE:
        importlib.import_module(name)
    results: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder, get_context("fork").Pool(options.jobs) as pool:
        work = [(at, faults[at], Path(folder), options.whole) for at in chosen]
        for at, result in pool.imap_unordered(verdict, work):
            results[at] = result
            print(f"{at}. {faults[at]}\n    {faults[at].void} {result}", flush=True)
            if options.unmeasured and state(result) in ("killed", "survived"):
                every[at - 1] = replace(every[at - 1], result=result)
                save(every)
    print(summary(faults, results))


if __name__ == "__main__":
    main()
