"""Names of users' metrics: MLflow takes all of them, and no two become one."""

from __future__ import annotations

import pytest
from mlflow.utils.validation import _validate_metric_name

from search_spaces.recorded_metrics import OURS, accepted_metric, recorded_metric

REFUSED = ("top@3", "acc (top, 1)", "acc (top; 1)", "", ".", "/a", "a//b", "a/../b", "../a", "é@",
           "x" * 251, "a\n", "\ud800", "?", "!")  # fmt: skip


@pytest.mark.parametrize("name", ["accuracy", "ä", "a/b: c", "a ", "-x", "x" * 250])
def test_a_name_that_mlflow_takes_stays(name):
    _validate_metric_name(name)
    assert recorded_metric(name) == accepted_metric(name) == name


def test_others_are_made_acceptable_and_kept_apart():
    found = {recorded_metric(name) for name in (*REFUSED, *OURS)}
    assert len(found) == len(REFUSED) + len(OURS) and not found & {*REFUSED, *OURS}
    for name in found:
        _validate_metric_name(name)
        assert len(name) <= 250 and recorded_metric(name) == name
    assert recorded_metric("top@3").startswith("top_3-")
