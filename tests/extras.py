"""The wheel's extras, each alone: with one a command does what it is for, without it a line names it.

    python tests/extras.py build/wheel     after the wheel's demo; `make wheel` calls it

Left out are extras that take a cluster, an object store or a GPU to show anything: ray, cloud, energy.
"""

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

TRIAL = "joint-digits-cnn-digits-s42"
STUDY = """\
seeds: [42]
strategies: [joint]
backbone: digits-cnn
data: digits
recipe: {epochs: 1, optimizer: adam, learning_rate: 1e-3}
"""
# Commands that only this extra makes possible. They share the store `runs` of the wheel's demo.
COMMANDS = {
    "onnx": f"export {TRIAL} --policy policy.json --out bundle",
    "serve": "serve bundle --port 0",
    "search": "search small.yaml --over recipe.learning_rate=[0.001,0.002] --trials 1 --store searched",
    "track": "store track runs --to tensorboard:board",
    "hub": "data describe hub --data-root nobody/nothing",
}


def main(folder: Path) -> None:
    """Raises: SystemExit: an extra lacks something, or is not missed where it is not."""
    (folder / "small.yaml").write_text(STUDY)
    base = folder / "venv"
    calibrate = f"calibrate {TRIAL} --max-accuracy-loss 0.5 --anyway"
    run(base, folder, calibrate, check=True)
    for extra, command in COMMANDS.items():
        without = run(base, folder, command)
        if without.returncode != 2 or "pip install" not in without.stderr:
            sys.exit(f"without {extra}, `{command}` names no package: {without.stderr}")
        environment = overlay(folder, base, extra)
        if extra == "serve":
            serve(environment, folder, command)
        else:
            answer = run(environment, folder, command)
            # nobody's data set is nowhere, and its library has to say so
            if answer.returncode != (2 if extra == "hub" else 0) or "pip install" in answer.stderr:
                sys.exit(f"with {extra} alone, `{command}` fails: {answer.stderr or answer.stdout}")
        print(f"extra {extra}: as it should", flush=True)


def overlay(folder: Path, base: Path, extra: str) -> Path:
    """An environment that sees the base's packages, torch too, with the extra's on top."""
    environment = folder / f"with-{extra}"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (under,) = base.resolve().glob("lib/python*/site-packages")
    (packages / "base.pth").write_text(f"{under}\n")
    (wheel,) = folder.resolve().glob("*.whl")
    constraints = Path(__file__).parents[1] / "constraints.txt"
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints]
    subprocess.run(
        [environment / "bin/python", *install, f"offramp[{extra}] @ {wheel.as_uri()}"], check=True
    )
    return environment


def run(
    environment: Path, folder: Path, command: str, check: bool = False
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*offramp(environment), *shlex.split(command)],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=check,
    )


def offramp(environment: Path) -> list[str]:
    return [str(environment.resolve() / "bin/python"), "-m", "offramp"]


def serve(environment: Path, folder: Path, command: str) -> None:
    """Start the server, ask whether it runs, and end it."""
    process = subprocess.Popen(
        [*offramp(environment), *shlex.split(command)], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        address = next(filter(None, (re.search(r"http://[\d.:]+", line) for line in lines))).group()
        with urllib.request.urlopen(f"{address}/health", timeout=30) as answer:
            assert answer.status == 200
    finally:
        process.terminate()
        process.wait(timeout=60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
