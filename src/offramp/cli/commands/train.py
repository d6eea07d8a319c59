"""`offramp train`: one trial, without a study file."""

from __future__ import annotations

from typing import Annotated, Any

from offramp.cli import completing, options
from offramp.cli.options import option
from offramp.cli.progress.log import LogOptions, opened
from offramp.cli.store import code_named
from offramp.cli.training.run_options import RunOptions, settings
from offramp.cli.training.study import start


def train(
    strategy: Annotated[
        str,
        option(
            "NAME",
            "A strategy's name, or my_file.py:my_strategy.",
            autocompletion=completing.strategies,
        ),
    ],
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
    verbose: options.VerboseOption = False,
    log_file: options.LogFileOption = None,
    log_format: options.LogFormatOption = None,
) -> None:
    """Train one strategy on one network, without a study file.

    --set gives every other setting of a study file.

    \b
    Examples:
      offramp train --strategy joint --backbone digits-cnn --data digits
      offramp train --strategy two-stage --backbone resnet18 --data cifar10 \\
        --data-root data/cifar10 --set recipe.epochs=10 \\
        --set exits='[layer1, layer2]'
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
    named = code_named([asked], not no_user_code)
    with opened(LogOptions(log_file, log_format, verbose, quiet), json) as log:
        if named is not None:
            log.say(named, must=True)
        start(asked, RunOptions(store, dry_run, None, json, log, place=device))
