"""The loop on the device trains what `fit` trains, on every backend that is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.epoch_loops import _batches

DRIVER = Path(__file__).with_name("loop_driver.py")
ROUNDING = 1e-6
"""A scan is compiled otherwise than single steps: sums may be rounded otherwise."""


def installed(backend: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(backend) is None
    return pytest.mark.skipif(missing, reason=f"{backend} is not installed")


def compared(backend: str) -> dict:
    environment = {**os.environ, "KERAS_BACKEND": backend, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, str(DRIVER)], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_on_tensorflow_it_is_fit_bit_for_bit():
    """Sweeps of before there was a loop go on, and replay, as if nothing had changed."""
    found = compared("tensorflow")["differences"]
    assert len(found) == 12 and set(found.values()) == {0.0}


@pytest.mark.backends
@installed("jax")
def test_on_jax_it_is_fit_bit_for_bit_and_a_scan_within_rounding():
    found = compared("jax")
    assert set(found["differences"].values()) == {0.0}
    assert found["scanned"] < ROUNDING


@pytest.mark.backends
@installed("torch")
def test_on_pytorch_it_is_fit_bit_for_bit_but_for_dropout():
    """`fit` takes numbers from the generator that dropout takes them from."""
    found = compared("torch")
    equal = {name: value for name, value in found["differences"].items() if "dropout" not in name}
    assert len(equal) == 10 and set(equal.values()) == {0.0}
    assert found["again"] == 0.0, "the same seed, the same numbers, with dropout"
    assert found["streamed"] == 0.0, "from disk or from the device"


@pytest.mark.parametrize(("num_images", "together"), [(75, 1), (75, 2), (64, 2), (10, 3)])
def test_batches_hold_every_image_once_and_in_order(num_images, together):
    order = np.random.default_rng(0).permutation(num_images)
    groups = _batches(order, 16, together)
    assert np.array_equal(np.concatenate([group.ravel() for group in groups]), order)
    assert {group.shape for group in groups if group.ndim == 2} <= {(together, 16)}
    assert all(len(group) == 16 for group in groups[:-1] if group.ndim == 1)
