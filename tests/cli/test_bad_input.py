"""Whatever is wrong with what a user gives: one line that names it and the remedy, exit code 2,
nothing written."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import Answer, Cli
from PIL import Image

LINES = {  # of s.yaml, one each
    "seeds": "seeds: [1]",
    "strategies": "strategies: [baseline, joint]",
    "backbone": "backbone: digits-cnn",
    "exits": "exits: [blocks.0, blocks.2]",
    "data": "data: {name: digits, train_images: 100, test_images: 50}",
    "recipe": "recipe: {epochs: 1}",
}

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10, width=4):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(width, classes)

    def forward(self, x):
        return self.last(self.second(self.first(x)).mean((2, 3)))

class Branching(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)

def branching(): return Branching()
def seven(): return Net(7)
def misfit(): return Net(width=9)
def raising(classes): raise KeyError("first line\\nsecond line")
def nothing(exits=None): return None

def images(classes, test_classes=None):
    def split(n, k): return torch.zeros(n, 1, 8, 8, dtype=torch.uint8), torch.arange(n) % k
    return {"train": split(200, classes), "test": split(60, test_classes or classes)}

def one_class(): return images(1)
def stray_label(): return images(3, 5)
def broken_data(): return 1 / 0
def broken_strategy(exits): return 1 / 0

def one_loss(exits):
    from offramp.parts import head
    from offramp.phase import CE, Phase
    return (Phase("only", train=head(1), loss=CE(1)),)
"""


def picture(size: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), size, np.uint8)).save(file, "PNG")
    return file.getvalue()


def parquet(folder: str, files: Sequence[bytes], splits: Sequence[str] = ("train", "test")) -> Path:
    """A folder as of CIFAR-10, with two classes."""
    root = Path(folder)
    root.mkdir()
    for split in splits:
        images = [{"bytes": file, "path": None} for file in files]
        table = pa.table({"img": images, "label": [i % 2 for i in range(len(files))]})
        pq.write_table(table, root / f"{split}-00000-of-00001.parquet")
    return root


def of_pictures(root: str, *settings: str) -> dict[str, str]:
    """The line of a study on the images in a folder as of CIFAR-10."""
    every = ", ".join(["name: cifar10", f"root: {root}", "official: false", *settings])
    return {"data": f"data: {{{every}}}"}


def run(cli: Cli, changes: Mapping[str, str], *arguments: str) -> Answer:
    Path("s.yaml").write_text("\n".join({**LINES, **changes}.values()) + "\n")
    return cli("run", "s.yaml", "--store", "store", *arguments)


def refused(answer: Answer, where: str, *words: str) -> None:
    """One line on standard error, and nothing else anywhere."""
    assert answer.code == 2, answer
    assert answer.out == ""
    *code, line = answer.err.splitlines()
    told = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", each) for each in code]
    assert [each.partition(":")[0] for each in told] in ([], ["Code that this runs"])
    assert line.startswith(f"offramp: {where}: " if where else "offramp: ")
    assert line.count(f"{where}: ") == 1 or not where  # said once
    for word in words:
        assert word in line
    assert "Traceback" not in line and len(line) < 500
    assert not Path("store").exists()


