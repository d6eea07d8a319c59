"""What the study file says of augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from offramp.augment import Augment, clash
from offramp.sections import fail, mapping, shown, unknown
from offramp.study.spec.fields import reader

# What a name that stands in a list, or `name: true`, means.
USUAL: Mapping[str, Any] = {
    **{"flip": True, "vertical_flip": True, "crop": 4, "resized_crop": (0.08, 1.0)},
    **{"rotate": 10.0, "jitter": 0.2, "alternating_flip": True},
}
SAID = tuple(name for name in Augment.__dataclass_fields__ if name != "own")  # which is found
_read = reader(Augment)


def read_augment(value: Any) -> Augment | None:
    """A mapping, or names such as [flip, crop]. `true` stands for the usual strength of each."""
    if value is None:
        return None
    value = [value] if isinstance(value, str) else value
    if isinstance(value, (list, tuple)):
        for name in value:
            if not isinstance(name, str):
                what = f"must list names such as flip and crop, got {shown(name)} among them"
                raise fail(f"{what}; with numbers, write a mapping: {{crop: 4}}")
            if name not in USUAL:
                raise unknown(name, USUAL)
        value = dict.fromkeys(value, True)
    value = asdict(value) if isinstance(value, Augment) else value
    if isinstance(value, Mapping):
        value = {name: given for name, given in value.items() if (name, given) != ("own", None)}
    off = Augment()
    found = _read(
        {
            name: (USUAL[name] if given else getattr(off, name))
            if isinstance(given, bool) and name in USUAL
            else given
            for name, given in mapping(value, SAID).items()
        }
    )
    if wrong := clash(found):
        raise fail(wrong[1], wrong[0])
    return found
