"""Image files and what answers them: a trial or a bundle, under one interface."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from offramp import preprocessing
from offramp.bundle.export import IN_PYTHON
from offramp.bundle.export import preprocessing as preprocessing_of
from offramp.bundle.folder import is_bundle, opened, refusing
from offramp.bundle.runtime import SUMS, UNANSWERED, find_images, named
from offramp.data.images.files import upright_size
from offramp.engine.settings import placed
from offramp.errors import OfframpError
from offramp.files import check_regular
from offramp.infer.predictor import Prediction, Predictor
from offramp.policy import policy as policies
from offramp.policy import scoring, useful
from offramp.policy.candidates import SplitLogits
from offramp.policy.policy import Policy
from offramp.preprocessing import FORMATS, Preprocessing, why_unreadable
from offramp.store.store import Store
from offramp.study.run.trials import load_network
from offramp.units import noun

Runner = Callable[[NDArray[np.float32]], Any]


@dataclass(frozen=True)
class FileAnswer:
    """The answer for a file."""

    file: Path  # the image
    label: str  # of the class; of several labels an image, those that it has, with | between them
    confidence: float  # 0 to 1
    exit: int  # its number
    compute: float  # MACs as a share of the plain backbone's
    labels: Mapping[str, float] | None = None  # the probability of each label, of several an image


@dataclass(frozen=True, eq=False)
class Network:
    """A trial run by torch, or a bundle run by onnxruntime."""

    name: str  # of the trial, or the bundle's folder
    classes: tuple[str, ...]  # their names
    exits: tuple[int, ...]  # their numbers
    preprocessing: Preprocessing  # from a picture to pixels
    run: Runner  # answers normalized images
    score: str  # of its policy
    thresholds: tuple[float | None, ...]  # of its policy, one an exit
    under: Callable[[Sequence[float | None]], Runner]  # `run` with other thresholds
    temperatures: Mapping[int, float] = field(default_factory=dict)  # by exit; 1 where absent
    unreliable: tuple[str, ...] = ()  # why its answers are not to be trusted, where they are not

    def answer(self, pixels: NDArray[np.uint8]) -> Prediction:
        """pixels: [B, C, H, W], of `preprocessing`. Answers are on the CPU."""
        answers = self.run(self.preprocessing.normalized(pixels))
        parts = (answers.classes, answers.confidence, answers.exits, answers.compute, answers.logits)
        return Prediction(*(torch.as_tensor(part, device="cpu") for part in parts))

    def of_files(self, files: Sequence[Path], answers: Prediction) -> list[FileAnswer | Unanswered]:
        """The answers for files, or why there is none, in their order. answers: for their pixels."""
        listed = self._of_files(files, answers)
        return [Unanswered(a.file, UNANSWERED) if math.isnan(a.confidence) else a for a in listed]

    def _of_files(self, files: Sequence[Path], answers: Prediction) -> list[FileAnswer]:
        parts = (answers.classes, answers.confidence, answers.exits, answers.compute)
        rows = zip(files, *(part.tolist() for part in parts), strict=True)
        if answers.classes.ndim == 1:
            return [FileAnswer(file, self.classes[label], *rest) for file, label, *rest in rows]
        warmth = torch.tensor([[self.temperatures.get(exit, 1.0)] for exit in answers.exits.tolist()])
        shares: Any = scoring.label_probabilities(answers.logits.cpu() / warmth)
        listed = []
        for (file, marks, sure, exit, compute), each in zip(rows, shares.tolist(), strict=True):
            odds = dict(zip(self.classes, each, strict=True))
            listed.append(FileAnswer(file, named(self.classes, marks), sure, exit, compute, odds))
        return listed


def names_bundle(name: str) -> bool:
    """Whether a path or a trial's id is the folder of a bundle. Raises OfframpError for a folder that
    is none."""
    folder = Path(name)
    if not folder.is_dir():
        return False
    if not is_bundle(folder):
        raise OfframpError(
            f"the folder {folder} is no bundle ({SUMS} is not there); give a trial's id or a bundle"
        )
    return True


def open_bundle(folder: Path) -> Network:
    """The bundle in a folder. Raises OfframpError without onnxruntime, and for a bundle that is damaged
    or changed."""
    bundle = opened(folder)

    def under(thresholds: Sequence[float | None]) -> Runner:
        run: Runner = refusing()(bundle.with_thresholds(thresholds).run)
        return run

    return Network(
        name=str(folder),
        classes=tuple(bundle.labels),
        exits=tuple(stage.exit for stage in bundle.stages),
        preprocessing=preprocessing.from_json(bundle.preprocessing.as_json()),
        run=refusing()(bundle.run),
        score=bundle.score,
        thresholds=tuple(stage.threshold for stage in bundle.stages),
        under=under,
        temperatures={stage.exit: stage.temperature for stage in bundle.stages},
        unreliable=bundle.unreliable,
    )


def open_trial(
    store: Store,
    prefix: str,
    policy_file: Path | None,
    device: torch.device,
    trust_code: bool = False,
) -> Network:
    """The policy is that in a file; without one every image goes to the final exit. Raises OfframpError
    for a policy that does not fit, weights that are gone, and pictures that nothing makes pixels of."""
    trial = store.find_trial(prefix)
    manifest = store.read_trial(trial)
    exits = manifest.exits
    several = store.trial_logits(trial)["test_labels"].ndim == 2
    score = scoring.usual(several) if several else "fixed"
    rule = Policy(score, exits, (None,) * len(exits), carry=manifest.carry)
    if policy_file is not None:
        rule = checked_policy(store, trial, policy_file)
    try:
        how = preprocessing_of(manifest)
    except ValueError as error:
        raise OfframpError(f"trial {trial} cannot answer files: {error}; {IN_PYTHON}") from None
    if manifest.normalized:
        raise OfframpError(
            f"the images of trial {trial} were normalized beforehand, and how is not known; {IN_PYTHON}"
        )
    net = load_network(store, trial, device, trust_code=trust_code)
    placed(net, device)
    weak = doubts(store, trial, None if policy_file is None else rule)

    def under(thresholds: Sequence[float | None]) -> Runner:
        predictor = Predictor(net, replace(rule, thresholds=tuple(thresholds)))

        def run(images: NDArray[np.float32]) -> Prediction:
            batch = torch.from_numpy(images).to(device)
            return predictor(batch.contiguous(memory_format=torch.channels_last))

        return run

    return Network(
        name=trial,
        classes=manifest.classes,
        exits=exits,
        preprocessing=how,
        run=under(rule.thresholds),
        score=rule.score,
        thresholds=rule.thresholds,
        under=under,
        temperatures=dict(zip(rule.exits, rule.temperatures or (1.0,) * len(exits), strict=True)),
        unreliable=weak,
    )


def doubts(store: Store, trial: str, rule: Policy | None) -> tuple[str, ...]:
    """Why the trial, under a policy or with nothing leaving early, is unreliable; nothing where it has
    no calibration logits."""
    arrays = store.trial_logits(trial)
    if not len(arrays.get("calibration", ())):
        return ()
    manifest = store.read_trial(trial)
    example = noun(manifest.input_shape)
    rows = SplitLogits(arrays["calibration"], arrays["calibration_labels"], example)
    if rule is None:
        return useful.chance(rows, manifest.exits)
    again = useful.seen(manifest.data.provenance.seen, len(rows.labels), example)
    return (*again, *useful.doubts(rule, rows))


def checked_policy(store: Store, trial: str, policy: Policy | str | Path) -> Policy:
    """The policy, or that in a file, if it was made for this trial or set by hand. Raises OfframpError
    where it was not."""
    rule = policies.as_policy(policy)
    if rule.calibration.trial_hash:
        manifest = store.read_trial(trial)
        policies.check_fits(rule, trial, manifest.hash(store.trial_logits(trial)), manifest.exits)
    return rule


@dataclass(frozen=True)
class Unanswered:
    """A file without an answer, such as one that is no readable image, and why."""

    file: Path
    reason: str


def find(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files that `run.py` finds at these paths, in order, each once. Raises OfframpError as
    `find_images` does."""
    with refusing():
        return tuple(dict.fromkeys(find_images(paths)))


