"""`offramp run`: a study, a list of studies, or a study that is to fit a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from offramp.cli import options
from offramp.cli.options import argument, flag, option
from offramp.cli.progress.log import LogOptions, opened
from offramp.cli.store import code_named
from offramp.cli.training.budget import start_one
from offramp.cli.training.run_options import RunOptions, SeedBudget, place, processes, reached, settings
from offramp.cli.training.study_list import start_all
from offramp.errors import OfframpError


def run(
    study: Annotated[
        Path, argument("STUDY", "A study file. For a first one: offramp recipes demo > demo.yaml")
    ],
    store: options.TrainingStoreOption = options.RUNS,
    data_root: options.DataRootOption = None,
    set_: options.SetOption = None,
    execution: options.ExecutionOption = None,
    dry_run: options.DryOption = False,
    workers: options.WorkersOption = "auto",
    on: options.OnOption = "local",
    price_per_hour: options.PriceOption = None,
    device: options.DeviceOption = None,
    budget: options.BudgetOption = None,
    speed: Annotated[
        str | None,
        option(
            "SPEED",
            "With --dry-run: also the time on a device of this speed, such as 14TFLOPS or 7TMACs.",
        ),
    ] = None,
    until_decided: Annotated[
        bool,
        flag(
            "--until-decided",
            "Add seeds until every pair of strategies differs or is alike, up to --max-seeds.",
        ),
    ] = False,
    max_seeds: Annotated[
        int | None, option("N", "With --until-decided: the most seeds.  [default: 20]", min=3)
    ] = None,
    difference: Annotated[
        float | None,
        option(
            "POINTS",
            "With --until-decided: strategies that differ by less, in points of test accuracy, are "
            "alike.  [default: 0.5]",
        ),
    ] = None,
    power: Annotated[
        float | None,
        option(
            "POINTS",
            "With --dry-run: also how many seeds it takes to show this difference, in points of test "
            "accuracy.",
        ),
    ] = None,
    cache_memory: options.CacheMemoryOption = None,
    cache_disk: options.CacheDiskOption = None,
    no_user_code: options.NoUserCodeOption = False,
    anyway: Annotated[
        bool,
        flag("--anyway", "With --budget: train even if the time is too short, and mark the results."),
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    log_file: options.LogFileOption = None,
    log_format: options.LogFormatOption = None,
) -> None:
    """Run a study: train what is missing, then show the results.

    A study trains each of its strategies with each of its seeds. Such a pair is a trial, a sequence of
    phases. A phase that several trials share is trained once, and finished work in the store is not
    trained again. You may interrupt a run at any time (Ctrl-C): the same command goes on.

    A file may also list studies. They run one after another into one store. The data root then holds a
    folder for each data set, by name.

    --until-decided adds seeds after the study's own (three at least), for the strategies that are still
    in question. The number of looks at the results is fixed before the first look and kept in the store,
    so that reports adjust p for it.

    If standard error is not a terminal, a log is written there: a line when a phase begins and when it
    is finished, and every ten seconds an epoch's loss and accuracy by exit, with the time left.

    A dry run shows the work, the shared part of it, and the time. It starts nothing, and needs neither
    data nor weights: it knows the sizes of public data sets.

    Exit codes: 0; 1 if a trial failed (the others go on); 2 for a mistake in the study or the
    command; 130 if interrupted, 143 by SIGTERM (Slurm, Kubernetes), 129 if the terminal is closed.

    \b
    Examples:
      offramp recipes demo > demo.yaml
      offramp run demo.yaml --dry-run
      offramp run demo.yaml --set recipe.epochs=3 --set seeds='[42]'
      offramp run demo.yaml --store runs/demo --workers 2
      offramp run demo.yaml --log-file demo.log
      offramp run demo.yaml --budget 1min
      offramp run demo.yaml --until-decided --max-seeds 12
      offramp run demo.yaml --dry-run --power 0.5
      offramp run demo.yaml --dry-run --speed 14TFLOPS
      offramp run demo.yaml --dry-run --on ray --price-per-hour 2.5
      offramp run demo.yaml --on ray://head:10001 --store /shared/runs

    \b
    In a clone of offramp, the paper's studies:
      offramp run studies/paper/all.yaml --set scale=small --data-root data
    """
    from offramp import units

    _leave_word_to_first()
    given = None if speed is None else units.parse(speed, units.SPEED, "--speed")
    how = RunOptions(
        store,
        dry_run,
        processes(workers),
        json,
        speed=given,
        user_code=not no_user_code,
        place=device,
        anyway=anyway,
        power=_share(power, "--power"),
        until=SeedBudget(max_seeds, _share(difference, "--difference")) if until_decided else None,
        on=place(on),
        price=price_per_hour,
    )
    if how.on is not None and how.workers is not None:
        raise OfframpError("--workers is for one machine; a cluster has the cores that Ray was given")
    if price_per_hour is not None and (how.on is None or not dry_run):
        raise OfframpError("--price-per-hour is for the forecast of a cluster; add --dry-run --on ray")
    if (max_seeds, difference) != (None, None) and not until_decided:
        raise OfframpError("--max-seeds and --difference are for --until-decided; add it")
    given_settings = settings(set_, execution, cache_memory, cache_disk)
    with opened(LogOptions(log_file, log_format, verbose, quiet), json) as log:
        _start(study, given_settings, data_root, budget, replace(how, log=log))


def _start(
    path: Path, settings: Sequence[str], data_root: Path | None, budget: str | None, how: RunOptions
) -> None:
    """Plan and run what a file asks for; exits as `start`."""
    from offramp.study.spec.file import studies, study_files

    for name, given in (("--speed", how.speed), ("--power", how.power)):
        if given is not None and not how.dry_run:
            raise OfframpError(f"{name} is for a forecast; add --dry-run")
    if how.until is not None and how.dry_run:
        raise OfframpError(
            "--until-decided needs results, and a dry run has none; leave one out, or ask --dry-run "
            "--power 0.5 how many seeds it takes"
        )
    files = study_files(path, settings, data_root)
    asked = studies(files)
    named = code_named([member.study for member in asked], how.user_code)
    if named is not None:
        how.log.say(named, must=True)
    for name, one in (("--budget", budget), ("--until-decided", how.until), ("--power", how.power)):
        if len(asked) > 1 and one is not None:
            raise OfframpError(
                f"{name} is for one study, and {path} stands for {len(asked)}; run one of them"
            )
    if budget is not None and how.until is not None:
        raise OfframpError("--budget makes a study smaller, --until-decided larger; leave one out")
    with reached(how) as how:
        if len(asked) > 1:
            start_all(path, asked, how)
        else:
            start_one(files[0], budget, asked[0].study, how)


def _leave_word_to_first() -> None:
    """Silence all processes of torchrun but the first: they would say the same. What ends one of them
    torchrun says."""
    if os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("RANK") != "0":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _share(points: float | None, flag: str) -> float | None:
    """Points of accuracy as a share of 1. Raises OfframpError outside 0 to 100."""
    if points is not None and not 0 < points < 100:
        raise OfframpError(f"{flag} is {points:g}; write points of accuracy, such as 0.5")
    return None if points is None else points / 100
