"""Two models on the same images: effect, interval and exact test."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.paired_test import paired_test


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    challenger = np.repeat([True, True, False, False], [both, gained, lost, neither])
    champion = np.repeat([True, False, True, False], [both, gained, lost, neither])
    return challenger, champion


def test_the_exact_test_is_the_binomial_tail():
    from math import comb

    found = paired_test(*answers(900, 30, 15, 55), seed=0)
    tail = sum(comb(45, k) for k in range(30, 46)) / 2**45
    assert found.p_value == pytest.approx(tail)
    assert (found.num, found.challenger_only, found.champion_only) == (1000, 30, 15)
    assert found.difference == pytest.approx(0.015)
    assert found.low < 0.015 < found.high


def test_equal_models_show_nothing():
    found = paired_test(*answers(95, 0, 0, 5), seed=0)
    assert (found.p_value, found.difference, found.low, found.high) == (1.0, 0.0, 0.0, 0.0)


def test_a_worse_challenger_is_not_better():
    found = paired_test(*answers(900, 5, 40, 55), seed=0)
    assert found.p_value > 0.999
    assert found.high < 0


def test_under_no_difference_the_gate_opens_as_rarely_as_promised():
    generator = np.random.default_rng(3)
    opened, covered, num = 0, 0, 400
    for _ in range(num):
        # 2 % of 2,000 images divide the two, fairly.
        divided = generator.binomial(2000, 0.02)
        gained = generator.binomial(divided, 0.5)
        found = paired_test(*answers(2000 - divided, gained, divided - gained, 0), seed=0)
        opened += found.p_value <= 0.05
        covered += found.low <= 0 <= found.high
    assert opened / num <= 0.05 + 2 * (0.05 * 0.95 / num) ** 0.5
    assert covered / num > 0.92


def test_different_lengths_and_nothing_are_refused():
    with pytest.raises(ValueError, match="same images"):
        paired_test(np.ones(3, bool), np.ones(2, bool), seed=0)
    with pytest.raises(ValueError, match="same images"):
        paired_test(np.ones(0, bool), np.ones(0, bool), seed=0)
