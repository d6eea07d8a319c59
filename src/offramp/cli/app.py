"""Commands that train, look into a store, and explain. Torch is imported only by those that need it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from offramp import units
from offramp.cli import answering, concluding, deploying, evidence, page, reporting, tabling
from offramp.cli import data as looking
from offramp.cli.options import (
    RUNS,
    CacheDiskOption,
    CacheMemoryOption,
    DataRootOption,
    DryOption,
    Execution,
    ExecutionOption,
    JsonOption,
    NoUserCodeOption,
    QuietOption,
    SetOption,
    StoreOption,
    WorkersOption,
)
from offramp.errors import OfframpError

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
    """Train early-exit networks in every way the literature knows, and compare.

    \b
    Start here:
      offramp strategies                        the ways of training exits
      offramp run studies/demo.yaml --dry-run   what a study would do
      offramp run studies/demo.yaml             do it
    """


@app.command()
def run(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study file, such as studies/demo.yaml.")
    ],
    store: StoreOption = RUNS,
    data_root: DataRootOption = None,
    set_: SetOption = None,
    execution: ExecutionOption = None,
    dry_run: DryOption = False,
    workers: WorkersOption = "auto",
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Take as many epochs and images as fit into 2h, 90min, … here."
        ),
    ] = None,
    speed: Annotated[
        str | None,
        typer.Option(
            metavar="SPEED", help="With --dry-run: hours on a device of 14TFLOPS, 7TMACs, … as well."
        ),
    ] = None,
    cache_memory: CacheMemoryOption = None,
    cache_disk: CacheDiskOption = None,
    no_user_code: NoUserCodeOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a study: train what is missing, then show the table.

    A study trains each of its strategies with each of its seeds: a trial. A trial is a sequence
    of phases; a phase that several trials have in common is trained once, and what the store holds
    is not trained again. So interrupt a run whenever you like (Ctrl-C): the same command goes on.

    A file may also list studies, which then run one after another into one store; the data root
    then holds a folder for each data set, by name. A dry run needs neither data nor weights: where
    they are not here, it goes by the counts that are known of the public data sets.

    Exit codes: 0; 1 if a trial failed (the others go on); 2 for a mistake in the study or the
    command; 130 if interrupted.

    \b
    Examples:
      offramp run studies/demo.yaml --dry-run
      offramp run studies/demo.yaml --set recipe.epochs=3 --set seeds='[42]'
      offramp run studies/demo.yaml --store runs/demo --workers 2
      offramp run studies/demo.yaml --budget 1min
      offramp run studies/paper/all.yaml --dry-run --speed 14TFLOPS
      offramp run studies/paper/all.yaml --set scale=small --data-root data
    """
    from offramp.cli import running, studying

    given = None if speed is None else units.parse(speed, units.SPEED, "--speed")
    how = running.How(
        store, dry_run, running.processes(workers), json, quiet, given, user_code=not no_user_code
    )
    studying.start(study, _settings(set_, execution, cache_memory, cache_disk), data_root, budget, how)


@app.command()
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
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of weights, order and dropout.")] = 42,
    store: StoreOption = RUNS,
    set_: SetOption = None,
    execution: ExecutionOption = None,
    cache_memory: CacheMemoryOption = None,
    cache_disk: CacheDiskOption = None,
    dry_run: DryOption = False,
    no_user_code: NoUserCodeOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one strategy on one network, without a study file.

    Everything else of a study file can be given with --set.

    \b
    Examples:
      offramp train --strategy joint --backbone digits-cnn --data digits
      offramp train --strategy two-stage --backbone resnet18 --data cifar10 \\
        --root data/cifar10 --set recipe.epochs=10 --set exits='[layer1, layer2]'
    """
    from offramp.cli import running
    from offramp.study.spec import models as spec

    source: dict[str, Any] = {"name": data}
    if root is not None:
        source["root"] = str(root)
    given = {"seeds": [seed], "strategies": [strategy], "backbone": backbone, "data": source}
    flags = {"strategies": "--strategy", "backbone": "--backbone", "data": "--data"}
    asked = spec.parse(
        given, "offramp train", _settings(set_, execution, cache_memory, cache_disk), flags
    )
    how = running.How(store, dry_run, None, json, quiet, user_code=not no_user_code)
    running.start(asked, how)


def _settings(
    given: list[str] | None,
    execution: Execution | None,
    cache_memory: str | None,
    cache_disk: str | None,
) -> list[str]:
    settings = [*(given or []), *([f"execution.mode={execution.value}"] if execution else [])]
    for name, text in (("cache_memory", cache_memory), ("cache_disk", cache_disk)):
        if text is not None:
            flag = f"--{name.replace('_', '-')}"
            if text != "auto":
                text = str(int(units.parse(text, units.SIZE, flag, also="auto")))
            settings.append(f"execution.{name}={text}")
    return settings


@app.command()
def status(store: StoreOption = RUNS, json: JsonOption = False) -> None:
    """Show what a store holds, finished and begun.

    Trials by strategy, network and data; nodes (finished phases), checkpoints to go on from, disk.
    """
    from offramp.cli import inspecting

    inspecting.status(inspecting.archived(store), json)


@app.command()
def show(
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id, or the beginning of one.")
    ],
    store: StoreOption = RUNS,
    json: JsonOption = False,
) -> None:
    """Show one trial: its exits, phases and time.

    \b
    Example:
      offramp show joint-branch-digits-cnn-digits-s42
    """
    from offramp.cli import inspecting

    inspecting.show_trial(inspecting.archived(store), trial, json)


@app.command()
def why(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node's key, or the beginning of one.")],
    store: StoreOption = RUNS,
    study: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A study that would train the node: why is it not reused?"),
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Explain a node, and why it was not reused.

    A node is one phase of training with one seed. Its key is the hash of all that the phase reads;
    a phase with another key is another node. `offramp show TRIAL` and `offramp run --dry-run` list
    keys; this shows what a key is made of and where the nearest node of the store differs.

    \b
    Examples:
      offramp why 9ca0b60b
      offramp why 9ca0b60b --study studies/demo.yaml --set recipe.epochs=3
      offramp why 9ca0b60b --study studies/paper/all.yaml --set scale=small
    """
    from offramp.cli import comparing, inspecting

    comparing.why(inspecting.archived(store), node, study, set_ or [], json)


