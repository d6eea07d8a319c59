"""Study files, and files that are lists of study files. Each is read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from json import dumps, loads
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError, nearest
from offramp.files import inside
from offramp.study.spec import places, yaml_lines
from offramp.study.spec.models import Study
from offramp.study.spec.places import Places
from offramp.study.spec.yaml_lines import Document

KEYS = ("name", "studies")
# Of a rehearsal, `scale: small`: at the most.
EPOCHS, SEEDS, SIZE = 2, 2, 64  # pixels a side
TRAIN_SHARE, LEAST_OF_CLASS = 100, 10  # one image in so many, and at least so many of a class
TEST_SHARE = 10


@dataclass(frozen=True)
class ListedStudy:
    """A study and the file that it was read from."""

    path: Path
    study: Study


@dataclass(frozen=True, eq=False)
class StudyFile:
    """A study file as it was read: what becomes of the file later changes nothing."""

    path: Path
    document: Document  # what it says
    # over it, each `key.key=value` with a value in YAML; a position in a list is a number from 0:
    # `strategies.0.as=mine`
    settings: tuple[str, ...] = ()
    data_root: Path | None = None  # the folder of its data, which `settings` win over

    def study(self, more: Sequence[str] = ()) -> Study:
        """more: settings on top. Raises OfframpError for everything that is wrong in it."""
        return self._set((*root_setting(self.data_root), *self.settings, *more))[1]

    def rewritten(self, more: Sequence[str] = ()) -> dict[str, Any]:
        """What the file says with its settings and more, to be written again: in the types of JSON,
        shorthands and what its scale sets written out. Raises OfframpError as `study` does."""
        value, _ = self._set((*self.settings, *more))
        return {key: section for key, section in value.items() if key != "scale"}

    def _set(self, settings: Sequence[str]) -> tuple[dict[str, Any], Study]:
        value, source = self.document.value, str(self.path)
        if value is None:
            raise OfframpError(f"{source}: the file is empty; write strategies, backbone and data in it")
        return _set(places.expanded(value, source), self.document.places(source), settings)


def root_setting(folder: str | Path | None) -> list[str]:
    """The setting of the folder of data, which others win over; none where none is named."""
    return [] if folder is None else [f"data.root={dumps(str(folder))}"]


def read(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a file that is not a list. overrides: as the settings of `StudyFile`.

    Raises:
        OfframpError: For a file that cannot be read and for everything that is wrong in it.
    """
    return StudyFile(Path(path), _document(Path(path)), tuple(overrides)).study()


def parse(
    mapping: Mapping[str, Any],
    source: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
) -> Study:
    """A study from a mapping in the types of JSON. source: what messages call it; overrides: as the
    settings of `StudyFile`; flags: what messages call some of its top-level keys instead.

    Raises:
        OfframpError: For everything that is wrong in it.
    """
    name = source or "study"
    value, where = places.expanded(mapping, name), places.everywhere(mapping, (), name)
    for key, flag in (flags or {}).items():
        where |= places.everywhere(mapping[key], (key,), flag)
    return _set(value, where, overrides)[1]


def as_text(study: Study, without_functions: bool = True) -> str:
    """A study as JSON, for another process: what a study file says, after all overrides.
    without_functions: refuse a strategy that is a function at hand; else its name alone is told.

    Raises:
        OfframpError: For such a function, which has no name to find it by.
    """
    for strategy in study.strategies if without_functions else ():
        if strategy.own is not None:
            raise OfframpError(
                f"'{strategy.label}' is a function of this process; name it path/to/file.py:function"
            )
    text = study.model_dump(mode="json", by_alias=True)
    text["strategies"] = [_flat(strategy) for strategy in text["strategies"]]
    text["backbone"] = _flat(text["backbone"])
    text["data"] = _flat({**text["data"], "options": dict(study.data.options)})
    return dumps(text)


def from_text(
    text: str, where: Places | None = None, functions: Mapping[str, Any] | None = None
) -> Study:
    """The study that `as_text` wrote. where: the places of its settings, for messages; functions:
    strategies that are functions, by label.

    Raises:
        OfframpError: For anything else.
    """
    value = loads(text)
    for entry in value["strategies"]:
        entry["name"] = (functions or {}).get(entry["as"], entry["name"])
    return _validated(value, where or {(): "the study"})


def _flat(section: dict[str, Any]) -> dict[str, Any]:
    """Options among the other keys, as a file has them."""
    return {
        **{name: value for name, value in section.items() if name != "options"},
        **section["options"],
    }


def exits(text: str) -> Any:
    """What `--exits` says, as a study file would: `2`, `a,b`, `25%,50%` or `[[a, b], [c]]`."""
    if text.lstrip().startswith("["):
        return yaml_lines.parse(text, "--exits", numbered=False).value
    return int(text) if text.isdecimal() else [name.strip() for name in text.split(",")]


