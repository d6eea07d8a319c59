"""A study as text, for another process to read: what a study file says, after all overrides."""

from __future__ import annotations

import json
from typing import Any

from offramp.errors import OfframpError
from offramp.study.spec import places
from offramp.study.spec.models import Study


def dumps(study: Study) -> str:
    """Raises OfframpError for a strategy that is a function at hand, which has no name to find it by."""
    for strategy in study.strategies:
        if strategy.own is not None:
            raise OfframpError(
                f"'{strategy.label}' is a function of this process; name it path/to/file.py:function"
            )
    said = study.model_dump(mode="json", by_alias=True)
    said["strategies"] = [_flat(strategy) for strategy in said["strategies"]]
    said["backbone"] = _flat(said["backbone"])
    said["data"] = _flat({**said["data"], "options": dict(study.data.options)})
    return json.dumps(said)


def loads(text: str) -> Study:
    """The study that `dumps` wrote. Raises OfframpError for anything else."""
    where: places.Places = {(): "the study"}
    study = places.validated(Study.model_validate, json.loads(text), where)
    study._places = where
    return study


def _flat(said: dict[str, Any]) -> dict[str, Any]:
    """Options among the other keys, as a file has them."""
    return {**{name: value for name, value in said.items() if name != "options"}, **said["options"]}
