"""What a search varies: ranges of settings, a study with some of them, and the file of the best."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offramp.errors import OfframpError, UnknownKey, nearest
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run.run import RunConfig
from offramp.study.spec import places, yaml_lines
from offramp.study.spec.file import StudyFile
from offramp.study.spec.models import ALL, RECIPE_FIELDS, Study, read_recipe

if TYPE_CHECKING:
    import optuna

RANGED = re.compile(r"(log|uniform|int)\(\s*([^,\s]+)\s*,\s*([^,\s]+)\s*\)")
SUCH = "write log(1e-3,1), uniform(0,0.5), int(8,64) or a list such as [sgd,adam]"


@dataclass(frozen=True)
class Space:
    """Where a setting is looked for."""

    text: str  # as it was written
    # `log` or `uniform`: a number that is even in its logarithm or in itself; `int`: a whole one; `list`
    kind: str
    low: float = 0.0  # the least, included
    high: float = 0.0  # the most, included
    choices: tuple[str | int | float | bool | None, ...] = ()  # in their place, of a list

    def proposed(self, trial: optuna.Trial, name: str) -> Any:
        """What Optuna wants tried."""
        if self.kind == "list":
            return trial.suggest_categorical(name, self.choices)
        if self.kind == "int":
            return trial.suggest_int(name, int(self.low), int(self.high))
        return trial.suggest_float(name, self.low, self.high, log=self.kind == "log")


def space(text: str, flag: str) -> Space:
    """What `--over KEY=…` says. text: `log(1e-3,1)`, `uniform(0,0.5)`, `int(8,64)` or a list such as
    `[sgd,adam]`; flag: what messages call it.

    Raises:
        OfframpError: For anything else, and for bounds that leave nothing between them.

    Example:
        >>> space("log(1e-3, 1)", "--over")
        Space(text='log(1e-3, 1)', kind='log', low=0.001, high=1.0, choices=())
    """
    words = text.strip()
    if match := RANGED.fullmatch(words):
        bounds = [yaml_lines.parse(bound, flag, numbered=False).value for bound in match.groups()[1:]]
        kind = match[1]
        if all(isinstance(b, int if kind == "int" else int | float) for b in bounds):
            low, high = (float(bound) for bound in bounds)
            if low < high and (low > 0 or kind != "log"):
                return Space(words, kind, low, high)
            raise OfframpError(f"{flag}: {words} has nothing between its bounds; {SUCH}")
    elif words.startswith("["):
        choices = yaml_lines.parse(words, flag, numbered=False).value
        if len(choices) > 1 and all(isinstance(c, str | int | float | bool | None) for c in choices):
            return Space(words, "list", choices=tuple(choices))
    raise OfframpError(f"{flag}: '{words}' is no range; {SUCH}")


@dataclass(frozen=True)
class SearchOptions:
    """What a search is for."""

    over: Mapping[str, Space]  # where each setting is looked for, by its key in a study file
    trials: int  # how many proposals, those of earlier runs of the same search included
    # of the one strategy whose settings these are; None for all of the study's together
    label: str | None = None
    prune: bool = True  # give up on what is worse than the median
    seed: int = 42  # of the proposals

    @property
    def grid(self) -> list[dict[str, Any]]:
        """Every combination, where all ranges are lists and `trials` are enough for it; else none."""
        lists = [where.choices for where in self.over.values()]
        if not 0 < math.prod(map(len, lists)) <= self.trials:
            return []
        return [dict(zip(self.over, values, strict=True)) for values in itertools.product(*lists)]


def check_keys(over: Mapping[str, Space], per_strategy: bool) -> None:
    """Raises OfframpError for a setting that no strategy can have of its own, where each is to have."""
    for key in over if per_strategy else ():
        name = key.removeprefix("recipe.")
        if name == key or name not in RECIPE_FIELDS:
            raise OfframpError(
                f"--per strategy: a strategy has no '{key}' of its own{nearest(name, RECIPE_FIELDS)}; "
                "search over recipe.KEY, or leave --per out"
            )


@dataclass(frozen=True)
class Best:
    """The best proposal. tried: how many there are by now, given up ones included."""

    settings: Mapping[str, Any]
    value: float
    tried: int


@dataclass(frozen=True)
class Variants:
    """The study with settings. file: as it was read.  label: of the strategy that has the settings for
    its own, and is alone then."""

    file: StudyFile
    label: str | None = None

    def study(self, settings: Mapping[str, Any]) -> Study:
        """The study with these settings."""
        flags = [] if self.label is not None else [_setting(k, v) for k, v in settings.items()]
        (study,) = self.file.study([*flags, "controls=[]"]).by_split
        if self.label is None:
            return study
        own = {key.removeprefix("recipe."): value for key, value in settings.items()}
        return only(study, self.label, own)

    def check(self, over: Mapping[str, Space]) -> None:
        """Raises OfframpError for a setting that the study does not have, before anything is written."""
        for key, where in over.items():
            try:
                self.study({key: where.choices[0] if where.choices else where.low})
            except UnknownKey as error:  # it tells of a setting as drawn, which the user never wrote
                raise OfframpError(f"`over`: {str(error).partition(': ')[2]}") from None
            except OfframpError:  # of this value; others may do
                continue

    def plan(self, settings: Mapping[str, Any], config: RunConfig, first: Plan | None) -> Plan:
        """Its plan. first: one without them, whose data are not read again where they are the same."""
        study = self.study(settings)
        same = first is not None and _reads(study) == _reads(first.study)
        return make_plan(study, config.device, data=first.data if first and same else None)


def _reads(study: Study) -> object:
    return study.drawn_data, study.augment, study.execution.loader


def _setting(key: str, value: Any) -> str:
    """As `--set` takes it."""
    return f"{key}={json.dumps(value)}"


def only(study: Study, label: str, settings: Mapping[str, Any]) -> Study:
    """One strategy of a study, with settings of the recipe for all of its phases. What the study says
    of single phases stays. Raises OfframpError for a value that a study file may not have."""
    (own,) = (s for s in study.strategies if s.label == label)
    # Read as a file is: 0 and 0.0 are one weight decay and must be one key.
    where: places.Places = {(name,): f"strategy {label}" for name in settings}
    recipe = places.validated(read_recipe, settings, where)
    phases = with_all(own.phases, {name: getattr(recipe, name) for name in settings})
    return study.model_copy(update={"strategies": (own.model_copy(update={"phases": phases}),)})


def with_all(
    phases: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Overrides by phase, with some for all phases that those of single ones win over."""
    return {
        "*": {**phases.get("*", {}), **settings},
        **{k: dict(v) for k, v in phases.items() if k != "*"},
    }


def written(
    file: StudyFile,
    options: SearchOptions,
    best: Mapping[str | None, Best],
) -> dict[str, Any]:
    """The study file in the types of JSON, with what a search brought: the best of each strategy, or, by
    None, of all together. options: of the search; of any strategy, where each has its own."""
    together = best[None].settings if None in best else {}
    study = file.rewritten([_setting(k, v) for k, v in together.items()])
    for entry in study["strategies"]:
        label = entry.get("as", entry["name"])
        if label in best:
            own = {k.removeprefix("recipe."): v for k, v in best[label].settings.items()}
            entry["phases"] = with_all(entry.get("phases", {}), own)
    named = {"name": f"{study['name']}-found"} if study.get("name") else {}  # reports tell the two apart
    return {
        **study,
        **named,
        "search": {
            "over": {key: where.text for key, where in options.over.items()},
            "trials": max(each.tried for each in best.values()),  # earlier runs may have tried more
            "per": None if None in best else "strategy",
            "found": {label or ALL: dict(each.settings) for label, each in best.items()},
            "validation": {label or ALL: each.value for label, each in best.items()},
        },
    }
