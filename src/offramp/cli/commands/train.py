"""`offramp train`: one trial, without a study file."""

from __future__ import annotations

from typing import Annotated, Any

from offramp.cli import options
from offramp.cli.commands.run import How, settings, start
from offramp.cli.options import option
from offramp.cli.store import announce


def train(
    strategy: Annotated[str, option("NAME", "A strategy's name, or my_file.py:my_strategy.")],
    backbone: Annotated[str, option("NAME", "A network: resnet18, timm/NAME or my.py:make_net.")],
    data: Annotated[
        str, option("NAME", "A data set: digits, cifar10, folder:path/to/images or my.py:make_data.")
    ],
    root: options.RootOption = None,
    seed: Annotated[int, option("N", "The seed of weights, order and dropout.", min=0)] = 42,
    store: options.TrainingStoreOption = options.RUNS,
    set_: options.SetOption = None,
    execution: options.ExecutionOption = None,
    device: options.DeviceOption = None,
    cache_memory: options.CacheMemoryOption = None,
    cache_disk: options.CacheDiskOption = None,
    dry_run: options.DryOption = False,
    no_user_code: options.NoUserCodeOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
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
    announce([asked], how.user_code)
    start(asked, how)
