"""`offramp completion`: a script that completes commands in a shell."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from offramp.cli.options import argument


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, argument("bash|zsh|fish", "Your shell.")]) -> None:
    """Print a script that completes commands in your shell.

    It completes commands, options, strategies, and trials of the store `runs`.

    \b
    Examples:
      eval "$(offramp completion bash)"         in ~/.bashrc
      eval "$(offramp completion zsh)"          in ~/.zshrc, after compinit
      offramp completion fish > ~/.config/fish/completions/offramp.fish
    """
    script = get_completion_script(
        prog_name="offramp", complete_var="_OFFRAMP_COMPLETE", shell=shell.value
    )
    typer.echo(script)
