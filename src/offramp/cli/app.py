"""Every command, its arguments and its help. Torch is imported only by the commands that need it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="offramp",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Execution(StrEnum):
    derived = "derived"
    plain = "plain"


StoreOption = Annotated[
    Path,
    typer.Option("--store", metavar="FOLDER", help="Where finished work is kept and found again."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting for this run: recipe.epochs=3, seeds='[42]'. Repeatable.",
    ),
]
DryOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the work, what is shared and the cost; start nothing."),
]
WorkersOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="Processes that train at the same time.")
]
ExecutionOption = Annotated[
    Execution | None,
    typer.Option(
        help="derived: cache, fuse and share, which changes no result. plain: each phase alone, as "
        "the paper does. By default what the study says, else derived."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the tables.")]
RUNS = Path("runs")


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
    set_: SetOption = None,
    execution: ExecutionOption = None,
    dry_run: DryOption = False,
    workers: WorkersOption = 1,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a study: train what is missing, then show the table.

    A study trains each of its strategies with each of its seeds: a trial. A trial is a sequence
    of phases; a phase that several trials have in common is trained once, and what the store holds
    is not trained again. So interrupt a run whenever you like (Ctrl-C): the same command goes on.

    Exit codes: 0; 1 if a trial failed (the others go on); 2 for a mistake in the study or the
    command; 130 if interrupted.

    \b
    Examples:
      offramp run studies/demo.yaml --dry-run
      offramp run studies/demo.yaml --set recipe.epochs=3 --set seeds='[42]'
      offramp run studies/demo.yaml --store runs/demo --workers 2
    """
    from offramp.cli import running
    from offramp.study import spec

    asked = spec.read(study, _settings(set_, execution))
    running.start(asked, store, dry_run, workers, json, quiet)


@app.command()
def train(
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="A strategy's name, or my_file.py:my_strategy.")
    ],
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="A network: resnet18, timm/NAME or my.py:make_net.")
    ],
    data: Annotated[
        str, typer.Option(metavar="NAME", help="A data set: digits, cifar10 or my.py:make_data.")
    ],
    root: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder of the data set's files.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of weights, order and dropout.")] = 42,
    store: StoreOption = RUNS,
    set_: SetOption = None,
    execution: ExecutionOption = None,
    dry_run: DryOption = False,
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
    from offramp.study import spec

    source: dict[str, Any] = {"name": data}
    if root is not None:
        source["root"] = str(root)
    given = {"seeds": [seed], "strategies": [strategy], "backbone": backbone, "data": source}
    flags = {"strategies": "--strategy", "backbone": "--backbone", "data": "--data"}
    asked = spec.parse(given, "offramp train", _settings(set_, execution), flags)
    running.start(asked, store, dry_run, 1, json, quiet)


def _settings(given: list[str] | None, execution: Execution | None) -> list[str]:
    return [*(given or []), *([f"execution.mode={execution.value}"] if execution else [])]


@app.command()
def status(store: StoreOption = RUNS, json: JsonOption = False) -> None:
    """Show what a store holds, finished and begun.

    Trials by strategy, network and data; nodes (finished phases), checkpoints to go on from, disk.
    """
    from offramp.cli import inspecting

    inspecting.status(inspecting.opened(store), json)


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

    inspecting.show_trial(inspecting.opened(store), trial, json)


