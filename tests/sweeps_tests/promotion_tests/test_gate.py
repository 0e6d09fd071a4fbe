"""The gate of a promotion: its rules, and the paired test of two models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.models.scoring import Score
from sweeps.promotion.gate import Limits, as_recorded, gate, paired_test, same_data

CLASSES = ("cat", "dog")
SCORE = Score(0.98, 0.05, (0.97, 0.99), 4.0, 100_000, 2_000_000, "cpu")


def right(share: float, num: int = 1000) -> np.ndarray:
    return np.arange(num) < share * num


def test_the_first_champion_needs_to_keep_the_limits_only():
    assert gate(SCORE, None, None, Limits(), CLASSES) == []
    limits = Limits(min_accuracy=0.98, max_latency_ms=4.0, max_parameters=100_000,
                    max_bytes=2_000_000, max_recall_drop=0.0)  # fmt: skip
    rules = gate(SCORE, None, None, limits, CLASSES)
    assert [rule.name for rule in rules] == [
        "--min-accuracy", "--max-latency-ms", "--max-parameters", "--max-bytes"
    ]  # fmt: skip
    assert all(rule.passed for rule in rules)


@pytest.mark.parametrize(
    ("limits", "gap"),
    [
        (Limits(min_accuracy=0.99), "0.9800, required >= 0.9900: 0.0100 too low"),
        (Limits(max_latency_ms=1.5), "4.00 ms per image, required <= 1.50 ms per image: 2.50 ms"),
        (Limits(max_parameters=99_999), "100,000 parameters, required <= 99,999 parameters: 1 "),
        (Limits(max_bytes=1_500_000), "2,000,000 bytes, required <= 1,500,000 bytes: 500,000"),
    ],
)
def test_a_limit_that_refuses_says_by_how_much(limits, gap):
    (rule,) = gate(SCORE, None, None, limits, CLASSES)
    assert not rule.passed
    assert gap in rule.text


def test_better_has_to_be_shown():
    test = paired_test(right(0.99), right(0.96), seed=0)
    (rule,) = gate(SCORE, SCORE, test, Limits(), CLASSES)
    assert rule.passed
    assert "accuracy +0.0300" in rule.text
    assert "only the candidate classifies 30 correctly, only the champion 0" in rule.text
    same = paired_test(right(0.96), right(0.96), seed=0)
    (rule,) = gate(SCORE, SCORE, same, Limits(), CLASSES)
    assert not rule.passed
    assert rule.text.endswith("p = 1, required <= 0.05: not significantly better")
    (rule,) = gate(SCORE, SCORE, test, Limits(alpha=1e-12), CLASSES)
    assert not rule.passed


def test_a_margin_asks_for_not_worse_instead():
    a_little_worse = paired_test(right(0.957), right(0.96), seed=0)
    (rule,) = gate(SCORE, SCORE, a_little_worse, Limits(margin=0.01), CLASSES)
    assert rule.passed
    assert rule.name == "not worse than the champion"
    (rule,) = gate(SCORE, SCORE, a_little_worse, Limits(margin=0.002), CLASSES)
    assert not rule.passed
    assert "beyond the margin" in rule.text


def test_no_class_may_get_worse_by_more_than_asked():
    test = paired_test(right(0.99), right(0.96), seed=0)
    worse = replace(SCORE, recalls=(0.999, 0.95))
    rules = gate(worse, SCORE, test, Limits(max_recall_drop=0.03), CLASSES)
    assert [rule.passed for rule in rules] == [True, False]
    assert "class dog 0.9500, champion's 0.9900" in rules[1].text
    assert rules[1].text.endswith("0.0100 too much")
    rules = gate(worse, SCORE, test, Limits(max_recall_drop=0.04), CLASSES)
    assert all(rule.passed for rule in rules)


def test_models_of_two_data_sets_are_not_compared():
    assert same_data("mnist 81b5", "mnist 81b5").passed
    rule = same_data("mnist 81b5", "digits d7c8")
    assert not rule.passed
    assert "comes from digits d7c8, the candidate from mnist 81b5" in rule.text


def test_a_model_must_reach_what_its_training_recorded():
    assert as_recorded(0.9583, 0.9583, 360).passed
    assert as_recorded(0.9, 0.9 + 2 / 360, 360).passed
    rule = as_recorded(0.9, 0.95, 360)
    assert not rule.passed
    assert rule.text.endswith("18 images apart")


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    candidate = np.repeat([True, True, False, False], [both, gained, lost, neither])
    champion = np.repeat([True, False, True, False], [both, gained, lost, neither])
    return candidate, champion


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


def test_a_worse_candidate_is_not_better():
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
