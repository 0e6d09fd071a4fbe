"""`auto` for precision and compilation is measured in a worker, while there is time for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipelines.training import cost
from pipelines.training.cost import MeasureTask, measure_points
from pipelines.training.options import TrainingOptions
from search_spaces.registry import get_space
from sweeps.executors.base import Slot
from sweeps.resources import auto_compute
from sweeps.resources.auto_compute import decide_compute
from sweeps.settings import SweepSettings
from sweeps.workers import jobs

SETTINGS = SweepSettings(
    space="mlp",
    training=TrainingOptions(precision="auto"),
    num_trials=1,
    num_epochs=1,
    timeout_seconds=100.0,
)


def decided(tiny_data):
    said = []
    found = decide_compute(SETTINGS, get_space("mlp"), tiny_data, Slot(0, 1), said.append)
    assert said == ["measuring 2 ways to compute: float32 jit off, mixed_bfloat16 jit off"]
    return found


def test_each_way_is_measured_and_a_way_without_auto_is_taken(tiny_data):
    found = decided(tiny_data)
    assert found.reason.startswith("measured: float32 jit off ")
    assert found.reason.count(" s a trial") == 2 and "not measured" not in found.reason
    assert found.settings.training.precision in ("float32", "mixed_bfloat16")
    assert found.settings.training.jit == "off"


def test_no_time_leaves_the_plain_way(tiny_data, monkeypatch):
    limits = []
    monkeypatch.setattr(auto_compute, "seconds_for", lambda seconds: limits.append(seconds) or 0)
    found = decided(tiny_data)
    assert found.reason.count("not measured") == 2
    assert found.settings.training.precision == "float32"
    assert limits == [100.0], "the sweep's own"


def test_a_way_whose_loss_is_no_number_is_not_the_fastest(tiny_data, monkeypatch):
    """An epoch that ends at the first step would look thousands of times faster."""
    params = get_space("mlp").complete({"num_layers": 1, "units": 64})
    task = MeasureTask("mlp", (params,), tiny_data, 1, 0)
    (sound,) = measure_points(task)
    original = cost.epoch_loop

    def spoilt(assembled, *arguments, **options):
        loop, calls = original(assembled, *arguments, **options), []

        def train(order, ends_early, pixels):
            if calls:  # The first steps are sound.
                weights = assembled.model.get_weights()
                assembled.model.set_weights([np.full_like(weight, np.nan) for weight in weights])
            calls.append(order)
            return loop.train(order, ends_early, pixels)

        return replace(loop, train=train)

    monkeypatch.setattr(cost, "epoch_loop", spoilt)
    (broken,) = measure_points(task)
    assert sound.is_finite and not broken.is_finite
    assert broken.epoch_seconds > 0.2 * sound.epoch_seconds
    messages = []
    slot = Slot(0, 1)
    monkeypatch.setattr(jobs, "configured", lambda *arguments, **options: "cpu")
    jobs.calibrate_job((task,), lambda message: messages.append(message) or True, slot)
    assert messages == [(0, None)]
