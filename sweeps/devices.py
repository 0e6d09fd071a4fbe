"""What this machine offers, and how a sweep shares it: trials at once, threads per trial, GPUs.

The driver never touches a GPU: it asks `nvidia-smi`.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import dataclass

from search_spaces.errors import InputError
from sweeps.executors.base import Slot

MAX_AUTO_THREADS = 4
"""Small image models gain little from more threads per trial; more trials at once use the rest."""
TRIAL_GIGABYTES = 1.5
"""Memory of one CPU trial: TensorFlow takes 0.7 GB, a small model with its data the rest."""


@dataclass(frozen=True)
class Machine:
    """The cores this process may use, memory in bytes, and GPUs as (index, name)."""

    num_cores: int
    memory_bytes: int
    gpus: tuple[tuple[str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Allotment:
    """The slots of a sweep and one line that says how they were chosen."""

    slots: tuple[Slot, ...]
    reason: str


def detect_machine() -> Machine:
    """Looks at affinity, the control group's limits, memory and `nvidia-smi`."""
    import joblib  # Its count minds affinity and control groups, on every platform.

    gpus = _visible_gpus()
    note = ""
    if gpus and not _has_cuda_libraries():
        note = (
            f"{len(gpus)} GPU found, but TensorFlow's CUDA libraries are not installed: "
            "pip install -c constraints.txt -e '.[gpu]'"
        )
        gpus = ()
    return Machine(max(1, joblib.cpu_count()), _memory_bytes(), gpus, note)


def allot(machine: Machine, workers: int | None, threads: int | None) -> Allotment:
    """Divides the machine; None means automatic. Pure.

    One trial per GPU by default. On cores: up to four threads per trial, and as many trials at
    once as cores and memory allow, so two cores train one trial at a time.

    Raises:
        InputError: More trials at once than GPUs.
    """
    if machine.gpus:
        if workers is not None and workers > len(machine.gpus):
            raise InputError(
                f"--workers must be at most the number of GPUs, one trial on each. "
                f"Received: {workers}, with {len(machine.gpus)} GPUs."
            )
        count = workers or len(machine.gpus)
        per_trial = threads or max(1, machine.num_cores // count)
        slots = tuple(Slot(i, per_trial, machine.gpus[i][0]) for i in range(count))
        names = ", ".join(sorted({name for _, name in machine.gpus[:count]}))
        return Allotment(slots, f"{_count(count, 'trial')} at once, one per GPU ({names})")
    by_memory = max(1, int(machine.memory_bytes / (TRIAL_GIGABYTES * 2**30)))
    if threads is None:
        threads = max(1, machine.num_cores // workers) if workers else MAX_AUTO_THREADS
        threads = min(threads, MAX_AUTO_THREADS, machine.num_cores)
    count = workers or max(1, min(machine.num_cores // threads, by_memory))
    slots = tuple(Slot(i, threads) for i in range(count))
    return Allotment(
        slots,
        f"{_count(count, 'trial')} at once x {_count(threads, 'thread')} "
        f"on {_count(machine.num_cores, 'core')}, no GPU",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30  # Windows has no sysconf; a common size stands in.


def _visible_gpus() -> tuple[tuple[str, str], ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=index,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = []
    for line in done.stdout.splitlines():
        index, _, name = line.partition(",")
        found.append((index.strip(), name.strip()))
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple(found)
    wanted = [part.strip() for part in allowed.split(",")]
    return tuple((index, name) for index, name in found if index in wanted)


def _has_cuda_libraries() -> bool:
    import ctypes.util

    packages = {d.name.lower() for d in importlib.metadata.distributions() if d.name}
    return any(p.startswith("nvidia-cudnn") for p in packages) or bool(
        ctypes.util.find_library("cudnn")
    )
