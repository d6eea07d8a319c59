"""Training the exits of a network at hand, and what comes of it."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Unpack

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from offramp import device as devices
from offramp.api.answer import answer
from offramp.api.checked import checked
from offramp.api.deploy.policies import CalibrationOptions, check_options, policy_for
from offramp.api.options import CommandOption
from offramp.api.reporter import finished, reporter_for, warn
from offramp.api.train.request import run_config
from offramp.augment import Augment
from offramp.bundle import export as bundle
from offramp.bundle.export import Exported
from offramp.bundle.trial_images import of_split, of_test
from offramp.data import Data, Split, from_dataset, normalize
from offramp.data.notes import notes
from offramp.data.samples import Samples, class_names
from offramp.data_spec import GIVEN, HELD_OUT, SPLITS, Normalization
from offramp.engine.settings import laid_out
from offramp.errors import OfframpError, kind_of
from offramp.infer import benchmark
from offramp.infer.predictor import Prediction, Predictor, check_backend, check_finite
from offramp.inputs import check_numbers
from offramp.metrics import accuracy
from offramp.nets import ExitNetwork, NetSpec, attach, build
from offramp.nets.families import nearest_to, smaller
from offramp.nets.network import identified, inside, loaded
from offramp.numerics import FAST
from offramp.parts import Part, Parts, backbone
from offramp.policy.calibration import Chosen
from offramp.policy.policy import Policy, as_policy, check_fits
from offramp.recipe import Recipe
from offramp.store.manifest import Manifest
from offramp.store.record import apart
from offramp.store.store import Store
from offramp.store.table import tidy
from offramp.strategies import PLAIN, Strategy
from offramp.study import trained
from offramp.study.beside import Beside, beside
from offramp.study.plan.plan import Plan, epochs_for, numerics_for, plan_trials
from offramp.study.run import trials
from offramp.study.run.events import Event
from offramp.study.run.run import run as run_plan
from offramp.study.spec import file as spec
from offramp.study.spec.models import Study
from offramp.study.trained import Trained
from offramp.terminal import TextBlocks, TextTable
from offramp.units import noun, percent


@answer
class Fitted:
    """A trained early-exit network, with its numbers and its logits. `fit` and `adopt` return it.

    A terminal and a notebook show it as a table of its exits.

    Attributes:
        net: On the device of the training: normalized images [B, C, H, W] → a tuple of logits
            [B, classes], one an exit. It is in eval mode, and no parameter requires a gradient. To train
            it in a loop of your own: net.requires_grad_(True).train().
        trial: Its id, also in the store where there is one.
        accuracy: On the test split, by exit, 0 to 1.
        logits: Of the splits `validation`, `calibration` and `test`, [N, exits, classes], and their
            labels as `validation_labels` and so on, [N].
        history: Every number of every phase, one a row; phase `final` is the finished network.
        mean: What is subtracted from pixels, a number a channel, as shares of 255; 0 if the training
            images were float32: such images must already be normalized.
        std: What they are divided by then; 1 if the training images were float32.
        control: The smaller plain network that was trained as well; None without one.

    Example:
        >>> fitted
        two-stage: test accuracy at each exit
        exit  place  ...
        >>> fitted.net(fitted.normalize(images[:2]))[0].shape
        torch.Size([2, 10])
    """

    net: ExitNetwork
    trial: str
    accuracy: Mapping[int, float]
    logits: Mapping[str, np.ndarray]
    history: pd.DataFrame
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _manifest: Manifest
    _data: Data
    control: Fitted | None = None

    def table(self) -> pd.DataFrame:
        """A row for each exit.

        Columns: place, MACs of an image that leaves there, their share of the plain network's, and the
        accuracy on test, 0 to 1.

        Example:
            >>> fitted.table().columns.tolist()
            ['place', 'MACs', 'of plain', 'accuracy']
        """
        numbers, manifest = list(self.accuracy), self._manifest
        return pd.DataFrame(
            {
                "place": [self.net.places[k - 1] for k in numbers],
                "MACs": manifest.macs,
                "of plain": [spent / manifest.backbone_macs for spent in manifest.macs],
                "accuracy": list(self.accuracy.values()),
            },
            index=pd.Index(numbers, name="exit"),
        )

    def as_json(self) -> list[dict[str, Any]]:
        """The same table in the types of JSON."""
        rows = self.table().reset_index().to_dict("records")
        return [{str(column): cell for column, cell in row.items()} for row in rows]

    def document(self) -> TextBlocks:
        rows = [
            (
                str(exit),
                row["place"],
                f"{row['MACs']:,}",
                percent(row["of plain"]),
                percent(row["accuracy"]),
            )
            for exit, row in self.table().iterrows()
        ]
        title = f"{self._manifest.strategy}: test accuracy at each exit"
        return [TextTable(["exit", "place"], ["MACs", "of plain", "accuracy"], rows, title)]

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Images as `net` takes them, on its device: uint8 [B, C, H, W] → float32 of the same shape.

        Raises:
            OfframpError: The images are not uint8 of the network's shape, or the training images were
                float32: such images go into the network as they are.

        Example:
            >>> fitted.normalize(images[:5]).dtype
            torch.float32
        """
        if self._normalized:
            raise OfframpError(
                "the training images were float32, taken as normalized; give such images to the network"
            )
        if not isinstance(images, torch.Tensor):
            raise OfframpError(f"the images are {kind_of(images)}; give a tensor")
        check_numbers(images, "the images")
        shape = self.net.input_shape
        kind = str(images.dtype).removeprefix("torch.")
        if kind != "uint8" or tuple(images.shape[1:]) != shape:
            sides = ", ".join(map(str, shape))
            raise OfframpError(f"the images are {list(images.shape)} {kind}; give uint8 [B, {sides}]")
        device = next(self.net.parameters()).device
        mean, std = (torch.tensor(values, device=device) for values in (self.mean, self.std))
        return laid_out(normalize(images.to(device), mean, std), "channels_last")

    @property
    def _normalized(self) -> bool:
        return self._manifest.normalized

    @checked
    def calibrate(self, *, anyway: bool = False, **options: Unpack[CalibrationOptions]) -> Policy:
        """A policy that says where each image leaves: the cheapest that keeps a limit.

        It is chosen on the calibration split. The test split is not looked at. Warns (`OfframpWarning`)
        where one exit alone meets the limit, where little is saved, and where an early exit is surely
        right more often than the final one.

        Args:
            anyway: Return a policy even if it is unreliable.
            options: The limit, exactly one of `Limits`, such as max_accuracy_loss=0.01, and how policies
                are made: score, shared, survivors, temperature, training_shares, batch, stage_times.

        Raises:
            OfframpError: No policy keeps the limit, the batch is below 1, or two of the splits train,
                validation, calibration and test have the same images. Unless `anyway`, also for a
                network near chance, too few calibration images for the limit, and a policy that saves
                nothing.

        Example:
            >>> policy = fitted.calibrate(max_accuracy_loss=0.02)
            >>> policy.exits, policy.score
            ((1, 2, 3), 'confidence')
            >>> policy.calibration.statement[:13]
            'No guarantee:'
        """
        check_options(options)
        deployable = policy_for(self._trained, lambda: self.net, options, anyway)
        warn(deployable.notes)
        return deployable.policy

    def predict(
        self, images: torch.Tensor | np.ndarray | Sequence[Image.Image], policy: Policy | str | Path
    ) -> Prediction:
        """Answers for a batch; images that leave early cost nothing more.

        Args:
            images: uint8 [B, C, H, W], as `normalize` takes them, or already normalized float32.
                An array may have its channels last, [B, H, W, C]. Pillow's
                images are resized and cropped as in training, where the data did that.
            policy: A Policy, or the path of a policy file. To answer many batches, make a `predictor`
                once.

        Raises:
            OfframpError: The policy is of another network, or `net` cannot take the images.

        Example:
            >>> answers = fitted.predict(images[:100], policy)
            >>> answers.classes.shape, answers.exits.shape, answers.compute.shape
            (torch.Size([100]), torch.Size([100]), torch.Size([100]))
        """
        rule = as_policy(policy)
        if rule.calibration.trial_hash:
            check_fits(rule, self._trained.id, self._trained.hash, self._trained.exits)
        ready = self._tensor(images)
        check_numbers(ready, "the images")
        check_finite(ready)
        if top := _pixels_to(ready, None if self._normalized else (self.mean, self.std)):
            raise _pixels(top)
        place = next(self.net.parameters()).device
        floats = ready.is_floating_point()
        return Predictor(self.net, rule)(ready.to(place) if floats else self.normalize(ready))

    def _tensor(self, images: Any) -> torch.Tensor:
        """[B, C, H, W] of what `predict` takes."""
        if isinstance(images, torch.Tensor):
            return images
        if isinstance(images, np.ndarray) and images.dtype.kind in "uif":
            shape = self.net.input_shape
            last = images.shape[1:] != shape and images.shape[1:] == (*shape[1:], *shape[:1])
            return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1) if last else images))
        if not isinstance(images, (list, tuple)) or self._normalized:
            raise OfframpError(
                f"the images are {kind_of(images)}; give a tensor, an array of numbers"
                f"{'' if self._normalized else ' or a list of Pillow images'}"
            )
        try:
            return torch.from_numpy(bundle.preprocessing(self._manifest).batch(images))
        except ValueError as error:
            raise OfframpError(f"{error}; or give a tensor") from None

    @checked
    def benchmark(
        self,
        policy: Policy | str | Path | None = None,
        batches: Annotated[Sequence[int] | int, CommandOption("N", least=1)] = (1, 32),
        *,
        backend: str | None = None,
        threads: Annotated[int | None, CommandOption("N", least=1, most=1024)] = None,
        repeats: Annotated[int, CommandOption("N", least=1)] = 50,
        seconds: Annotated[float, CommandOption("TIME", least=0)] = 20.0,
    ) -> pd.DataFrame:
        """Time on this device: the plain network, all exits, the policy, and each stage alone.

        Args:
            policy: None lets nothing leave early.
            batches: Images at once, each measured apart.
            backend: Of torch.compile, such as `inductor`, measured beside eager execution.
            threads: Of the CPU; None is torch's default.
            repeats: Rounds at most.
            seconds: When rounds are cut short, for each batch.

        Returns:
            A row for each engine, batch size and part. Columns: engine, what, batch, macs (of an image),
            p50 and p95 (seconds a batch), rate (images a second), speedup (rate over the plain
            network's), repeats; and where they can be measured, joules (of an image) and memory (bytes).
            `attrs` has the machine, notes, and how many cores other processes kept busy.

        Raises:
            OfframpError: The policy is of another network, the backend is not there, or batches,
                repeats or threads are below 1.

        Example:
            >>> times = fitted.benchmark(policy, batches=[8], repeats=3, seconds=0.5)
            >>> times.set_index("what").loc[["plain", "policy"], "batch"].tolist()
            [8, 8]
        """
        sizes = (batches,) if isinstance(batches, int) else tuple(batches)
        if not sizes:
            raise OfframpError("`batches` is empty; give one size at least")
        check_backend(backend)
        options = benchmark.BenchmarkOptions(sizes, backend, threads, repeats, seconds)
        rule = None if policy is None else self._bound(policy)
        steps = benchmark.of_network(self.trial, self.net, tuple(self.accuracy), rule, options)
        measured = finished(steps)
        lines = measured.lines
        table = pd.DataFrame([asdict(line) for line in lines])
        plain = {(line.engine, line.batch): line.rate for line in lines if line.what == "plain"}
        faster = [line.rate / plain[line.engine, line.batch] for line in lines]
        table.insert(list(table).index("rate") + 1, "speedup", faster)
        table = table.dropna(axis="columns", how="all")  # what was not measured
        table.attrs = {"machine": measured.machine, "busy": measured.busy, "notes": measured.notes}
        return table

    @checked
    def export(
        self,
        folder: str | Path,
        policy: Policy | str | Path | None = None,
        *,
        check: bool = True,
        measure: bool = True,
        force: bool = False,
        anyway: bool = False,
        int8: bool | float = False,
        runtime: Sequence[str] = (),
    ) -> Exported:
        """Write a bundle: a network that runs without PyTorch.

        It has one ONNX graph for each exit, the policy, a card, and a runtime that needs numpy,
        onnxruntime and Pillow. `python FOLDER/run.py IMAGES` answers pictures.

        Args:
            folder: A new one.
            policy: A Policy, or the path of a policy file. A plain network, such as `control`, has none.
            check: Compare its answers with PyTorch's on the test split.
            measure: Time its stages here.
            force: Replace a bundle that is there.
            anyway: Write what `calibrate` would refuse too; its card says "unreliable", and why.
            int8: Quantize the stages and solve the thresholds again; a number is the share of accuracy
                that this may cost, True is 0.01.
            runtime: Also write stages for these runtimes: executorch, openvino.

        Returns:
            The bundle's `folder` and its `card`, a mapping.

        Raises:
            OfframpError: The training images came normalized, as no picture can be made like them; the
                images have other than 1 or 3 channels; the policy is of another
                network; the folder is taken; int8 costs more than it may; or `calibrate` would refuse.

        Example:
            >>> done = fitted.export("bundle", policy, measure=False)
            >>> sorted(path.name for path in done.folder.iterdir())[:3]
            ['SHA256SUMS', 'card.json', 'card.md']
        """
        if self._normalized:
            raise OfframpError(
                "the training images were float32, normalized nobody knows how, so a bundle could not "
                "prepare a picture; train on uint8 images"
            )
        net = copy.deepcopy(self.net).eval().cpu()
        allowed = bundle.int8_share(int8)
        if policy is None and len(self.accuracy) > 1:
            raise OfframpError("the network has early exits; give a policy, such as of `calibrate`")
        rule = bundle.nothing_leaves(self._trained) if policy is None else self._bound(policy)
        options = bundle.ExportOptions(
            check=check,
            measure=measure,
            force=force,
            anyway=anyway,
            int8=allowed,
            runtimes=tuple(runtime),
            beside=None if self.control is None else self.beside(rule),
        )
        splits, how = self._data.splits, (self.mean, self.std)
        pictures = bundle.Pictures()
        if allowed is not None:
            every = {name: of_split(splits[name], *how) for name in HELD_OUT}
            pictures = bundle.Pictures(splits=every)
        elif check:
            pictures = bundle.Pictures(of_test(splits["test"], *how))
        facts = (self._trained, self._named, Path(folder), options)
        return finished(bundle.of_network(net, rule, *facts, pictures))

    @property
    def _named(self) -> Manifest:
        """The record for a card's title: of a module that has no name to make it by, its class's."""
        manifest = self._manifest
        if inside(self.net).redrawable:
            return manifest
        kind = type(self.net.backbone).__name__
        network = manifest.network.model_copy(update={"backbone": kind})
        return manifest.model_copy(update={"network": network})

    @cached_property
    def _trained(self) -> Trained:
        return trained.of_network(self.trial, self.net, self._manifest, self.logits)

    @checked
    def beside(self, policy: Policy | str | Path) -> Beside:
        """Which to ship: this network under a policy, or the smaller plain network, its `control`. They
        are tested at equal compute on the test images; where these do not tell, it says so.

        Raises:
            OfframpError: There is no control, or the policy is of another network.

        Example:
            >>> policy = fitted.calibrate(max_accuracy_loss=0.02)
            >>> fitted.beside(policy)
            Traceback (most recent call last):
            ...
            offramp.errors.OfframpError: no smaller plain network was trained; give `control` to fit
        """
        if self.control is None:
            raise OfframpError("no smaller plain network was trained; give `control` to fit")
        name = apart(self.control._named, self._named) or "the smaller one"
        return beside(self._trained, self._bound(policy), self.control._trained, name)

    def _bound(self, policy: Policy | str | Path) -> Policy:
        """The policy with what it comes to on calibration images, where it was set by hand."""
        policy, own = as_policy(policy), self._trained
        tied = replace(policy.calibration, trial=own.id, trial_hash=own.hash)
        if not policy.calibration.trial_hash:
            policy = replace(policy, calibration=tied)
        check_fits(policy, own.id, own.hash, own.exits)
        if policy.calibration.chosen is not None:
            return policy
        leaves = policy.leaves(own.calibration.logits)
        shares = np.bincount(leaves, minlength=len(own.exits)) / len(leaves)
        by_hand = Chosen(leaving=tuple(shares.tolist()))
        return replace(policy, calibration=replace(tied, classes=len(own.classes), chosen=by_hand))


