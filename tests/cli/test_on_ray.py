"""`--on ray`, as far as one machine and no cluster show it."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from command import STUDY, Cli, data, ok, refusal, without
from syrupy.assertion import SnapshotAssertion

from offramp.study.run import cluster
from wording import stable

SCALE = Path(__file__).parents[2] / "docs" / "scale"
LIST = "studies: [study.yaml, other.yaml]"
ON_RAY = ("run", "study.yaml", "--on", "ray")
LIBRARIES = "ray s3fs aiobotocore gcsfs"


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    Path("study.yaml").write_text(STUDY)


def test_an_old_ray_is_refused_and_none_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    assert not cluster.is_safe("2.51.1") and cluster.is_safe("2.52.0") and cluster.is_safe("3.0.0rc1")
    monkeypatch.setattr(cluster.metadata, "version", lambda _: "2.51.1")
    assert refusal(cli(*ON_RAY)) == snapshot(name="old")

    def none(_: str) -> str:
        raise cluster.metadata.PackageNotFoundError("ray")

    monkeypatch.setattr(cluster.metadata, "version", none)
    assert refusal(cli(*ON_RAY)) == snapshot(name="none")
    assert not Path("runs").exists()


@pytest.mark.long
def test_one_machine_needs_no_ray() -> None:
    """Nor an object store's libraries; nor does a forecast. A cluster does, which shows that it was
    refused."""
    dry = ["run", "study.yaml", "--dry-run", "--on", "ray"]
    local, forecast, there = without(LIBRARIES, ["run", "study.yaml"], dry, ON_RAY)
    assert local.code == 0 and "6 of 6 trials" in local.out
    assert forecast.code == 0 and "Longest chain" in forecast.out
    assert there.code != 0 and "ray is refused" in there.err


def test_a_forecast_tells_time_chain_and_price(cli: Cli, snapshot: SnapshotAssertion) -> None:
    words = (*ON_RAY, "--dry-run", "--price-per-hour", "3600")
    answer = ok(cli(*words, "--speed", "1MMACs"))
    assert answer.out.split("\n\n")[-2:] == snapshot
    found = data(cli(*words, "--speed", "1MMACs", "--json"))["cluster"]
    for row in found["by_machines"]:
        assert row["price"] == pytest.approx(row["machines"] * row["seconds"])
        assert row["seconds"] >= 0.999 * found["shortest"]
    assert not Path("runs").exists()


def test_a_list_is_forecast_too(cli: Cli) -> None:
    Path("list.yaml").write_text(LIST)
    Path("other.yaml").write_text(STUDY.replace("seeds: [1, 2]", "seeds: [3]"))
    answer = ok(cli("run", "list.yaml", "--dry-run", "--on", "ray"))
    assert re.search("^machines +time ", answer.out, re.MULTILINE)


def test_the_files_of_the_docs_can_be_read() -> None:
    for name in ("sky.yaml", "rayjob.yaml"):
        assert isinstance(yaml.safe_load((SCALE / name).read_text()), dict)
    job = yaml.safe_load((SCALE / "rayjob.yaml").read_text())
    assert job["kind"] == "RayJob" and job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    run = yaml.safe_load((SCALE / "sky.yaml").read_text())["run"]
    subprocess.run(["bash", "-n"], input=run, text=True, check=True)


STAND_IN = {
    "scontrol": 'printf "one\\ntwo\\nthree\\n"',
    # Runs what is to run on a node, after the options of srun; a node's name is all that is left of it.
    "srun": "while [[ $1 == --* ]]; do "
    '[[ $1 == --nodelist=* ]] && export NODE=${1#*=}; shift; done; "$@"',
    "hostname": "echo 10.0.0.1",
    "ray": 'echo "ray on ${NODE:-driver}: $* ${RAY_AUTH_MODE} ${#RAY_AUTH_TOKEN}" >> said; '
    "[[ $1 == status ]] || exec sleep 60",
    "offramp": 'echo "offramp: $* $RAY_ADDRESS" >> said; trap "echo saved >> said; exit 143" TERM; '
    "touch begun; for i in $(seq 600); do [[ -e over ]] && exit 0; sleep 0.1; done",
}


@pytest.fixture
def slurm(tmp_path: Path) -> subprocess.Popen[str]:
    for name, body in STAND_IN.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    given = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "n[1-3]"}
    return subprocess.Popen(
        ["bash", str(SCALE / "slurm.sh"), "study.yaml"],
        env=os.environ | given | {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4"},
        text=True,
    )


@pytest.mark.parametrize("ended", [False, True])
def test_the_slurm_script_by_its_parts(
    slurm: subprocess.Popen[str], ended: bool, snapshot: SnapshotAssertion
) -> None:
    """It starts Ray on each node, then the study; its end, or Slurm's signal, ends all of it."""
    while not Path("begun").exists() or Path("said").read_text().count(": start ") < 3:
        assert slurm.poll() is None
        time.sleep(0.05)
    if ended:
        slurm.terminate()
    else:
        Path("over").touch()
    assert slurm.wait(timeout=60) == (143 if ended else 0)
    said = Path("said").read_text()
    started = [line for line in stable(said).splitlines() if ": start " in line or ": run " in line]
    assert sorted(started) == snapshot
    assert ("saved" in said) == ended
