"""A trial's policy on labeled images of another folder, beside its test split."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from offramp.bundle.export import preprocessing
from offramp.data.images.files import class_files, folders
from offramp.engine.settings import laid_out, placed
from offramp.errors import OfframpError, nearest
from offramp.infer import image_files
from offramp.infer.image_files import checked_policy
from offramp.policy.candidates import SplitLogits
from offramp.policy.evaluate import Evaluation, evaluate
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study import trained
from offramp.study.run.trials import load_network
from offramp.units import counted

BATCH = 64


@dataclass(frozen=True)
class OtherImages:
    """What a policy comes to on the test split, and on images of another folder."""

    folder: str  # of the images
    plain_macs: int  # of the network without early exits
    test: Evaluation  # on the test split
    elsewhere: Evaluation  # on the images of the folder
    unread: int  # files of the folder that are no readable images


def on_folder(
    store: Store,
    prefix: str,
    policy: Policy | Path,
    folder: Path,
    device: torch.device,
    trust_code: bool,
) -> Generator[str, None, OtherImages]:
    """Evaluate a policy on a folder of `CLASS/IMAGE`. Yields what it does, in words. Raises OfframpError
    where the network cannot answer these images, or a folder is none of its classes."""
    trial = store.find_trial(prefix)
    manifest, rule = store.read_trial(trial), checked_policy(store, trial, policy)
    answers = trained.read(store, trial, trust_code)
    if answers.several or manifest.normalized:
        what = "several labels an image" if answers.several else "images that were normalized beforehand"
        raise OfframpError(
            f"trial {trial} has {what}, which folders of classes do not hold; leave `images` out"
        )
    try:
        how = preprocessing(manifest)
    except ValueError as error:
        raise OfframpError(f"image files cannot be given to this network: {error}") from None
    if not folder.is_dir():
        raise OfframpError(f"there is no folder {folder}; `images` is a folder of CLASS/IMAGE")
    names = [path.name for path in folders(folder)]
    for name in names:
        if name not in manifest.classes:
            raise OfframpError(
                f"{folder / name} is none of the network's classes{nearest(name, manifest.classes)}; "
                "name each folder as its class"
            )
    if not names:
        raise OfframpError(f"{folder} has no folders of classes; put images into CLASS/IMAGE")
    yield f"images of {folder}"
    files, labels = class_files(folder, folder, names)
    numbers = np.array([manifest.classes.index(name) for name in names])[labels.numpy()]
    truth = dict(zip(files.paths, numbers.tolist(), strict=True))
    good, damaged = image_files.check(files.paths, how)
    net = load_network(store, trial, device, trust_code=trust_code)
    placed(net, device)
    logits, right = [], []
    with torch.inference_mode(), ThreadPoolExecutor() as pool:
        for start in range(0, len(good), BATCH):
            read, pixels, broken = image_files.read_all(good[start : start + BATCH], how, pool)
            damaged += broken
            batch = torch.from_numpy(how.normalized(pixels)).to(device)
            every = net(laid_out(batch, "channels_last"))
            logits.append(torch.stack([every[exit - 1] for exit in rule.exits], dim=1).float().cpu())
            right += [truth[file] for file in read]
    if not right:
        raise OfframpError(f"none of {counted(len(damaged), 'file')} in {folder} is a readable image")
    rows = SplitLogits(torch.cat(logits).numpy(), np.array(right))
    test, elsewhere = (
        evaluate(rule, each, answers.costs, answers.classes) for each in (answers.test, rows)
    )
    return OtherImages(str(folder), answers.plain_macs, test, elsewhere, len(damaged))
