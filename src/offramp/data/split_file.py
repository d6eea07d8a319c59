"""A file that says which image is in which split, so that a study is repeatable elsewhere.

JSON: `{"version": 1, "splits": {"train": {ID: SHA-256, …}, "validation": …}}`. An id is the path of a
file below the data set's folder, or the number of a row; the hash is of the file, or of the pixels
where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from offramp.data.images.files import StoredImages
from offramp.data.raw import RawData, RawSplit
from offramp.data.read import LoadedSplit, digests_of
from offramp.data.splits import Splits, Subset
from offramp.data_spec import SPLITS, DataSpec
from offramp.errors import OfframpError
from offramp.files import TABLE, read_regular, write_whole
from offramp.hashing import from_text

VERSION = 1


def save(path: Path, raw: RawData, chosen: Splits) -> None:
    """Write the split file of a choice, hashing every image of it."""
    splits = {
        name: dict(zip(_ids(raw, part), digests_of(part), strict=True))
        for name, part in chosen.parts.items()
    }
    write_whole(path, json.dumps({"version": VERSION, "splits": splits}, indent=1))


def named_by(spec: DataSpec) -> SplitFile | None:
    """The split file of a data set, if it names one. Raises OfframpError as `read` does."""
    return None if spec.split_file is None else read(Path(spec.split_file).expanduser())


def read(path: Path) -> SplitFile:
    """Raises OfframpError where a file cannot be read as a split file."""
    try:
        document = from_text(read_regular(path, TABLE))
        splits = {name: dict(document["splits"][name]) for name in SPLITS}
        good = document["version"] == VERSION and all(
            entries and all(isinstance(sha, str) for sha in entries.values())
            for entries in splits.values()
        )
    except FileNotFoundError as error:
        raise OfframpError(f"there is no file {path}; correct data.split_file") from error
    except OSError as error:
        raise OfframpError(f"cannot read {path} ({error.strerror}); give another file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise OfframpError(f"{path} is no split file ({error!r}); save it again") from error
    if not good:
        raise OfframpError(f"{path} is no split file of version {VERSION}; save it again")
    return SplitFile(path, splits)


@dataclass(frozen=True)
class SplitFile:
    """What a split file says."""

    path: Path  # the file
    splits: Mapping[str, Mapping[str, str]]  # the hash of every image, by split and id

    def choose(self, raw: RawData) -> Splits:
        """The rows that it names. Raises OfframpError for an image that is absent, an image or a group
        that is in two splits, and a split whose images come from several of the source's."""
        sources = raw.splits
        places = {
            image: (name, row)
            for name, source in sources.items()
            for row, image in enumerate(_all_ids(name, source))
        }
        parts: dict[str, Subset] = {}
        owner: dict[str, str] = {}  # of images, and of groups under another key
        for split, entries in self.splits.items():
            if split == "validation" and entries == self.splits["test"]:
                continue  # as `validation: test` has it
            for image in entries:
                if image not in places:
                    raise OfframpError(f"{self.path} names '{image}', which is not here; restore it")
                self._own(owner, f"'{image}'", split)
            origins = sorted({places[image][0] for image in entries})
            if len(origins) > 1:
                raise OfframpError(
                    f"{self.path} makes {split} of images from {' and '.join(origins)}; make it of one "
                    "of them"
                )
            rows = torch.tensor(sorted(places[image][1] for image in entries), dtype=torch.int64)
            parts[split] = Subset(sources[origins[0]], rows)
            if (groups := parts[split].source.groups) is not None:
                for row in rows.tolist():
                    self._own(owner, f"group '{groups[row]}'", split)
        parts.setdefault("validation", parts["test"])
        return Splits({name: parts[name] for name in SPLITS}, remarks=raw.remarks)

    def _own(self, owner: dict[str, str], what: str, split: str) -> None:
        """Raises OfframpError where an image or a group is in another split already."""
        if owner.setdefault(what, split) != split:
            raise OfframpError(f"{self.path} has {what} in {owner[what]} and in {split}; correct it")

    def check(self, raw: RawData, read: Mapping[str, LoadedSplit]) -> None:
        """Raises OfframpError, naming it, for an image that is not what it was when it was saved."""
        for name, loaded in read.items():
            for image, sha in zip(_ids(raw, loaded.part), loaded.digests, strict=True):
                if self.splits[name][image] != sha:
                    raise OfframpError(
                        f"'{image}' is not what {self.path} was made of; restore the image, or save the "
                        "splits again"
                    )


def _all_ids(name: str, source: RawSplit) -> tuple[str, ...]:
    if isinstance(source.images, StoredImages):
        return source.images.ids
    return tuple(f"{name} row {row}" for row in range(len(source.labels)))


def _ids(raw: RawData, part: Subset) -> list[str]:
    name = next(name for name, source in raw.splits.items() if source is part.source)
    ids = _all_ids(name, part.source)
    return [ids[row] for row in part.rows.tolist()]
