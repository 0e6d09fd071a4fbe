"""Backend, precision and compilation: what is refused, what is recorded, what `auto` means."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from pipelines.objectives import OBJECTIVES
from pipelines.runtime.compute import (
    BACKENDS,
    DEFAULT_COMPUTE,
    Compute,
    check_backend,
    check_compute,
    choose_backend,
    jit_rule,
)
from pipelines.training.options import TrainingOptions
from pipelines.training.trial import Schedule, TrialTask
from search_spaces.errors import InputError
from sweeps.resources.auto_compute import candidates, fastest
from sweeps.settings import SweepSettings
from sweeps.state.recorded_options import compute_tags, tagged_compute


def test_a_backend_that_is_not_installed_is_one_line_with_the_way_out(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"Received: jax, which is not.*constraints.txt jax in"):
        check_backend("jax")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("theano", "float32", "auto"), "'theano'. Choose one of: tensorflow, jax, torch"),
        (("tensorflow", "float8", "auto"), "'float8'"),
        (("tensorflow", "float32", "maybe"), "'maybe'"),
    ],
)
def test_what_keras_does_not_have_is_refused(given, told):
    with pytest.raises(InputError) as refused:
        check_compute(*given)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_the_environment_of_workers_names_the_backend():
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    choose_backend("tensorflow", environment)
    assert environment["KERAS_BACKEND"] == "tensorflow"
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE", "the user's own choice stays"


def test_tags_come_back_and_their_lack_means_what_was_before_there_were_any():
    compute = Compute("torch", "mixed_bfloat16", "off")
    assert tagged_compute(compute_tags(compute)) == compute
    assert tagged_compute({}) == DEFAULT_COMPUTE == SweepSettings("cnn").training.compute


def test_checkpoints_of_before_fit_and_those_of_another_backend_do_not(tiny_data):
    task = TrialTask(0, "mlp", {}, tiny_data, Schedule(2), 0, OBJECTIVES["val_accuracy"], "")
    assert "tensorflow" not in task.identity
    others = [
        replace(task, training=TrainingOptions(backend=backend)).identity for backend in BACKENDS
    ]
    assert others[0] == task.identity and len(set(others)) == 3


@pytest.mark.parametrize(
    ("backend", "on_gpu", "jit"),
    [
        ("tensorflow", False, "off"),
        ("tensorflow", True, "on"),
        ("jax", False, "on"),
        ("torch", True, "off"),
    ],
)
def test_the_rule_for_compilation(backend, on_gpu, jit):
    assert jit_rule(backend, on_gpu=on_gpu) == jit


def test_one_possibility_is_not_measured():
    for backend in BACKENDS:
        assert len(candidates(Compute(backend), on_gpu=False, is_ours=True)) == 1
    (way,) = candidates(Compute(jit="auto"), on_gpu=False, is_ours=False)
    assert way.jit == "auto", "a user's space compiles as it says"


def test_what_auto_leaves_open_begins_with_the_plain_way():
    cores = candidates(Compute(precision="auto"), on_gpu=False, is_ours=True)
    assert [(way.precision, way.jit) for way in cores] == [
        ("float32", "off"),
        ("mixed_bfloat16", "off"),
    ]
    gpu = candidates(Compute(precision="auto"), on_gpu=True, is_ours=True)
    assert len(gpu) == 6 and (gpu[0].precision, gpu[0].jit) == ("float32", "on")


def test_another_way_is_taken_only_where_it_is_clearly_faster():
    ways = [Compute(precision="float32"), Compute(precision="mixed_bfloat16")]
    assert fastest(ways, [1.0, 0.95]) is ways[0]
    assert fastest(ways, [1.0, 0.5]) is ways[1]
    assert fastest(ways, [None, 3.0]) is ways[1]
    assert fastest(ways, [1.0, None]) is ways[0]
    assert fastest(ways, [None, None]) is ways[0]
