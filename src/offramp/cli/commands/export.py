"""`offramp export`: from a trial and a policy to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli import options
from offramp.cli.bundle import describe, int8_share, page_at
from offramp.cli.options import argument, flag, option
from offramp.cli.render import emit, told
from offramp.cli.store import opened, trusted
from offramp.errors import OfframpError


def export(
    trial: Annotated[str, argument("TRIAL", "A trial's id, its beginning or its ending.")],
    out: Annotated[Path, option("FOLDER", "The bundle's folder, a new one.")],
    policy: Annotated[
        Path | None, option("FILE", "The policy file of offramp calibrate for this trial.")
    ] = None,
    store: options.StoreArgument = None,
    store_: options.StoreOption = None,
    int8: options.Int8Option = False,
    int8_loss: options.Int8LossOption = None,
    to_measure: Annotated[
        bool,
        flag("--to-measure", "Without a policy: keep every exit, to time the stages on a device."),
    ] = False,
    web: options.WebOption = None,
    onnxruntime_web: options.RuntimeOption = None,
    root: Annotated[
        Path | None,
        option("FOLDER", "The folder of the data set's files, if they have moved.", "--data-root"),
    ] = None,
    check: Annotated[
        bool, flag("--check/--no-check", "Compare the bundle's answers with PyTorch's.")
    ] = True,
    measure: Annotated[
        bool, flag("--measure/--no-measure", "Time the stages here, for the card.")
    ] = True,
    force: Annotated[bool, flag("--force", "Replace an earlier bundle or page.")] = False,
    trust: options.TrustOption = None,
    anyway: options.AnywayOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Make a bundle that runs without PyTorch.

    A bundle is a folder: an ONNX graph for each exit that the policy uses, the policy, labels,
    preprocessing, a card, and a Python file that runs all of it with numpy, onnxruntime and Pillow.
    Bundles run on the CPU. Answers are compared with PyTorch's on the test split, or on random numbers
    if the data are missing. It refuses what `offramp calibrate` refuses.

    With --int8 the card compares accuracy, size and time with float32. A bundle that loses more than
    --int8-loss is refused.

    \b
    Examples:
      offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
      offramp export two-stage-resnet18 --policy policy.json --out bundle
      python bundle/run.py photo.png
      offramp export two-stage-resnet18 --to-measure --out probe
      npm install onnxruntime-web
      offramp export two-stage-resnet18 --policy policy.json --out bundle \\
        --web site
    """
    from offramp.bundle import graphs
    from offramp.bundle.export import ExportOptions
    from offramp.bundle.export import export as bundled
    from offramp.policy.policy import Policy

    if (policy is None) is not to_measure:
        raise OfframpError("give either --policy FILE, of offramp calibrate, or --to-measure")
    allowed = int8_share(int8, int8_loss)
    graphs.check_installed()
    page = page_at(web, onnxruntime_web, force, out)
    kept = opened(store, store_)
    trust_code = trusted(kept, kept.find_trial(trial), trust, data=check or int8)
    where = None if root is None else str(root)
    asked = ExportOptions(
        where, check, measure, force, trust_code, anyway, int8=allowed, every_exit=to_measure
    )
    rule = None if policy is None else Policy.load(policy)
    done = told(bundled(kept, trial, rule, out, asked), quiet or json)
    if page is not None:
        page.write(done.folder)
    if json:
        there = {} if page is None else {"web": str(page.out)}
        emit({"bundle": str(done.folder), **there, "card": done.card})
        return
    describe(done.folder, done.card)
    if to_measure:
        typer.echo(f"On the device: python {done.folder}/run.py --measure --out times.json")
    if page is not None:
        page.say()
