"""Two journeys through all of offramp. docs/reliability.md names the others: `pytest -m journey`."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
import torch
from command import STUDY, Answer, Cli, keys, ok
from PIL import Image
from torch import nn

import offramp

pytestmark = pytest.mark.journey
OFFRAMP = (sys.executable, "-m", "offramp")


def test_from_a_network_to_a_server(cli: Cli) -> None:  # noqa: ARG001
    """The fitted network, `run.py` without offramp, and the server say the same of each file."""
    torch.manual_seed(1)
    labels = torch.arange(240) % 3
    images = (torch.rand(240, 1, 8, 8) * 195 + 30 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    module = nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    )
    net = offramp.attach(module, "1", (1, 8, 8), head="linear")
    recipe = {"epochs": 8, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.01}
    fitted = offramp.fit(net, "joint", train=(images, labels), recipe=recipe)
    policy = fitted.calibrate(max_accuracy_loss=0.05, anyway=True)
    fitted.export("bundle", policy, measure=False, anyway=True)
    expected = fitted.predict(images[:30], policy)
    answers = list(zip(expected.classes.tolist(), expected.exits.tolist(), strict=True))
    assert {exit for _, exit in answers} == {1, 2}

    files = [Path(f"{n:02}.png") for n in range(30)]
    for image, file in zip(images[:30], files, strict=True):
        Image.fromarray(image[0].numpy()).save(file)
    command = [sys.executable, "-I", "bundle/run.py", "--json", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(int(row["class"]), row["exit"]) for row in rows] == answers

    served = [*OFFRAMP, "serve", "bundle", "--port", "0"]
    with subprocess.Popen(served, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1].partition("/")[0])
            for file, answer in zip(files, answers, strict=True):
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/predict", file.read_bytes()
                ) as reply:
                    said = json.load(reply)
                assert (int(said["class"]), said["exit"]) == answer
        finally:
            process.terminate()


def test_a_run_that_is_killed_goes_on_to_the_same_report(
    cli: Cli, finished: tuple[Path, Answer]
) -> None:
    whole = finished[0] / "runs"
    Path("s.yaml").write_text(STUDY)
    with subprocess.Popen([*OFFRAMP, "run", "s.yaml"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "[3/" in line)
        process.kill()
    assert keys() and set(keys()) < set(keys(str(whole)))
    ok(cli("run", "s.yaml"))
    assert keys() == keys(str(whole))
    ok(cli("report", "runs", "--out", "report"))
    assert Path("report/index.html").is_file()

    def results(store: Path | str) -> pd.DataFrame:
        """All that is reported, but for what a machine took."""
        ok(cli("report", store, "--numbers", "t.parquet"))
        table = pd.read_parquet("t.parquet")
        return table[table["metric"].isin(["accuracy", "loss"])].reset_index(drop=True)

    assert len(results("runs")) > 100
    pd.testing.assert_frame_equal(results("runs"), results(whole), check_exact=True)