def check(files: Sequence[Path], how: Preprocessing) -> tuple[list[Path], list[Unanswered]]:
    """The files that can be read, as far as their first bytes tell, and the others. Raises OfframpError,
    with the first reason, where the network takes none of them."""
    good, damaged, other = [], [], None
    for file in files:
        try:
            check_regular(file, sys.maxsize)  # nobody may write to a pipe
            with Image.open(file, formats=FORMATS) as image:
                how.check(preprocessing.mode_of(image), *upright_size(image))
        except Exception as error:  # decoders raise whatever they like on damaged bytes
            damaged.append(Unanswered(file, why_unreadable(file, error)))
            if isinstance(error, ValueError):
                other = other or f"{file} {error}"
        else:
            good.append(file)
    if other is not None and not good:
        raise OfframpError(other)
    return good, damaged


def read(file: Path, how: Preprocessing) -> NDArray[np.uint8] | Unanswered:
    """[C, H, W], upright, or what is wrong with the file."""
    try:
        check_regular(file, sys.maxsize)
        with Image.open(file, formats=FORMATS) as image:
            return how.pixels(image)
    except Exception as error:  # as above
        return Unanswered(file, why_unreadable(file, error))


def read_all(
    files: Sequence[Path], how: Preprocessing, pool: ThreadPoolExecutor
) -> tuple[list[Path], NDArray[np.uint8], list[Unanswered]]:
    """The files that could be read, their pixels [B, C, H, W], and those that could not."""
    outcomes = list(zip(files, pool.map(lambda file: read(file, how), files), strict=True))
    damaged = [outcome for _, outcome in outcomes if isinstance(outcome, Unanswered)]
    good = [(file, pixels) for file, pixels in outcomes if not isinstance(pixels, Unanswered)]
    empty = np.zeros((0, how.channels, *how.size), dtype=np.uint8)
    pixels = np.stack([each for _, each in good]) if good else empty
    return [file for file, _ in good], pixels, damaged
