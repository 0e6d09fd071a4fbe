"""What parts let worker processes do; importable by name there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.runtime.compute import Compute
from search_spaces.hyperparameters import Params
from search_spaces.registry import get_space
from sweeps.executors.base import Slot
from sweeps.workers.jobs import configured, warm_up


@dataclass(frozen=True)
class FitTask:
    """A model to train; `seconds` end it after the epoch in which they are over."""

    space: str
    params: Params
    data: PreparedData
    compute: Compute
    num_epochs: int
    seconds: float


def fit_job(task: FitTask, report: Callable[[float], Any], slot: Slot) -> None:
    """A plain `model.fit` on arrays in memory; reports the seconds of each epoch.

    The first one's are from the start of the job: building, compiling, and the epoch.
    """
    configured(slot, 0, compute=task.compute)
    import keras

    began = time.perf_counter()
    x, y = (np.array(array) for array in task.data.arrays("train"))
    assembled = get_space(task.space).assembled(
        task.params, task.data.input_shape, task.data.num_classes, len(x), task.num_epochs
    )

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        since = began

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            now = time.perf_counter()
            report(now - self.since)
            self.since = time.perf_counter()
            if now - began > task.seconds:
                self.model.stop_training = True

    assembled.model.fit(
        x, y, batch_size=assembled.batch_size, epochs=task.num_epochs, verbose=0,
        callbacks=[Clock()],
    )  # fmt: skip


def context_job(argument: object, report: Callable[[int], Any], slot: Slot) -> None:
    """Starts the device and its libraries, as a spare does; reports what the backend allocated."""
    del argument
    warm_up(slot)
    report(_allocated_bytes())


def _allocated_bytes() -> int:
    """What the backend itself has taken of the GPU by now; 0 where it does not tell."""
    import keras

    backend = keras.config.backend()
    try:
        if backend == "torch":
            import torch

            return int(torch.cuda.memory_reserved())
        if backend == "tensorflow":
            import tensorflow as tf

            return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
        import jax

        return int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))
    except Exception:  # Stand-ins, and devices that keep no such count.
        return 0


ARRAY, CONVOLUTION = "array", "convolution"


@dataclass(frozen=True)
class FillTask:
    """Memory to take until there is no more.

    Attributes:
        how: `ARRAY` for one array after the other; `CONVOLUTION` for one where little is left.
        pretends: whether there is no device, so that running out is made up.
    """

    how: str
    share_bytes: int
    pretends: bool = False


PIECES = 16
"""Arrays of this part of the share are taken."""
MOST = 1.5
"""Of the share: who has taken so much meets no limit."""
SIDE, CHANNELS, RESULT_CHANNELS = 64, 4, 64


def fill_job(task: FillTask, report: Callable[[int], Any], slot: Slot) -> bool:
    """Takes more and more memory, and reports how many bytes it has asked for.

    Returns:
        True, where it had all that it asked for.

    Raises:
        Exception: Whatever the backend raises when it has no more.
    """
    warm_up(slot)
    piece = task.share_bytes // PIECES
    most = MOST * PIECES if task.how == ARRAY else PIECES - 1
    held: list[Any] = []
    while len(held) < most:
        asked = (len(held) + 1) * piece
        held.append(made_up(task, asked) if task.pretends else _array(piece))
        report(asked)
    if task.how == CONVOLUTION:
        held.append(made_up(task, 2 * task.share_bytes) if task.pretends else _convolved(2 * piece))
        report(task.share_bytes + piece)
    return True


def _array(num_bytes: int) -> Any:
    import keras

    array = keras.ops.ones((num_bytes // 4,), "float32")
    keras.ops.convert_to_numpy(array[:1])  # Waits until it is there.
    return array


def _convolved(num_bytes: int) -> Any:
    """The result of a convolution, which takes so much; cuDNN counts its elements in 32 bits."""
    import keras

    num = num_bytes // (4 * SIDE * SIDE * RESULT_CHANNELS)
    images = keras.ops.ones((num, SIDE, SIDE, CHANNELS), "float32")
    kernel = keras.ops.ones((3, 3, CHANNELS, RESULT_CHANNELS), "float32")
    found = keras.ops.conv(images, kernel, padding="same")
    keras.ops.convert_to_numpy(found[0, 0, 0])
    return found


def made_up(task: FillTask, asked: int) -> object:
    """Raises what the backend raises, beyond a share that nobody limits."""
    import keras

    if asked <= task.share_bytes:
        return object()
    backend = keras.config.backend()
    words = f"stand-in: {asked} bytes"
    if backend == "torch":
        import torch

        raise torch.OutOfMemoryError(f"CUDA out of memory ({words})")
    if backend == "tensorflow":
        import tensorflow as tf

        raise tf.errors.ResourceExhaustedError(None, None, f"failed to allocate memory ({words})")
    import jax

    raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: Out of memory ({words})")


def warm_up_and_tell(slot: Slot) -> None:
    """What a spare does, and a file in the working folder once it has."""
    warm_up(slot)
    Path(f"warm-{os.getpid()}").touch()


def first_step_job(task: FitTask, report: Callable[[str], Any], slot: Slot) -> None:
    """What a trial does from its start to its first step."""
    from pipelines.training.epoch import Training, set_jit
    from pipelines.training.loops import epoch_loop

    configured(slot, 0, compute=task.compute)
    x, y = task.data.arrays("train")
    assembled = get_space(task.space).assembled(
        task.params, task.data.input_shape, task.data.num_classes, len(x), task.num_epochs
    )
    set_jit(assembled.model, task.compute.jit)
    loop = epoch_loop(assembled, Training(x, y, task.data.num_classes, 0))
    assert loop is not None
    loop(np.arange(assembled.batch_size))
    report("step")
