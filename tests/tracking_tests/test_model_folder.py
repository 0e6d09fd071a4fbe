"""What a logged model is called."""

from __future__ import annotations

import pytest

from tracking.models.model_folder import model_name
from tracking.tags import Tag


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({Tag.SWEEP: "nightly", Tag.TRIAL: "3"}, "nightly-trial-3"),
        (
            {Tag.SWEEP: "nightly", Tag.TRIAL: "8", Tag.FINALIST_OF: "3"},
            "nightly-winner-trial-3",
        ),
        ({Tag.SWEEP: "v1.2", Tag.TRIAL: "0"}, "v1-2-trial-0"),
        ({}, "model"),
    ],
)
def test_a_logged_model_is_named_after_its_trial(tags, name):
    assert model_name(tags) == name
