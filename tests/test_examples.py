"""Every example that a public name's docstring shows runs as it stands, and so does README's. The page
on prediction makes the images that it answers."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import offramp
from longer import long_where
from offramp import OfframpError
from offramp.data.sources.digits import digits

ROOT = Path(__file__).parents[1]
SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FIRST = ("fit", "run", "build")  # later examples go on with what these make
ANSWER = {"as_json", "document"}  # methods of every answer
WITHOUT = ("BEFORE", "LIVE", "Event", "Goal", "Strategy")  # text and types, without a docstring


def examples(name: str) -> list[doctest.DocTest]:
    """The examples of a public name and of its methods."""
    found = doctest.DocTestFinder().find(getattr(offramp, name), name, module=False, globs={})
    return [test for test in found if test.examples]


def methods(name: str) -> set[str]:
    """Public methods that a class of ours defines."""
    held = vars(getattr(offramp, name)) if isinstance(getattr(offramp, name), type) else {}
    return {key for key, value in held.items() if callable(value) and not key.startswith("_")}


def check(name: str, names: dict[str, Any]) -> None:
    told: list[str] = []
    for test in examples(name):
        test.globs = names
        doctest.DocTestRunner(optionflags=SHOWN, verbose=False).run(
            test, out=told.append, clear_globs=False
        )
    assert not told, "".join(told)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the examples go on with, in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("examples"))
        made: dict[str, Any] = {"offramp": offramp, "torch": torch}
        for name in FIRST:
            check(name, made)
        made["policy"] = made["fitted"].calibrate(max_accuracy_loss=0.02)
        yield made


@pytest.mark.parametrize(
    "name",
    long_where(  # as the others: a network is attached, and a bundle exported
        [n for n in offramp.__all__ if n not in (*FIRST, *WITHOUT)],
        lambda n: n in ("ExitNetwork", "Exported"),
    ),
)
def test_the_examples_of(name: str, names: dict[str, Any]) -> None:
    check(name, dict(names))


@pytest.mark.parametrize("name", [n for n in offramp.__all__ if n not in WITHOUT])
def test_there_is_an_example_of(name: str) -> None:
    shown = {test.name for test in examples(name)}
    assert shown or "On the command line:" in getattr(offramp, name).__doc__, f"{name} has no example"
    if name in ("Fitted", "Results", "Chart", "Policy", "Recipe", "Augment"):
        lacking = {method for method in methods(name) - ANSWER if f"{name}.{method}" not in shown}
        assert not lacking


def test_an_example_that_is_wrong_is_found() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3", {}, "wrong", None, None)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=SHOWN, verbose=False).run(test, out=told.append)
    assert "Expected" in told[0]


class Small(nn.Module):
    """Anybody's network with `layer1` and `layer2`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
        self.layer3 = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]


@pytest.mark.journey
def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(blocks) == 2
    labels = torch.arange(150) % 3
    noise = torch.randint(0, 60, (150, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = (noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    given = {"my_module": Small(), "my_dataset": (images, labels), "images": images[:9]}
    with pytest.raises(OfframpError, match="calibration images cannot tell a loss of"):
        exec(blocks[0], given)  # a toy
    forced = blocks[0].replace("loss=0.01)", "loss=0.01, anyway=True)")
    exec(forced.replace('("bundle", policy)', '("bundle", policy, anyway=True)'), given)
    assert len(given["answers"].classes) == 9
    assert (tmp_path / "bundle" / "run.py").exists()
    floats = (images[:32].float() / 255 - 0.4) / 0.2
    net = offramp.attach(Small(), ["layer1", "layer2"], (3, 32, 32))
    names = {"net": net, "offramp": offramp, "torch": torch, "loader": [(floats, labels[:32])]}
    assert len(blocks[1].splitlines()) <= 20
    exec(blocks[1], names)
    assert names["phase"].state == "left" and torch.isfinite(names["loss"])


def test_the_page_on_prediction_makes_the_images_that_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/prediction.md").read_text(), flags=re.S)
    exec(block, {})
    raw = digits()
    ours = {bytes(image.numpy()) for split in (raw.train, raw.test) for image in split.images}
    made = [Image.open(file).tobytes() for file in tmp_path.glob("digits/*.png")]
    assert len(made) == 100 and set(made) <= ours
