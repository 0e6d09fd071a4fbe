"""Sets up the deep-learning runtime of one worker process, before it runs anything.

Imported by the preloaded server as well, so nothing here may touch a device at import.
"""

from __future__ import annotations

import os
import warnings

from pipelines.device import MemoryShare, take_share


def preload() -> None:
    """Imports what every trial needs. Importing is safe before a fork; running TensorFlow is not.

    A child forked after TensorFlow ran an operation hangs; after a mere import it works.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import keras  # noqa: F401
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import tensorflow  # noqa: F401

    import pipelines.figures
    import pipelines.reproduction  # noqa: F401


def configure(
    num_threads: int,
    gpu: str | None,
    seed: int,
    *,
    deterministic: bool = False,
    memory: MemoryShare | None = None,
) -> str:
    """Gives this process its share of the machine and its seed, and returns the device's name.

    Args:
        num_threads: size of TensorFlow's pools, for one operation and between operations.
        gpu: the one GPU that this process may see, as in `CUDA_VISIBLE_DEVICES`; None for none.
        deterministic: whether TensorFlow may use only operations that repeat bit for bit.
        memory: the share of the GPU's memory that this process may take; None for what it finds.

    Raises:
        RuntimeError: TensorFlow does not find the GPU; training on the cores would be a surprise.
    """
    take_share(gpu, memory)
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(num_threads)
    found = tf.config.list_physical_devices("GPU")
    if gpu is not None and not found:
        raise RuntimeError(
            f"TensorFlow does not find GPU {gpu}. Install its CUDA libraries with "
            "`pip install -c constraints.txt -e '.[gpu]'`, or hide the GPU: CUDA_VISIBLE_DEVICES=."
        )
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if found:
        details = tf.config.experimental.get_device_details(found[0])
        return f"gpu {gpu}: {details.get('device_name', 'unknown')}"
    return f"cpu, {num_threads} thread{'s' if num_threads > 1 else ''}"