HIGH = 50  # no normalized image reaches it
SOME = 64  # training images by which pixels are told from normalized images


def fit(
    net: ExitNetwork,
    strategy: str | Strategy,
    train: Samples,
    *,
    plain: Samples | None = None,
    validation: Samples | None = None,
    calibration: Samples | None = None,
    test: Samples | None = None,
    seed: int = 42,
    normalize: Normalization = "train",
    recipe: Recipe | Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    augment: Augment | Mapping[str, Any] | Sequence[str] | None = None,
    store: str | Path | None = None,
    device: torch.device | str | None = None,
    numerics: str = FAST,
    control: nn.Module | bool | None = False,
    watch: Callable[[Event], None] | Literal[False] | None = None,
) -> Fitted:
    """Train the exits of `net` by a strategy; `net` itself stays as it is.

    Warns (`OfframpWarning`) of small splits, of splits with different shares of classes, of images that
    occur twice, and of classes without training images.

    Datasets of images: any Dataset of (image, label) that has a length, or a pair of arrays (images
    [N, C, H, W], uint8 or normalized float32; labels [N]). A Dataset's pictures of another size than the
    network takes are scaled and cropped to it, and a warning says so. Arrays must have its shape. A
    split is refused if half of it is in another one. A network trained on float32 images cannot be
    exported. With a kept backbone, give validation, calibration and test images that it was not trained
    on.

    Labels are class numbers from 0 (or from 1, if every class occurs), names, or one-hot. Names are
    numbered as in the Dataset's own `classes`, else by the alphabet. There are as many classes as
    `classes` names, else as the largest training label says. A class without training images is trained
    like the others, and never answered.

    Args:
        net: Of `attach`. Training starts from the weights that the attached module has now; early exits
            start from new random weights. A network that has a name, such as a study's from `load`,
            starts from the weights of this name and `seed`; with a loaded checkpoint it is refused. To
            train heads only: fit(net, "two-stage", …, options={"backbone": "kept"}).
        strategy: A name (`offramp strategies` lists them), a function of the number of exits that
            returns phases, or `my_file.py:my_strategy`.
        train: Training images, as above.
        plain: The Dataset `train` without its random transform, if it has one, in the same order.
            Evaluation uses it, and splits are held out of it. The transform is drawn anew for each image
            and epoch.
        validation: Images that choose between epochs; None holds them out of train.
        calibration: Images that choose policies; None holds them out of train.
        test: Images that the results are for; None holds them out of train.
        seed: Of weights, order, dropout and augmentation.
        normalize: Pixels by mean and deviation of the training images (`train`), or by those of a kept
            backbone's training: `imagenet`, `half` (0.5 and 0.5), `clip`, `unit` (0 and 1), or (mean,
            deviation), each one number a channel, as shares of 255: ((0.5, 0.5, 0.5), (0.25, 0.25,
            0.25)).
        recipe: A `Recipe`, or a mapping as in a study file.
        options: Of the strategy, such as {"students": "shared"}.
        augment: An `Augment`, a mapping, or names such as ["flip", "crop"].
        store: A folder in which finished work stays for later calls; by default a temporary one.
        device: Such as "cuda" or "mps"; by default OFFRAMP_DEVICE, else CUDA, else the CPU.
        numerics: `fast`: the cores that this process may use, the memory layout that is faster here, and
            on a GPU TF32 and kernels that may round differently each time. `exact`: as studies train,
            with bits that do not depend on the machine. Or a profile's name or file.
        control: Also train a smaller plain network by the same recipe, for as many epochs as cost what
            the strategy costs: this module, or True for one of the family of a network that has a name.
            It is `Fitted.control`; `Fitted.beside` says which of both to ship.
        watch: Called with every event of the training; `print` shows them, a line each. By default a
            terminal and a notebook show progress, and elsewhere the logger `offramp` has it. False:
            silence.

    Raises:
        OfframpError: The input cannot work (such as a network of several trunks, which some strategies
            return), or training fails.

    Example:
        >>> import torch, offramp
        >>> from sklearn.datasets import load_digits
        >>> from torch import nn
        >>> digits = load_digits()
        >>> images = torch.tensor(digits.images * 15).to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
        >>> labels = torch.tensor(digits.target)
        >>> _ = torch.manual_seed(0)
        >>> module = nn.Sequential(
        ...     nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        ...     nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        ...     nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
        ...     nn.Flatten(),
        ...     nn.Linear(512, 10),
        ... )
        >>> net = offramp.attach(module, exits=["0", "1"], input_shape=(1, 8, 8), head="mlp")
        >>> recipe = offramp.Recipe(epochs=3, optimizer="adam", learning_rate=0.005)
        >>> fitted = offramp.fit(net, "two-stage", train=(images, labels), recipe=recipe)
        >>> list(fitted.accuracy)
        [1, 2, 3]

        A strategy of your own; exit 3 is the network's own classifier:

        >>> from offramp import CE, KD, Phase, backbone, heads
        >>> def students(exits: int, *, temperature: float = 2.0) -> tuple[Phase, ...]:
        ...     early = range(1, exits)
        ...     return (
        ...         Phase("backbone", train=backbone(exits), loss=(CE(exits),)),
        ...         Phase(
        ...             "heads",
        ...             train=heads(1, exits - 1),
        ...             loss=tuple(KD(k, teacher_exit=exits, temperature=temperature) for k in early),
        ...             teacher="backbone",
        ...         ),
        ...     )
        >>> mine = offramp.fit(net, students, train=(images, labels), recipe={"epochs": 1})
        >>> sorted(set(mine.history["phase"]))
        ['backbone', 'final', 'heads']
    """
    if not isinstance(net, ExitNetwork):
        raise OfframpError(
            f"the net is {kind_of(net)}; attach exits first: offramp.attach(module, exits=…, "
            "input_shape=…)"
        )
    if inside(net).redrawable and loaded(net):
        raise OfframpError(
            "weights were loaded into a network that has a name, and training would draw others; load "
            "them into a module, and attach that"
        )
    if not (isinstance(strategy, str) or callable(strategy)):
        raise OfframpError(
            f"the strategy is {strategy!r}; give a name such as 'two-stage', or a function"
        )
    request = {
        "seeds": [seed],
        "strategies": [{"name": strategy, **(options or {})}],
        "data": GIVEN,
        "recipe": recipe or {},
        "numerics": numerics,
        **({} if augment is None else {"augment": augment}),
    }
    study = spec.parse({**request, **_named(net)}, "fit")
    smaller_net = _smaller(net, control)
    chosen = devices.chosen(device)
    data = from_dataset(
        train,
        validation,
        calibration,
        test,
        plain=plain,
        normalize=normalize,
        shape=net.input_shape,
        augment=study.augment,
    )
    check_data_fits(net, data)
    others = {"validation": validation, "calibration": calibration, "test": test}
    check_apart(data, [name for name, samples in others.items() if samples is not None])
    # Recorded, as a 0 and 1 of the caller look like those of floats.
    how = normalize if isinstance(normalize, str) else (data.mean, data.std)
    study = study.model_copy(update={"data": replace(study.data, normalize=how)})
    arithmetic = numerics_for(study, net, chosen, len(data.train))
    plans = [plan_trials(study, data, identified(net), arithmetic)]
    check_frozen(net, _trains(plans[0]))
    keeps = (options or {}).get("backbone") == "kept"
    order = order_notes(train, data, "the kept backbone") if keeps else []
    warn([*notes(data.provenance, noun(data.shape)), *_left_to_train(data), *order])
    if smaller_net is not None:
        own = {"strategies": [PLAIN], "recipe": study.recipe.recipe, **_named(smaller_net)}
        alone = spec.parse({**request, **own}, "fit").model_copy(update={"data": study.data})
        plans.append(_as_long(plans[0], alone, smaller_net, chosen))
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        target = Store(store if store is not None else Path(scratch) / "store")
        networks = []
        for plan in plans:
            state = reporter_for(watch).train(plan, run_plan(plan, target, run_config(chosen)))
            for reason in state.failed.values():
                raise OfframpError(reason)
            networks.append(fitted(plan, target, chosen))
    return replace(networks[0], control=networks[1]) if networks[1:] else networks[0]


