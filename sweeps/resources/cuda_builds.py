"""Whether a backend is installed with CUDA, told without importing it: the driver starts none."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from pipelines.runtime.compute import TITLES


def missing_cuda(backend: str) -> str:
    """Why a backend cannot use a GPU, with the way out; empty where it can."""
    if _HAS_CUDA[backend]():
        return ""
    return f"{TITLES[backend]}'s CUDA build is not installed: {_WAYS[backend]}"


def _distributions() -> set[str]:
    return {d.name.lower().replace("_", "-") for d in importlib.metadata.distributions() if d.name}


def _tensorflow() -> bool:
    """One wheel for both: it loads the libraries of CUDA 12, from their wheels or the system.

    PyTorch may bring those of another CUDA.
    """
    wheels = {"nvidia-cudnn-cu12", "nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12"}
    return wheels <= _distributions() or ctypes.util.find_library("cudnn") is not None


def _jax() -> bool:
    """CUDA is a plugin: jax-cuda12-plugin, jax-cuda13-plugin."""
    return any(
        name.startswith("jax-cuda") and name.endswith("-plugin") for name in _distributions()
    )


def _torch() -> bool:
    """Its builds differ in the libraries that they bring."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    return any(Path(found.origin).parent.joinpath("lib").glob("*torch_cuda*"))


_HAS_CUDA: Mapping[str, Callable[[], bool]] = {
    "tensorflow": _tensorflow,
    "jax": _jax,
    "torch": _torch,
}
_WAYS = {
    "tensorflow": "pip install -c constraints.txt -e '.[gpu]'",
    "jax": "pip install -c constraints.txt -e '.[jax-gpu]'",
    "torch": "install it from the package index, or as pytorch.org says for your CUDA",
}
