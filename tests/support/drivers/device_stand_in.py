"""Preloaded by the workers of `device_driver.py`: backends that take the cores for their GPU.

What the processes are told is told as ever; each leaves it in a file of the working folder.
"""

from __future__ import annotations

import json
import os
from typing import Any

import sweeps.workers.preload  # noqa: F401
from pipelines.runtime import device, process

NAME = "Stand-in"
TOLD = ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_CLIENT_MEM_FRACTION")
_take, _prepare, _shares = device.take_share, process._prepare_jax, {
    name: getattr(process, name) for name in ("_share_tensorflow", "_share_jax", "_share_torch")
}  # fmt: skip


share_bytes: int | None = None
"""What this process was told that it may allocate; None for all."""


def take_share(gpu: str | None, memory: Any = None) -> None:
    """The real one, and then a note of what it left."""
    global share_bytes  # noqa: PLW0603
    share_bytes = None if memory is None else memory.num_bytes
    fractions: list[float] = []
    if os.environ.get("KERAS_BACKEND") == "torch":
        import torch

        torch.cuda.set_per_process_memory_fraction = (  # type: ignore[assignment]
            lambda fraction, device: fractions.append(fraction)
        )
    _take(gpu, memory)
    found = {name: os.environ.get(name) for name in TOLD} | {"torch": fractions}
    with open(f"told-{os.getpid()}.json", "w") as file:
        json.dump(found, file)


def _on_cores(name: str) -> Any:
    def share(num_threads: int, gpu: str | None, *, deterministic: bool) -> str | None:
        found = _shares[name](num_threads, None, deterministic=deterministic)
        return NAME if gpu is not None else found

    return share


process.take_share = take_share
process._prepare_jax = lambda num_threads, gpu, *, deterministic: _prepare(
    num_threads, None, deterministic=deterministic
)
for _name in _shares:
    setattr(process, _name, _on_cores(_name))
