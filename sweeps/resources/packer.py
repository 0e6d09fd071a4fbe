"""How many trials share a GPU while a sweep runs: given by its plan, halved when memory runs out.

What was found out is kept beside the sweep's settings, so that a resumed sweep neither measures
again nor runs out of memory once more.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sweeps.driver.recorder import Recorder
from sweeps.executors.base import Executor, Slot
from sweeps.resources.machine import Allotment
from sweeps.resources.packing import (
    FixedSlots,
    GpuLayout,
    PackedSlots,
    Slots,
    after_out_of_memory,
)


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
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(asdict(packing), indent=1), encoding="utf-8")
    new.replace(path)


def read_packing(path: Path, allotment: Allotment, asked: int | None) -> Packing | None:
    """What an earlier session found for such GPUs and this request; None without any."""
    if allotment.layout is None:
        return None
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        found = Packing(body["asked"], tuple(body["gpus"]), int(body["level"]), body["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = {allotment.level, *allotment.levels}
    fits = found.asked == asked and found.gpus == gpu_names(allotment.layout)
    return found if fits and 1 <= found.level <= max(known) else None


class Packer:
    """The slots of a running sweep; `slots` is the loop's to take from and give back to."""

    def __init__(
        self,
        fixed: tuple[Slot, ...],
        layout: GpuLayout | None,
        level: int,
        asked: int | None,
        path: Path,
        executor: Executor,
        recorder: Recorder,
    ) -> None:
        self._layout, self._asked, self._path = layout, asked, path
        self._executor, self._recorder = executor, recorder
        self.slots: Slots = FixedSlots(fixed) if layout is None else PackedSlots(layout, level)
        self.num_slots = len(fixed) if layout is None else layout.num_slots(level)

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
        if level is None or self._layout is None:
            self._executor.keep_warm(())  # What a spare takes may be what was missing.
            return None
        text = f"memory ran out with {slot.num_sharing} trials per GPU, {level} from now on"
        if level < self.slots.level:
            self._lower(self._layout, level, text)
        return text

    def _lower(self, layout: GpuLayout, level: int, text: str) -> None:
        self.slots.lower(level)
        self.num_slots = layout.num_slots(level)
        self.keep_warm()
        write_packing(self._path, Packing(self._asked, gpu_names(layout), level, text))
        self._recorder.packed(level, text)
