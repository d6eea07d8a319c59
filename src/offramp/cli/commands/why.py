"""`offramp why`: what a node's key is made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.cli.options import (
    JsonOption,
    NoUserCodeOption,
    SetOption,
    StoreArgument,
    StoreOption,
    argument,
    option,
)
from offramp.cli.render import emit
from offramp.cli.store import announce, archived
from offramp.errors import OfframpError
from offramp.hashing import differing
from offramp.terminal import console


def why(
    node: Annotated[str, argument("NODE", "A node's key, or the beginning of one.")],
    store: StoreArgument = None,
    store_: StoreOption = None,
    study: Annotated[
        Path | None, option("FILE", "A study that would train the node again, to see why.")
    ] = None,
    set_: SetOption = None,
    no_user_code: NoUserCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Explain a node, and why it was not reused.

    A node is one phase of training with one seed. Its key is the hash of all that the phase reads. So
    two keys differ only if the phases read different things. This shows the differences to the nearest
    node of the store. `offramp show TRIAL` and `offramp run --dry-run` list keys.

    \b
    Examples:
      offramp why 9ca0b60b
      offramp why 9ca0b60b --study demo.yaml --set recipe.epochs=3
    """
    import yaml

    archive = archived(store, store_)
    there = {key: archive.read_node(key) for key in archive.nodes()}
    planned = _planned(study, set_ or [], not no_user_code)
    key = _one({*there, *planned}, node)
    reads = there[key].reads if key in there else planned[key]
    changes = {k: differing(reads, record.reads) for k, record in there.items() if k != key}
    near = min(changes, key=lambda k: (len(changes[k]), k), default=None)
    if json:
        differences = {} if near is None else changes[near]
        answer = {"key": key, "in_store": key in there, "reads": reads, "nearest": near}
        emit({**answer, "differences": differences})
        return
    if key in there:
        labels = there[key].labels
        users = ", ".join(dict.fromkeys(labels.strategies))
        typer.echo(f"{key}\nin the store: phase '{labels.phase}', trained for {users}")
    else:
        typer.echo(f"{key}\nnot in the store: it would be trained")
    typer.echo("\nIts key is made of:")
    text = yaml.safe_dump(
        _readable(reads), sort_keys=False, allow_unicode=True, width=48, default_flow_style=None
    )
    console().print("".join(f"  {line}\n" for line in text.splitlines()), end="", soft_wrap=True)
    if near is not None:
        phase = there[near].labels.phase
        typer.echo(f"\nNearest other node: {near[:12]} (phase '{phase}'). This one differs in:")
        for name, (mine, theirs) in changes[near].items():
            typer.echo(f"  {name}: {_readable(mine)} here, {_readable(theirs)} there")


def _planned(study: Path | None, overrides: list[str], user_code: bool) -> dict[str, dict[str, Any]]:
    """What the nodes of a study, or of a list of studies, would read, by key."""
    if study is None:
        return {}
    from offramp.study.plan.plan import plans
    from offramp.study.spec.file import members

    asked = [member.study for member in members(study, overrides)]
    announce(asked, user_code)
    made = plans(asked)
    return {key: node.reads for plan in made for key, node in plan.nodes.items()}


def _one(keys: set[str], prefix: str) -> str:
    """The key that begins with `prefix`."""
    found = sorted(key for key in keys if key.startswith(prefix))
    if len(found) != 1:
        what = f"{len(found)} nodes begin with" if found else "no node begins with"
        some = ", ".join(key[: len(prefix) + 4] for key in found[:5])
        hint = f"give more of one of {some}" if found else "offramp show TRIAL lists a trial's nodes"
        raise OfframpError(f"{what} '{prefix}'; {hint}")
    return found[0]


def _readable(value: Any) -> Any:
    """For people: hashes cut to 12 digits, the names of types left out."""
    if isinstance(value, dict):
        return {key: _readable(child) for key, child in value.items() if key != "type"}
    if isinstance(value, list):
        return [_readable(child) for child in value]
    return value[:12] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else value
