"""`offramp export --hub` and `hf:USER/NAME`, against a hub on the loopback."""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from bundle_kit import bundle_refusal, edited, noise
from PIL import Image
from syrupy.assertion import SnapshotAssertion

import offramp
from fake_hub import TOKEN, Hub, serving
from offramp.bundle import hub
from offramp.bundle.card import markdown
from offramp.bundle.folder import seal
from offramp.bundle.runtime import Bundle
from offramp.cli import main
from refusal import refuses
from wording import refusal

pytest.importorskip("huggingface_hub", reason="the extra 'hub' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # its own upload


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that this process asks, with a cache of its own."""
    from huggingface_hub import constants

    with serving() as server:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield server


def front(text: str) -> dict[str, object]:
    """The YAML of a model card."""
    assert text.startswith("---\n")
    fields = yaml.safe_load(text.split("---")[1])
    assert isinstance(fields, dict)
    return fields


def assert_alike(folder: Path, other: Path) -> None:
    """That both bundles answer the same."""
    first, same = (Bundle(each).run(noise(5)).logits for each in (folder, other))
    np.testing.assert_array_equal(first, same)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """`offramp` with these words, which ends well."""
    monkeypatch.setattr(sys, "argv", ["offramp", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


@pytest.mark.journey
def test_what_is_pushed_answers_when_it_is_fetched(fake: Hub, leaving: Path, tmp_path: Path) -> None:
    address = hub.push(leaving, "me/digits", "mit", dataset="ylecun/mnist", private=True)
    assert address.startswith(f"{fake.address}/me/digits/commit/") and fake.private["me/digits"]
    files = fake.repos["me/digits"]
    card = front(files["README.md"].decode())
    assert card["license"] == "mit" and card["datasets"] == ["ylecun/mnist"]
    assert card["pipeline_tag"] == "image-classification"
    results = card["model-index"][0]["results"][0]  # type: ignore[index]
    own_card = json.loads((leaving / "card.json").read_text())
    (full,) = (metric["value"] for metric in results["metrics"] if "full network" in metric["name"])
    assert full == pytest.approx(own_card["test"]["full_accuracy"]["value"], abs=1e-6)
    text = files["README.md"].decode()
    assert "## What is promised" in text and own_card["intended"].split(".")[0] in text
    folder = hub.local("hf:me/digits")
    assert folder is not None and sorted(p.name for p in (folder / "stages").iterdir()) == [
        f"exit-{k}.onnx" for k in (1, 2, 3)
    ]
    assert_alike(folder, leaving)

    # Another bundle in its place: one commit, and no file of the first is left behind.
    smaller = Path(shutil.copytree(leaving, tmp_path / "smaller"))
    (smaller / "stages" / "exit-3.onnx").unlink()
    edited(smaller, "stages.json", "stages.2", ...)
    of_runtimes = ("on_executorch.py", "stages/exit-1.pte")
    mine = ("of-old-stages/mine.onnx", "stages/notes.txt")
    fake.repos["me/digits"] |= dict.fromkeys((*of_runtimes, *mine), b"x")
    hub.push(smaller, "me/digits", "mit")
    there = fake.repos["me/digits"].keys()
    assert fake.commits == 2 and not there & {*of_runtimes, "stages/exit-3.onnx"} and {*mine} <= there


def test_a_revision_is_named_where_the_bundle_is_to_be_used(
    fake: Hub, leaving: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it, whoever follows the card has what is on main."""
    for _ in range(2):  # the first makes the branch
        call(monkeypatch, "export", leaving, "--hub", "me/digits@candidate", "--license", "mit")
        assert "predict hf:me/digits@candidate " in capsys.readouterr().out
        assert fake.branches["me/digits"] == {"candidate"}
    text = fake.repos["me/digits"]["README.md"].decode()
    assert "predict hf:me/digits@candidate " in text
    assert front(text)["model-index"][0]["name"] == "digits"  # type: ignore[index]


def test_folders_of_this_machine_stay_here(fake: Hub, leaving: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(leaving, tmp_path / "mine"))
    card = json.loads((bundle / "card.json").read_text())
    card["data"]["name"] = "folder"  # which is called as its folder is
    card["data"]["provenance"]["root"] = "/home/somebody/secret"
    card["data"]["spec"] = {"root": None, "split_file": "/home/somebody/secret/split.json"}
    card["network"]["weights"] = "/home/somebody/my_weights.pth"
    card["training"]["made_with"]["machine"] = "somebody-laptop"
    card["labels"][:2] = ["/", "/m/01g317"]
    compared = {"images": 9, "largest": 0.0, "near": 0, "tolerance": 1e-4}
    card["check"] = {**compared, "what": "random numbers, as there is no folder /home/somebody/secret"}
    (bundle / "card.json").write_text(json.dumps(card))
    (bundle / "card.md").write_text(markdown(card))
    libraries = str(Path(np.__file__).parents[1]).encode()
    assert not any(libraries in file.read_bytes() for file in bundle.glob("stages/*"))
    seal(bundle)
    hub.push(bundle, "me/digits", "mit")
    pushed = json.loads(fake.repos["me/digits"]["card.json"])
    assert pushed["network"]["weights"] == "my_weights.pth" and pushed["latency"] == card["latency"]
    assert pushed["labels"][:2] == ["/", "/m/01g317"]
    text = fake.repos["me/digits"]["README.md"].decode()
    assert "exits, on secret\n" in text
    results = front(text)["model-index"][0]["results"]  # type: ignore[index]
    assert results[0]["dataset"]["name"] == "secret"
    assert "no folder secret" in fake.repos["me/digits"]["card.md"].decode()
    assert not any(b"somebody" in data for data in fake.repos["me/digits"].values())
    assert "/home/somebody/secret" in (bundle / "card.json").read_text()  # one's own is as it was
    folder = hub.local("hf:me/digits")
    assert folder is not None  # and sums are those of what was pushed
    assert_alike(folder, leaving)


def test_a_changed_download_is_refused(fake: Hub, leaving: Path) -> None:
    hub.push(leaving, "me/digits", "mit")
    files = fake.repos["me/digits"]
    files["stages/exit-2.onnx"] = files["stages/exit-2.onnx"][:-1] + b"x"
    folder = hub.local("hf:me/digits")
    assert folder is not None
    assert "exit-2.onnx" in bundle_refusal(Bundle, folder)


def test_nothing_else_is_fetched_and_no_code_of_a_bundle_runs(
    fake: Hub, leaving: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(leaving, tmp_path / "mine"))
    trap = tmp_path / "it-ran"
    for name in ("run.py", "scoring.py", "preprocessing.py"):
        (bundle / name).write_text(f"open({str(trap)!r}, 'w')\n")
    seal(bundle)
    hub.push(bundle, "me/digits", "mit")
    fake.repos["me/digits"] |= {"model.pkl": b"x", "stages/code.py": b"x", "pytorch_model.bin": b"x"}
    folder = hub.local("hf:me/digits")
    assert folder is not None
    fetched = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert not fetched & {"model.pkl", "stages/code.py", "pytorch_model.bin"}
    noise = np.zeros((1, 8, 8, 1), np.float32)
    assert Bundle(folder).predict(noise).classes.shape == (1,) and not trap.exists()


def test_mistakes_are_a_line(
    fake: Hub,
    leaving: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    assert refusal(hub.local, "hf:digits") == snapshot
    assert refusal(hub.local, "hf:../..") == snapshot
    refuses("hf:me/nothing", hub.local, "hf:me/nothing")
    assert hub.local("bundle/") is None
    assert refusal(hub.push, leaving, "me", "mit") == snapshot
    assert refusal(hub.push, leaving, "me/digits", "MIT license!") == snapshot
    refuses("is no bundle", hub.push, tmp_path, "me/digits", "mit")
    fake.repos["me/other"] = {"README.md": b"x"}
    refuses("hf:me/other", hub.local, "hf:me/other")
    monkeypatch.setenv("HF_TOKEN", "another")
    refuses("to me/digits", hub.push, leaving, "me/digits", "mit")
    assert refusal(offramp.export, str(leaving), out=tmp_path / "b", policy="p.json") == snapshot


def test_a_dry_run_shows_all_that_would_be_sent_and_sends_nothing(
    fake: Hub, leaving: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "export", leaving, "--hub", "me/digits", "--license", "mit", "--dry-run", "--json")
    assert not fake.repos
    plan = json.loads(capsys.readouterr().out)
    hub.push(leaving, "me/digits", "mit")
    sent = fake.repos["me/digits"]
    sent.pop(".gitattributes")  # the hub's own
    assert {name: len(content) for name, content in sent.items()} == plan["files"]
    assert sent["README.md"].decode() == plan["card"]


@pytest.mark.usefixtures("fake")
def test_predict_from_the_hub(leaving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    hub.push(leaving, "me/digits", "mit")
    monkeypatch.chdir(tmp_path)
    Image.fromarray((load_digits().images[0] * 15).astype(np.uint8)).save("a.png")
    call(monkeypatch, "predict", "hf:me/digits", "a.png")
    with Path("answers.csv").open() as file:
        (row,) = csv.DictReader(file)
    expected = Bundle(leaving).predict([Image.open("a.png")])
    assert row["class"] == expected.labels[0] and int(row["exit"]) == expected.exits[0]
