"""Published data that several tests read."""

import numpy as np

# NIST Statistical Reference Datasets, one-way ANOVA, SiRstv: five instruments, five values each.
SIRSTV = np.array(
    [
        [196.3052, 196.1240, 196.1890, 196.2569, 196.3403],
        [196.3042, 196.3825, 196.1669, 196.3257, 196.0422],
        [196.1303, 196.2005, 196.2889, 196.0343, 196.1811],
        [196.2795, 196.1748, 196.1494, 196.1485, 195.9885],
        [196.2119, 196.1051, 196.1850, 196.0052, 196.2090],
    ]
)

# Dobson (1983), An Introduction to Statistical Modelling; R's data set PlantGrowth.
PLANTS = {
    "ctrl": np.array([4.17, 5.58, 5.18, 6.11, 4.50, 4.61, 5.17, 4.53, 5.33, 5.14]),
    "trt1": np.array([4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69]),
    "trt2": np.array([6.31, 5.12, 5.54, 5.50, 5.37, 5.29, 4.92, 6.15, 5.80, 5.26]),
}


def correlated(seed: int, draws: int, blocks: int, families: list[int], shared: float) -> np.ndarray:
    """Draws without any effect, [draws, blocks, groups]: groups of one family correlate at `shared`."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(draws, blocks, max(families) + 1))[..., families]
    own = generator.normal(size=(draws, blocks, len(families)))
    return np.sqrt(shared) * common + np.sqrt(1 - shared) * own
