"""A policy on images unlike those of its calibration: what was tried, and what may be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer
from offramp.api.deploy.predict import check_bundle_options
from offramp.api.opening import opened, trusted
from offramp.api.options import (
    RUNS,
    CommandOption,
    DataRoot,
    Device,
    FastStepWatcher,
    NetworkPlace,
    StorePlace,
    TrustCode,
)
from offramp.api.reporter import finished
from offramp.errors import OfframpError
from offramp.terminal import TextBlocks, TextTable

if TYPE_CHECKING:
    from offramp.infer.stress import Stress
    from offramp.policy.policy import Policy


@answer
class StressReport:
    """What a policy does with images that are not like those it was calibrated on.

    Attributes:
        stress: The numbers, and what may be concluded.
        figure: The chart's file; None without one.
        failure: Why the chart could not be written.

    On the command line:
        offramp benchmark two-stage-resnet18 --policy policy.json --stress --json
    """

    stress: Stress
    figure: Path | None = None
    failure: OfframpError | None = None

    def as_json(self) -> dict[str, Any]:
        by_image = ("leaves", "spent")
        rows = [{k: v for k, v in asdict(row).items() if k not in by_image} for row in self.stress.rows]
        return {**asdict(replace(self.stress, rows=())), "rows": rows}

    def document(self) -> TextBlocks:
        stress, rows = self.stress, []
        for row in stress.rows:
            tested, sure = row.tested, "–" if row.confidence is None else f"{row.confidence:.2f}"
            accuracy = (tested.policy, tested.full, tested.loss)
            graded = ["–" if row.kind == "foreign" else f"{100 * x.value:.1f}" for x in accuracy]
            spent = f"{100 * tested.macs.mean / stress.plain_macs:.1f}"
            shares = (f"{100 * exit.share:.1f}" for exit in tested.exits)
            rows.append((row.title, *graded, spent, *shares, sure))
        exits = [f"exit {exit.exit}" for exit in stress.rows[0].tested.exits]
        note = (
            "In %. Right: under the policy; full: by the full network; loss: between both; MACs: "
            "of the plain network; exits: where images leave; sure: mean confidence of images that "
            "leave early."
        )
        title = f"{stress.trial}: {stress.rows[0].tested.images:,} test images"
        titles = ["right", "full", "loss", "MACs", *exits, "sure"]
        return [
            *(f"Unreliable: {reason}." for reason in stress.unreliable),
            TextTable(["images"], titles, rows, title, note),
            *stress.conclusions,
            *(f"Note: {note}." for note in stress.notes),
            *([] if self.figure is None else [f"Figure: {self.figure}"]),
        ]


TrialPolicy = Annotated[
    "Policy | Path | str | None", CommandOption("FILE", parse=lambda text, _: Path(text))
]


def stress(
    network: NetworkPlace,
    store: StorePlace = RUNS,
    *,
    policy: TrialPolicy = None,
    foreign: Annotated[Sequence[Path | str], CommandOption("IMAGES")] = (),
    images: Annotated[int, CommandOption("N", least=1)] = 1000,
    attack_size: Annotated[float, CommandOption("LEVELS", least=0, most=255)] = 8.0,
    attack_steps: Annotated[int, CommandOption("N", least=1)] = 30,
    seed: Annotated[int, CommandOption("N", least=0)] = 0,
    figure: Path | None = None,
    data_root: DataRoot = None,
    device: Device = None,
    trust_code: TrustCode = None,
    watch: FastStepWatcher = None,
) -> StressReport:
    """Try a policy on images that are not like those it was calibrated on.

    Thresholds decide where an image leaves, and they were chosen on images like those of training. What
    happens on others? Three things are tried: test images with noise, blur, less contrast, more light
    and JPEG's losses, each at five strengths; images of no class; and test images with small changes
    that keep them from leaving (DeepSloth). Each has its accuracy, compute, and share of images by exit.

    Below the table stands what may be concluded. The same seed gives the same bits on one machine. Of a
    bundle its trial is tried, which the store has.

    Args:
        network: A trial's id, or the folder of a bundle in float32.
        store: The store: a folder, or s3://BUCKET/NAME.
        policy: The policy of offramp calibrate for this trial, or its file. A bundle has its own.
        foreign: Images that show none of the classes: files, or folders of them. Repeatable. They are
            made to the size that the network takes.
        images: Take at most N test images, and N of no class, evenly spread.
        attack_size: The attack changes a pixel by at most so many of 255 levels.
        attack_steps: Steps of the attack.
        seed: Of noise.
        figure: Draw a chart: .svg, .png, .pdf or .json.
        data_root: The folder of the data set's files, if they have moved.
        device: Where the network runs.
        trust_code: Whether code that the store names may run.
        watch: Called with each step.

    Raises:
        OfframpError: There is no such trial, its policy is missing or of another one, the bundle is in
            int8, or the trial's images cannot be read as pixels.

    On the command line:
        offramp benchmark two-stage-resnet18 --policy policy.json --stress
        offramp benchmark two-stage-resnet18 --policy policy.json --stress \\
          --foreign photos/ --figure stress.svg
        offramp benchmark bundle/ --stress
    """
    from offramp import device as devices
    from offramp.api.chart import check_file, saved
    from offramp.infer import image_files
    from offramp.infer.stress import StressOptions, of_trial
    from offramp.report.figures.stress import stress_figure

    if figure is not None:
        check_file(figure)
    if image_files.names_bundle(network):
        check_bundle_options(policy)
        policy = bundle_policy(Path(network))
        network = policy.calibration.trial
    if policy is None:
        raise OfframpError("give `policy`, which offramp calibrate writes for this trial")
    source = opened(store)
    code_runs = trusted(source, source.find_trial(network), trust_code, data=True)
    root = None if data_root is None else str(data_root)
    files = tuple(map(Path, foreign))
    options = StressOptions(images, files, attack_size, attack_steps, seed, root, code_runs)
    measured = finished(of_trial(source, network, policy, devices.chosen(device), options), watch)
    if figure is None:
        return StressReport(measured)
    drawn = stress_figure(measured.rows, measured.plain_macs, measured.trial)
    return StressReport(measured, *saved(drawn, figure))


def bundle_policy(folder: Path) -> Policy:
    """The policy of a bundle, whose trial it is to be tried on. Raises OfframpError for one in int8,
    whose thresholds are for other logits than the trial has."""
    from offramp.bundle.folder import opened as opened_bundle
    from offramp.policy.policy import Policy

    if opened_bundle(folder, pictures=False).precision != "float32":
        raise OfframpError(
            f"{folder} is in int8, and its trial, which is tried here, in float32; name the trial, and "
            "the `policy` that the bundle was exported with"
        )
    return Policy.load(folder / "policy.json")