def study_files(
    path: Path, overrides: Sequence[str] = (), data_root: Path | None = None
) -> tuple[StudyFile, ...]:
    """The study files of a list, in its order; of a file that is a study, itself. overrides: as the
    settings of `StudyFile`, for every one; data_root: of a study, the folder of its data; of a list, a
    folder with one for each data set, by name.

    Raises:
        OfframpError: For a file that cannot be read, and for whatever is wrong in a list.
    """
    document, settings = _document(path), tuple(overrides)
    if not _is_list(document):
        return (StudyFile(path, document, settings, data_root),)
    files = tuple(StudyFile(file, listed, settings) for file, listed in _listed(path, document))
    if data_root is None:
        return files
    return tuple(replace(file, data_root=data_root / file.study().data.name) for file in files)


def members(
    path: Path, overrides: Sequence[str] = (), data_root: Path | None = None
) -> tuple[ListedStudy, ...]:
    """The studies of `study_files`. Raises OfframpError as that does, and as `studies` does."""
    return studies(study_files(path, overrides, data_root))


def studies(files: Sequence[StudyFile]) -> tuple[ListedStudy, ...]:
    """What files say; each control is a study of its own, and so is each seed that draws its own splits.
    Raises OfframpError for whatever is wrong in any of them."""
    return tuple(ListedStudy(file.path, study) for file in files for study in file.study().parts)


def _is_list(document: Document) -> bool:
    return isinstance(document.value, Mapping) and "studies" in document.value


def _listed(path: Path, document: Document) -> Iterator[tuple[Path, Document]]:
    """The files that a list names, each read."""
    for key in document.value:
        if key not in KEYS:
            line = document.lines.get((key,), 1)
            raise OfframpError(
                f"{path}:{line}: a list of studies has no '{key}'{nearest(str(key), KEYS)}; "
                "write settings into the studies, or use --set"
            )
    line = document.lines.get(("studies",), 1)
    names = document.value["studies"]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise OfframpError(f"{path}:{line}: studies must list study files, such as [a.yaml, b.yaml]")
    if twice := next((n for i, n in enumerate(names) if n in names[:i]), None):
        raise OfframpError(f"{path}:{line}: studies names {twice} twice; remove one")
    for name in names:
        try:
            inside(path.parent, name)
        except ValueError:
            raise OfframpError(
                f"{path}:{line}: {name} lies outside the list's folder; put the study beside the list"
            ) from None
        file = path.parent / name  # as the user knows it
        listed = _document(file)
        if _is_list(listed):
            raise OfframpError(f"{path}:{line}: {name} is itself a list; name its studies")
        yield file, listed


def _document(path: Path) -> Document:
    missing = "no such study file; `offramp recipes demo > demo.yaml` writes one to start from"
    return yaml_lines.parse(yaml_lines.text_of(path, missing), str(path))


def _set(value: dict[str, Any], where: Places, overrides: Sequence[str]) -> tuple[dict[str, Any], Study]:
    """What the file says with `overrides` applied, and then what its scale sets of the rest; and the
    study that this is."""
    for setting in overrides:
        value, where = places.overridden(value, where, setting)
    study = _validated(value, where)
    if study.scale == "full":
        return value, study
    # By place, not by flag: `--set 'recipe={epochs: 10}'` sets recipe.epochs too.
    flags = {path for path, flag in where.items() if flag.startswith("--set ")}
    for setting in small(study):
        names = setting.partition("=")[0].split(".")
        at = tuple(int(name) if name.isdecimal() else name for name in names)
        sized = at[-1] == "size" and ("data", "size") in flags  # sizes of controls go with the study's
        if at not in flags and not sized:
            value, where = places.overridden(value, where, setting, "scale: small,")
    return value, _validated(value, where)


def _validated(value: dict[str, Any], where: Places) -> Study:
    study = places.validated(Study.model_validate, value, where)
    study._places = where
    return study


def small(study: Study) -> list[str]:
    """A study cut down to a rehearsal: the same program, in minutes.

    Two epochs, one training image in a hundred (10 a class at least), one test image in ten, 64 px at
    most, two seeds. Of data whose counts are not known, all images, or 1,000 where the study says how
    many. What is smaller already stays; a control's own size shrinks as the study's does. The network
    keeps its width: another one would be another network.

    Returns:
        Settings, as of `--set`.
    """
    from offramp.data.load import declared_counts  # reading does not need them

    declared = declared_counts(study.data.name, {})
    counts = declared_counts(study.data.name, dict(study.data.options))
    train = test = 1_000
    size = study.data.size
    if counts is not None:
        classes = len(counts.train)
        train = max(sum(counts.train) // TRAIN_SHARE, LEAST_OF_CLASS * classes)
        test = sum(counts.test) // TEST_SHARE
    settings = [
        f"recipe.epochs={min(EPOCHS, study.recipe.epochs)}",
        f"seeds={list(study.seeds[:SEEDS])}",
    ]
    for name, most in (("train_images", train), ("test_images", test)):
        images = getattr(study.data, name)
        if images is not None or counts is not None:
            settings.append(f"data.{name}={min(images or most, most)}")
    if declared is not None:
        size = size or declared.shape[1]
    if size is not None and size > SIZE:
        settings.append(f"data.size={SIZE}")
        own = [(at, c.size) for at, c in enumerate(study.controls) if c.size is not None]
        settings += [f"controls.{at}.size={max(1, round(side * SIZE / size))}" for at, side in own]
    return settings
