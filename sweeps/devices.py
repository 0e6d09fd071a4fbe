"""What this machine offers, and how a sweep shares it: trials at once, threads per trial, GPUs.

The driver never touches a GPU: it asks `nvidia-smi`.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import InputError
from sweeps.executors.base import Slot
from sweeps.formatting import count

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
        num = workers or len(machine.gpus)
        per_trial = threads or max(1, machine.num_cores // num)
        slots = tuple(Slot(i, per_trial, machine.gpus[i][0]) for i in range(num))
        names = ", ".join(sorted({name for _, name in machine.gpus[:num]}))
        return Allotment(slots, f"{count(num, 'trial')} at once, one per GPU ({names})")
    by_memory = max(1, int(machine.memory_bytes / (TRIAL_GIGABYTES * 2**30)))
    if threads is None:
        threads = max(1, machine.num_cores // workers) if workers else MAX_AUTO_THREADS
        threads = min(threads, MAX_AUTO_THREADS, machine.num_cores)
    num = workers or max(1, min(machine.num_cores // threads, by_memory))
    slots = tuple(Slot(i, threads) for i in range(num))
    return Allotment(
        slots,
        f"{count(num, 'trial')} at once x {count(threads, 'thread')} "
        f"on {count(machine.num_cores, 'core')}, no GPU",
    )


def _memory_bytes() -> int:
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        physical = 8 * 2**30  # Windows has no sysconf; a common size stands in.
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical


def _visible_gpus() -> tuple[tuple[str, str], ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[cell.strip() for cell in line.split(",", 2)] for line in done.stdout.splitlines()]
    found = [(index, uuid, name) for index, uuid, name in rows]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple((index, name) for index, _, name in found)
    # The variable may hold indices or (the start of) unique ids.
    wanted = [part.strip() for part in allowed.split(",") if part.strip()]
    return tuple(
        (index, name)
        for index, uuid, name in found
        if any(part == index or (len(part) > 3 and uuid.startswith(part)) for part in wanted)
    )


def _has_cuda_libraries() -> bool:
    import ctypes.util

    packages = {d.name.lower() for d in importlib.metadata.distributions() if d.name}
    return any(p.startswith("nvidia-cudnn") for p in packages) or bool(
        ctypes.util.find_library("cudnn")
    )
