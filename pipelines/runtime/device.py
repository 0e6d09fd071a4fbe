"""What of which GPU one process may use, told to the backend before it starts.

Nothing here imports a backend before the environment is set, and nothing touches a device at
import: the preloaded server imports this module, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

HIDDEN = "-1"
"""For CUDA_VISIBLE_DEVICES: an empty value hides the GPUs too, but not from every library."""

ALONE = 0.95
"""Of the GPU's memory, where a backend must be told a limit although it has the GPU to itself."""


@dataclass(frozen=True)
class MemoryShare:
    """What of a GPU's memory a process may allocate, its CUDA context not counted.

    Attributes:
        fraction: of all its memory, above 0 and at most 1.
        num_bytes: the same in bytes; None where the GPU does not tell how much it has.
    """

    fraction: float
    num_bytes: int | None = None


RESIDENT_PART = 4
"""Pixels take at most one part of so many of a GPU: the model and its steps need the rest."""


def resident_limit(memory: MemoryShare | None, gpu_bytes: int | None) -> int | None:
    """Bytes of training pixels that may stay on a GPU; None on cores, or where nobody knows. Pure.

    Args:
        memory: the share of its memory; None for all of it.
        gpu_bytes: all its memory; None for cores, or where it does not tell.
    """
    room = gpu_bytes if memory is None else memory.num_bytes
    return None if room is None else room // RESIDENT_PART


def device_environment(
    backend: str, gpu: str | None, memory: MemoryShare | None = None
) -> dict[str, str]:
    """The variables that a process with this share needs before its backend starts. Pure.

    Args:
        backend: as `keras.config.backend()` names it.
        gpu: the one GPU that the process may see, as `nvidia-smi` counts; None for none.
        memory: its share where several processes live on the GPU; None for all of it.
    """
    found = {
        "CUDA_VISIBLE_DEVICES": HIDDEN if gpu is None else gpu,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # The order in which nvidia-smi counts.
    }
    if gpu is None:
        return found
    if backend == "tensorflow":
        # Read by the allocator itself, so it also holds for a logical device with a limit, for
        # which TensorFlow refuses `set_memory_growth`.
        found["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    if backend == "jax":
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        # Also without preallocation this is the allocator's upper limit, 0.75 by default.
        fraction = ALONE if memory is None else memory.fraction
        found["XLA_CLIENT_MEM_FRACTION"] = f"{fraction:.4f}"
    return found


def take_share(gpu: str | None, memory: MemoryShare | None = None) -> None:
    """Shows this process its GPU alone, and limits what Keras' backend may allocate there.

    Calling it again with the same values changes nothing, also once the backend runs.

    Raises:
        RuntimeError: The backend has started with other values.
    """
    # Before any import: a backend may count the GPUs when it is imported.
    os.environ.update(device_environment("", gpu))
    import keras

    backend = keras.config.backend()
    os.environ.update(device_environment(backend, gpu, memory))
    # The older name of the same limit: XLA refuses to start with both.
    os.environ.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)
    if gpu is None:
        return
    if backend == "tensorflow":
        import tensorflow

        _limit_tensorflow(tensorflow, memory)
    elif backend == "torch" and memory is not None:
        import torch

        torch.cuda.set_per_process_memory_fraction(memory.fraction, 0)


def _limit_tensorflow(tf: Any, memory: MemoryShare | None) -> None:
    for device in tf.config.list_physical_devices("GPU"):
        if memory is None or memory.num_bytes is None:
            tf.config.experimental.set_memory_growth(device, True)
            continue
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory.num_bytes // 2**20)
        tf.config.set_logical_device_configuration(device, [limit])


def touch() -> None:
    """Makes the backend start its device and load its kernels' libraries, at the cost of seconds.

    It draws no random number and names no layer, so what is trained afterwards is the same.
    """
    import keras
    import numpy as np

    images, kernel = np.ones((1, 8, 8, 1), "float32"), np.ones((3, 3, 1, 4), "float32")
    features = keras.ops.conv(images, kernel)  # Loads cuDNN.
    rows = keras.ops.reshape(features, (-1, 4))
    product = keras.ops.matmul(rows, keras.ops.transpose(rows))  # Loads cuBLAS.
    keras.ops.convert_to_numpy(product)  # Waits until it is there.
