"""A user's own code: what is hashed is what runs, and what a store names runs only if it may."""

import hashlib
import os
import py_compile
import sys
from pathlib import Path

import pytest

from offramp.errors import OfframpError
from offramp.usercode import RecordedCode, described, forbid, is_recorded, load, read, running
from refusal import refuses

CODE = "from pathlib import Path\nPath(MARK).touch()\ndef make(): return 1\n"


def write(folder: Path, mark: Path, code: str = CODE) -> str:
    (folder / "my.py").write_text(code.replace("MARK", repr(str(mark))))
    return f"{folder / 'my.py'}:make"


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "my.py").read_bytes()).hexdigest()


def test_what_the_user_names_runs_and_is_hashed(tmp_path: Path) -> None:
    name = write(tmp_path, tmp_path / "ran")
    own = load(name, "backbone")
    assert own.function() == 1 and own.sha256 == digest(tmp_path) and (tmp_path / "ran").exists()


def test_what_a_store_names_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    name, sha256 = write(tmp_path, mark), digest(tmp_path)
    line = refuses("--trust-code", load, name, "backbone", RecordedCode(sha256))
    assert f"my.py (SHA-256 {sha256[:12]})" in line
    assert not mark.exists()
    assert load(name, "backbone", RecordedCode(sha256, trusted=True)).function() == 1
    assert mark.exists()


@pytest.mark.parametrize("recorded", ["0" * 64, None])
def test_what_has_changed_does_not_run_even_trusted(tmp_path: Path, recorded: str | None) -> None:
    mark = tmp_path / "ran"
    name = write(tmp_path, mark)
    assert not is_recorded(name, RecordedCode(recorded)) and is_recorded(
        name, RecordedCode(digest(tmp_path))
    )
    assert "my.py" in refuses(
        "is not what", load, name, "backbone", RecordedCode(recorded, trusted=True)
    )
    assert not mark.exists()


def test_a_compiled_copy_beside_the_file_is_not_run(tmp_path: Path) -> None:
    """Python's own loader takes it, if only size and time of the source are what it says."""
    mark = tmp_path / "ran"
    name = write(tmp_path, mark)
    py_compile.compile(str(tmp_path / "my.py"), doraise=True)
    stat = (tmp_path / "my.py").stat()
    harmless = (tmp_path / "my.py").read_text().replace(".touch()", ".exists()")
    harmless += "#" * (stat.st_size - len(harmless))
    (tmp_path / "my.py").write_text(harmless[: stat.st_size - 1] + "\n")
    os.utime(tmp_path / "my.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (tmp_path / "my.py").stat().st_size == stat.st_size
    load(name, "backbone", RecordedCode(digest(tmp_path), trusted=True))
    assert not mark.exists()


def test_code_runs_by_its_own_rules(tmp_path: Path) -> None:
    """No `from __future__` of the library's reaches into it."""
    name = write(tmp_path, tmp_path / "ran", "def make(x: int): return 1\n")
    assert load(name, "backbone").function.__annotations__ == {"x": int}


NEIGHBORS = {
    "my.py": "from mod_a import trunk\ndef make():\n import pkg.deep\n return trunk(), pkg.deep.N\n",
    "mod_a.py": "import bare.below as b\nfrom pkg import *\ndef trunk(): return b.NAME, M\n",
    "bare/below.py": "from . import beside\nNAME = beside.NAME\n",
    "bare/beside.py": "NAME = 'MARK'\n",
    "pkg/__init__.py": "from .deep import N as M\n__all__ = ['M', 'deep']\n",
    "pkg/deep.py": """from __future__ import annotations
from dataclasses import dataclass
import pkg
@dataclass
class Settings:
    n: int = 3
N = Settings().n
""",
    "idle.py": "1 / 0\n",
}


def neighbors(folder: Path, mark: str = "mark", **more: str) -> str:
    for name, text in (NEIGHBORS | more).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("MARK", mark))
    return f"{folder / 'my.py'}:make"


