"""What the study file says of augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from offramp.augment import Augment, clash
from offramp.study.spec import fields

# What a name that stands in a list, or `name: true`, means.
USUAL: Mapping[str, Any] = {
    "flip": True,
    "vertical_flip": True,
    "crop": 4,
    "resized_crop": (0.08, 1.0),
    "rotate": 10.0,
    "jitter": 0.2,
}


def _usual(name: str) -> BeforeValidator:
    off = Augment.__dataclass_fields__[name].default
    return BeforeValidator(lambda v: (USUAL[name] if v else off) if isinstance(v, bool) else v)


class AugmentSpec(BaseModel):
    """The fields of `offramp.augment.Augment`: a mapping, or names such as [flip, crop].
    `true` stands for the usual strength of each."""

    model_config = fields.STRICT

    flip: bool = Augment.flip
    vertical_flip: bool = Augment.vertical_flip
    crop: Annotated[int, _usual("crop")] = Augment.crop
    resized_crop: Annotated[tuple[float, float] | None, Field(strict=False), _usual("resized_crop")] = (
        Augment.resized_crop
    )
    rotate: Annotated[float, _usual("rotate")] = Augment.rotate
    jitter: Annotated[float, _usual("jitter")] = Augment.jitter
    views: int | None = Augment.views

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        value = [value] if isinstance(value, str) else value
        if isinstance(value, (list, tuple)):
            for name in value:
                if not isinstance(name, str):
                    what = f"must list names such as flip and crop, got {fields.shown(name)} among them"
                    raise fields.fail(f"{what}; with numbers, write a mapping: {{crop: 4}}")
                if name not in USUAL:
                    raise fields.unknown(name, USUAL)
            value = dict.fromkeys(value, True)
        return fields.refuse_unknown(cls, value)

    @model_validator(mode="after")
    def _consistent(self) -> AugmentSpec:
        if found := clash(self.augment):
            raise fields.fail(found[1], found[0])
        return self

    @property
    def augment(self) -> Augment:
        return Augment(**dict(self))
