"""ImageNet-100 (Tian et al., 2020): the ILSVRC 2012 images of 100 classes, or of any others."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch

from offramp.data.images.files import Files
from offramp.data.images.geometry import Geometry
from offramp.data.raw import RawData, RawSplit
from offramp.data.sources import tree
from offramp.errors import OfframpError

FETCH = (
    "ILSVRC 2012's training and validation images from https://image-net.org/download-images (they ask "
    "for registration) so that it holds train/WNID/IMAGE.JPEG and val/WNID/IMAGE.JPEG"
)
FOLDERS = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # the last two as the competition's archive
EVALUATION = Geometry(size=224, resize=256)


def imagenet100(root: Path, wnids: str | Sequence[str] | None = None) -> RawData:
    """An ILSVRC tree, `train/WNID/…` and `val/WNID/…`; `val` is the test split. Classes in the
    alphabetical order of their wnids; those not asked for are passed over. Images come with the shorter
    side scaled to 256 px and the central 224 px cut out, unless the study says otherwise.

    wnids: which classes: a list, or the path of a file with one a line, or `all` that `train` holds;
    by default the 100 of Tian et al., "Contrastive Multiview Coding".

    Raises OfframpError naming the folder or file that is wrong.
    """
    tree.check_folder(root, FETCH)
    home = next((root / f for f in FOLDERS if (root / f / "train").is_dir()), None)
    if home is None:
        raise OfframpError(f"{root} holds no folder train; fetch {FETCH}")
    chosen = _wnids(wnids, home)
    splits = {name: _split(root, home / name, chosen) for name in ("train", "val")}
    made = {"root": str(root), "files": {name: len(s.labels) for name, s in splits.items()}}
    return RawData(splits["train"], splits["val"], chosen, provenance=made, geometry=EVALUATION)


def _wnids(given: str | Sequence[str] | None, home: Path) -> tuple[str, ...]:
    if given == "all":
        words: Sequence[str] = [path.name for path in tree.folders(home / "train")]
    elif given is None:
        words = resources.files(__package__).joinpath("imagenet100.txt").read_text().split()
    elif isinstance(given, str):
        path = Path(given).expanduser()
        try:
            words = path.read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise OfframpError(
                f"data.wnids: {path} cannot be read ({error}); give a file with one wnid a line, "
                "a list, or all"
            ) from error
    else:
        words = [str(word) for word in given]
    if len(set(words)) < 2:
        raise OfframpError(f"data.wnids names {len(set(words))} classes; give two or more")
    return tuple(sorted(set(words)))


def _split(root: Path, place: Path, wnids: tuple[str, ...]) -> RawSplit:
    if not place.is_dir():
        raise OfframpError(f"there is no folder {place}; fetch {FETCH}")
    missing = [name for name in wnids if not (place / name).is_dir()]
    if missing:
        raise OfframpError(
            f"{place} lacks {len(missing)} of {len(wnids)} class folders, {missing[0]} first; "
            f"fetch {FETCH}, or give other classes as data.wnids (all: those that are there)"
        )
    files = tree.class_files(root, place, wnids)
    labels = torch.repeat_interleave(torch.tensor([len(files[name]) for name in wnids]))
    return RawSplit(Files(root, tuple(i for name in wnids for i in files[name])), labels)
