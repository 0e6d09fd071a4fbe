"""Two models on the same images: who is right where, and whether that can be chance. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedTest:
    """A challenger against a champion on the same `num` images.

    Attributes:
        challenger_only, champion_only: images that only one of them names rightly.
        difference: accuracy of the challenger minus that of the champion.
        low, high: its interval by paired bootstrap.
        p_value: of McNemar's exact test against "the challenger is not better", one-sided.
    """

    num: int
    challenger_only: int
    champion_only: int
    difference: float
    low: float
    high: float
    p_value: float


def paired_test(
    challenger_right: np.ndarray, champion_right: np.ndarray, *, seed: int, confidence: float = 0.95
) -> PairedTest:
    """Compares two models image by image.

    McNemar's exact test (McNemar 1947, Psychometrika 12:153-157) asks whether the images on which
    the two differ fall to the challenger more often than a fair coin would have it. The interval is
    the percentile interval of the paired bootstrap (Efron and Tibshirani 1993, "An Introduction to
    the Bootstrap", chapter 13) over images.

    Args:
        challenger_right, champion_right: (n,) bool.
        seed: of the resamples.

    Raises:
        ValueError: The lengths differ, or there is no image.
    """
    num = len(challenger_right)
    if num == 0 or num != len(champion_right):
        raise ValueError(f"Both must name the same images. Received: {num}, {len(champion_right)}.")
    from scipy.stats import binomtest

    gained = int((challenger_right & ~champion_right).sum())
    lost = int((champion_right & ~challenger_right).sum())
    discordant = gained + lost
    p_value = 1.0
    if discordant:
        p_value = float(binomtest(gained, discordant, 0.5, alternative="greater").pvalue)
    # Resampling images is drawing how many fall into each of the three kinds.
    shares = np.array([gained, lost, num - discordant]) / num
    draws = np.random.default_rng(seed).multinomial(num, shares, NUM_RESAMPLES)
    differences = (draws[:, 0] - draws[:, 1]) / num
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return PairedTest(num, gained, lost, (gained - lost) / num, float(low), float(high), p_value)
