"""Commands that run a network: predict, benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption, StoreOption, TrustOption


def predict(
    network: Annotated[
        str, typer.Argument(metavar="TRIAL|BUNDLE", help="A trial's id, or a bundle's folder.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Files, and folders of them.")],
    policy: Annotated[
        Path | None,
        typer.Option(help="Where images leave, from offramp calibrate; a bundle has its own."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The table of answers to write.")] = Path("answers.csv"),
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Images at a time.")] = 64,
    store: StoreOption = RUNS,
    trust: TrustOption = None,
    json: JsonOption = False,
) -> None:
    """Classify image files; each leaves at an exit.

    Writes file, class, confidence, exit and compute share (MACs against the plain network) of each.
    Images that leave early stop costing. Without a policy, all go to the final exit.

    Exit codes: 0; 1 if files were damaged (named, and skipped); 2 for a mistake; 130 if interrupted.

    \b
    Examples:
      offramp predict two-stage-resnet18-cifar10-s42 photos/ --policy policy.json
      offramp predict bundle/ photo.png --out answers.csv
    """
    from offramp.cli import predicting

    predicting.predict(network, images, policy, store, out, batch, json, trust)


def benchmark(
    network: Annotated[
        str, typer.Argument(metavar="TRIAL|BUNDLE", help="A trial's id, or a bundle's folder.")
    ],
    policy: Annotated[
        Path | None, typer.Option(help="From offramp calibrate; a bundle has its own.")
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, metavar="N", help="Images at once. Repeatable.  [default: 1, 16, 256]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each engine; torch's default otherwise.")
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Measure torch.compile too, which takes a while.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=5, metavar="N", help="Rounds at most.")] = 50,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="For each engine and batch, before rounds are cut (to 5).")
    ] = 20.0,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A chart: .svg, .png, .pdf or .json.")
    ] = None,
    store: StoreOption = RUNS,
    trust: TrustOption = None,
    json: JsonOption = False,
) -> None:
    """Time a network with and without leaving early.

    The plain network, the network when nothing leaves, the policy, and each stage, side by side in
    turns; MACs beside milliseconds. A bundle is measured in onnxruntime, in a process of its own, and
    in torch as well where the store holds its trial. Use a quiet machine.

    \b
    Examples:
      offramp benchmark two-stage-resnet18-cifar10-s42 --policy policy.json
      offramp benchmark bundle/ --batch 1 --batch 256 --figure speed.svg
    """
    from offramp.cli import benchmarking
    from offramp.infer.benchmark import Asked

    batches = tuple(dict.fromkeys(batch or (1, 16, 256)))
    backend = "inductor" if compile_ else None
    asked = Asked(batches, backend, threads, repeats, seconds)
    benchmarking.start(network, policy, store, asked, figure, json, trust)
