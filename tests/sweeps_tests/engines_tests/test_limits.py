"""Limits are read, refused in one line, and judged by what is known of a point."""

from __future__ import annotations

import pytest

from search_spaces.errors import InputError
from sweeps.engines.limits import (
    Limit,
    broken_limit,
    excess,
    judged,
    measured,
    parse_limit,
    parse_limits,
)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("parameters<=200k", Limit("parameters", 200e3)),
        ("multiply_adds <= 12M", Limit("multiply_adds", 12e6)),
        ("model_bytes<=1.5G", Limit("model_bytes", 1.5e9)),
        ("epoch_seconds<=30", Limit("epoch_seconds", 30)),
        ("latency_ms<=.5e1", None),
        ("parameters<200k", None),
        ("parameter<=200k", None),
        ("parameters<=-1", None),
        ("parameters<=0", None),
        ("parameters<=200m", None),
        ("", None),
    ],
)
def test_a_limit_is_a_quantity_and_its_bound(text, limit):
    if limit is not None:
        assert parse_limit(text) == limit
        assert parse_limit(str(limit)) == limit
        return
    with pytest.raises(InputError, match=r"--limit must be .*Received: '.*latency_ms") as error:
        parse_limit(text)
    assert "\n" not in str(error.value)


def test_of_two_limits_on_one_quantity_the_lower_holds():
    assert parse_limits(["parameters<=2M", "parameters<=200k", "latency_ms<=5"]) == (
        Limit("parameters", 200e3),
        Limit("latency_ms", 5),
    )


def test_only_what_is_known_is_judged():
    limits = parse_limits(["parameters<=200k", "epoch_seconds<=30"])
    assert broken_limit(limits, {"parameters": 312_000}) == "parameters 312k > 200k"
    assert broken_limit(limits, {"parameters": 200_000}) == ""
    assert broken_limit(limits, {}) == "" and excess(limits, {}) == 0
    assert excess(limits, {"parameters": 300_000, "epoch_seconds": 60}) == 2


def test_what_was_compiled_is_no_part_of_an_epoch():
    metrics = {"loss": 0.1, "epoch_seconds": 12.0, "compile_seconds": 2.0, "latency_ms": 3.0}
    assert measured(metrics, 1 / 3) == {"epoch_seconds": pytest.approx(6.0), "latency_ms": 3.0}
    assert measured({"loss": 0.1, "epoch_seconds": 12.0}, 1) == {"epoch_seconds": 12.0}
    assert measured({"loss": 0.1}, 1) == {}


def test_without_a_time_limit_times_are_judged_after_the_trial():
    limits = parse_limits(["parameters<=200k", "epoch_seconds<=30", "latency_ms<=5"])
    assert judged(limits, is_timed=True) == limits
    assert judged(limits, is_timed=False) == limits[:1]
