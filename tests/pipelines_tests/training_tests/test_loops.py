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

from pipelines.runtime.device import MemoryShare, resident_limit
from pipelines.training.device_arrays import tensorflow_rows
from pipelines.training.loops import _batches

DRIVER = Path(__file__).parents[2] / "support" / "drivers" / "loop_driver.py"
ROUNDING = 1e-6
"""A scan is compiled differently from single steps: sums may be rounded differently."""


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


def check_predictions(found: dict[str, float]) -> None:
    """Those of `predict`, to the bit; where batches have another size, to rounding."""
    assert found.pop("resident") == found.pop("carried") == 0.0
    assert set(found) == {"some resident", "some carried", "filled"}
    assert max(found.values()) < ROUNDING


@pytest.mark.long
def test_on_tensorflow_it_is_fit_bit_for_bit():
    """Sweeps of before there was a loop go on, and replay, as if nothing had changed."""
    found = compared("tensorflow")
    differences = found["differences"]
    assert len(differences) == 11 and set(differences.values()) == {0.0}
    check_predictions(found["predicted"])


@pytest.mark.backends
@installed("jax")
def test_on_jax_it_is_fit_bit_for_bit_and_a_scan_within_rounding():
    found = compared("jax")
    assert set(found["differences"].values()) == {0.0}
    assert found["scanned"] < ROUNDING
    check_predictions(found["predicted"])


@pytest.mark.backends
@installed("torch")
def test_on_pytorch_it_is_fit_bit_for_bit_but_for_dropout():
    """`fit` takes numbers from the generator that dropout takes them from."""
    found = compared("torch")
    equal = {name: value for name, value in found["differences"].items() if "dropout" not in name}
    assert len(equal) == 11 and set(equal.values()) == {0.0}
    assert found["again"] == 0.0, "the same seed, the same numbers, with dropout"
    assert found["streamed"] == 0.0, "from disk or from the device"
    check_predictions(found["predicted"])


@pytest.mark.parametrize(("num_images", "together"), [(75, 1), (75, 2), (64, 2), (10, 3)])
def test_batches_hold_every_image_once_and_in_order(num_images, together):
    order = np.random.default_rng(0).permutation(num_images)
    groups = _batches(order, 16, together)
    assert np.array_equal(np.concatenate([group.ravel() for group in groups]), order)
    assert {group.shape for group in groups if group.ndim == 2} <= {(together, 16)}
    assert all(len(group) == 16 for group in groups[:-1] if group.ndim == 1)


ARRAYS = [
    np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28, 1),
    np.arange(3 * 5 * 5 * 3, dtype=np.uint8).reshape(3, 5, 5, 3),
    np.arange(3 * 3 * 3, dtype=np.uint16).reshape(3, 3, 3, 1),
    np.arange(3 * 4, dtype=np.float32).reshape(3, 2, 2, 1),
    np.arange(3, dtype=np.int64),
]
ROWS = np.array([2, 0, 2])


def traced(function: object, rows: np.ndarray) -> object:
    """The graph of a function of row numbers."""
    import tensorflow as tf

    return tf.function(function).get_concrete_function(tf.constant(rows, tf.int64))


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_rows_that_are_taken_on_the_device_are_those_of_the_array(array):
    data, take = tensorflow_rows(array)
    found = traced(lambda rows: take(data, rows), ROWS)(ROWS)
    assert found.dtype == array.dtype and np.array_equal(found.numpy(), array[ROWS])


def without_a_gpu_kernel(graph: object) -> set[str]:
    """Operations of a graph that TensorFlow could run on cores alone, by its list of kernels."""
    from tensorflow.python.framework import kernels

    def runs(node: object) -> bool:
        return any(
            kernel.device_type in ("GPU", "DEFAULT")
            and all(
                node.attr[limit.name].type in limit.allowed_values.list.type
                for limit in kernel.constraint
            )
            for kernel in kernels.get_registered_kernels_for_op(node.op).kernel
        )

    return {node.op for node in graph.as_graph_def().node if not runs(node)} - {"Placeholder"}


@pytest.mark.skipif(sys.platform != "linux", reason="other builds know no GPU")
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_tensorflow_has_kernels_for_gpus_to_take_rows_with(array):
    """Else every batch would be gathered on the cores: `gather` of 8-bit pixels has none."""
    import tensorflow as tf

    data, take = tensorflow_rows(array)
    assert without_a_gpu_kernel(traced(lambda rows: take(data, rows), ROWS).graph) == set()
    plain = traced(lambda rows: tf.gather(array, rows), ROWS)
    assert ("GatherV2" in without_a_gpu_kernel(plain.graph)) == (array.dtype.itemsize < 4)


def test_pixels_leave_room_on_a_shared_gpu():
    assert resident_limit(None, None) is None, "on cores what streams is told by its size"
    assert resident_limit(None, 2**37) == 2**35
    assert resident_limit(MemoryShare(0.1, 2**29), 2**37) == 2**27
    assert resident_limit(MemoryShare(0.5), 2**37) is None
