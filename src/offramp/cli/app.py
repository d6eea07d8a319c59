"""The commands, by the job of `offramp.api` that each of them does. Starting it imports no torch."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import get_completion_class

from offramp.api.deploy.benchmark import benchmark
from offramp.api.deploy.build import build, forecast_build
from offramp.api.deploy.calibrate import calibrate
from offramp.api.deploy.export import export, publish
from offramp.api.deploy.predict import predict, stream
from offramp.api.deploy.serve import serve_bundle
from offramp.api.keep.doctor import doctor
from offramp.api.keep.store import copy_store, index_store, pack, remove_unneeded
from offramp.api.keep.track import track_store
from offramp.api.results.claims import claims
from offramp.api.results.compare import compare, interaction
from offramp.api.results.families import figures, tables
from offramp.api.results.recommend import recommend
from offramp.api.results.report import numbers, write_report
from offramp.api.results.show import show
from offramp.api.results.stats import stats
from offramp.api.results.status import status, trials, watch
from offramp.api.train.data import check_data, describe_data, split_data
from offramp.api.train.forecast import forecast
from offramp.api.train.recipes import recipes
from offramp.api.train.run import run
from offramp.api.train.search import search
from offramp.api.train.strategies import list_strategies
from offramp.api.train.taps import taps
from offramp.cli.adapter import Job, JobCommand, JobGroup, SectionedGroup
from offramp.process import revision

JOBS: dict[str, dict[str, Job | JobGroup]] = {
    "Train": {
        "run": Job(run, {"dry-run": forecast}),
        "search": Job(search),
        "recipes": Job(recipes),
        "strategies": Job(list_strategies),
        "taps": Job(taps),
        "data": JobGroup(
            "Describe, check or split a data set.",
            {"describe": Job(describe_data), "check": Job(check_data), "split": Job(split_data)},
        ),
    },
    "Look at results": {
        "status": Job(status, {"trials": trials, "watch": watch}),
        "show": Job(show),
        "report": Job(write_report, {"figures": figures, "tables": tables, "numbers": numbers}),
        "compare": Job(compare, {"value": stats, "against": interaction}),
        "claims": Job(claims),
        "recommend": Job(recommend),
    },
    "Deploy": {
        "build": Job(build, {"dry-run": forecast_build}),
        "calibrate": Job(calibrate),
        "export": Job(export, {"hub": publish}),
        "predict": Job(predict, {"stream": stream}),
        "benchmark": Job(benchmark),
        "serve": Job(serve_bundle),
    },
    "Keep order": {
        "store": JobGroup(
            "Copy, pack, clean up or track a store.",
            {
                "copy": Job(copy_store),
                "pack": Job(pack),
                "gc": Job(remove_unneeded),
                "index": Job(index_store),
                "track": Job(track_store),
            },
        ),
        "doctor": Job(doctor),
    },
}


def _version(ctx: click.Context, _: click.Parameter, is_set: bool) -> None:
    if is_set:
        from importlib.metadata import version

        commit = _commit()
        click.echo(f"offramp {version('offramp')}{f' ({commit[:12]})' if commit else ''}")
        ctx.exit()


def _commit() -> str:
    """The revision of this code: of a wheel, what its build wrote; of a checkout, what git says."""
    package = Path(__file__).parents[1]
    if (package / "COMMIT").is_file():
        return (package / "COMMIT").read_text("utf-8").strip()
    if not (package.parents[1] / ".git").exists():  # somebody else's repository may lie around ours
        return ""
    return revision(package) or ""


def _completion(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
    if shell is not None:
        script = get_completion_class(shell)
        assert script is not None
        source = script(app, {}, "offramp", "_OFFRAMP_COMPLETE").source()
        click.echo(source.replace('split ","', 'split -m 1 ","'))  # fish: descriptions have commas
        ctx.exit()


app = SectionedGroup(
    {
        title: [
            JobCommand(name, job) if isinstance(job, Job) else job.command(name)
            for name, job in jobs.items()
        ]
        for title, jobs in JOBS.items()
    },
    name="offramp",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and its commit, and exit.",
        ),
        click.Option(
            ["--completion"],
            type=click.Choice(["bash", "zsh", "fish"]),
            metavar="SHELL",
            is_eager=True,
            expose_value=False,
            callback=_completion,
            help="Print a script that completes commands: bash, zsh or fish.",
        ),
    ],
    help="""Train early-exit networks, compare the ways to train them, and deploy one.

    \b
    Start here:
      offramp strategies                 list the ways to train exits
      offramp recipes demo > demo.yaml   write a small study
      offramp run demo.yaml --dry-run    show what it would do
      offramp run demo.yaml              run it
      offramp report                     see what it came to

    \b
    With a network of your own:
      offramp build --backbone resnet18 --data folder:photos --out bundle

    \b
    To complete commands, put this into ~/.bashrc:
      eval "$(offramp --completion bash)"
    """,
)