def _named(net: ExitNetwork) -> Mapping[str, Any]:
    """What a study says of a network."""
    return inside(net).facts.as_study or {"backbone": "attached"}


def _as_long(plan: Plan, study: Study, net: ExitNetwork, device: torch.device) -> Plan:
    """The plan of another network, for as many epochs as cost what `plan` costs."""
    check_data_fits(net, plan.data)
    usual = study.recipe.epochs
    numerics = numerics_for(study, net, device, len(plan.data.train))

    def planned(epochs: int) -> Plan:
        recipe = replace(study.recipe, epochs=epochs)
        same = study.model_copy(update={"recipe": recipe})
        return plan_trials(same, plan.data, identified(net), numerics)

    cost, longer = planned(usual).executed, planned(usual + 1).executed
    alone = planned(epochs_for(plan.executed, usual, cost, longer))
    check_frozen(net, _trains(alone))
    return alone


def _trains(plan: Plan) -> Parts:
    return frozenset(part for node in plan.nodes.values() for part in node.trained)


def _smaller(net: ExitNetwork, control: nn.Module | bool | None) -> ExitNetwork | None:
    """The smaller plain network to train as well, if one is wanted: a module, or the member of a family
    whose MACs are midway from the first exit's to the whole network's, as a policy's often are."""
    if control is False or control is None:
        return None
    if isinstance(control, nn.Module):
        return attach(control, 0, net.input_shape)
    named = inside(net).facts.as_study
    if named is None:
        raise OfframpError(
            f"nobody knows the family of a {type(net.backbone).__name__}; give a smaller module: "
            "control=SmallNet()"
        )
    backbone = dict(named["backbone"])
    spec = NetSpec(
        backbone.pop("name"), weights=backbone.pop("weights"), options=tuple(backbone.items())
    )
    members = smaller(spec, net.input_shape, net.classes)
    if not members:
        raise OfframpError(
            f"no smaller network of the family of {spec.backbone} is known; give a module"
        )
    first = net.macs(Part("segment", 1)) + net.macs(Part("head", 1))
    member = nearest_to(members, (first + net.plain_macs) / 2)
    return build(replace(member.spec, taps=0), net.input_shape, net.classes, 0)


