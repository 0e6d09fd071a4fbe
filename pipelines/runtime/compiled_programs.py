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
from collections.abc import Callable, Mapping
from pathlib import Path

MAX_BYTES = 2**30
"""JAX removes what was not used for longest beyond that; a shape takes half a megabyte."""
_KINDS = ("model name", "flags", "Features", "Model:")
"""Lines of Linux's files on processors and of NVIDIA's on GPUs that tell a kind, not a clock."""


_JAX_OPTIONS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "JAX_COMPILATION_CACHE_DIR": ("jax_compilation_cache_dir", str),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": (
        "jax_persistent_cache_min_compile_time_secs", float,
    ),
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": (
        "jax_persistent_cache_min_entry_size_bytes", int,
    ),
    "JAX_COMPILATION_CACHE_MAX_SIZE": ("jax_compilation_cache_max_size", int),
}  # fmt: skip
"""Variable -> the option of JAX that it sets, and how its value is read."""


def compiled_variables(
    folder: Path, backend: str, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Variables that tell a backend where to keep what it compiles.

    The folder has one for each version and each kind of machine: a program for the instructions of
    one processor ends a process on another. What the environment says already stands, and is
    handed on: a server of workers may have been started before it said so.

    Args:
        folder: it need not exist.
        environment: None for this process' own.
    """
    known = os.environ if environment is None else environment
    version = "unknown"
    # Builds of TensorFlow have other names, too.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version(backend)
    here = str(folder / f"{backend}-{version}-{_machine()}")
    found = {
        "tensorflow": {"TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={here}"},
        "torch": {"TORCHINDUCTOR_CACHE_DIR": here},
        "jax": {
            "JAX_COMPILATION_CACHE_DIR": here,
            # By default it keeps what took more than a second; the many small programs of a
            # model's first weights take longer together (docs/log.md).
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "JAX_COMPILATION_CACHE_MAX_SIZE": str(MAX_BYTES),
        },
    }[backend]
    theirs = {name: known[name] for name in found if name in known}
    return theirs if "JAX_COMPILATION_CACHE_DIR" in theirs else found | theirs


def tell_jax() -> None:
    """Tells JAX what the environment says by now of its cache.

    It reads the environment when it is imported; workers are forked from a server that has imported
    it, maybe for another sweep. To be called before anything is compiled. The others read theirs
    when they compile first.
    """
    import jax

    for name, (option, read) in _JAX_OPTIONS.items():
        if name in os.environ:
            jax.config.update(option, read(os.environ[name]))  # type: ignore[no-untyped-call]


def _machine() -> str:
    """A digest of the kinds of processor and GPU, as far as they tell."""
    lines = [platform.machine(), platform.processor()]
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    for path in (Path("/proc/cpuinfo"), *gpus):
        with contextlib.suppress(OSError):
            lines += [line for line in path.read_text().splitlines() if line.startswith(_KINDS)]
    return hashlib.sha256("\n".join(sorted(set(lines))).encode()).hexdigest()[:10]