@app.command()
def calibrate(
    trial: Annotated[str, typer.Argument(help="A trial's id, or the beginning of one.")],
    store: StoreOption = RUNS,
    max_accuracy_loss: Annotated[
        float | None,
        typer.Option(help="Points of accuracy to give up, as 0.01, against the final exit."),
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Accuracy to keep, as 0.9.")] = None,
    max_mean_macs: Annotated[
        str | None, typer.Option(help="MACs an image on average: 40% of the plain network, or 1.5M.")
    ] = None,
    max_disagreement: Annotated[
        float | None, typer.Option(help="Share of answers that may differ from the final exit's.")
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(
            help="With a guarantee: share of inputs that the full network has right, the policy wrong."
        ),
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Of the guarantee, over calibration draws.  [default: 0.95]")
    ] = None,
    on_average: Annotated[
        bool, typer.Option("--on-average", help="Bound the mean risk over calibration draws instead.")
    ] = False,
    without_labels: Annotated[
        bool,
        typer.Option("--without-labels", help="The risk is any answer other than the full network's."),
    ] = False,
    score: Annotated[
        str, typer.Option(help="confidence, entropy, margin, patience or fixed.")
    ] = "confidence",
    shared: Annotated[
        bool, typer.Option("--shared", help="One threshold for all exits, not one per exit.")
    ] = False,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Fit a temperature per exit, on validation.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The policy file to write.")] = Path("policy.json"),
    json: JsonOption = False,
) -> None:
    """Choose where each input leaves, with or without a guarantee.

    Writes a policy for a trial. Name one target. Candidates are made on validation, chosen on
    calibration, and reported on test.

    \b
    Examples:
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-accuracy-loss 0.01
      offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
    """
    from offramp.cli import calibrating, inspecting

    wanted = {
        "max-accuracy-loss": max_accuracy_loss,
        "min-accuracy": min_accuracy,
        "max-mean-macs": max_mean_macs,
        "max-disagreement": max_disagreement,
        "risk": risk,
    }
    asked = calibrating.Asked(wanted, confidence, on_average, without_labels)
    how = calibrating.search(score, shared, temperature, without_labels)
    calibrating.calibrate(inspecting.opened(store), trial, asked, how, out, json)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A strategy's label, or a trial's id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with, of the same kind.")],
    store: StoreOption = RUNS,
    json: JsonOption = False,
) -> None:
    """Compare two strategies, or two trials, at each exit.

    The paired difference in test accuracy, A minus B, with a 95 % interval (Student's t). Two
    strategies are paired seed by seed, two trials image by image: the first says how far the
    difference depends on the seed, the second how far on the test images.

    \b
    Examples:
      offramp compare joint two-stage
      offramp compare joint-digits-cnn-digits-s42 joint-digits-cnn-digits-s43
    """
    from offramp.cli import comparing, inspecting

    comparing.compare(inspecting.opened(store), a, b, json)


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
    """
    from offramp.cli import comparing, inspecting

    comparing.why(inspecting.opened(store), node, study, set_ or [], json)


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

    inspecting.export_table(inspecting.opened(store), out, json)


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
def stats(
    file: Annotated[Path, typer.Argument(help="A table of numbers, .csv or .parquet, a row a value.")],
    value: Annotated[str, typer.Option(help="The column of numbers, such as accuracy.")],
    group: Annotated[str, typer.Option(help="The column of what is compared, such as strategy.")],
    block: Annotated[
        str | None, typer.Option(help="The column that pairs the values, such as seed.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN[,COLUMN]", help="Analyze each value of these apart.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Keep those rows only. Repeatable."),
    ] = None,
    same: Annotated[
        str | None,
        typer.Option(help="A column of keys: groups with equal ones are identical by construction."),
    ] = None,
    measured: Annotated[
        str | None, typer.Option(help="A column of true or false: estimates are not tested.")
    ] = None,
    families: Annotated[
        bool,
        typer.Option("--families", help="The five core strategies apart, each hybrid with its parents."),
    ] = False,
    better: Annotated[
        str | None,
        typer.Option(metavar="higher|lower", help="Which values are better, for the caption."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Test whether groups differ, in any table of numbers.

    Over blocks (such as seeds) where there are some, and the paper's one-way analysis beside it.

    \b
    Example:
      offramp stats table.csv --value value --group strategy --block seed \\
        --where split=test --where metric=accuracy --where exit=4 --same source

    Works on any table; docs/statistics.md explains the two ways and the notation.
    """
    from offramp.analysis.stats import Columns
    from offramp.cli import statistics

    columns = Columns(value, group, block, same, measured)
    split = [name.strip() for name in (by or "").split(",") if name.strip()]
    statistics.show(file, columns, split, where or [], families, better, json)
