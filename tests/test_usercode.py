"""A user's own code: what is hashed is what runs, and what a store names runs only if it may."""

from __future__ import annotations

import hashlib
import os
import py_compile
from pathlib import Path

import pytest

from offramp.errors import OfframpError
from offramp.usercode import Recorded, forbid, is_recorded, load

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
    with pytest.raises(OfframpError, match=rf"my\.py \(SHA-256 {sha256[:12]}\); .* --trust-code"):
        load(name, "backbone", Recorded(sha256))
    assert not mark.exists()
    assert load(name, "backbone", Recorded(sha256, trusted=True)).function() == 1
    assert mark.exists()


@pytest.mark.parametrize("recorded", ["0" * 64, None])
def test_what_has_changed_does_not_run_even_trusted(tmp_path: Path, recorded: str | None) -> None:
    mark = tmp_path / "ran"
    name = write(tmp_path, mark)
    assert not is_recorded(name, Recorded(recorded)) and is_recorded(name, Recorded(digest(tmp_path)))
    with pytest.raises(OfframpError, match=r"my\.py .* is not what the store recorded"):
        load(name, "backbone", Recorded(recorded, trusted=True))
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
    load(name, "backbone", Recorded(digest(tmp_path), trusted=True))
    assert not mark.exists()


def test_code_runs_by_its_own_rules(tmp_path: Path) -> None:
    """No `from __future__` of the library's reaches into it."""
    name = write(tmp_path, tmp_path / "ran", "def make(x: int): return 1\n")
    assert load(name, "backbone").function.__annotations__ == {"x": int}


def test_code_is_forbidden_by_name() -> None:
    forbid(["resnet18", "folder:photos", "timm/resnet18"])
    with pytest.raises(OfframpError, match=r"a/my\.py:make is code .*--no-user-code"):
        forbid(["resnet18", "a/my.py:make"])
