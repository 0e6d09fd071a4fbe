"""Spaces that fail at some points, or whose `fit` cannot be called as it is: said before a sweep."""

from __future__ import annotations

import re
import sys

import pytest
import user_failures

from pipelines.models.user_model_check import look_at_space
from pipelines.training.cost import FailedPoint, Measurement, MeasureTask
from search_spaces.errors import InputError, SearchEndedError
from search_spaces.user_spaces.fatal_errors import search_can_end
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import TunerSource
from sweeps.executors.base import Slot
from sweeps.workers import jobs

FILE = user_failures.__file__


def source(name):
    return TunerSource(find_reference(f"{FILE}:{name}"), (8, 8, 1), 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SetsEpochs", r"multiple values for keyword argument 'epochs' .*--epochs sets the number"),
        ("TakesNoMore", r"unexpected keyword argument 'epochs'.*end its arguments with \*\*kwargs"),
    ],
)
def test_a_fit_that_fails_as_soon_as_it_is_called_is_refused(name, words):
    with pytest.raises(InputError, match=f"The fit of '.*{name}' fails as soon as .*{words}"):
        look_at_space(source(name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FitsTwice", "calls model.fit 2 times, and it is called once per epoch"),
        ("Divides", r"rescales the images that it trains on, .*keras.layers.Rescaling"),
        ("Crops", "trains on images of 6x6x1, .* the data's 8x8x1: crop or resize in the model"),
    ],
)
def test_what_a_fit_does_otherwise_than_its_author_may_think_is_noted(name, words):
    (note,) = look_at_space(source(name))
    assert re.search(words, note)


def measured(monkeypatch, data, name, points, **options):
    monkeypatch.setattr(jobs, "configured", lambda *_, **__: "cpu")
    task = MeasureTask(find_reference(f"{FILE}:{name}").text, points, data, 1, 0, **options)
    return jobs.measure_job(task, lambda _: True, Slot(0, 1))


def test_points_that_cannot_be_built_are_passed_over_where_a_sweep_is_foretold(
    monkeypatch, tiny_data
):
    points = ({"units": 3}, {"units": 1})
    failed, found = measured(monkeypatch, tiny_data, "too_large", points, skips_failures=True)
    assert isinstance(failed, FailedPoint) and isinstance(found, Measurement)
    assert (failed.kind, failed.reason) == ("FailedTrialError", "Model is too large.")
    assert "user_failures.py" in failed.details
    with pytest.raises(user_failures.FailedTrialError):
        measured(monkeypatch, tiny_data, "too_large", points)


def test_a_fatal_error_is_known_by_its_kind_and_listed_by_a_dry_run(monkeypatch, tiny_data):
    point = ({"broken": True},)
    (found,) = measured(monkeypatch, tiny_data, "fatal", point, skips_failures=True)
    assert found == FailedPoint(
        "the search would end here", "FatalValueError: the licence has ended", ""
    )
    with pytest.raises(SearchEndedError, match="FatalValueError: the licence has ended"):
        measured(monkeypatch, tiny_data, "fatal", point)
    with pytest.raises(ValueError, match="mine"), search_can_end():
        raise ValueError("mine")
    monkeypatch.delitem(sys.modules, "keras_tuner")
    with pytest.raises(ValueError, match="mine"), search_can_end():
        raise ValueError("mine")
