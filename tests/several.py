"""Real images with several labels each: which of five digits are in a picture of two places."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

DIGITS = 5
NAMES = ("zero", "one", "two", "three", "four")


@cache
def tiles(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures [N, 1, 8, 16] uint8 of scikit-learn's digits 0 to 4, a third of the places empty;
    labels [N, 5] uint8, which digits are there."""
    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)[digits.target < DIGITS]
    targets = digits.target[digits.target < DIGITS]
    draw = np.random.default_rng(seed)
    pictures = np.zeros((images, 8, 16), np.uint8)
    labels = np.zeros((images, DIGITS), np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        for left in (0, 8):
            if draw.random() < 0.67:
                which = draw.integers(len(targets))
                picture[:, left : left + 8] = pixels[which]
                label[targets[which]] = 1
    return torch.from_numpy(pictures)[:, None], torch.from_numpy(labels)


def folder(root: Path, images: int) -> Path:
    """The same as files, with a table of a column for each label, labels.csv."""
    pictures, labels = tiles(images)
    root.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture[0].numpy()).save(root / f"{number}.png")
    rows = pd.DataFrame(labels.numpy(), columns=list(NAMES))
    rows.insert(0, "image", [f"{number}.png" for number in range(images)])
    rows.to_csv(root / "labels.csv", index=False)
    return root / "labels.csv"
