"""From a trial and a policy to a bundle, and from a bundle to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from offramp.api.answer import answer
from offramp.api.deploy.card import (
    BundleReport,
    Int8,
    Int8Loss,
    Runtimes,
    WebFolder,
    check_one_class,
    check_page,
    int8_share,
)
from offramp.api.opening import opened, trusted
from offramp.api.options import (
    RUNS,
    Anyway,
    CommandOption,
    DataRoot,
    Force,
    PolicyFile,
    StepWatcher,
    StorePlace,
    TrialName,
    TrustCode,
)
from offramp.api.reporter import finished
from offramp.errors import OfframpError
from offramp.labels import several
from offramp.terminal import TextBlocks, TextTable, Verbatim
from offramp.units import size

NO_POLICY = "give either `policy`, a file of offramp calibrate, or `to_measure`"


def export(
    trial: TrialName,
    store: StorePlace = RUNS,
    *,
    out: Annotated[Path, CommandOption("FOLDER")],
    policy: PolicyFile = None,
    int8: Int8 = False,
    int8_loss: Int8Loss = None,
    runtime: Runtimes = (),
    to_measure: bool = False,
    web: WebFolder = None,
    onnxruntime_web: WebFolder = None,
    data_root: DataRoot = None,
    check: bool = True,
    measure: bool = True,
    force: Force = False,
    trust_code: TrustCode = None,
    anyway: Anyway = False,
    watch: StepWatcher = None,
) -> BundleReport:
    """Make a bundle that runs without PyTorch.

    A bundle is a folder: an ONNX graph for each exit that the policy uses, the policy, labels,
    preprocessing, a card, and a Python file that runs all of it with numpy, onnxruntime and Pillow.
    Bundles run on the CPU. Answers are compared with PyTorch's on the test split, or on random numbers
    if the data are missing. It refuses what `offramp calibrate` refuses.

    With `int8` the card compares accuracy, size and time with float32. A bundle that loses more than
    `int8_loss` is refused.

    Args:
        trial: A trial's id, its beginning or its ending. With --hub, a bundle's folder.
        store: The store: a folder, or s3://BUCKET/NAME.
        out: The bundle's folder, a new one.
        policy: The policy file of offramp calibrate for this trial. A plain network has none.
        int8: Quantize the stages; in Python, a number is the accuracy that this may cost.
        int8_loss: Accuracy to give up for `int8`: 0.01 or 1% is one point.
        runtime: Also write stages for executorch or openvino. Repeatable.
        to_measure: Without a policy: keep every exit, to time the stages on a device.
        web: Also write a web page that classifies images in the browser: a new folder.
        onnxruntime_web: With `web`: the npm package that the page needs. By default
            node_modules/onnxruntime-web, here or in a folder above.
        data_root: The folder of the data set's files, if they have moved.
        check: Compare the bundle's answers with PyTorch's.
        measure: Time the stages here, for the card.
        force: Replace an earlier bundle or page.
        trust_code: Whether code that the store names may run.
        anyway: Write an unreliable bundle too, and mark it.
        watch: Called with each step.

    Raises:
        OfframpError: The policy is of another trial, a folder is taken, a package is missing, or the
            bundle would be unreliable.

    On the command line:
        offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
        offramp export two-stage-resnet18 --policy policy.json --out bundle
        python bundle/run.py photo.png
        offramp export two-stage-resnet18 --to-measure --out probe
        npm install onnxruntime-web
        offramp export two-stage-resnet18 --policy policy.json --out bundle \\
          --web site
    """
    from offramp.bundle import graphs
    from offramp.bundle import web as pages
    from offramp.bundle.export import ExportOptions
    from offramp.bundle.export import export as bundled
    from offramp.bundle.folder import is_bundle
    from offramp.policy.policy import Policy

    if is_bundle(Path(trial)):
        raise OfframpError(
            f"{trial} is a bundle; to put it on the hub, give `hub`, and to make another, a trial's id"
        )
    if policy is not None and to_measure:
        raise OfframpError(NO_POLICY)
    allowed = int8_share(int8, int8_loss)
    graphs.check_exporter()
    web_runtime = check_page(web, onnxruntime_web, force, out)
    source = opened(store)
    trial = source.find_trial(trial)
    plain = len(source.read_trial(trial).exits) == 1
    if policy is None and not (to_measure or plain):
        raise OfframpError(NO_POLICY)
    if web is not None and several(source.trial_logits(trial)["test_labels"]):
        check_one_class(web=web)
    code_runs = trusted(source, trial, trust_code, data=check or allowed is not None)
    options = ExportOptions(
        None if data_root is None else str(data_root),
        check,
        measure,
        force,
        code_runs,
        anyway,
        int8=allowed,
        every_exit=to_measure,
        runtimes=tuple(runtime),
    )
    rule = None if policy is None else Policy.load(policy)
    bundle = finished(bundled(source, trial, rule, out, options), watch)
    if web is not None and web_runtime is not None:
        pages.write(bundle.folder, web, web_runtime, force)
    return BundleReport(bundle.folder, bundle.card, web, to_measure)


@answer
class HubUpload:
    """A bundle on the hub. address: its page.  bundle: its name, as `predict` takes it."""

    address: str
    bundle: str

    def as_json(self) -> dict[str, Any]:
        return {"address": self.address, "bundle": self.bundle}

    def document(self) -> TextBlocks:
        return [f"Pushed: {self.address}", f"Use it: offramp predict {self.bundle} IMAGES"]


@answer
class HubUploadPlan:
    """What would be sent to the hub. files: their sizes in bytes.  card: the model card."""

    files: Mapping[str, int]
    card: str

    def as_json(self) -> dict[str, Any]:
        return {"files": self.files, "card": self.card}

    def document(self) -> TextBlocks:
        rows = [(name, size(count)) for name, count in self.files.items()]
        return [TextTable(["file"], ["size"], rows), Verbatim(f"{self.card}\n"), "Nothing was pushed."]


def publish(
    bundle: Annotated[Path, CommandOption("BUNDLE")],
    *,
    hub: Annotated[str, CommandOption("USER/NAME")],
    license: Annotated[str, CommandOption("ID")],
    dataset: Annotated[str | None, CommandOption("USER/NAME")] = None,
    private: bool = False,
    dry_run: bool = False,
) -> HubUpload | HubUploadPlan:
    """Put a bundle on the Hugging Face hub, with a model card.

    The card has the license, accuracy, data, purpose and limits. Sign in beforehand
    (hf auth login), or set HF_TOKEN. This machine's name and folders are not sent.

    Args:
        bundle: A bundle's folder.
        hub: Put a bundle there, on the Hugging Face hub, with a model card.
        license: The license that you give it, such as mit or apache-2.0.
        dataset: The hub's data set that it was trained on.
        private: Make a new repository private.
        dry_run: Show the files and the model card, and send nothing.

    Raises:
        OfframpError: This is no bundle, or the hub refuses it.

    On the command line:
        offramp export bundle/ --hub me/flowers --license mit --dry-run
        offramp export bundle/ --hub me/flowers --license mit
        offramp predict hf:me/flowers photo.jpg
    """
    from offramp.bundle import hub as hubs

    if not dry_run:
        address = hubs.push(bundle, hub, license, dataset, private)
        return HubUpload(address, f"{hubs.PREFIX}{hub.removeprefix(hubs.PREFIX)}")
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        copy = Path(scratch)
        names = hubs.prepare(bundle, copy, hub, license, dataset)
        sizes = {name: (copy / name).stat().st_size for name in names}
        return HubUploadPlan(sizes, (copy / hubs.CARD).read_text(encoding="utf-8"))
