"""Logits whose exits get better with depth and are not equally calibrated."""

import numpy as np

from longer import long_where
from offramp.policy.candidates import Search, SplitLogits
from offramp.policy.costs import Costs
from offramp.policy.limits import Limit
from offramp.policy.scoring import SCORES

FOUR = (1, 2, 3, 4)
COSTS = Costs((10, 10, 10, 10), (1, 1, 1, 1), (0, 0, 0, 0), FOUR)
# Every score there is, each exit with thresholds of its own; and the other ways of making candidates,
# which stand for their scores where time is short.
OTHERS = (
    Search("entropy", shared=True),
    Search("margin", temperature=True),
    Search("ensemble", survivors=True),
)
# Gates have a file of their own.
ELSEWHERE = {*(search.score for search in OTHERS), "gate"}
OF_ONE_LABEL = [name for name, score in SCORES.items() if not score.several]
SEARCHES = [*long_where(map(Search, OF_ONE_LABEL), lambda search: search.score in ELSEWHERE), *OTHERS]

# A limit that offramp lacks, for what must know a new one from its entry alone.
FINAL_SHARE = Limit(
    "budget",
    "a larger share",
    spent=lambda policy: policy.shares[-1],
    noted="final_share",
    phrase="sends a share of {} to the final exit",
)

# Of four images, at two exits, of two classes: probabilities.
OF_FOUR_IMAGES = np.array(
    [
        [[0.9, 0.1], [0.8, 0.2]],
        [[0.4, 0.6], [0.7, 0.3]],
        [[0.2, 0.8], [0.1, 0.9]],
        [[0.55, 0.45], [0.3, 0.7]],
    ]
)


def simulated(rows: int, seed: int, exits: int = 4, classes: int = 10) -> SplitLogits:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, rows)
    hardness = draw.normal(size=rows)
    logits = draw.normal(size=(rows, exits, classes))
    for exit in range(exits):
        skill = 2 + 0.8 * exit - 1.1 * hardness + 0.7 * draw.normal(size=rows)
        logits[np.arange(rows), exit, labels] += skill
        logits[:, exit] *= (1, 3, 0.7, 1.5)[exit % 4]
    return SplitLogits(logits.astype(np.float32), labels)


def deceiving(rows: int, exits: int, classes: int, deceives: bool) -> SplitLogits:
    """Early exits that answer alike, each image surer than the one before. They are right on the surest
    70 %; where they deceive, on all but the surest 20 %. The final exit is right on seven of ten images.
    """
    at, labels = np.arange(rows), np.arange(rows) % classes
    early = at < 0.8 * rows if deceives else at >= 0.3 * rows
    right = np.column_stack([early] * (exits - 1) + [at * 3 % 10 < 7])
    answers = np.where(right, labels[:, None], (labels[:, None] + 1) % classes)
    sure = 2 + 4 * at / rows
    return SplitLogits((sure[:, None, None] * np.eye(classes)[answers]).astype(np.float32), labels)