def _left_to_train(data: Data) -> list[str]:
    """A line where most of the training images are held out for other splits."""
    left, available = len(data.train), data.provenance["available"]["train"]
    if 2 * left >= available:
        return []
    return [
        f"{left:,} of {available:,} training {noun(data.shape)}s are left to train, as the other splits "
        "are held out of them; give validation=, calibration= or test= if you have them"
    ]


def check_data_fits(net: ExitNetwork, data: Data) -> None:
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in net.parameters()):
        raise OfframpError("the network's parameters are not all float32; give net.float()")
    if data.shape != net.input_shape:
        last = net.input_shape == (*data.shape[2:], *data.shape[:2])
        kind = noun(data.shape)
        remedy = "permute to [C, H, W]" if last else f"attach with the {kind}s' shape"
        raise OfframpError(
            f"the {kind}s are {list(data.shape)}, the network takes {list(net.input_shape)}; {remedy}"
        )
    part = data.train if len(data.train) else data.calibration
    some = part.images if isinstance(part, Split) else part.read(torch.arange(len(part))[:SOME])
    _check_normalized(some)
    if len(data.classes) != net.classes:
        raise OfframpError(
            f"the data have {len(data.classes)} classes, the network {net.classes}; make them equal (a "
            "class that no training label shows counts where the Dataset names it in its `classes`)"
        )


