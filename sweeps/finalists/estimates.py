"""Which of some configurations is best, judged by several fresh seeds of each. Pure.

A sweep's best trial is partly luck: it is the largest of many noisy values. Values of seeds that
took no part in the search carry no such luck, so their means are compared, each with Student's t
interval (Student 1908, "The probable error of a mean", Biometrika 6:1-25) and the probability that
its configuration is the best one: the share of draws of all true means, each from the posterior
that belongs to that interval (a t distribution around the mean; Gelman et al., "Bayesian Data
Analysis", 3rd ed., section 3.2), in which its own is the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
NUM_DRAWS = 20_000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds: `sd` of single seeds (ddof 1), and the interval of the mean.

    Attributes:
        is_least: whether `sd` is the least that rounded values can have, more than was seen.
    """

    mean: float
    sd: float
    low: float
    high: float
    num: int
    is_least: bool = False


@dataclass(frozen=True)
class RankedFinalist:
    """One configuration in the comparison: its key, its estimate, and how likely it is the best."""

    key: int
    estimate: Estimate
    probability_best: float


@dataclass(frozen=True)
class Scale:
    """What values of a metric can be.

    Attributes:
        resolution: the step between neighbouring values (one image more or less); 0 for none.
        low, high: bounds.
    """

    resolution: float = 0.0
    low: float = -math.inf
    high: float = math.inf


ANY = Scale()


def estimate(
    values: Sequence[float], confidence: float = CONFIDENCE, scale: Scale = ANY
) -> Estimate:
    """Mean, standard deviation and t interval of the mean.

    Values that are rounded to a step vary at least as much as the rounding does (step / sqrt(12)),
    also where two of them happen to be equal; and an interval ends at the metric's bounds.

    Raises:
        ValueError: Fewer than two values: one value has no spread.
    """
    if len(values) < 2:
        raise ValueError(f"An interval needs at least two values. Received: {len(values)}.")
    from scipy.stats import t

    num, mean = len(values), float(np.mean(values))
    seen, least = float(np.std(values, ddof=1)), scale.resolution / math.sqrt(12)
    sd = max(seen, least)
    half = float(t.ppf((1 + confidence) / 2, num - 1)) * sd / math.sqrt(num)
    low, high = max(mean - half, scale.low), min(mean + half, scale.high)
    return Estimate(mean, sd, min(low, mean), max(high, mean), num, is_least=seen < least)


def compare(
    values: Mapping[int, Sequence[float]], *, maximize: bool, seed: int, scale: Scale = ANY
) -> list[RankedFinalist]:
    """The configurations, best mean first; of equal means the first given one.

    Args:
        values: configuration -> one value per fresh seed, at least two.
        seed: of the draws.

    Raises:
        ValueError: A configuration with fewer than two values, or none at all.
    """
    if not values:
        raise ValueError("There must be a configuration to choose. Received: none.")
    estimates = {key: estimate(found, scale=scale) for key, found in values.items()}
    generator = np.random.default_rng(seed)
    draws = np.stack([
        e.mean + e.sd / math.sqrt(e.num) * generator.standard_t(e.num - 1, NUM_DRAWS)
        for e in estimates.values()
    ])  # fmt: skip
    sign = 1.0 if maximize else -1.0
    best = draws == (sign * draws).max(axis=0) * sign
    shares = (best / best.sum(axis=0)).mean(axis=1)  # Equal ones share.
    ranking = [
        RankedFinalist(key, found, float(share))
        for (key, found), share in zip(estimates.items(), shares, strict=True)
    ]
    return sorted(ranking, key=lambda finalist: -sign * finalist.estimate.mean)


def median_key(values: Mapping[int, float]) -> int:
    """The key of the median value, of two the smaller one: it stands for what may be expected."""
    ordered = sorted(values, key=lambda key: (values[key], key))
    return ordered[(len(ordered) - 1) // 2]