def test_a_file_imports_its_neighbors_and_two_folders_do_not_mix(tmp_path: Path) -> None:
    before = set(sys.modules), list(sys.path)
    a, b = (load(neighbors(tmp_path / mark, mark), "backbone").function for mark in ("a", "b"))
    assert a() == (("a", 3), 3) and b() == (("b", 3), 3) and a()[0][0] == "a"
    assert (set(sys.modules), list(sys.path)) == before


def test_a_module_that_its_package_imports_runs_once(tmp_path: Path) -> None:
    """As in a script: of two runs there would be two classes of one name."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("from .kinds import Kind\n")
    (tmp_path / "parts" / "kinds.py").write_text("class Kind: ...\n")
    code = "from parts.kinds import Kind\nimport parts\ndef make(): return parts.Kind is Kind\n"
    assert load(write(tmp_path, tmp_path / "ran", code), "backbone").function()


def test_packages_have_a_path_and_files_have_none(tmp_path: Path) -> None:
    line = "PATH = globals().get('__path__')\n"
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text(line)
    (tmp_path / "plain.py").write_text(line)
    code = f"{line}import parts, plain\ndef make(): return PATH, plain.PATH, parts.PATH\n"
    assert load(write(tmp_path, tmp_path / "ran", code), "backbone").function() == (
        *(None, None),
        [str(tmp_path / "parts")],
    )


def test_what_a_file_imports_is_part_of_what_it_is(tmp_path: Path) -> None:
    name = neighbors(tmp_path / "here")
    sha256 = load(name, "backbone").sha256
    assert sha256 == read(neighbors(tmp_path / "elsewhere")).sha256 != digest(tmp_path / "here")
    assert set(read(name).files) == set(NEIGHBORS) - {"my.py", "idle.py"}
    for changed in read(name).files:
        neighbors(tmp_path / "here", **{changed: NEIGHBORS[changed] + "\n"})
        assert not is_recorded(name, RecordedCode(sha256))
        line = refuses("is not what", load, name, "backbone", RecordedCode(sha256, trusted=True))
        assert "mod_a.py" in line
    neighbors(tmp_path / "here", **{"idle.py": ""})
    assert is_recorded(name, RecordedCode(sha256))


def test_a_neighbor_of_a_store_s_code_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    name = neighbors(tmp_path, **{"mod_a.py": CODE.replace("MARK", repr(str(mark)))})
    line = refuses("--trust-code", load, name, "backbone", RecordedCode(read(name).sha256))
    assert "my.py, mod_a.py" in line and "mod_a.py" in described(name) and not mark.exists()


def test_a_neighbor_is_no_stand_in_for_python_s_own_library(tmp_path: Path) -> None:
    name = write(tmp_path, tmp_path / "ran", "import random\ndef make(): return random.random()\n")
    (tmp_path / "random.py").write_text("1 / 0")
    assert 0 <= load(name, "backbone").function() < 1 and read(name).sha256 == digest(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0\n", r"my\.py:make failed at line 1 of mod_a\.py: ZeroDivisionError"),
        ("def (:\n", r"my\.py:make failed at line 1 of mod_a\.py: SyntaxError"),
        ("from ... import x\n", "ImportError"),
        ("import no_such_module_here\n", r"at line 1 of mod_a\.py: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_with_a_neighbor_is_named(tmp_path: Path, text: str, message: str) -> None:
    refuses(message, load, neighbors(tmp_path, **{"mod_a.py": text}), "backbone")


def test_what_runs_is_told_as_a_fault_of_the_code_that_is_named(tmp_path: Path) -> None:
    def running_it(name: str, error: Exception) -> None:
        with running(name):
            raise error

    name, own = write(tmp_path, tmp_path / "ran"), OfframpError("give another")
    assert name in refuses("ValueError: 3", running_it, name, ValueError(3))
    assert refuses("give another", running_it, name, own) == str(own)
    with pytest.raises(ValueError, match="3"):  # nobody's file: a fault of offramp stays one
        running_it("joint", ValueError(3))


def test_code_is_forbidden_by_name() -> None:
    forbid(["resnet18", "folder:photos", "timm/resnet18"])
    assert "a/my.py:make" in refuses("--no-user-code", forbid, ["resnet18", "a/my.py:make"])