def order_notes(samples: Samples, data: Data, whose: str) -> list[str]:
    """What to tell where answers have an order, and labels that are names another. whose: answers."""
    if all(name.isdecimal() for name in data.classes) or class_names(samples):
        return []
    first, last = data.classes[0], data.classes[-1]
    return [
        f"labels are numbered by the alphabet, 0 is '{first}' and {len(data.classes) - 1} '{last}'; if "
        f"{whose}'s answers have another order, give numbers, or a Dataset with `classes`."
    ]


def check_apart(data: Data, named: Collection[str], pool: str = "train") -> None:
    """Refuse a split whose images are in another one too: what is measured on it holds for no new image.

    A few equal images, as collected data have, are told and not refused.

    Args:
        named: The splits beside the pool that the caller gave; the others are held out of it.
    """
    images, shared, kind = Counter[str](), Counter[tuple[str, str]](), noun(data.shape)
    of = {name: name if name in named else pool for name in SPLITS}
    for name, split in data.splits.items():
        images[of[name]] += len(split)
    for where, count in data.provenance["duplicates"].items():
        names = {of[name] for name in where.split(" in ")}
        if len(names) > 1:
            other, own = sorted(names, key=SPLITS.index)
            shared[own, other] += count
    for (own, other), count in shared.items():
        if 2 * count >= min(images[own], images[other]):
            or_out = "" if own == pool else f", or leave {own} out: it is then held out of {pool}"
            raise OfframpError(
                f"{count:,} of the {images[own]:,} {own} {kind}s are in {other} too, so they say "
                f"nothing of new {kind}s; give others{or_out}"
            )


