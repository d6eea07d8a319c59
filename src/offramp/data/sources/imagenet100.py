"""ImageNet-100 (Tian et al., 2020): the ILSVRC 2012 images of 100 classes, or of any others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offramp.data.images.files import check_folder, class_files, folders
from offramp.data.images.geometry import Geometry
from offramp.data.raw import DataSource, DeclaredCounts, RawData, RawSplit, fixed_counts
from offramp.errors import OfframpError
from offramp.files import DOCUMENT, read_regular_text

FETCH = (
    "ILSVRC 2012's training and validation images from https://image-net.org/download-images (they ask "
    "for registration) so that it holds train/WNID/IMAGE.JPEG and val/WNID/IMAGE.JPEG"
)
FOLDERS = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # the last two as the competition's archive
EVALUATION = Geometry(size=224, resize=256)

# The card of hf.co/datasets/clane9/imagenet-100 counts 126,689 and 5,000 images of this list. Classes
# have 732 to 1,300 of the former; here all have their mean.
COUNTS = DeclaredCounts((1_267,) * 89 + (1_266,) * 11, (50,) * 100, (3, 224, 224))


def imagenet100(root: Path, wnids: str | Sequence[str] | None = None) -> RawData:
    """An ILSVRC tree, `train/WNID/…` and `val/WNID/…`; `val` is the test split.

    Classes are in the alphabetical order of their wnids; those not asked for are passed over. Images
    come with the shorter side scaled to 256 px and the central 224 px cut out, unless the study says
    otherwise.

    Args:
        root: The folder of the tree, or of the competition's archive.
        wnids: Which classes: a list, or the path of a file with one a line, or `all` that `train` holds;
            by default the 100 of Tian et al., "Contrastive Multiview Coding".

    Raises:
        OfframpError: naming the folder or file that is wrong.
    """
    check_folder(root, FETCH)
    home = next((root / f for f in FOLDERS if (root / f / "train").is_dir()), None)
    if home is None:
        raise OfframpError(f"{root} holds no folder train; fetch {FETCH}")
    classes = _classes(wnids, home)
    train, test = (_split(root, home / name, classes) for name in ("train", "val"))
    files = {"train": len(train.labels), "val": len(test.labels)}
    provenance = {"root": str(root), "files": files}
    return RawData(train, test, classes, provenance=provenance, geometry=EVALUATION)


def _classes(wnids: str | Sequence[str] | None, home: Path) -> tuple[str, ...]:
    if wnids == "all":
        words: Sequence[str] = [path.name for path in folders(home / "train")]
    elif wnids is None:
        words = WNIDS.split()
    elif isinstance(wnids, str):
        path = Path(wnids).expanduser()
        try:
            words = read_regular_text(path, DOCUMENT).split()
        except (OSError, UnicodeDecodeError) as error:
            raise OfframpError(
                f"data.wnids: {path} cannot be read ({error}); give a file with one wnid a line, "
                "a list, or all"
            ) from error
    else:
        words = [str(word) for word in wnids]
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
    return RawSplit(*class_files(root, place, wnids))


WNIDS = """
n02869837 n01749939 n02488291 n02107142 n13037406 n02091831 n04517823 n04589890 n03062245
n01773797 n01735189 n07831146 n07753275 n03085013 n04485082 n02105505 n01983481 n02788148
n03530642 n04435653 n02086910 n02859443 n13040303 n03594734 n02085620 n02099849 n01558993
n04493381 n02109047 n04111531 n02877765 n04429376 n02009229 n01978455 n02106550 n01820546
n01692333 n07714571 n02974003 n02114855 n03785016 n03764736 n03775546 n02087046 n07836838
n04099969 n04592741 n03891251 n02701002 n03379051 n02259212 n07715103 n03947888 n04026417
n02326432 n03637318 n01980166 n02113799 n02086240 n03903868 n02483362 n04127249 n02089973
n03017168 n02093428 n02804414 n02396427 n04418357 n02172182 n01729322 n02113978 n03787032
n02089867 n02119022 n03777754 n04238763 n02231487 n03032252 n02138441 n02104029 n03837869
n03494278 n04136333 n03794056 n03492542 n02018207 n04067472 n03930630 n03584829 n02123045
n04229816 n02100583 n03642806 n04336792 n03259280 n02116738 n02108089 n03424325 n01855672
n02090622
"""

IMAGENET100 = DataSource(imagenet100, FETCH, fixed_counts(COUNTS))
