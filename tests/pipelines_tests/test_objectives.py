"""Names of objectives, and which way is better."""

from __future__ import annotations

import pytest

from pipelines.objectives import OBJECTIVES, RETURNED, get_objective, parse_target
from search_spaces.errors import InputError
from search_spaces.recorded_metrics import recorded_metric


@pytest.mark.parametrize(
    ("name", "metric", "direction", "canonical"),
    [
        ("val_loss", "val_loss", "minimize", "val_loss"),
        ("val_loss:min", "val_loss", "minimize", "val_loss"),
        ("default_objective", "default_objective", "minimize", "default_objective"),
        ("default_objective:max", "default_objective", "maximize", "default_objective:max"),
        ("val_f1:max", "val_f1", "maximize", "val_f1:max"),
        ("size (MB", None, None, None),
        ("dice/left eye:min", "dice/left eye", "minimize", "dice/left eye:min"),
    ],
)
def test_a_name_means_a_metric_and_a_direction(name, metric, direction, canonical):
    if metric is None:
        with pytest.raises(InputError, match="NAME:max or NAME:min"):
            get_objective(name)
        return
    found = get_objective(name)
    assert (found.metric, found.direction, found.name) == (metric, direction, canonical)
    assert get_objective(found.name) == found


def test_a_misspelt_name_is_hinted_at_and_a_wrong_direction_refused():
    with pytest.raises(InputError, match="Did you mean 'val_accuracy'.*NAME:max or NAME:min"):
        get_objective("val_acuracy")
    with pytest.raises(InputError, match="val_accuracy is always maximized. .* Leave :min out"):
        get_objective("val_accuracy:min")
    assert get_objective("val_accuracy:max") is OBJECTIVES["val_accuracy"]


def test_a_target_may_be_any_number_of_any_objective():
    assert parse_target("default_objective<=-1.5", RETURNED) == -1.5
    assert parse_target("my f1 >= 2", get_objective("my f1:max")) == 2
    with pytest.raises(InputError, match="'default_objective<=0.03'"):
        parse_target("default_objective>=1", RETURNED)


def test_a_metric_of_any_name_is_an_objective_under_its_own_name_or_the_recorded_one():
    recorded = recorded_metric("val_top@3")
    found = get_objective("val_top@3:max")
    assert (found.metric, found.direction) == (recorded, "maximize")
    assert get_objective(found.name) == get_objective(f"{recorded}:max") == found
    assert parse_target("val_top@3>=0.9", found) == parse_target(f"{recorded}>=0.9", found) == 0.9
    assert get_objective("acc (top, 1):min").direction == "minimize"
    for wrong in ("val_top@3", ":max", "a\0:max", f"{'a' * 251}:max"):
        with pytest.raises(InputError):
            get_objective(wrong)