def _check_normalized(images: torch.Tensor) -> None:
    """Refuse to train on floats that are pixels from 0 to 1, or from 0 to 255: normalized ones spread
    otherwise."""
    if images.is_floating_point() and images.numel():
        low, high = (float(bound) for bound in images.aminmax())
        if high > HIGH or 0 <= low < high <= 1:
            raise _pixels(255 if high > HIGH else 1)


def _pixels(top: int) -> OfframpError:
    return OfframpError(
        f"images look like 0…{top} pixels; give uint8 [B, C, H, W] (without ToTensor), or normalize them"
    )


def _pixels_to(images: torch.Tensor, how: tuple[Sequence[float], Sequence[float]] | None) -> int | None:
    """1 or 255, where float images are pixels from 0 to that for sure; None where they may be normalized
    by `how`, a mean and a deviation a channel (None: nobody knows how). Bright pictures, normalized, lie
    between 0 and 1 too; but of 8 bits either is a multiple of something, and not of the same."""
    if not images.is_floating_point() or images.dim() != 4 or not images.numel():
        return None
    low, high = (float(bound) for bound in images.aminmax())
    top = 1 if how and high <= 1 else 255
    if how is None:
        return top if low >= 0 and high > HIGH and _whole(images) else None
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in how)
    if len(mean) != images.shape[1]:
        return None
    if high > max(HIGH, float(((2 - mean) / std).max())):  # a whole range above white
        return 255
    if low < 0 or high - low <= 0.5 or not _whole(images * (255 / top)):
        return None
    return None if _whole((images * std + mean) * 255) else top


