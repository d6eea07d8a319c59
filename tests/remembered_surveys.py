"""Networks of libraries and of the registry are traced and observed once in a process: most tests build
the same few, and each runs on some twenty images for that."""

from collections.abc import Iterator

import pytest
from torch import nn

from offramp.nets import builder
from offramp.nets.cut.places import Survey
from offramp.nets.identity import settings

KNOWN = ("offramp.nets.", "timm.", "torchvision.")
"""Whose modules compute the same where their class, layers and settings are the same."""


@pytest.fixture(scope="session", autouse=True)
def remembered_surveys() -> Iterator[None]:
    survey, remembered = builder.survey, dict[tuple[object, ...], Survey]()

    def once(module: nn.Module, input_shape: tuple[int, ...]) -> Survey:
        if not type(module).__module__.startswith(KNOWN):
            return survey(module, input_shape)
        names = [name for name, _ in module.named_modules()]
        key = (type(module), repr(module), settings(module, names), tuple(input_shape))
        if key not in remembered:
            remembered[key] = survey(module, input_shape)
        return remembered[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "survey", once)
        yield
