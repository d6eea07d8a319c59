"""Pages of the documentation, as their readers see them."""

import ast
import functools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from offramp.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs").glob("[dn]*/*.md")),
    *sorted((ROOT / "docs" / "results").glob("*.md")),
)
COLUMN = 96  # letters of code beside each other, on the site and on a code host


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_code_is_cut(page: Path) -> None:
    assert too_long(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_python_are_python(page: Path) -> None:
    """An ellipsis of one letter is none, and ends the site's build."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        ast.parse(block)


def test_a_long_line_would_be_seen() -> None:
    long = "x" * (COLUMN + 1)
    assert too_long(f"{long}\n\n    {long}\n\n```python\n{long}\n```\n{long}\n") == [long, long]
    assert too_long(f"    {long[1:]}\n") == []


def too_long(text: str) -> list[str]:
    """The lines of code, indented or fenced, that a column cuts."""
    actual, fenced = [], False
    for line in text.splitlines():
        if re.match(r"\s*(```|~~~)", line):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            code = line if fenced else line[4:]
            actual += [code] if len(code) > COLUMN else []
    return actual


def test_readme_is_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 140


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_shown_exist_with_their_options(page: Path) -> None:
    assert [line for line in commands(page.read_text(encoding="utf-8")) if not is_known(line)] == []


def test_commands_that_do_not_exist_would_be_seen() -> None:
    text = "Ask `offramp runs x` or:\n\n    $ offramp run a.yaml --sets b \\\n        --dry  # --no\n"
    visible = [*commands(text)]
    assert visible == ["offramp run a.yaml --sets b --dry", "offramp runs x"]
    assert not any(map(is_known, visible))
    assert is_known("offramp store copy a b") and is_known("offramp run a.yaml --dry-run -q")


def test_examples_of_help_can_be_run() -> None:
    """With every option that their command needs."""
    visible = [line for command in leaves(offramp()) for line in commands(f"\n{command.help or ''}")]
    assert len(visible) > 30 and [line for line in visible if not is_known(line) or lacks(line)] == []
    assert lacks("offramp build --backbone resnet18 --data digits") == {"--out"}, "the control"


def leaves(command: Any) -> Iterator[Any]:
    """A command, or all that a group of them has."""
    inside = getattr(command, "commands", None)
    yield from (leaf for each in inside.values() for leaf in leaves(each)) if inside else (command,)


def lacks(line: str) -> set[str]:
    """The options that its command needs and a call does not give."""
    command, words = called(line)
    needed = {option.opts[0] for option in parameters(command) if option.required}
    return {name for name in needed if name.startswith("--")} - set(words)


def commands(text: str) -> Iterator[str]:
    """Every call of offramp on a page, without its comment."""
    whole = re.sub(r"\\\n\s*", "", text)
    for line in re.findall(r"^\s+(?:\$ )?(offramp [a-z].*)$", whole, re.MULTILINE):
        yield re.split(r"\s+#\s", line)[0].strip()
    yield from re.findall(r"`(offramp [a-z][^`]*)`", whole)


@functools.cache
def offramp() -> Any:
    """The command line, put together once."""
    return app


def is_known(line: str) -> bool:
    """Whether there is such a command, with such options."""
    command, words = called(line)
    if hasattr(command, "commands"):
        return not words
    options = {name for option in parameters(command) for name in (*option.opts, *option.secondary_opts)}
    fields = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    return fields <= options | {"--help", "-h"}


def parameters(command: Any) -> Any:
    """Arguments and options, which commands make when they are first asked, and keep."""
    return command.get_params(click.Context(command, help_option_names=["-h", "--help"]))


def called(line: str) -> tuple[Any, list[str]]:
    """The command that a call names, or a group of them, and the words behind it."""
    words = shlex.split(line.replace("…", ""))[1:]
    command = offramp()
    while words and words[0] in getattr(command, "commands", ()):
        command = command.commands[words.pop(0)]
    return command, words


def test_every_variable_that_is_read_is_on_a_page() -> None:
    """Of the environment, as far as they are offramp's own."""
    sentence = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    read = set(re.findall(r'"(OFFRAMP_[A-Z_]+)"', source))
    assert "OFFRAMP_DEVICE" in read
    assert {name for name in read if not re.search(rf"\b{name}\b", sentence)} == set()


NETWORKS = {
    "resnet50 32 px": " times as long (ResNet-50, 32 px)",
    "resnet18 32 px": " (ResNet-18)",
    "mobilenetv2 32 px": " (MobileNetV2)",
    "mobilenetv2 224 px": " (MobileNetV2, 224 px)",
}


def test_what_a_single_image_costs_is_what_was_measured() -> None:
    page = (ROOT / "docs" / "prediction.md").read_text(encoding="utf-8")
    lines = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    measured = {line["name"]: line for line in lines}
    actual = {name: measured[f"one image, nothing leaves: {name}"] for name in NETWORKS}
    for name, words in NETWORKS.items():
        assert f"{actual[name]['ratio']:.2f}{words}" in page
    assert all(line["holds"] for line in actual.values())
    assert {line["bar"] for line in actual.values()} == {0.97} and "the bar is 0.97" in page
