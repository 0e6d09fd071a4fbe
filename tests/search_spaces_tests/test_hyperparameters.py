"""Our stand-ins for `keras_tuner.HyperParameters` behave as the original does."""

from __future__ import annotations

import math

import keras_tuner
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import InputError
from search_spaces.hyperparameters import (
    GivenHyperParameters,
    HyperParameters,
    RandomHyperParameters,
    parameters_of,
)
from search_spaces.registry import SPACES


def every_form(hp):
    """Every method, with conditions and name scopes, as a user of Keras Tuner writes it."""
    kind = hp.Choice("kind", ["a", "b"])
    values = [kind, hp.Int("n", 2, 9, step=3), hp.Float("f", 0.5, 2.0, step=0.5, default=1.0)]
    values.append(hp.Int("steps", 1, 64, step=2, sampling="log"))
    with hp.conditional_scope("kind", ["b"]):
        values.append(hp.Float("rate", 1e-4, 1e-1, sampling="log"))
        with hp.name_scope("inner"):
            values.append(hp.Boolean("flag", default=True))
    values.append(hp.Fixed("constant", 7))
    values.append(hp.Int("child", 1, 3, parent_name="kind", parent_values=["a"]))
    return values


def test_defaults_conditions_and_names_are_those_of_keras_tuner():
    ours, theirs = HyperParameters(), keras_tuner.HyperParameters()
    assert every_form(ours) == every_form(theirs)
    assert ours.values == theirs.values
    assert [p.name for p in ours.space] == [p.name for p in theirs.space]
    for name in ("rate", "inner/flag", "child"):
        assert ours.is_active(name) == theirs.is_active(name)


def test_a_conditional_parameter_appears_with_its_parent():
    ours, theirs = GivenHyperParameters({"kind": "b"}), keras_tuner.HyperParameters()
    theirs.values["kind"] = "b"
    assert every_form(ours) == every_form(theirs)
    assert ours.values == theirs.values


@pytest.mark.parametrize("name", sorted(SPACES))
def test_a_space_can_be_sampled_by_keras_tuner_itself(name):
    space = SPACES[name]
    params = space.sample(keras_tuner.HyperParameters())
    assert params == space.complete({})


@given(st.integers(0, 2**32 - 1))
def test_random_values_lie_in_their_range_and_grid(seed):
    hp = RandomHyperParameters(np.random.default_rng(seed))
    every_form(hp)
    for parameter in hp.space:
        if hp.is_active(parameter.name):
            assert parameter.contains(hp.values[parameter.name])
            grid = parameter.grid()
            assert grid is None or hp.values[parameter.name] in grid


def test_a_log_step_is_a_factor_as_in_keras_tuner():
    def sample(hp):
        hp.Int("steps", 1, 64, step=2, sampling="log")

    (parameter,) = parameters_of(sample)
    assert parameter.grid() == (1, 2, 4, 8, 16, 32, 64)
    theirs = keras_tuner.HyperParameters()
    sample(theirs)
    assert {theirs.space[0].prob_to_value(p) for p in np.linspace(0, 0.999, 200)} == set(
        parameter.grid()
    )


def test_log_sampling_is_uniform_in_the_exponent():
    values = []
    for seed in range(400):
        hp = RandomHyperParameters(np.random.default_rng(seed))
        values.append(math.log10(hp.Float("rate", 1e-4, 1e-2, sampling="log")))
    assert abs(np.mean(values) + 3) < 0.1
    assert abs(np.std(values) - 2 / math.sqrt(12)) < 0.06


def test_a_value_out_of_range_is_refused_with_the_range():
    with pytest.raises(InputError, match=r"'n' must be in 2 to 9 by 3\. Received: 4\."):
        every_form(GivenHyperParameters({"n": 4}))


def test_a_condition_on_an_unknown_parent_is_refused_as_in_keras_tuner():
    for hp in (HyperParameters(), keras_tuner.HyperParameters()):
        with pytest.raises(ValueError, match="not defined"), hp.conditional_scope("none", [1]):
            pass
