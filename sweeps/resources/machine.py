"""What this machine offers, and how a sweep shares it: trials at once, threads per trial, GPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from search_spaces.errors import InputError
from sweeps.executors.base import Slot
from sweeps.formatting import count
from sweeps.resources.gpus import (
    Gpu,
    GpuInventory,
    GpuQueryError,
    NvidiaSmi,
    chosen_gpus,
    missing_cuda,
)
from sweeps.resources.packing import LEVELS, GpuLayout, NodeSlots
from sweeps.settings import NONE

CORES_VARIABLE = "LOKY_MAX_CPU_COUNT"
"""Joblib's limit of cores."""
MAX_AUTO_THREADS = 4
"""Small image models gain little from more threads per trial; more trials at once use the rest."""
MANY = 2
"""At least: trials on a cluster whose number nobody has limited run beside each other."""
TRIAL_GIGABYTES = 1.5
"""Memory of one CPU trial: TensorFlow takes 0.7 GB, a small model with its data the rest."""


@dataclass(frozen=True)
class Machine:
    """The cores this process may use, memory in bytes, GPUs, and why some cannot be used."""

    num_cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Allotment:
    """The slots of a sweep and one line that says how they were chosen.

    Attributes:
        layout: the GPUs that trials share; None on cores.
        level: trials on each of them.
        levels: what is to be compared before trials start; with fewer than two nothing is.
        pool: the slots of a cluster, in place of `slots`; None for this machine's.
    """

    slots: tuple[Slot, ...]
    reason: str
    layout: GpuLayout | None = None
    level: int = 1
    levels: tuple[int, ...] = ()
    pool: NodeSlots | None = None

    @property
    def num_parallel(self) -> int:
        """The most trials at once that a measurement or a lack of memory may leave.

        Proposals depend on whether trials run beside each other, so this must not follow from
        what was measured.
        """
        if self.pool is not None:  # How many depends on who joins when; only whether matters.
            return self.pool.most or MANY
        if self.layout is None:
            return len(self.slots)
        return max(self.layout.num_slots(level) for level in (self.level, *self.levels))

    def for_trials(self, num_trials: int | None) -> Allotment:
        """The same, comparing no level that so few trials do not fill; None for any number."""
        if self.layout is None or not self.levels:
            return self
        return replace(self, levels=self.layout.levels(num_trials))

    def at(self, level: int) -> Allotment:
        """The same with so many trials on each GPU, and nothing to compare any more."""
        if self.layout is None:
            return self
        slots, reason = self.layout.first_slots(level), _reason(self.layout, level, ())
        return Allotment(slots, reason, self.layout, level)


def detect_machine(backend: str = "tensorflow", inventory: GpuInventory | None = None) -> Machine:
    """Looks at affinity, the control group's limits, memory and GPUs (by `nvidia-smi`).

    Args:
        backend: what is to run on the GPUs.

    Raises:
        InputError: The variable that limits the cores is not a whole number.
    """
    import joblib  # Its count minds affinity and control groups, on every platform.

    gpus: tuple[Gpu, ...] = ()
    note = ""
    try:
        gpus = (inventory or NvidiaSmi()).gpus()
    except GpuQueryError as error:
        note = f"{error}, so no GPU is used"
    missing = missing_cuda(backend) if gpus else ""
    if missing:
        note, gpus = f"{count(len(gpus), 'GPU')} found, but {missing}", ()
    try:
        num_cores = max(1, joblib.cpu_count())
    except ValueError as error:
        raise InputError(
            f"{CORES_VARIABLE} must be a whole number of cores. Received: "
            f"'{os.environ.get(CORES_VARIABLE, '')}'. Correct it, or unset it."
        ) from error
    return Machine(num_cores, _memory_bytes(), gpus, note)


def with_gpus(machine: Machine, text: str) -> Machine:
    """The machine with the GPUs that `--gpus` names. Pure.

    Raises:
        InputError: One of them is not there.
    """
    gpus = chosen_gpus(text, machine.gpus, machine.note)
    return replace(machine, gpus=gpus, note="" if text == NONE else machine.note)


def allot(
    machine: Machine, workers: int | None, threads: int | None, trials_per_gpu: int | None = 1
) -> Allotment:
    """Divides the machine; None means automatic. Pure.

    On cores: up to four threads per trial, and as many trials at once as cores and memory allow,
    so two cores train one trial at a time. How many trials share a GPU is measured, if automatic.

    Raises:
        InputError: More trials at once than GPUs hold.
    """
    if machine.gpus:
        return _on_gpus(machine, workers, threads, trials_per_gpu)
    by_memory = max(1, int(machine.memory_bytes / (TRIAL_GIGABYTES * 2**30)))
    if threads is None:
        threads = max(1, machine.num_cores // workers) if workers else MAX_AUTO_THREADS
        threads = min(threads, MAX_AUTO_THREADS, machine.num_cores)
    num = workers or max(1, min(machine.num_cores // threads, by_memory))
    slots = tuple(Slot(i, threads) for i in range(num))
    return Allotment(
        slots,
        f"{count(num, 'trial')} at once x {count(threads, 'thread')} "
        f"on {count(machine.num_cores, 'core')}, no GPU"
        + (", so --trials-per-gpu means nothing" if (trials_per_gpu or 1) > 1 else "")
        + (f". {machine.note}" if machine.note else ""),
    )


def _on_gpus(
    machine: Machine, workers: int | None, threads: int | None, trials_per_gpu: int | None
) -> Allotment:
    most = trials_per_gpu or max(LEVELS)
    if workers is not None and workers > most * len(machine.gpus):
        raise InputError(
            f"--workers must be at most the number of GPUs times the trials on each. Received: "
            f"{workers}, with {count(len(machine.gpus), 'GPU')} and at most {most} on each "
            "(--trials-per-gpu)."
        )
    gpus = machine.gpus[:workers]
    layout = GpuLayout(gpus, machine.num_cores, threads, workers, machine.memory_bytes)
    levels = layout.levels() if trials_per_gpu is None else ()
    level = layout.at_most(trials_per_gpu or 1)
    layout.check_level(level)
    reason = _reason(layout, level, levels)
    return Allotment(layout.first_slots(level), reason, layout, level, levels)


def _reason(layout: GpuLayout, level: int, levels: tuple[int, ...]) -> str:
    names = ", ".join(sorted({gpu.name for gpu in layout.gpus}))
    if len(levels) > 1:
        compared = f"{', '.join(map(str, levels[:-1]))} or {levels[-1]}"
        num = count(len(layout.gpus), "GPU")
        return f"{num} ({names}); {compared} trials at once on each, as is fastest"
    num, each = count(layout.num_slots(level), "trial"), "one" if level == 1 else level
    return f"{num} at once, {each} per GPU ({names})"


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