@app.command()
def gc(
    store: StoreOption = RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Unfinished work too: no run will go on with it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Remove from a store what no trial needs.

    Nodes that no finished or begun trial needs, checkpoints of finished nodes, leftovers of killed
    processes, lock files. What a process is working on stays.
    """
    from offramp.cli import inspecting

    inspecting.gc(inspecting.opened(store), dry_run, abandon, json)


@app.command("export-table")
def export_table(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .parquet or .csv.")],
    store: StoreOption = RUNS,
    json: JsonOption = False,
) -> None:
    """Write every number of a store as one tidy table.

    A row a number: trial, strategy, model, data, seed, phase, exit, split, epoch, metric, value.

    \b
    Example:
      offramp export-table --out table.parquet
    """
    from offramp.cli import inspecting

    inspecting.export_table(inspecting.archived(store), out, json)


@app.command()
def strategies(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A strategy, or my_file.py:my_strategy.")
    ] = None,
    exits: Annotated[int, typer.Option(min=1, metavar="N", help="Exits, the final one included.")] = 4,
    json: JsonOption = False,
) -> None:
    """List the strategies, or explain one.

    Of one: its phases, what trains and what is frozen in each, options, source.

    \b
    Example:
      offramp strategies joint-branch --exits 3
    """
    from offramp.cli import explaining

    if name is None:
        explaining.list_strategies(json)
    else:
        explaining.explain_strategy(name, exits, json)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of the table, such as resnet50-cifar10.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how the paper trains each of its networks.

    \b
    Examples:
      offramp recipes
      offramp recipes resnet50-cifar10 > mine.yaml
    """
    from offramp.cli import explaining_recipes

    explaining_recipes.recipes(name, json)


@app.command()
def taps(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="resnet18, timm/NAME or my.py:make_net.")
    ],
    input_: Annotated[
        str, typer.Option("--input", metavar="CxHxW", help="Channels x height x width.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option(min=2, metavar="N", help="Classes of the data.")] = 10,
    stem: Annotated[
        str | None, typer.Option(metavar="NAME", help="imagenet or small, where there is a choice.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the places of a network where an exit can go.

    With their share of the MACs and the shape there; a star marks the default taps.

    \b
    Example:
      offramp taps resnet18 --input 3x32x32
    """
    from offramp.cli import explaining

    explaining.taps(model, input_, classes, stem, json)


@app.command()
def doctor(
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Measure this machine (about two minutes) and write a profile."),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --tune: what studies call the profile [tuned]."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --tune: write it here instead of among your own."),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="With --tune: measure beside other work all the same.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Tell what this machine has, and what to do about each gap.

    Versions, device, cores, memory; which meters of power and energy can be read here; numerics
    profiles; extras.

    --tune times training steps of three networks: threads, memory format, precision, two trials at
    once, how OpenMP waits. It shows what each is worth and writes a numerics profile, which a study
    gets by asking for it: numerics: NAME (or the path of the file). No default changes.

    \b
    Examples:
      offramp doctor --tune
      offramp run studies/demo.yaml --set numerics=tuned
    """
    from offramp.cli import doctoring, tuning

    if tune:
        tuning.tune(name or "tuned", out, anyway, json)
    elif name is not None or out is not None or anyway:
        raise OfframpError("--name, --out and --anyway are for measuring; add --tune")
    else:
        doctoring.doctor(json)


for command in (
    *(evidence.compare, evidence.stats, concluding.claims, concluding.recommend),
    *(page.report, reporting.figures, tabling.tables, reporting.pack),
    *(evidence.calibrate, deploying.export, deploying.build, answering.predict, answering.benchmark),
):
    app.command()(command)
app.add_typer(looking.app)
