"""Published against reproduced: the difference, the median of several seeds, the table."""

from __future__ import annotations

import re

import pytest

from pipelines.training.reproduction import ReproductionResult
from search_spaces.registry import all_baselines
from sweeps.baselines.session import difference_points, median_result, print_comparison

BASELINE = all_baselines()[0]


def result(accuracy: float, number: int = 0) -> ReproductionResult:
    return ReproductionResult(number, accuracy, 0.03, 93_322, 60.0, "cpu")


def test_the_difference_is_in_points():
    assert difference_points(BASELINE, result(0.990)) == pytest.approx(-0.2)


def test_the_median_is_one_of_the_results():
    assert median_result([]) is None
    assert median_result([result(0.9)]).test_accuracy == 0.9
    assert median_result([result(0.98), result(0.99, 1), result(0.91, 2)]).number == 0
    assert median_result([result(0.98), result(0.99, 1)]).number == 0


def test_every_seed_is_shown(capsys):
    chosen = list(all_baselines())
    print_comparison(chosen, {BASELINE.name: [result(0.98), result(0.993), result(0.991)]}, "mnist")
    out = capsys.readouterr().out
    assert re.search(r"cnn3_valid_50k\s+93,322\s+0\.9920\s+0\.9910\s+-0\.10", out)
    assert "the median of 3 seeds is shown (0.9800, 0.9930, 0.9910)" in out
    assert out.count("not trained") == len(chosen) - 1
