"""Profiles in files: found by name or path, read strictly, in keys by content."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.hashing import digest
from offramp.numerics import PROFILES, custom
from offramp.study.plan import profiles
from offramp.study.plan.plan import make_plan
from offramp.study.plan.profiles import Gain, ProfileFile
from offramp.study.spec import file as spec
from refusal import refuses
from support import CPU
from wording import refusal


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config" / "offramp" / "profiles"


def profile_file(**fields: Any) -> ProfileFile:
    numerics = custom("cpu", threads=1, **fields)
    gain = Gain(what="2 threads against 1", network="resnet18", ratio=1.5)
    return ProfileFile(numerics=numerics, machine="a machine", made="2024-01-01", measured=(gain,))


def test_what_is_written_is_found_by_name_and_by_path(home: Path) -> None:
    profiles.write(profiles.place("mine", None), profile_file(precision="bfloat16"))
    profiles.write(profiles.place("any", Path("other.json")), profile_file(precision="bfloat16"))
    numerics = profiles.find("mine", "cpu")
    assert (home / "mine.json").is_file()
    assert numerics.threads == 1 and numerics.precision == "bfloat16"
    assert profiles.read(home / "mine.json") == profile_file(precision="bfloat16")
    assert digest(profiles.find("other.json", "cpu")) == digest(numerics)  # its name says nothing
    assert list(profiles.listed()) == ["mine"]


def test_the_profile_beside_the_studies_is_one() -> None:
    beside = Path(__file__).parents[2] / "studies" / "one-thread.json"
    assert profiles.find(str(beside), "cpu") == custom("cpu", threads=1)


def test_a_memory_format_is_another_profile() -> None:
    changed = ProfileFile(numerics=custom("cpu", memory_format="contiguous")).numerics
    assert changed.memory_format == "contiguous"
    assert digest(changed) != digest(PROFILES["cpu"])


def test_the_names_that_come_along_are_found_first(home: Path) -> None:
    assert profiles.find("default", "cpu") is PROFILES["cpu"]
    profiles.write(home / "cpu.json", profile_file())
    assert profiles.find("cpu", "cpu") is PROFILES["cpu"]


def test_a_study_gets_the_profile_that_it_asks_for() -> None:
    study = {"strategies": ["baseline"], "backbone": "digits-cnn", "data": "digits", "seeds": [1]}

    def keys(numerics: str) -> list[str]:
        return list(make_plan(spec.parse({**study, "numerics": numerics}), CPU).nodes)

    profiles.write(profiles.place("mine", None), profile_file())
    Path("same.json").write_text('{"numerics": {"device": "cpu", "threads": 2}}')
    assert keys("mine") != keys("default") == keys("cpu") == keys("same.json")
    assert keys("cpu-bf16") not in (keys("default"), keys("mine"))


def usual(**changes: Any) -> Mapping[str, Any]:
    return {"numerics": {"device": "cpu", "threads": 1, **changes}}


WRONG: list[Any] = [
    usual(thread=2),
    usual(flush_denormal=True),
    usual(threads="2"),
    usual(threads=0),
    usual(threads=True),
    usual(precision="bf16"),
    usual(memory_format="nchw"),
    usual(frozen_batch=8),
    usual(tf32=1),
    {"numerics": {"device": "cpu"}},
    {"threads": 1},
    {**usual(), "measured": [{"what": "x"}]},
    [],
]


@pytest.mark.parametrize("content", WRONG, ids=str)
def test_what_is_wrong_in_a_file_is_refused_in_one_line(
    content: Any, snapshot: SnapshotAssertion
) -> None:
    Path("p.json").write_text(json.dumps(content, indent=1))
    line = refusal(profiles.find, "p.json", "cpu")
    assert line.startswith("p.json:") and line == snapshot


def test_files_that_are_no_profile_are_refused(home: Path) -> None:
    for content in (b"", b"{", b"\xff\xfe\x00", b"nothing"):
        Path("p.json").write_bytes(content)
        refuses(r"^p\.json", profiles.find, "p.json", "cpu")
    refuses("offramp doctor --tune", profiles.find, "none.json", "cpu")
    home.mkdir(parents=True)
    (home / "broken.json").write_text("{")
    profiles.write(home / "good.json", profile_file())
    assert list(profiles.listed()) == ["good"]


def test_an_unknown_name_is_told_with_the_nearest_of_all(snapshot: SnapshotAssertion) -> None:
    profiles.write(profiles.place("fast-laptop", None), profile_file())
    assert refusal(profiles.find, "fast-latpop", "cpu") == snapshot
    assert refusal(profiles.find, "fast-laptop", "cuda") == snapshot


TAKEN = [("mine", None), ("cpu", None), ("a/b", None), ("any", Path("p.txt"))]


@pytest.mark.parametrize(("name", "out"), TAKEN)
def test_a_name_that_is_taken_is_refused(
    name: str, out: Path | None, snapshot: SnapshotAssertion
) -> None:
    profiles.write(profiles.place("mine", None), profile_file())
    assert refusal(profiles.place, name, out) == snapshot


def test_a_place_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuses("cannot write", profiles.write, tmp_path / "file" / "p.json", profile_file())
