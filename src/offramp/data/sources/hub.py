"""Any image-classification set of the Hugging Face hub, through its `datasets` library."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from offramp.data.images.files import EncodedImages
from offramp.data.raw import DataSource, RawData, RawSplit
from offramp.errors import OfframpError, in_line, nearest
from offramp.files import TABLE, read_regular, resolved

FETCH = "a data set of https://huggingface.co/datasets by giving its name as data.repo"


def hub(
    root: Path | None = None,
    repo: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str | None = None,
) -> RawData:
    """A data set by its name on the hub, or a folder that `save_to_disk` wrote.

    What was fetched once is used again; with HF_HUB_OFFLINE=1 nothing else is. No code of a data set is
    run.

    Args:
        root: A folder that `save_to_disk` wrote.
        repo: The name on the hub.
        config: Which configuration of it.
        revision: A commit, which makes a study repeatable.
        image_column: By default the one column of images.
        label_column: By default the one column of classes.
        train_split: Its name.
        validation_split: Its name; by default `validation`, where it exists.
        test_split: Its name; by default `test`, where it exists.

    Raises:
        OfframpError: for what is absent, and where a column must be named.
    """
    splits = _load(root, repo, config, revision)
    options = {"train": train_split, "validation": validation_split, "test": test_split}
    for key, name in options.items():
        if name is not None and name not in splits:
            raise OfframpError(f"data.{key}_split: there is no split '{name}'{nearest(name, splits)}")
    names = {key: name or key for key, name in options.items() if (name or key) in splits}
    if names.get("test") == names.get("validation"):
        names.pop("validation", None)
    train = splits[train_split]
    image = _column(train.features, "Image", image_column, "image_column")
    label = _column(train.features, "ClassLabel", label_column, "label_column")
    if type(train.features[image]).__name__ != "Image":
        raise OfframpError(
            f"column '{image}' is {train.features[image]}, not images; set data.image_column"
        )
    if hasattr(train.features[label], "decode_example"):  # the library would open whatever is in there
        raise OfframpError(f"column '{label}' holds no class numbers; set data.label_column")
    classes = _classes(train, label)
    parts = {
        key: _split(splits[name], image, label, classes, (str(repo or root), name))
        for key, name in names.items()
    }
    fingerprints = {name: str(splits[name]._fingerprint) for name in names.values()}
    provenance = {"root": str(root or repo), "revision": revision, "fingerprints": fingerprints}
    validation = parts.get("validation")
    return RawData(parts["train"], parts.get("test"), classes, validation, provenance=provenance)


def _load(root: Path | None, repo: str | None, config: str | None, revision: str | None) -> Any:
    try:
        import datasets  # an extra, and slow to import
    except ImportError as error:
        raise OfframpError(
            "data set 'hub' needs Hugging Face's library; pip install 'offramp[hub]'"
        ) from error
    if (repo is None) == (root is None):
        raise OfframpError(
            "data set 'hub' needs data.repo, a name on the hub, or data.root, a folder that "
            "save_to_disk wrote; give one of them"
        )
    try:
        if repo is None:
            loaded = datasets.load_from_disk(str(root))
        else:
            loaded = datasets.load_dataset(repo, config, revision=revision)
    except Exception as error:  # the library and its network raise all kinds
        reason = in_line(error)
        raise OfframpError(
            f"{repo or root} cannot be loaded ({reason}); correct the name, or fetch it while online"
        ) from error
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def _column(features: Any, kind: str, name: str | None, option: str) -> str:
    if name is not None:
        if name not in features:
            raise OfframpError(f"data.{option}: there is no column '{name}'{nearest(name, features)}")
        return str(name)
    columns = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(columns) != 1:
        raise OfframpError(
            f"{len(columns)} columns are of the type {kind}; set data.{option} to one of "
            f"{', '.join(columns or features)}"
        )
    return str(columns[0])


def _classes(split: Any, label: str) -> tuple[str, ...]:
    """Names of the classes: the feature's own, or the sorted words of a text column, or none."""
    feature = split.features[label]
    if getattr(feature, "names", None):
        return tuple(feature.names)
    if getattr(feature, "dtype", "") in ("string", "large_string"):
        return tuple(sorted(map(str, split.unique(label))))
    return ()


def _split(
    split: Any, image: str, label: str, classes: tuple[str, ...], place: tuple[str, str]
) -> RawSplit:
    """place: the source, and the split's name."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    where = " ".join(place)
    stored = split.cast_column(image, datasets.Image(decode=False)).select_columns([image])
    labels = list(split[label])
    if classes and all(isinstance(word, str) for word in labels):
        number = {name: i for i, name in enumerate(classes)}
        strange = next((word for word in labels if word not in number), None)
        if strange is not None:
            raise OfframpError(
                f"{where}: '{strange}' is no class of the training split; correct the labels"
            )
        labels = [number[word] for word in labels]
    for row, truth in enumerate(labels):
        if not isinstance(truth, int) or isinstance(truth, bool):
            raise OfframpError(
                f"{where} row {row} has the label {truth!r}, no class number; set data.label_column"
            )
    rows = range(len(labels))
    names, ids = (tuple(f"{text} row {row}" for row in rows) for text in (where, place[1]))
    folders = [resolved(Path(f)) for f in (place[0], datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)]
    images = EncodedImages(partial(_row, stored[image], where, folders), names, ids)
    return RawSplit(images, torch.tensor(labels, dtype=torch.int64))


def _row(column: Any, where: str, folders: Sequence[Path], row: int) -> bytes:
    """folders: in which a file may lie that a row names, since others wrote the rows."""
    stored = column[row]
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise OfframpError(f"{where} row {row} holds no image; replace or remove it")
    if stored["bytes"] is not None:
        return bytes(stored["bytes"])
    path = resolved(Path(stored["path"]))
    if not any(path.is_relative_to(folder) for folder in folders):
        raise OfframpError(f"{where} row {row} names a file that is not of the data set; remove the row")
    try:
        return read_regular(path, TABLE)
    except OSError as error:
        raise OfframpError(f"{where} row {row} cannot be read ({error}); fetch it again") from error


HUB = DataSource(hub, FETCH)
