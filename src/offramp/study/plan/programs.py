"""Strategies by name, with their options checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import BeforeValidator, TypeAdapter

from offramp import usercode
from offramp.errors import OfframpError, nearest
from offramp.phase import Phase, Program
from offramp.sections import typed
from offramp.strategies import STRATEGIES, Strategy
from offramp.study.spec import places
from offramp.study.spec.models import RecipeSpec, read_recipe


def find(name: str | Strategy) -> Strategy:
    """The strategy of that name, or the user's own `file.py:function`; a function is one already.

    Raises OfframpError for an unknown name, or a file that cannot be used.
    """
    if not isinstance(name, str):
        return name
    if usercode.is_user_code(name):
        own: Strategy = usercode.load(name, "a strategy of your own").function
        with usercode.running(name):
            options(own)
        return own
    if name not in STRATEGIES:
        raise OfframpError(
            f"unknown strategy '{name}'{nearest(name, STRATEGIES)} (your own: path/to/file.py:function)"
        )
    return STRATEGIES[name]


def options(strategy: Strategy) -> tuple[inspect.Parameter, ...]:
    """The options of a strategy: its keyword-only arguments, each with its type."""
    parameters = inspect.signature(strategy).parameters.values()
    named = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    hints = get_type_hints(strategy) if named else {}
    return tuple(p.replace(annotation=hints.get(p.name, Any)) for p in named)


def program(
    source: str | Strategy, exits: int, own: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Program:
    """The phases of a strategy.

    Args:
        source: Its name, or the function.
        exits: How many exits the network has.
        own: Its options in the study.
        defaults: What the study's recipe says for options that a strategy may have (loss weights,
            temperature, alpha). What all recipes say that are silent leaves a function its own default.

    Raises:
        OfframpError: For an option that the strategy has not or of a wrong value, and for a user's
            function that fails or returns no phases.
    """
    strategy = find(source)
    name = source if isinstance(source, str) else strategy.__name__
    by_name = {option.name: option for option in options(strategy)}
    for key in own:
        if key not in by_name:
            hint = nearest(key, by_name) or "; it has no options"
            raise OfframpError(f"strategy '{name}' has no option '{key}'{hint}")
    chosen = {k: v for k, v in defaults.items() if k in by_name and not _silent(by_name[k], v)}
    chosen |= own
    checked = {key: _checked(name, by_name[key], value) for key, value in chosen.items()}
    _check_called(name, strategy, exits, checked)
    with usercode.running(name):
        phases = strategy(exits, **checked)
    phases = tuple(phases) if isinstance(phases, Sequence) else phases
    if not isinstance(phases, tuple) or not all(isinstance(p, Phase) for p in phases):
        raise OfframpError(f"strategy '{name}' returned no phases; return a tuple of Phase")
    for phase in phases:
        _check_recipe(f"strategy '{name}', phase '{phase.name}'", dict(phase.recipe))
    return phases


def _silent(option: inspect.Parameter, value: Any) -> bool:
    """Whether a strategy goes by its own default, since the recipe changes nothing about the option."""
    return option.default is not inspect.Parameter.empty and value == getattr(RecipeSpec(), option.name)


def _check_called(name: str, strategy: Strategy, exits: int, chosen: Mapping[str, Any]) -> None:
    """Refuse a function that cannot be called as strategies are."""
    try:
        inspect.signature(strategy).bind(exits, **chosen)
    except TypeError as error:
        raise OfframpError(
            f"strategy '{name}' cannot be called with the number of exits ({error}); write it as "
            f"def {strategy.__name__}(exits), with its options by keyword, each with a default"
        ) from None


def _check_recipe(where: str, fields: dict[str, Any]) -> None:
    """A phase's overrides are held to what a study's recipe is held to."""
    lines: places.Places = {(field,): where for field in fields}
    places.validated(_recipes().validate_python, fields, {(): where, **lines})


@cache
def _recipes() -> TypeAdapter[RecipeSpec]:
    return TypeAdapter(Annotated[RecipeSpec, BeforeValidator(read_recipe)])


def _checked(name: str, option: inspect.Parameter, value: Any) -> Any:
    if isinstance(value, list):
        value = tuple(value)
    return typed(option.annotation, value, f"option '{option.name}' of strategy '{name}'")
