"""Points around a point: drawn, and how likely each is, in the unit cube of Optuna's distributions.

A number's place is its share of the range, of the logarithm's where the distribution is
logarithmic. Whole numbers and steps own an interval of it, so that the first and the last value
are as likely as the others; nothing is clipped, so nothing piles up at the ends of a range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy.special import ndtr, ndtri

Number = FloatDistribution | IntDistribution


@dataclass(frozen=True)
class Spread:
    """How far points lie from the one that they are drawn around.

    Attributes:
        sd: of a number, as a share of its range.
        moved: how probable it is that a number moves at all.
        redrawn: how probable it is that a choice is drawn anew, from all choices.
    """

    sd: float
    moved: float
    redrawn: float


def single_value(distribution: BaseDistribution) -> Any:
    """The value of a distribution that has only one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, Number)
    return distribution.low


def has_value(distribution: BaseDistribution, value: Any) -> bool:
    """Whether the value lies in the distribution."""
    if isinstance(distribution, CategoricalDistribution):
        # True == 1 in Python, so the type is compared too.
        return any(value == c and type(value) is type(c) for c in distribution.choices)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and distribution._contains(distribution.to_internal_repr(value))


def draw_uniform(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """Any value, each as likely as the others."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    assert isinstance(distribution, Number)
    return _at(distribution, rng.random())


def draw_around(
    distribution: BaseDistribution, center: Any, spread: Spread, rng: np.random.Generator
) -> Any:
    """A value around one that the distribution has: a normal, truncated to the range."""
    moves, place = rng.random(2)
    if isinstance(distribution, CategoricalDistribution):
        return draw_uniform(distribution, rng) if moves < spread.redrawn else center
    assert isinstance(distribution, Number)
    if moves >= spread.moved:
        return center
    middle = sum(_interval(distribution, center)) / 2
    below, above = ndtr(-middle / spread.sd), ndtr((1 - middle) / spread.sd)
    return _at(distribution, middle + spread.sd * float(ndtri(below + place * (above - below))))


def log_ratio(distribution: BaseDistribution, center: Any, value: Any, spread: Spread) -> float:
    """The logarithm of how much likelier a value is around a center than under uniform draws.

    It is asked thousands of times for a proposal, so it works with plain numbers of Python.

    Numbers that do not move are left out: that a value is the very same would say nothing but that
    it was made so.
    """
    if isinstance(distribution, CategoricalDistribution):
        same = center == value and type(center) is type(value)
        num_choices = len(distribution.choices)
        return math.log((1 - spread.redrawn) * num_choices * same + spread.redrawn)
    assert isinstance(distribution, Number)
    middle = sum(_interval(distribution, center)) / 2
    inside = _below((1 - middle) / spread.sd) - _below(-middle / spread.sd)
    low, high = _interval(distribution, value)
    if high - low < 1e-9:
        share = math.exp(-(((low - middle) / spread.sd) ** 2) / 2)
        density = share / (spread.sd * math.sqrt(2 * math.pi))
    else:
        mass = _below((high - middle) / spread.sd) - _below((low - middle) / spread.sd)
        density = mass / (high - low)
    return math.log(max(density / inside, 1e-12))


def _below(z: float) -> float:
    """The standard normal distribution function."""
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def _ends(distribution: Number) -> tuple[float, float]:
    """Where the unit interval begins and ends, in the scale in which it is even."""
    half = distribution.step / 2 if distribution.step is not None else 0.0
    low, high = distribution.low - half, distribution.high + half
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _interval(distribution: Number, value: float) -> tuple[float, float]:
    """The part of the unit interval that a value owns; a point where the range is continuous."""
    low, high = _ends(distribution)
    half = distribution.step / 2 if distribution.step is not None else 0.0
    found = [value - half, value + half]
    if distribution.log:
        found = [math.log(end) for end in found]
    start, end = ((place - low) / (high - low) for place in found)
    return start, end


def _at(distribution: Number, unit: float) -> int | float:
    """The value that owns a place of the unit interval."""
    low, high = _ends(distribution)
    place = low + (high - low) * min(max(unit, 0.0), 1.0)
    value = math.exp(place) if distribution.log else place
    if distribution.step is not None:
        last = round((distribution.high - distribution.low) / distribution.step)
        steps = math.floor((value - distribution.low) / distribution.step + 0.5)
        value = distribution.low + distribution.step * min(max(steps, 0), last)
    value = min(max(value, distribution.low), distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)
