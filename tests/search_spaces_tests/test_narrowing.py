"""A narrowed space: what is left, what is refused, and what it costs the baselines."""

from __future__ import annotations

from dataclasses import replace

import fake_loop_parts
import pytest

from search_spaces.errors import InputError
from search_spaces.hyperparameters import GivenHyperParameters, HyperParameters, active_values
from search_spaces.hyperparameters.discovery import explore
from search_spaces.hyperparameters.narrowing import merged_rules, narrowed
from search_spaces.registry import get_space
from search_spaces.space import Space
from sweeps.reporting.descriptions import print_space

CNN = get_space("cnn_blocks")


def parameter(space: Space, name: str):
    return next(p for p in space.parameters if p.name == name)


def test_a_list_a_range_and_one_value():
    space = narrowed(CNN, ("optimizer=adam,adamw", "filters_0=16..32", "batch_norm_0=true",
                           "learning_rate=0.0005..0.002", "batch_size=64..200"))  # fmt: skip
    for point in fake_loop_parts.random_points(space, 200):
        assert point["optimizer"] in ("adam", "adamw")
        assert point["filters_0"] in (16, 24, 32)
        assert point["batch_norm_0"] is True
        assert 0.0005 <= point["learning_rate"] <= 0.002
        assert point["batch_size"] in (64, 128, 200)
        assert CNN.complete(point) == point, "a point of the whole space"
    assert parameter(space, "optimizer").default == "adam"
    assert parameter(space, "filters_0").default == 32
    assert parameter(space, "batch_norm_0").kind == "fixed"
    assert space.fingerprint != CNN.fingerprint
    assert narrowed(CNN, ()) is CNN


def test_its_parameters_are_those_that_it_asks_for():
    space = narrowed(CNN, ("optimizer=adam,sgd", "num_blocks=2", "filters_1=8,64"))
    hp = HyperParameters()
    space.sample(hp)
    assert tuple(hp.space) == space.parameters


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("optimiser=adam", "Did you mean 'optimizer'?"),
        ("optimizer=adam,lion", "rmsprop | adam | adamw | nadam | sgd. Received: 'adam,lion'"),
        ("filters_0=10..32", "8 to 32 by 8. Received: '10..32'"),
        ("filters_0=32..16", "8 to 32 by 8"),
        ("filters_0=16..64", "8 to 32 by 8"),
        ("filters_0=many", "8 to 32 by 8"),
        ("batch_norm_0=maybe", "false | true"),
        ("batch_size=33..60", "32 | 64 | 128"),
        ("learning_rate=0.5", r"0.0001 to 0.01 \(log\)"),
    ],
)
def test_values_that_a_parameter_does_not_have_are_refused_with_its_range(rule, words):
    with pytest.raises(InputError, match=words.replace("|", r"\|")):
        narrowed(CNN, (rule,))


def test_baselines_outside_are_left_out():
    space = narrowed(CNN, ("padding=valid",))
    assert [b.name for b in space.baselines] == ["cnn3_valid_50k", "cnn3_valid_60k", "cnn2_dropout"]
    assert narrowed(CNN, ("optimizer=nadam",)).baselines == ()


def test_name_scopes_parents_and_numbers_as_booleans():
    def sample(hp):
        with hp.name_scope("head"):
            hp.Choice("bias", [True, False])
        hp.Int("n", 1, 9)
        hp.Float("late", 0.1, 0.9, sampling="reverse_log", parent_name="n", parent_values=[2, 3])
        return active_values(hp)

    space = Space("tiny", "", sample, None, lambda params, shape: ())  # type: ignore[arg-type]
    found = narrowed(space, ("head/bias=false", "n=2,3,8", "late=0.2..0.5"))
    assert found.complete({}) == {"head/bias": 0, "n": 2, "late": 0.2}
    assert found.complete({"n": 8}) == {"head/bias": 0, "n": 8}
    assert parameter(found, "n").choices == (2, 3, 8) and parameter(found, "n").ordered
    with pytest.raises(InputError, match="'late' must be in 0.2 to 0.5"):
        found.sample(GivenHyperParameters({"late": 0.6}))


def test_of_two_rules_for_a_name_the_later_one_holds():
    assert merged_rules(["a=1", "b = 2", "a=3..4"], "--set") == ("a=3..4", "b=2")
    for text, option in (("a", "--set"), ("=1", "--set"), ("a=", "--fix"), ("a=1..2", "--fix")):
        with pytest.raises(InputError, match=f"{option} must be NAME="):
            merged_rules([text], option)


def test_what_is_behind_a_plain_if_is_not_asked_for_everywhere(capsys):
    def sample(hp):
        for k in range(hp.Int("layers", 1, 2)):
            hp.Int(f"units_{k}", 1, 9)
        return active_values(hp)

    looks = []
    found = explore(sample, on_look=looks.append)
    space = replace(
        get_space("mlp"), sample=sample, see_all=lambda _: found, looks=tuple(looks), baselines=()
    )
    always = {p.name: space.is_asked_everywhere(p) for p in space.parameters}
    assert always == {"layers": True, "units_0": True, "units_1": False}
    print_space(space)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.split()}
    assert "always" in lines["units_0"] and "at some points only" in lines["units_1"]
    part = narrowed(space, ("layers=2",))
    assert all(part.is_asked_everywhere(parameter) for parameter in part.parameters)
    assert all(get_space("mlp").is_asked_everywhere(p) for p in get_space("mlp").parameters)
