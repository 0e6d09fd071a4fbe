"""Sets up the deep-learning runtime of one process, before it runs anything.

Imported by the preloaded server as well, so nothing here may touch a device at import.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pipelines.runtime.compiled_programs import tell_jax
from pipelines.runtime.compute import BACKEND_VARIABLE, DEFAULT_COMPUTE, TITLES, Compute
from pipelines.runtime.device import MemoryShare, take_share
from pipelines.runtime.surroundings import settle_surroundings

LOG_LEVEL_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"


def preload_keras() -> None:
    """Imports Keras quietly. Importing is safe before a fork; running a backend is not.

    A child forked after TensorFlow ran an operation hangs; after a mere import it works. Importing
    JAX or PyTorch starts nothing, either. Which backend it is, the environment says.
    """
    os.environ.setdefault(LOG_LEVEL_VARIABLE, "2")
    settle_surroundings()
    warnings.filterwarnings("ignore", category=FutureWarning)
    # JAX warns of every fork, whether or not it runs already.
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    import keras  # noqa: F401


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hides standard error while TensorFlow is imported and first used; nothing afterwards.

    Its first lines (no GPU found, no driver) are printed before it minds any level, straight to
    the descriptor. Exceptions pass as ever. Who sets TF_CPP_MIN_LOG_LEVEL sees everything.
    """
    if LOG_LEVEL_VARIABLE in os.environ or "tensorflow" in sys.modules:
        yield
        return
    os.environ[LOG_LEVEL_VARIABLE] = "2"
    try:
        kept = os.dup(2)
    except OSError:  # Standard error is closed: nothing to hide.
        yield
        return
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def configure(
    num_threads: int,
    gpu: str | None,
    seed: int,
    *,
    deterministic: bool = False,
    memory: MemoryShare | None = None,
    compute: Compute | None = None,
) -> str:
    """Gives this process its share of the machine and its seed, and returns the device's name.

    Args:
        num_threads: size of the backend's pools, for one operation and between operations.
        gpu: the one GPU that this process may see, as in `CUDA_VISIBLE_DEVICES`; None for none.
        deterministic: whether the backend may use only operations that repeat bit for bit.
        compute: what the numbers must be computed with; None for float32 on the backend there is.
        memory: the share of the GPU's memory that this process may take; None for what it finds.

    Raises:
        RuntimeError: The backend does not find the GPU (training on the cores would be a
            surprise), or this process has another one.
    """
    backend = os.environ.get(BACKEND_VARIABLE, "tensorflow")
    if backend == "jax":
        _prepare_jax(num_threads, gpu, deterministic=deterministic)
    take_share(gpu, memory)
    import keras

    found = keras.config.backend()
    if compute is not None and found != compute.backend:
        raise RuntimeError(f"This process has Keras on {found}, not on {compute.backend}.")
    settle_keras(DEFAULT_COMPUTE.precision if compute is None else compute.precision)
    share = {"tensorflow": _share_tensorflow, "jax": _share_jax, "torch": _share_torch}
    name = share[found](num_threads, gpu, deterministic=deterministic)
    if gpu is not None and name is None:
        raise RuntimeError(
            f"{TITLES[found]} does not find GPU {gpu}. Install its CUDA build (docs/gpu.md), or "
            "hide the GPU: CUDA_VISIBLE_DEVICES=."
        )
    seed_everything(seed)
    if name is not None:
        return f"gpu {gpu}: {name}"
    return f"cpu, {num_threads} thread{'s' if num_threads > 1 else ''}"


def settle_keras(precision: str) -> None:
    """Gives Keras' settings that trained numbers follow from the values that a sweep means.

    A user's `keras.json`, or a variable that is for debugging, may have set them otherwise.
    """
    import keras

    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    set_precision(precision)


def set_precision(name: str) -> None:
    """The dtype policy of every layer that is made from now on in this process."""
    import keras

    keras.config.set_dtype_policy(name)


def seed_everything(seed: int) -> None:
    """Seeds all that Keras' layers and initializers draw their own seeds from.

    `keras.utils.set_random_seed` does the same, and imports TensorFlow for it wherever that is
    installed: seconds in every worker of another backend.
    """
    import keras

    if keras.config.backend() == "tensorflow":
        keras.utils.set_random_seed(seed)
        return
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if keras.config.backend() == "torch":
        import torch

        torch.manual_seed(seed)


def _share_tensorflow(num_threads: int, gpu: str | None, *, deterministic: bool) -> str | None:
    """Sets threads, memory and mode of TensorFlow; returns the GPU's name, None without one."""
    del gpu
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(num_threads)
    found = tf.config.list_physical_devices("GPU")
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if not found:
        return None
    details = tf.config.experimental.get_device_details(found[0])
    return str(details.get("device_name", "unknown"))


def _prepare_jax(num_threads: int, gpu: str | None, *, deterministic: bool) -> None:
    """What XLA reads from the environment when it is first used."""
    # The size of its pool of threads (DefaultThreadPoolSize in XLA's client for CPUs).
    os.environ["NPROC"] = str(num_threads)
    os.environ["JAX_PLATFORMS"] = "cpu" if gpu is None else "cuda"
    if deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def _share_jax(num_threads: int, gpu: str | None, *, deterministic: bool) -> str | None:
    """Returns the GPU's name, None without one; all else was prepared before JAX ran."""
    del num_threads, deterministic
    import jax

    # The server has imported JAX already, and with it what the variable was then.
    jax.config.update("jax_platforms", "cpu" if gpu is None else "cuda")  # type: ignore[no-untyped-call]
    tell_jax()
    if gpu is None:
        return None
    try:
        return str(jax.devices()[0].device_kind)
    except RuntimeError as error:  # JAX without CUDA, or without a device for it.
        if "memory" in str(error).lower() or "RESOURCE_EXHAUSTED" in str(error):
            raise  # It has one, and no room there: that is another cause, and has another cure.
        return None


def _share_torch(num_threads: int, gpu: str | None, *, deterministic: bool) -> str | None:
    """Sets threads and mode of PyTorch; returns the GPU's name, None without one."""
    import torch
    from keras.src.backend.torch import core

    torch.set_num_threads(num_threads)
    if torch.get_num_interop_threads() != num_threads:  # Once at most; a spare process has done it.
        torch.set_num_interop_threads(num_threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    # Decided when Keras was imported, in the server, which sees all GPUs.
    core.DEFAULT_DEVICE = "cpu" if gpu is None else "cuda"
    if gpu is None:
        return None
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
