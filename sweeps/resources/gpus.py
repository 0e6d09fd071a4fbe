"""Which GPUs there are, which of them a sweep may use, and whether a backend can use any.

The driver never touches a GPU: no CUDA context, no memory. It asks `nvidia-smi`, and tells without
importing a backend whether that is installed with CUDA.
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipelines.runtime.compute import TITLES
from search_spaces.errors import InputError
from sweeps.settings import ALL, NONE, check_gpus

QUERY_SECONDS = 10.0
NO_DEVICES = "no devices were found"
"""What `nvidia-smi` says where there is a driver and no GPU."""
_ERROR_VALUE = re.compile(r"\[.*\]")  # `[N/A]`, `[Not Supported]`.


@dataclass(frozen=True)
class Gpu:
    """A GPU as `nvidia-smi` lists it: `index` counts in the order of the PCI bus.

    `memory_bytes` is None where the GPU does not tell: it may share the machine's memory.
    """

    index: str
    name: str
    memory_bytes: int | None = None
    uuid: str = ""


class GpuQueryError(RuntimeError):
    """There may be GPUs, but what lists them fails; one line that says how."""


class GpuInventory(Protocol):
    """Lists GPUs, in the order of their indices, without touching one; none is no error."""

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs of this machine that its environment leaves visible.

        Raises:
            GpuQueryError: They could not be listed.
        """


class NvidiaSmi:
    """What `nvidia-smi` lists, as far as CUDA_VISIBLE_DEVICES allows it."""

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs; none where the program is missing, or knows of none.

        Raises:
            GpuQueryError: It fails, says something else, or takes too long.
        """
        program = shutil.which("nvidia-smi")
        if program is None:
            return ()
        fields = "index,uuid,memory.total,name"
        query = [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(
                query, capture_output=True, text=True, timeout=QUERY_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise GpuQueryError(f"nvidia-smi did not answer in {QUERY_SECONDS:.0f} s") from None
        except OSError as error:
            raise GpuQueryError(f"nvidia-smi cannot be run ({error.strerror})") from None
        said = f"{done.stdout}\n{done.stderr}".strip()
        if NO_DEVICES in said.lower():
            return ()
        if done.returncode:
            first = (said.splitlines() or [f"exit status {done.returncode}"])[0]
            raise GpuQueryError(f"nvidia-smi fails ({first[:200].strip().rstrip('.')})")
        found = tuple(gpu for line in done.stdout.splitlines() if (gpu := _parsed(line)))
        if said and not found:
            first = said.splitlines()[0]
            raise GpuQueryError(f"nvidia-smi lists no GPU ({first[:200].strip().rstrip('.')})")
        return visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _parsed(line: str) -> Gpu | None:
    """A line of the list; None for one that is something else, such as a warning."""
    cells = [cell.strip() for cell in line.split(",", 3)]
    if len(cells) != 4 or not cells[0].isdigit():
        return None
    index, uuid, mebibytes, name = cells
    memory = int(mebibytes) * 2**20 if mebibytes.isdigit() else None
    return Gpu(index, name, memory, "" if _ERROR_VALUE.fullmatch(uuid) else uuid)


def visible(gpus: Sequence[Gpu], allowed: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves: indices, or (the start of) unique ids. Pure."""
    if allowed is None:
        return tuple(gpus)
    wanted = [part.strip() for part in allowed.split(",") if part.strip()]
    return tuple(
        gpu
        for gpu in gpus
        if any(
            part == gpu.index or (len(part) > 3 and gpu.uuid.startswith(part)) for part in wanted
        )
    )


def chosen_gpus(text: str, gpus: Sequence[Gpu], note: str = "") -> tuple[Gpu, ...]:
    """The GPUs that `--gpus` names, in its order. Pure.

    Args:
        note: why GPUs that there are cannot be used.

    Raises:
        InputError: It names one that is not there.
    """
    check_gpus(text)
    if text == NONE:
        return ()
    if text == ALL:
        return tuple(gpus)
    known = {gpu.index: gpu for gpu in gpus}
    missing = [part for part in text.split(",") if part not in known]
    if missing:
        there = f"Choose among: {', '.join(known)}." if known else note or "There is none."
        raise InputError(
            f"--gpus must name GPUs of this machine that CUDA_VISIBLE_DEVICES does not hide. "
            f"Received: {', '.join(missing)}. {there}"
        )
    return tuple(known[part] for part in text.split(","))


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
    if wheels <= _distributions() or ctypes.util.find_library("cudnn") is not None:
        return True
    # `find_library` asks for what is installed, and the loader looks here first.
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    return any(any(Path(folder).glob("libcudnn.so*")) for folder in folders)


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
    "tensorflow": "pip install -c constraints.txt 'tensorflow[and-cuda]'",
    "jax": "pip install -c constraints.txt 'jax[cuda12]'",
    # The build for cores has the same number, so pip keeps it unless it is told.
    "torch": "pip install -c constraints.txt --force-reinstall torch (from the package index; or "
    "as pytorch.org says for your CUDA)",
}
