"""`offramp train`: one trial, without a study file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.cli.commands.run import How, settings, start
from offramp.cli.options import (
    RUNS,
    CacheDiskOption,
    CacheMemoryOption,
    DeviceOption,
    DryOption,
    ExecutionOption,
    JsonOption,
    NoUserCodeOption,
    QuietOption,
    SetOption,
    TrainingStoreOption,
)


def train(
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="A strategy's name, or my_file.py:my_strategy.")
    ],
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="A network: resnet18, timm/NAME or my.py:make_net.")
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A data set: digits, cifar10, folder:path/to/images or my.py:make_data."
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", "--data-root", metavar="FOLDER", help="The folder of the data set's files."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="The seed of weights, order and dropout.")
    ] = 42,
    store: TrainingStoreOption = RUNS,
    set_: SetOption = None,
    execution: ExecutionOption = None,
    device: DeviceOption = None,
    cache_memory: CacheMemoryOption = None,
    cache_disk: CacheDiskOption = None,
    dry_run: DryOption = False,
    no_user_code: NoUserCodeOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one strategy on one network, without a study file.

    --set gives everything else that a study file can say.

    \b
    Examples:
      offramp train --strategy joint --backbone digits-cnn --data digits
      offramp train --strategy two-stage --backbone resnet18 --data cifar10 \\
        --root data/cifar10 --set recipe.epochs=10 --set exits='[layer1, layer2]'
    """
    from offramp.study.spec import file as spec

    source: dict[str, Any] = {"name": data}
    if root is not None:
        source["root"] = str(root)
    given = {"seeds": [seed], "strategies": [strategy], "backbone": backbone, "data": source}
    flags = {"strategies": "--strategy", "backbone": "--backbone", "data": "--data"}
    asked = spec.parse(
        given, "offramp train", settings(set_, execution, cache_memory, cache_disk), flags
    )
    how = How(store, dry_run, None, json, quiet, user_code=not no_user_code, place=device)
    start(asked, how)
