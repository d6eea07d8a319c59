"""What a user's own function, `path/to/file.py:function`, may return as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from offramp.data.dataset import SPLITS
from offramp.data.raw import RawData
from offramp.data.samples import class_names, read_given, read_samples
from offramp.errors import OfframpError, nearest
from offramp.usercode import Loaded, failed, file_of


def call(name: str, own: Loaded, arguments: Mapping[str, Any]) -> RawData:
    """What the user's function `own` returns, as RawData.

    It may return RawData; a mapping with `train`, and optionally `test`, `validation`,
    `calibration` (Datasets or pairs of arrays) and `classes` (names); or a tuple (train, test).

    Raises OfframpError when the function fails or returns something else.
    """
    try:
        made = own.function(**arguments)
        if isinstance(made, tuple) and len(made) == 2:
            made = dict(zip(("train", "test"), made, strict=True))
        raw = made if isinstance(made, RawData) else _from_mapping(name, made)
    except OfframpError:
        raise
    except Exception as error:
        raise failed(name, error) from error
    source = {"file": str(file_of(name)), "sha256": own.sha256}
    return replace(raw, provenance={**raw.provenance, "source": source})


def _from_mapping(name: str, made: Any) -> RawData:
    if not isinstance(made, Mapping) or made.get("train") is None:
        raise OfframpError(
            f"{name} returned a {type(made).__name__}; return RawData, a tuple (train, test), or a "
            "mapping with at least 'train'"
        )
    for key in made:
        if key not in (*SPLITS, "classes"):
            raise OfframpError(
                f"{name} returned the key {key!r}{nearest(str(key), (*SPLITS, 'classes'))}"
            )
    classes = made.get("classes")
    return RawData(
        train=read_samples(made["train"], "train"),
        validation=read_given(made.get("validation"), "validation"),
        calibration=read_given(made.get("calibration"), "calibration"),
        test=read_given(made.get("test"), "test"),
        classes=class_names(made["train"]) if classes is None else tuple(map(str, classes)),
    )
