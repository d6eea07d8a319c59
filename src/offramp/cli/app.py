"""Every command, its arguments and its help. Torch is imported only by the commands that need it."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="offramp",
    help="Train early-exit networks in every way the literature knows, and compare them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

StoreOption = Annotated[
    Path, typer.Option("--store", help="Folder of finished work; made when it is not there.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting for this run, as recipe.epochs=3 or seeds='[42]'. Repeatable.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
WorkersOption = Annotated[
    int, typer.Option(min=1, help="Processes that train at once. More cores, more workers.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the table.")]
RUNS = Path("runs")


def _emit(value: Any) -> None:
    typer.echo(jsonlib.dumps(value, indent=2))


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file, such as studies/demo.yaml.")],
    store: StoreOption = RUNS,
    set_: SetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the work, what is shared and the cost; run nothing."),
    ] = False,
    workers: WorkersOption = 1,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a study: train what the store does not hold yet, then show the table.

    Interrupt it whenever you like (Ctrl-C): what is finished stays, and the same command goes on.
    """
    from offramp.cli import running
    from offramp.study import spec

    running.start(spec.read(study, set_ or []), store, dry_run, workers, json, quiet)


@app.command()
def train(
    strategy: Annotated[str, typer.Option(help="A strategy's name, or my_file.py:my_strategy.")],
    backbone: Annotated[str, typer.Option(help="A network: resnet18, timm/NAME or my.py:make_net.")],
    data: Annotated[str, typer.Option(help="A data set: digits, cifar10 or my.py:make_data.")],
    root: Annotated[Path | None, typer.Option(help="The folder of the data set.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    store: StoreOption = RUNS,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the work; run nothing.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one trial without a study file."""
    from offramp.cli import running
    from offramp.study import spec

    source: dict[str, Any] = {"name": data}
    if root is not None:
        source["root"] = str(root)
    given = {"seeds": [seed], "strategies": [strategy], "backbone": backbone, "data": source}
    running.start(spec.parse(given, "offramp train", set_ or []), store, dry_run, 1, json, quiet)


@app.command()
def status(store: StoreOption = RUNS, json: JsonOption = False) -> None:
    """What a store holds: trials by strategy, nodes, work in progress, disk."""
    from offramp.cli import inspecting

    inspecting.status(_store(store), json)


@app.command()
def show(
    trial: Annotated[str, typer.Argument(help="A trial's id, or the beginning of one.")],
    store: StoreOption = RUNS,
    json: JsonOption = False,
) -> None:
    """One trial: accuracy and MACs at each exit, its phases, cost and data."""
    from offramp.cli import inspecting

    inspecting.show(_store(store), trial, json)


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
    """Choose where each input leaves: a policy for a trial, with or without a guarantee.

    Name one target. Candidates are made on validation, chosen on calibration, reported on test.
    """
    from offramp.cli import calibrating

    wanted = {
        "max-accuracy-loss": max_accuracy_loss,
        "min-accuracy": min_accuracy,
        "max-mean-macs": max_mean_macs,
        "max-disagreement": max_disagreement,
        "risk": risk,
    }
    asked = calibrating.Asked(wanted, confidence, on_average, without_labels)
    how = calibrating.search(score, shared, temperature, without_labels)
    calibrating.calibrate(_store(store), trial, asked, how, out, json)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A trial's id, or a strategy's label.")],
    b: Annotated[str, typer.Argument(help="What to compare it with, of the same kind.")],
    store: StoreOption = RUNS,
    json: JsonOption = False,
) -> None:
    """Paired difference in test accuracy at each exit, A minus B, with a 95 % interval.

    Two trials are paired image by image; two strategies seed by seed.
    """
    from offramp.cli import inspecting

    inspecting.compare(_store(store), a, b, json)


@app.command()
def why(
    node: Annotated[str, typer.Argument(help="A node's key, or the beginning of one.")],
    store: StoreOption = RUNS,
    study: Annotated[
        Path | None, typer.Option(help="A study that would train the node, if the store lacks it.")
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """What a node's key is made of, and how it differs from the nearest node of the store."""
    from offramp.cli import inspecting

    inspecting.why(_store(store), node, study, set_ or [], json)


@app.command()
def gc(
    store: StoreOption = RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove from a store what no trial needs: lone nodes, old checkpoints, leftovers."""
    from offramp.cli import inspecting

    inspecting.gc(_store(store), dry_run, json)


@app.command("export-table")
def export_table(
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file.")],
    store: StoreOption = RUNS,
) -> None:
    """Write every number of a store as one tidy table (a row a number)."""
    from offramp.cli import inspecting

    inspecting.export_table(_store(store), out)


@app.command()
def strategies(
    name: Annotated[str | None, typer.Argument(help="Show this one's phases and options.")] = None,
    exits: Annotated[int, typer.Option(min=1, help="Exits, the final one included.")] = 4,
    json: JsonOption = False,
) -> None:
    """List the strategies, or explain one: what trains, what is frozen, options, source."""
    from offramp.cli import explaining

    explaining.strategies(name, exits, json)


@app.command()
def taps(
    model: Annotated[str, typer.Argument(help="resnet18, timm/NAME or my.py:make_net.")],
    input_: Annotated[str, typer.Option("--input", help="Channels x height x width.")] = "3x32x32",
    classes: Annotated[int, typer.Option(min=2)] = 10,
    stem: Annotated[str | None, typer.Option(help="imagenet or small, where there is one.")] = None,
    json: JsonOption = False,
) -> None:
    """List the places of a network where an exit can go, with their share of the MACs.

    A star marks the default taps.
    """
    from offramp.cli import explaining

    explaining.taps(model, input_, classes, stem, json)


def _store(path: Path) -> Any:
    """A store that must be there already."""
    from offramp.errors import OfframpError
    from offramp.study.store import Store

    if not path.exists():
        raise OfframpError(f"there is no store {path}; name one with --store, or run a study first")
    return Store(path)
