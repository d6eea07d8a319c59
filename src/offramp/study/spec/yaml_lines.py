"""YAML that remembers on which line each value stands, and takes nothing by surprise.

PyYAML reads YAML 1.1, where `1e-3` is a word, `12:30` is the number 750 and `010` is 8. Only its
parser is used here; scalars are read by the plain rules below, so that a study file means what it
looks like.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from offramp.errors import OfframpError
from offramp.files import DOCUMENT, read_regular_text

Path = tuple[str | int, ...]  # from the top: keys of mappings, positions (from 0) in lists

_STANDARD = "tag:yaml.org,2002:"
_GUESSED = ("null", "bool", "int", "float", "str", "seq", "map", "timestamp", "value", "merge")
_KNOWN = {_STANDARD + kind for kind in _GUESSED}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,18}|[1-9][0-9]{0,2}(_[0-9]{3}){1,5})")
_TAGGED = re.compile(r"(&\S+\s+)?!")  # with a tag, perhaps behind an anchor
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_MOST_VALUES = 100_000  # aliases can make a small file expand without end
_MOST_LEVELS = 50


@dataclass(frozen=True)
class Document:
    """A YAML document."""

    value: Any  # in the types of JSON
    # the line, from 1, on which each key or list entry stands; the top itself has no entry
    lines: dict[Path, int]

    def places(self, source: str) -> dict[Path, str]:
        """Where each key or list entry stands, `source:line`; the top, (), is `source`."""
        return {path: f"{source}:{line}" for path, line in self.lines.items()} | {(): source}


def text_of(path: pathlib.Path, missing: str) -> str:
    """A file that somebody wrote. missing: what to say where there is none.

    Raises:
        OfframpError: Where it cannot be read as text.
    """
    try:
        return read_regular_text(path, DOCUMENT, "utf-8-sig")
    except FileNotFoundError:
        raise OfframpError(f"{path}: {missing}") from None
    except UnicodeDecodeError:
        raise OfframpError(f"{path}: not a text file; save it as UTF-8") from None
    except OSError as error:
        reason = error.strerror or str(error)
        reason = reason[:1].lower() + reason[1:]  # units keep their capitals
        raise OfframpError(f"{path}: cannot be read ({reason}); give a readable file") from None


def parse(text: str, source: str, numbered: bool = True) -> Document:
    """Read one YAML document. An empty one has the value None.

    No tag makes an object. Anchors and `<<` merges work; a key that stands twice is refused. source:
    what messages call it; numbered: whether they say the line.

    Raises:
        OfframpError: `<source>:<line>: <what is wrong>`.
    """
    reader = _Reader(source, numbered)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return Document(None if node is None else reader.read(node, ()), reader.lines)
    except yaml.MarkedYAMLError as error:
        raise reader.invalid(error, text) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise OfframpError(
            f"{reader.at(line)}: not valid YAML (a control character); remove it"
        ) from error
    except RecursionError as error:
        raise OfframpError(f"{source}: nested without end; flatten it") from error


@dataclass
class _Reader:
    source: str
    numbered: bool
    lines: dict[Path, int] = field(default_factory=dict)
    values: int = 0

    def at(self, line: int) -> str:
        return f"{self.source}:{line}" if self.numbered else self.source

    def fail(self, node: yaml.Node, what: str) -> OfframpError:
        return OfframpError(f"{self.at(node.start_mark.line + 1)}: {what}")

    def invalid(self, error: yaml.MarkedYAMLError, text: str) -> OfframpError:
        last = len(text.splitlines()) or 1
        marks = [m for m in (error.problem_mark, error.context_mark) if m]
        lines = [min(mark.line + 1, last) for mark in marks] or [1]
        what = " ".join((error.problem or error.context or "it cannot be read").split())
        if len(set(lines)) == 2:
            what = f"{what}, in what began on line {lines[1]}"
        return OfframpError(f"{self.at(lines[0])}: not valid YAML ({what}); mend it")

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.values += 1
        if len(path) > _MOST_LEVELS:
            raise self.fail(node, f"nested more than {_MOST_LEVELS} levels deep; flatten it")
        if self.values > _MOST_VALUES:
            raise self.fail(node, f"expands to more than {_MOST_VALUES} values; use fewer aliases")
        if node.tag not in _KNOWN:
            tag = node.tag.replace(_STANDARD, "!!")
            raise self.fail(node, f"the tag '{tag}' means nothing here; write a plain value")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.entry(child, child, (*path, i)) for i, child in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        self.check_text(node)
        return _scalar(node)

    def check_text(self, node: yaml.ScalarNode) -> None:
        """Raises OfframpError for half a character, which an escape can write and nothing can print."""
        if any("\ud800" <= c <= "\udfff" for c in node.value):
            raise self.fail(node, "a text holds half a character (a surrogate); write the whole one")

    def entry(self, mark: yaml.Node, node: yaml.Node, path: Path) -> Any:
        self.lines[path] = mark.start_mark.line + 1
        return self.read(node, path)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, child in node.value:
            if key.tag == f"{_STANDARD}merge":
                for source in self.merges(child):
                    merged |= self.mapping(source, path)
        for key, child in node.value:
            if key.tag == f"{_STANDARD}merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise self.fail(key, "a key must be a plain name; put the list or mapping after it")
            self.check_text(key)
            name = key.value
            if name in own:
                where = f"line {first[name]} has it already"
                raise self.fail(key, f"the key {name!r} appears twice ({where}); keep one")
            first[name] = key.start_mark.line + 1
            own[name] = self.entry(key, child, (*path, name))
        return {**merged, **own}

    def merges(self, node: yaml.Node) -> Iterator[yaml.MappingNode]:
        """What `<<` names, the strongest last: of several, the first one wins."""
        for source in node.value[::-1] if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                raise self.fail(node, "'<<' must name a mapping; write `<<: *anchor`")
            self.values += 1
            if self.values > _MOST_VALUES:
                raise self.fail(node, "merges too much; use fewer aliases")
            yield source


def _scalar(node: yaml.ScalarNode) -> Any:
    """Text where it is quoted or tagged as such (`!!str 5`), else what it looks like; what looks like
    nothing else is text."""
    text: str = node.value
    if node.style is not None:
        return text
    if node.tag == f"{_STANDARD}str" and _is_tagged(node):
        return text
    if node.tag == f"{_STANDARD}null":
        return None
    if node.tag == f"{_STANDARD}bool":
        return text.lower() in ("true", "yes", "on")
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if node.tag == f"{_STANDARD}float" and text.lower().lstrip("+-") in (".inf", ".nan"):
        return float(text.replace(".", ""))
    return text


def _is_tagged(node: yaml.ScalarNode) -> bool:
    """Whether a tag was written, which the node itself does not tell from one that was guessed."""
    mark = node.start_mark
    return _TAGGED.match(mark.buffer or "", mark.pointer) is not None
