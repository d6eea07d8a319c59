"""Study files, and files that are lists of study files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any

import torch

from offramp.data import Data
from offramp.data.declared import missing
from offramp.errors import OfframpError, nearest
from offramp.files import inside
from offramp.study.plan.plan import Plan, data_spec, make_plan, read_data
from offramp.study.spec import models as spec
from offramp.study.spec.models import Study
from offramp.study.spec.places import file_text
from offramp.study.spec.yaml_lines import parse

KEYS = ("name", "studies")


@dataclass(frozen=True)
class Member:
    """A study and the file that it was read from."""

    path: Path
    study: Study


def members(
    path: Path, overrides: Sequence[str] = (), data_root: Path | None = None
) -> tuple[Member, ...]:
    """The studies of a list, in its order; `overrides` apply to every one. Of a file that is a study,
    itself.

    data_root: of a study, the folder of its data; of a list, a folder with one for each data set, by
    name.

    Raises OfframpError for a file that cannot be read, and for whatever is wrong in any of them.
    """
    listed = _listed(path)
    if listed is None:
        root = [] if data_root is None else [_root(data_root)]
        return (Member(path, spec.read(path, [*root, *overrides])),)
    found = []
    for file in listed:
        study = spec.read(file, overrides)
        if data_root is not None:
            study = spec.read(file, [_root(data_root / study.data.name), *overrides])
        found.append(Member(file, study))
    return tuple(found)


def _root(folder: Path) -> str:
    return f"data.root={dumps(str(folder))}"


def _listed(path: Path) -> tuple[Path, ...] | None:
    """The files that a list names; None for a study."""
    document = parse(file_text(path), str(path))
    value: Any = document.value
    if not isinstance(value, Mapping) or "studies" not in value:
        return None
    for key in value:
        if key not in KEYS:
            line = document.lines.get((key,), 1)
            raise OfframpError(
                f"{path}:{line}: a list of studies has no '{key}'{nearest(str(key), KEYS)}; "
                "write settings into the studies, or use --set"
            )
    line = document.lines.get(("studies",), 1)
    names = value["studies"]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise OfframpError(f"{path}:{line}: studies must list study files, such as [a.yaml, b.yaml]")
    if twice := next((n for i, n in enumerate(names) if n in names[:i]), None):
        raise OfframpError(f"{path}:{line}: studies names {twice} twice; remove one")
    files = []
    for name in names:
        try:
            file = inside(path.parent, name)
        except ValueError:
            raise OfframpError(
                f"{path}:{line}: {name} lies outside the list's folder; put the study beside the list"
            ) from None
        file = path.parent / name  # as the user knows it
        if file.is_file() and _is_list(file):
            raise OfframpError(f"{path}:{line}: {name} is itself a list; name its studies")
        files.append(file)
    return tuple(files)


def _is_list(path: Path) -> bool:
    value = parse(file_text(path), str(path)).value
    return isinstance(value, Mapping) and "studies" in value


def check_data(studies: Sequence[Study]) -> None:
    """Raises OfframpError where the folder of any study's data is not there: before the first of them
    has trained for days."""
    for study in studies:
        if missing(data_spec(study)) is not None:
            read_data(study)


def plans(
    studies: Sequence[Study], device: torch.device | None = None, provisional: bool = False
) -> Iterator[Plan]:
    """The plan of each study. Data that several have in common is read once.

    Raises OfframpError as `make_plan` does.
    """
    known: list[tuple[Any, Data]] = []
    for study in studies:
        asked = (study.data, study.augment, study.execution.loader)
        data = next((held for what, held in known if what == asked), None)
        if data is None:
            data = read_data(study, provisional)
            known.append((asked, data))
        yield make_plan(study, device, provisional, data)
