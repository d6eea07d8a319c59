"""Metrics of logits, by exit: what a finished trial says of each split. A new one is a function and an
entry of METRICS.

Each takes logits [N, E, C] and labels, and returns [E]. Labels are classes [N]; or several an image,
[N, C] of 0 and 1, where an exit answers each label whose probability is above a half. Each is a measure
too, of trials that finished before it was written as well: their logits are stored (see
`offramp.analysis.measures`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from offramp.labels import alike, several

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]
ByImage = Callable[[Floats, Labels], Floats]  # logits [N, E, C] and labels to [N, E]

UNEVEN = 1.5  # from here on the largest class outweighs the smallest


@dataclass(frozen=True)
class Metric:
    """A number of each exit, from logits and labels.

    Attributes:
        of: Takes logits [N, E, C] and labels [N] or [N, C]; returns [E].
        title: What it is called in a heading; its name where empty.
        unit: `%` of a share that is 0 to 1, `nats`, or none.
        better: The direction that is good.
        word: What it is called in names of measures; its name where empty.
        on_images: Its values on each image, [N, E], where it is their mean: differences are tested over
            test images too, and two trials are compared by it.
        uneven: Whether a record of a trial has it only where classes are `uneven`; it may be undefined
            there (NaN).
        heading: Its title where `offramp show` says what accuracy alone hides; empty: not there.
        labels: Whether it is of one class an image alone, of several labels alone, or of both.
        code: Of a user's own, SHA-256 of the file that it comes from, and its name there.
    """

    of: Callable[[Floats, Labels], Floats]
    title: str = ""
    unit: Literal["%", "nats", ""] = ""
    better: Literal["higher", "lower"] = "higher"
    word: str = ""
    on_images: ByImage | None = None
    uneven: bool = False
    heading: str = ""
    labels: Literal["one", "several", "both"] = "both"
    code: str = ""

    def __call__(self, logits: Floats, labels: Labels) -> Floats:
        """NaN where it is not of such labels."""
        return self.of(logits, labels) if self.suits(labels) else np.full(logits.shape[1], np.nan)

    def suits(self, labels: Labels) -> bool:
        """Whether it is of such labels."""
        return self.labels in ("both", "several" if several(labels) else "one")


def of_logits(logits: Floats, labels: Labels, uneven: bool) -> dict[str, tuple[float | None, ...]]:
    """Every metric by its name in the tidy table, by exit; None where it is undefined. uneven: whether
    classes are."""
    return {
        name: tuple(None if m.uneven and np.isnan(v) else float(v) for v in m.of(logits, labels))
        for name, m in METRICS.items()
        if m.suits(labels) and (uneven or not m.uneven)
    }


def uneven(labels: Labels, classes: int) -> bool:
    """Whether accuracy alone misleads: with two classes (where sensitivity is always asked for), or
    where the largest of more has at least half as many images again as the smallest. So it does with
    several labels an image."""
    if several(labels):
        return True
    counts = np.bincount(labels, minlength=classes)
    return classes == 2 or bool(counts.max() >= UNEVEN * counts.min())


def hits(logits: Floats, labels: Labels) -> Floats:
    """Whether each exit is right about each image, 0 or 1; of NaN it is about none, whose argmax is the
    first class. logits: [N, E, C]; returns [N, E]."""
    answers = logits > 0 if several(labels) else logits.argmax(axis=2)
    return np.asarray(alike(answers, labels) & ~np.isnan(logits).any(axis=2), dtype=float)


def accuracy(logits: Floats, labels: Labels) -> Floats:
    """Share of right answers by exit, 0 to 1; of several labels: of images all of whose labels are
    right."""
    return np.asarray(hits(logits, labels).mean(axis=0))


def cross_entropies(logits: Floats, labels: Labels) -> Floats:
    """Cross-entropy of each image by exit, in nats; of several labels the mean of their binary ones.
    logits: [N, E, C]; labels: [N] or [N, C]; returns [N, E]."""
    if several(labels):
        wrong = np.where(labels[:, None] > 0, -1.0, 1.0) * logits.astype(np.float64)
        return np.asarray(np.logaddexp(0, wrong).mean(axis=2))
    logs = log_softmax(logits.astype(np.float64), axis=2)
    return np.asarray(-np.take_along_axis(logs, labels[:, None, None], axis=2)[:, :, 0])


def cross_entropy(logits: Floats, labels: Labels) -> Floats:
    """Mean of `cross_entropies` by exit, in nats."""
    return np.asarray(cross_entropies(logits, labels).mean(axis=0))


def balanced_accuracy(logits: Floats, labels: Labels) -> Floats:
    """The mean over the classes that occur of the share of their images that are recognized, 0 to 1
    (1/C by chance)."""
    from sklearn.metrics import recall_score  # slow to import

    how = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    return _by_exit(logits, lambda exit: float(recall_score(labels, exit.argmax(1), **how)))


def f1(logits: Floats, labels: Labels) -> Floats:
    """The harmonic mean of precision and recall, 0 to 1: of class 1 where there are two, else the mean
    over the classes, or labels, that occur. 0 where nothing is recognized."""
    from sklearn.metrics import f1_score

    how: dict[str, Any] = {"average": "macro", "zero_division": 0}
    if several(labels):
        here = labels.any(axis=0)
        return _by_exit(
            logits[:, :, here], lambda exit: float(f1_score(labels[:, here], exit > 0, **how))
        )
    how["labels"] = [1] if logits.shape[2] == 2 else np.unique(labels)
    return _by_exit(logits, lambda exit: float(f1_score(labels, exit.argmax(1), **how)))


def auroc(logits: Floats, labels: Labels) -> Floats:
    """The area under the receiver operating characteristic: the chance that an image of a class scores
    higher in it than one of another, ties counting half, 0 to 1 (0.5 by chance).

    Returns:
        [E]. Of class 1 where there are two, scored by the difference of logits; else the mean over the
        classes that occur of each against the rest, scored by softmax. Of several labels the mean over
        those that some images have and some have not. NaN where the labels show one class only.
    """
    from scipy.special import softmax
    from sklearn.metrics import roc_auc_score

    if several(labels):
        return _of_labels(logits, labels, roc_auc_score, negatives=True)
    present = np.unique(labels)
    if len(present) < 2:
        return np.full(logits.shape[1], np.nan)

    def score(exit: Floats) -> float:
        if exit.shape[1] == 2:
            return float(roc_auc_score(labels == 1, exit[:, 1] - exit[:, 0]))
        shares = softmax(exit, axis=1)
        return float(np.mean([roc_auc_score(labels == c, shares[:, c]) for c in present]))

    return _by_exit(logits, score)


def auroc_micro(logits: Floats, labels: Labels) -> Floats:
    """`auroc` of all labels of all images taken together, as if they were one."""
    from sklearn.metrics import roc_auc_score

    flat = labels.reshape(-1)
    if flat.min() == flat.max():
        return np.full(logits.shape[1], np.nan)
    return _by_exit(logits, lambda exit: float(roc_auc_score(flat, exit.reshape(-1))))


def average_precision(logits: Floats, labels: Labels) -> Floats:
    """The mean over the labels that occur of each one's precision, averaged over its images in the order
    of their scores, 0 to 1 (the label's share of images by chance)."""
    from sklearn.metrics import average_precision_score

    return _of_labels(logits, labels, average_precision_score, negatives=False)


def f1_micro(logits: Floats, labels: Labels) -> Floats:
    """F1 of all labels of all images taken together, 0 to 1; 0 where nothing is recognized."""
    answers, truth = logits > 0, labels[:, None] > 0
    right = (answers & truth).sum(axis=(0, 2))
    return np.asarray(2 * right / np.maximum(answers.sum((0, 2)) + truth.sum(), 1))


def hamming_losses(logits: Floats, labels: Labels) -> Floats:
    """The share of each image's labels that are wrong: [N, E]."""
    return np.asarray(((logits > 0) != labels[:, None]).mean(axis=2))


def hamming_loss(logits: Floats, labels: Labels) -> Floats:
    """The share of labels that are wrong, 0 to 1."""
    return np.asarray(hamming_losses(logits, labels).mean(axis=0))


def _of_labels(logits: Floats, labels: Labels, score: Callable[..., Any], negatives: bool) -> Floats:
    """The mean of a score over the labels that occur, and with `negatives` not always."""
    here = labels.any(axis=0) & (~labels.all(axis=0) if negatives else True)
    columns = np.flatnonzero(here).tolist()
    if not columns:
        return np.full(logits.shape[1], np.nan)
    return _by_exit(
        logits, lambda exit: float(np.mean([score(labels[:, c], exit[:, c]) for c in columns]))
    )


def _by_exit(logits: Floats, score: Callable[[Floats], float]) -> Floats:
    """NaN for an exit that answers NaN or infinity, of which scikit-learn makes nothing."""
    exits = logits.astype(np.float64).swapaxes(0, 1)
    untold = (np.isnan(exits) | (exits == np.inf)).any(axis=(1, 2))
    return np.array([np.nan if u else score(x) for x, u in zip(exits, untold, strict=True)])


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(accuracy, "accuracy", "%", on_images=hits, heading="accuracy"),
    "cross_entropy": Metric(
        cross_entropy, "cross-entropy", "nats", "lower", word="loss", on_images=cross_entropies
    ),
    "balanced_accuracy": Metric(
        balanced_accuracy, "balanced accuracy", "%", uneven=True, heading="balanced", labels="one"
    ),
    "auroc": Metric(auroc, "AUROC", uneven=True, heading="AUROC"),
    "f1": Metric(f1, "F1", "%", uneven=True, heading="F1"),
    "auroc_micro": Metric(
        auroc_micro, "micro AUROC", uneven=True, heading="micro AUROC", labels="several"
    ),
    "average_precision": Metric(
        average_precision, "average precision", "%", uneven=True, heading="AP", labels="several"
    ),
    "f1_micro": Metric(f1_micro, "micro F1", "%", uneven=True, heading="micro F1", labels="several"),
    "hamming_loss": Metric(
        hamming_loss,
        "Hamming loss",
        "%",
        "lower",
        on_images=hamming_losses,
        uneven=True,
        heading="Hamming loss",
        labels="several",
    ),
}
