"""The application: every command of `offramp.cli.commands`. Starting it imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer
from typer._completion_classes import completion_init
from typer.core import TyperArgument

from offramp.cli.commands import COMMANDS

completion_init()  # of shells; Typer does so itself only where it adds options of its own
# Help names an argument STORE; Typer adds the type in Python, <Place>.
TyperArgument.display_type_rich = lambda *_, **__: None  # type: ignore[method-assign]

app = typer.Typer(
    name="offramp",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"offramp {version('offramp')}")
        raise typer.Exit


@app.callback()
def offramp(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Train early-exit networks, compare the ways to train them, and deploy one.

    \b
    Start here:
      offramp strategies                 list the ways to train exits
      offramp recipes demo > demo.yaml   write a small study
      offramp run demo.yaml --dry-run    show what it would do
      offramp run demo.yaml              run it
    """


for name in COMMANDS:
    command = getattr(import_module(f"offramp.cli.commands.{name}"), name)
    if isinstance(command, typer.Typer):
        app.add_typer(command)
    else:
        app.command(name.replace("_", "-"))(command)