def _whole(numbers: torch.Tensor) -> bool:
    return bool(((numbers - numbers.round()).abs() < 0.01).all())


def check_frozen(net: ExitNetwork, trained: Parts) -> None:
    """Refuse to train what was frozen by requires_grad, all of the backbone or a part of it. Where heads
    are frozen too, nobody asked for it: a network that was fitted is frozen as a whole."""
    of_backbone = trained & backbone(net.exits)
    would = {id(p) for part in of_backbone for p in inside(net).parameters_of(part)}
    frozen = [n for n, p in net.backbone.named_parameters() if id(p) in would and not p.requires_grad]
    if not frozen or not any(p.requires_grad for p in net.parameters()):
        return
    if any(p.requires_grad for p in net.backbone.parameters()):
        raise OfframpError(
            f"'{frozen[0]}' is frozen by requires_grad and the strategy would train it; make it a "
            "buffer of the module, let it train (net.requires_grad_(True)), or keep the whole backbone, "
            "as 'two-stage' with options={'backbone': 'kept'} does"
        )
    raise OfframpError(
        "the backbone is frozen by requires_grad and the strategy would train it; to train heads "
        "only, give 'two-stage' options={'backbone': 'kept'}"
    )


def fitted(plan: Plan, store: Store, device: torch.device) -> Fitted:
    (trial,) = plan.trials
    arrays = store.trial_logits(trial.id)
    scores = accuracy(arrays["test"], arrays["test_labels"])
    return Fitted(
        trials.assemble(plan, trial, store, device),
        trial.id,
        accuracy=dict(zip(trial.resolved.final, map(float, scores), strict=True)),
        logits=arrays,
        history=tidy(store, [trial.id]),
        mean=plan.data.mean,
        std=plan.data.std,
        _manifest=store.read_trial(trial.id),
        _data=plan.data,
    )
