"""How many trials share a GPU while a sweep runs: settled first, halved when memory runs out.

A sweep begins as asked, as remembered, or as measured now.

What was found out is kept beside the sweep's settings, so that a resumed sweep neither measures
again nor runs out of memory once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.runtime.filesystem import write_json_atomically
from pipelines.training.cost import MeasureTask
from search_spaces.files import UnusableFileError, read_json
from search_spaces.stored_values import as_kind
from sweeps.executors.base import Executor, Slot
from sweeps.interrupts import Interrupts
from sweeps.resources.calibration import calibrate, seconds_for
from sweeps.resources.gpu_monitor import GpuWatch
from sweeps.resources.machine import Allotment
from sweeps.resources.packing import (
    FixedSlots,
    GpuLayout,
    NodeSlots,
    PackedSlots,
    Slots,
    after_out_of_memory,
)
from sweeps.state.paths import SweepPaths


@dataclass(frozen=True)
class Packing:
    """How many trials share each GPU, why, and for which GPUs and request that was found.

    Attributes:
        asked: `--trials-per-gpu`; None for auto.
        reason: one line for people.
    """

    asked: int | None
    gpus: tuple[str, ...]
    level: int
    reason: str


def gpu_names(layout: GpuLayout) -> tuple[str, ...]:
    """What a packing was found for: as many GPUs of the same kind are the same."""
    return tuple(sorted(gpu.name for gpu in layout.gpus))


def write_packing(path: Path, packing: Packing) -> None:
    """Writes it whole, or leaves the old one: a sweep that lost it would only measure again."""
    write_json_atomically(path, asdict(packing))


def read_packing(path: Path, allotment: Allotment, asked: int | None) -> Packing | None:
    """What an earlier session found for such GPUs and this request; None without any."""
    if allotment.layout is None:
        return None
    try:
        found = as_kind(Packing, read_json(path))
    except (FileNotFoundError, UnusableFileError):
        return None
    known = {allotment.level, *allotment.levels}
    fits = found.asked == asked and found.gpus == gpu_names(allotment.layout)
    return found if fits and 1 <= found.level <= max(known) else None


def packed(
    allotment: Allotment,
    asked: int | None,
    paths: SweepPaths,
    record: Callable[[int, str], None],
    executor: Executor,
    watch: GpuWatch | None,
    interrupts: Interrupts,
    task: Callable[[], MeasureTask],
    timeout_seconds: float | None,
    say: Callable[[str], None],
) -> Allotment:
    """The allotment with its packing settled, which is recorded and remembered.

    Args:
        asked: `--trials-per-gpu`; None for auto.
        record: takes how many trials share a GPU, and why.
        task: what to measure, made only where something is measured.
        timeout_seconds: the time limit of the sweep, of which a measurement takes a part.
    """
    if allotment.layout is None:
        return allotment
    known = read_packing(paths.packing, allotment, asked)
    if known is not None:
        level, reason = known.level, known.reason
    elif len(allotment.levels) > 1:
        found = calibrate(
            allotment, task(), executor, watch, interrupts, paths.sweep / "measuring",
            seconds_for(timeout_seconds), say,
        )  # fmt: skip
        if interrupts.received:
            return allotment.at(1)  # Nothing was found out; a resumed sweep measures again.
        level, reason = found.level, found.text
        if found.measured:  # What could not be measured may be possible in the next session.
            names = gpu_names(allotment.layout)
            write_packing(paths.packing, Packing(asked, names, level, reason))
    else:
        level = allotment.level
        reason = "as asked" if asked else "no more fit, or so few trials need no more"
    say(f"packing   {reason}")
    record(level, reason)
    return allotment.at(level)


class Packer:
    """The slots of a running sweep; `slots` is the loop's to take from and give back to.

    Args:
        record: takes how many trials share a GPU from now on, and why.
        pool: the slots of a cluster, in place of those of this machine.
    """

    def __init__(
        self,
        fixed: tuple[Slot, ...],
        layout: GpuLayout | None,
        level: int,
        asked: int | None,
        path: Path,
        executor: Executor,
        record: Callable[[int, str], None],
        pool: NodeSlots | None = None,
    ) -> None:
        self._pool = pool
        self._layout, self._asked, self._path = layout, asked, path
        self._executor, self._record = executor, record
        own: Slots = FixedSlots(fixed) if layout is None else PackedSlots(layout, level)
        self.slots: Slots = own if pool is None else pool
        self._num_slots = len(fixed) if layout is None else layout.num_slots(level)

    @property
    def num_slots(self) -> int:
        """Trials at once now; 0 where a cluster has no node left."""
        return self._num_slots if self._pool is None else self._pool.num_slots

    def keep_warm(self) -> None:
        """Lets a process wait on each GPU for the next trial."""
        if self._layout is not None:
            self._executor.keep_warm(self._layout.spare_slots(self.slots.level))

    def ran_out_of_memory(self, slot: Slot) -> str | None:
        """A trial's memory ran out on its slot, which is free again.

        Returns:
            What changes now, in a few words; None where nothing does, because the trial had its
            GPU to itself.
        """
        level = after_out_of_memory(self.slots.level, slot)
        if level is None or (self._layout is None and self._pool is None):
            self._executor.keep_warm(())  # What a spare takes may be what was missing.
            return None
        text = f"memory ran out with {slot.num_sharing} trials per GPU, {level} from now on"
        if level < self.slots.level:
            self._lower(level, text)
        return text

    def _lower(self, level: int, text: str) -> None:
        self.slots.lower(level)
        if self._layout is not None:
            self._num_slots = self._layout.num_slots(level)
            self.keep_warm()
            names = gpu_names(self._layout)
            write_packing(self._path, Packing(self._asked, names, level, text))
        self._record(level, text)
