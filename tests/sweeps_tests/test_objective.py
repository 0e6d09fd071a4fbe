"""Which objective a sweep has: the one that was asked for, or the number that a `fit` returns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search_spaces.errors import InputError
from search_spaces.registry import get_space
from sweeps.options import settings_of
from sweeps.settings import SweepSettings
from sweeps.setup.objective import with_objective

SETTINGS = SweepSettings("a.py:B")


def chosen(own_metrics, settings=SETTINGS, *, asked=False):
    said = []
    space = replace(get_space("mlp"), own_metrics=own_metrics)
    return with_objective(settings, space, said.append, asked=asked).objective, said


def test_a_number_that_fit_returns_is_the_objective_unless_another_is_asked_for():
    returned = ("default_objective", "loss")
    found, (said,) = chosen(returned)
    assert found == "default_objective"
    assert "the fit of 'a.py:B' returns, minimised" in said and "--objective val_accuracy" in said
    assert chosen(returned, asked=True) == ("val_accuracy", [])
    by_target = replace(SETTINGS, target="val_accuracy>=0.9")
    assert chosen(returned, by_target) == ("val_accuracy", [])
    for other in ((), ("loss", "val_f1"), None):
        assert chosen(other) == ("val_accuracy", [])


def test_an_objective_that_the_space_does_not_give_is_refused():
    asked = replace(SETTINGS, objective="val_f1:max")
    assert chosen(("val_f1",), asked, asked=True) == ("val_f1:max", [])
    assert chosen(None, asked, asked=True) == ("val_f1:max", []), "its fit could not be looked at"
    with pytest.raises(InputError, match="Received: val_f1, .* of 'a.py:B' give. .*val_auc.*, top"):
        chosen(("top",), asked, asked=True)
    with pytest.raises(InputError, match="Received: val_f1"):
        chosen((), asked, asked=True)


@pytest.mark.parametrize(
    ("given", "stored"),
    [("val_loss:min", "val_loss"), ("f1:max", "f1:max"), ("misspelt", "misspelt")],
)
def test_an_objective_is_stored_under_one_name(given, stored):
    assert settings_of({"space": "mlp", "objective": given}).objective == stored