STUDIES = {
    "unknown-strategy": ({"strategies": "strategies:\n  - joint\n  - jont"}, 4, "'jont'", "'joint'?"),
    "strategy-option": ({"strategies": "strategies:\n  - {name: joint, x: 1}"}, 3, "no option 'x'"),
    "strategy-value": (
        {"strategies": "strategies:\n  - {name: distillation, students: none}"},
        *(3, "'students'", "'none'", "'heads'"),
    ),
    "phase-pattern": (
        {"strategies": "strategies:\n  - {name: joint, phases: {branch*: {epochs: 3}}}"},
        *(3, "'branch*'", "joint"),
    ),
    "backbone": ({"backbone": "backbone: digits-cn"}, 3, "'digits-cn'", "'digits-cnn'?"),
    "timm-backbone": ({"backbone": "backbone: timm/resnet19"}, 3, "'resnet19'", "'resnet18'?"),
    "backbone-option": ({"backbone": "backbone: {name: resnet18, stemm: small}"}, 3, "'stem'?"),
    "stem": ({"backbone": "backbone: {name: resnet18, stem: smal}"}, 3, "'smal'", "'small'?"),
    "too-small": ({"backbone": "backbone: vgg16"}, 3, "8×8", "at least 32×32"),
    "tap": ({"exits": "exits: [blocks.0, blocks.22]"}, 4, "'blocks.22'", "use one of blocks.2"),
    "tap-order": ({"exits": "exits: [blocks.2, blocks.0]"}, 4, "'blocks.0'", "order of execution"),
    "tap-at-end": ({"exits": "exits: [blocks]"}, 4, "'blocks'", "earlier"),
    "tap-line": ({"exits": "exits:\n  head: linear\n  taps: [nowhere]"}, 6, "'nowhere'"),
    "too-many": ({"exits": "exits: 100"}, 4, "100 are asked for", "attach fewer"),
    "folder": ({"data": "data: {name: cifar10, root: no/where}"}, 5, "no/where", "fetch", "data.root"),
    "no-folder": ({"data": "data: cifar10"}, 5, "data.root", "OFFRAMP_DATA"),
    "data": ({"data": "data: digit"}, 5, "'digit'", "'digits'?"),
    "data-option": ({"data": "data: {name: digits, colour: 1}"}, 5, "'colour'", "remove"),
    "fit": ({"data": "data: {name: digits, fit: squash}"}, 5, "data.fit", "'crop' or 'stretch'"),
    "channels": ({"data": "data: {name: digits, channels: 2}"}, 5, "data.channels", "1 or 3"),
    "data-root": ({"data": "data: {name: digits, root: x}"}, 5, "leave data.root out"),
    "too-few": ({"data": "data: {name: digits, train_images: 5}"}, 5, "too few", "more training"),
    "too-many-images": ({"data": "data: {name: digits, train_images: 9999}"}, 5, "9999", "ask for"),
    "yaml": ({"recipe": "recipe: {epochs: 1"}, 6, "not valid YAML"),
    "numerics": ({"recipe": "numerics: cppu"}, 6, "'cppu'", "'cpu'?"),
    "other-device": ({"recipe": "numerics: cuda"}, 6, "'cuda'", "numerics: default"),
    "missing-key": ({"data": ""}, None, "'data' is missing"),
    # In the user's own code.
    "untraceable": (
        {"backbone": "backbone: my.py:branching"},
        *(3, "Branching", "control flow", "segments"),
    ),
    "no-python": ({"backbone": "backbone: no.py:net"}, 3, "no.py", "line 1", "SyntaxError"),
    "classes": ({"backbone": "backbone: my.py:seven"}, 3, "[B, 7]", "[B, 10]"),
    "misfit": ({"backbone": "backbone: my.py:misfit"}, 3, "Net", "shapes"),
    "raises": ({"backbone": "backbone: my.py:raising"}, 3, "line 22", "KeyError", "correct the file"),
    "no-net": ({"backbone": "backbone: my.py:nothing"}, 3, "returned None", "Module"),
    "no-function": ({"backbone": "backbone: my.py:sevn"}, 3, "'sevn'", "'seven'?"),
    "no-file": ({"backbone": "backbone: your.py:net"}, 3, "no file your.py"),
    "one-class": ({"data": "data: my.py:one_class"}, 5, "1 class", "two or more"),
    "stray-label": ({"data": "data: my.py:stray_label"}, 5, "test", "label 4", "0 to 2"),
    "data-raises": ({"data": "data: my.py:broken_data"}, 5, "ZeroDivisionError", "correct the file"),
    "no-data": ({"data": "data: my.py:nothing"}, 5, "returned None", "'train'"),
    "strategy-raises": ({"strategies": "strategies: [my.py:broken_strategy]"}, 2, "ZeroDivisionError"),
    "no-loss": ({"strategies": "strategies: [my.py:one_loss]"}, 2, "'only'", "loss=(CE(1),)"),
    "no-phases": ({"strategies": "strategies: [my.py:nothing]"}, 2, "no phases", "tuple of Phase"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_mistake_in_the_study_is_named_with_its_line(cli: Cli, name: str) -> None:
    changes, line, *words = STUDIES[name]
    Path("my.py").write_text(CODE)
    Path("no.py").write_text("def net(:\n")
    refused(run(cli, changes), f"s.yaml:{line}" if line else "s.yaml", *words)


def test_a_corrupt_file_is_named(cli: Cli) -> None:
    root = parquet("pictures", [picture(32)] * 40)
    data = of_pictures("pictures")
    good = run(cli, data | {"backbone": "backbone: mobilenetv1", "exits": "exits: 1"}, "--dry-run")
    assert good.code == 0, good.err  # the folder itself is fine
    file = root / "test-00000-of-00001.parquet"
    whole = file.read_bytes()
    for broken in (b"", b"PAR1 and no more", whole[:300], whole[:-9] + b"x" * 9):
        file.write_bytes(broken)
        refused(run(cli, data), "s.yaml:5", str(file), "fetch it again")
    file.unlink()
    refused(run(cli, data), "s.yaml:5", "test-*.parquet", "fetch")


@pytest.mark.long
def test_the_folder_may_be_given_beside_the_study(cli: Cli) -> None:
    parquet("pictures", [picture(32)] * 40)
    data = of_pictures("elsewhere")
    network = {"backbone": "backbone: mobilenetv1", "exits": "exits: 1"}
    refused(run(cli, data), "s.yaml:5", "elsewhere", "fetch")
    good = run(cli, data | network, "--data-root", "pictures", "--dry-run")
    assert good.code == 0
    assert "39 images of test" in good.err
    given = ("--strategy", "joint", "--backbone", "mobilenetv1", "--set", "exits=1", "--dry-run")
    given += ("--data", "cifar10", "--set", "data.official=false", "--store", "store")
    assert cli("run", *given, "--data-root", "pictures").code == 0
    answer = cli("run", *given[:-4], "--store", "store", "--data-root", "pictures")
    assert answer.code == 2 and "40 training and 40" in answer.err


def test_wrong_columns_are_named(cli: Cli) -> None:
    parquet("pictures", [picture(32)] * 40)
    wrong = {
        "label_column: lable": ("no column 'lable'", "data.label_column", "img, label"),
        "label_column: img": ("'img'", "not a class number", "data.label_column"),
        "image_column: image": ("no column 'image'", "data.image_column", "img, label"),
        "image_column: label": ("'label'", "not images", "data.image_column"),
    }
    for column, words in wrong.items():
        refused(run(cli, of_pictures("pictures", column)), "s.yaml:5", *words)


def test_images_that_cannot_be_used(cli: Cli) -> None:
    parquet("noise", [picture(32)] * 3 + [b"no image"] * 37)
    parquet("sizes", [picture(32)] * 39 + [picture(16)])
    refused(
        run(cli, of_pictures("noise")),
        "s.yaml:5",
        "no readable image",
    )
    answer = run(cli, of_pictures("sizes"))
    refused(answer, "s.yaml:5", "row 39", "3×16×16", "one size")


def test_a_study_that_cannot_be_read(cli: Cli) -> None:
    refused(cli("run", ".", "--store", "store"), ".", "cannot be read")
    Path("empty.yaml").touch()
    refused(cli("run", "empty.yaml", "--store", "store"), "empty.yaml", "empty")


def test_a_store_that_is_none(cli: Cli) -> None:
    Path("file").write_text("text")
    Path("folder").mkdir()
    answer = run(cli, {}, "--store", "file")
    assert answer.code == 2 and "not a folder" in answer.err
    Path("newer").mkdir()
    Path("newer/store.json").write_text('{"format": 99}')
    answer = run(cli, {}, "--store", "newer")
    assert answer.code == 2 and "format 99" in answer.err and "update offramp" in answer.err
    for command in (["status"], ["show", "x"], ["compare", "a", "b"], ["show", "x"], ["store", "gc"]):
        for store in ("nowhere", "folder"):
            refused(cli(*command, "--store", store), "", f" at {store};", "name another")


def test_a_store_that_cannot_be_made(cli: Cli) -> None:
    Path("file").write_text("text")
    answer = run(cli, {}, "--store", "file/store")
    assert answer.code == 2 and answer.out == "", answer
    workers, error = answer.err.split("offramp: ")  # how many were chosen is said before
    assert "Workers: 1 (" in workers and error.count("\n") == 1
