"""A file that says which image is in which split, so that a study is repeatable elsewhere.

JSON: `{"version": 1, "splits": {"train": {ID: SHA-256, …}, "validation": …}}`. An id is the path of a
file below the data set's folder, or the number of a row; the hash is of the file, or of the pixels
where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from offramp.data.images.files import Opened
from offramp.data.raw import RawData, RawSplit
from offramp.data.read import LoadedSplit, digests_of
from offramp.data.splits import Splits, Subset
from offramp.data_spec import SPLITS
from offramp.errors import OfframpError
from offramp.files import replacing, writing

VERSION = 1


def save(path: Path, raw: RawData, chosen: Splits) -> None:
    """Write the split file of a choice, hashing every image of it."""
    splits = {
        name: dict(zip(_ids(raw, part), digests_of(part), strict=True))
        for name, part in chosen.parts.items()
    }
    with writing(path), replacing(path) as temporary:
        temporary.write_text(json.dumps({"version": VERSION, "splits": splits}, indent=1))


def read(path: Path) -> dict[str, dict[str, str]]:
    """The hash of every image, by split and id. Raises OfframpError where it cannot be read as one."""
    try:
        kept = json.loads(path.read_bytes())
        splits = {name: dict(kept["splits"][name]) for name in SPLITS}
        good = kept["version"] == VERSION and all(
            entries and all(isinstance(sha, str) for sha in entries.values())
            for entries in splits.values()
        )
    except FileNotFoundError as error:
        raise OfframpError(f"there is no file {path}; correct data.split_file") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OfframpError(f"{path} is no split file ({error!r}); save it again") from error
    if not good:
        raise OfframpError(f"{path} is no split file of version {VERSION}; save it again")
    return splits


def choose(path: Path, splits: Mapping[str, Mapping[str, str]], raw: RawData) -> Splits:
    """The rows that a split file names. splits: see `read`.

    Raises OfframpError for an image that is absent, an image or a group that is in two splits, and a
    split whose images come from several of the source's.
    """
    places = {
        image: (name, row)
        for name, source in _sources(raw).items()
        for row, image in enumerate(_all_ids(name, source))
    }
    parts: dict[str, Subset] = {}
    owner: dict[str, str] = {}
    for split, entries in splits.items():
        if split == "validation" and entries == splits["test"]:
            continue  # as `validation: test` has it
        for image in entries:
            if image not in places:
                raise OfframpError(f"{path} names '{image}', which is not here; restore it")
            if owner.setdefault(image, split) != split:
                raise OfframpError(f"{path} has '{image}' in {owner[image]} and in {split}; correct it")
        origins = sorted({places[image][0] for image in entries})
        if len(origins) > 1:
            raise OfframpError(
                f"{path} makes {split} of images from {' and '.join(origins)}; make it of one of them"
            )
        rows = torch.tensor(sorted(places[image][1] for image in entries), dtype=torch.int64)
        parts[split] = Subset(_sources(raw)[origins[0]], rows)
    parts.setdefault("validation", parts["test"])
    _check_groups(path, parts)
    return Splits({name: parts[name] for name in SPLITS}, remarks=raw.remarks)


def check(
    path: Path, splits: Mapping[str, Mapping[str, str]], raw: RawData, read: Mapping[str, LoadedSplit]
) -> None:
    """Raises OfframpError, naming it, for an image that is not what it was when the file was saved."""
    for name, taken in read.items():
        for image, sha in zip(_ids(raw, taken.part), taken.digests, strict=True):
            if splits[name][image] != sha:
                raise OfframpError(
                    f"'{image}' is not what {path} was made of; restore the image, or save the splits "
                    "again"
                )


def _check_groups(path: Path, parts: Mapping[str, Subset]) -> None:
    owner: dict[str, str] = {}
    for name, part in parts.items():
        groups = part.source.groups
        if groups is None or (name == "validation" and part is parts["test"]):
            continue
        for row in part.rows.tolist():
            if owner.setdefault(groups[row], name) != name:
                raise OfframpError(
                    f"{path} has group '{groups[row]}' in {owner[groups[row]]} and in {name}; correct it"
                )


def _sources(raw: RawData) -> dict[str, RawSplit]:
    found = {name: getattr(raw, name) for name in SPLITS}
    return {name: source for name, source in found.items() if source is not None}


def _all_ids(name: str, source: RawSplit) -> tuple[str, ...]:
    if isinstance(source.images, Opened):
        return source.images.ids
    return tuple(f"{name} row {row}" for row in range(len(source.labels)))


def _ids(raw: RawData, part: Subset) -> list[str]:
    name = next(name for name, source in _sources(raw).items() if source is part.source)
    ids = _all_ids(name, part.source)
    return [ids[row] for row in part.rows.tolist()]
