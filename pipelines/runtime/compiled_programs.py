"""What a backend compiles is kept in a folder, for the other processes that compile the same.

Every stretch of a trial between two rungs runs in a process of its own, and so does every other
trial of the same shape: without a common folder each compiles for itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

MAX_BYTES = 2**30
"""JAX removes what was not used for longest beyond that; a shape takes half a megabyte."""
_KINDS = ("model name", "flags", "Features", "Model:")
"""Lines of Linux's files on processors and of NVIDIA's on GPUs that tell a kind, not a clock."""


def share_compiled(
    folder: Path, backend: str, environment: MutableMapping[str, str] | None = None
) -> None:
    """Says to a backend that is imported from now on where to keep what it compiles.

    The folder has one for each version and each kind of machine: a program for the instructions of
    one processor ends a process on another. What the environment says already stands.

    Args:
        folder: it need not exist.
    """
    variables = os.environ if environment is None else environment
    version = "unknown"
    # Builds of TensorFlow have other names, too.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version(backend)
    here = str(folder / f"{backend}-{version}-{_machine()}")
    if backend == "jax":
        if "JAX_COMPILATION_CACHE_DIR" in variables:
            return
        variables["JAX_COMPILATION_CACHE_DIR"] = here
        # By default it keeps what took more than a second; the many small programs of a model's
        # first weights take longer together (docs/log.md).
        variables.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        variables.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        variables.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(MAX_BYTES))
    elif backend == "torch":
        variables.setdefault("TORCHINDUCTOR_CACHE_DIR", here)
    elif "TF_XLA_FLAGS" not in variables:
        variables["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={here}"


def _machine() -> str:
    """A digest of the kinds of processor and GPU, as far as they tell."""
    lines = [platform.machine(), platform.processor()]
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    for path in (Path("/proc/cpuinfo"), *gpus):
        with contextlib.suppress(OSError):
            lines += [line for line in path.read_text().splitlines() if line.startswith(_KINDS)]
    return hashlib.sha256("\n".join(sorted(set(lines))).encode()).hexdigest()[:10]
