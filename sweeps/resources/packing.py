"""How many trials live on one GPU, and what each of them gets: pure decisions, no processes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from pipelines.runtime.device import MemoryShare
from search_spaces.errors import InputError
from sweeps.executors.base import Slot
from sweeps.resources.gpus import Gpu

LEVELS = (1, 2, 4)
"""Trials on one GPU that `auto` compares."""
CONTEXT_BYTES = 600 * 2**20
"""What a process takes of a GPU beside the limit that a framework minds: the CUDA context and the
kernels of cuDNN and cuBLAS. A round figure for recent GPUs; not measured here."""
LEAST_BYTES = 512 * 2**20
"""A smaller share is of no use to an image model."""
SPARE_SHARE = 20
"""A warm spare process is kept where its context is at most one part of so many of the memory."""
HOST_BYTES = 3 * 2**30
"""Memory of the machine that a trial on a GPU takes: with CUDA's libraries twice a CPU trial."""
CLEARLY_FASTER = 1.05
"""More trials at once must bring so much: measured times vary by a few percent."""


@dataclass(frozen=True)
class GpuLayout:
    """The GPUs of a sweep and what is shared by the trials on them.

    Attributes:
        num_threads: of each trial; None divides the cores.
        max_slots: trials at once on all GPUs together; None for no limit.
        host_bytes: memory of the machine; None for unknown.
    """

    gpus: tuple[Gpu, ...]
    num_cores: int
    num_threads: int | None = None
    max_slots: int | None = None
    host_bytes: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What a packing is found for: as many GPUs of the same kind are the same."""
        return tuple(sorted(gpu.name for gpu in self.gpus))

    def num_slots(self, level: int) -> int:
        """Trials at once with so many on each GPU."""
        num = level * len(self.gpus)
        return num if self.max_slots is None else min(num, self.max_slots)

    def at_most(self, level: int) -> int:
        """The level, or as many trials on each GPU as `max_slots` lets run on the fullest."""
        if self.max_slots is None:
            return level
        return min(level, -(-self.max_slots // len(self.gpus)))

    def slot(self, gpu: Gpu, level: int, index: int) -> Slot:
        """One of so many equal shares of a GPU."""
        threads = self.num_threads or max(1, self.num_cores // self.num_slots(level))
        return Slot(index, threads, gpu.index, level, _memory_share(gpu, level), gpu.memory_bytes)

    def first_slots(self, level: int) -> tuple[Slot, ...]:
        """The slots of empty GPUs, one on each GPU before any has two."""
        num = len(self.gpus)
        return tuple(
            self.slot(self.gpus[index % num], level, index)
            for index in range(self.num_slots(level))
        )

    def levels(self, num_trials: int | None = None) -> tuple[int, ...]:
        """What `auto` compares here: levels that differ, and leave each trial enough memory.

        Args:
            num_trials: levels that so few trials do not fill are left out; None for any number.
        """
        found: list[int] = []
        for level in map(self.at_most, LEVELS):
            more = not found or self.num_slots(level) > self.num_slots(found[-1])
            filled = num_trials is None or self.num_slots(level) <= num_trials
            if not found or (more and filled and self._fits(level)):
                found.append(level)
        return tuple(found)

    def fitting(self, level: int) -> int:
        """The level, or the highest below it at which each trial has enough memory."""
        level = self.at_most(level)
        while level > 1 and not self._fits(level):
            level -= 1
        return level

    def _fits(self, level: int) -> bool:
        host = self.host_bytes is None or self.num_slots(level) * HOST_BYTES <= self.host_bytes
        return host and all(_has_room(gpu, level) for gpu in self.gpus)

    def check_level(self, level: int) -> None:
        """Raises InputError for a level that leaves a trial too little memory."""
        for gpu in self.gpus:
            if level > 1 and not _has_room(gpu, level):
                raise InputError(
                    f"--trials-per-gpu must leave each trial {LEAST_BYTES // 2**20} MiB beside "
                    f"CUDA's own {CONTEXT_BYTES // 2**20} MiB. Received: {level}, on GPU "
                    f"{gpu.index} with {(gpu.memory_bytes or 0) / 2**30:.0f} GiB."
                )

    def spare_slots(self, level: int) -> tuple[Slot, ...]:
        """Shares for which a warm process may wait, one on each GPU that has room for it."""
        return tuple(
            self.slot(gpu, level, index) for index, gpu in enumerate(self.gpus) if _can_spare(gpu)
        )


def _can_spare(gpu: Gpu) -> bool:
    return gpu.memory_bytes is not None and gpu.memory_bytes >= SPARE_SHARE * CONTEXT_BYTES


def _usable_bytes(gpu: Gpu, level: int) -> int | None:
    """What is left for the trials' own arrays, beside their contexts and that of a spare."""
    if gpu.memory_bytes is None:
        return None
    return gpu.memory_bytes - (level + _can_spare(gpu)) * CONTEXT_BYTES


def _has_room(gpu: Gpu, level: int) -> bool:
    usable = _usable_bytes(gpu, level)
    return usable is None or usable // level >= LEAST_BYTES


def _memory_share(gpu: Gpu, level: int) -> MemoryShare | None:
    """None for a trial that has its GPU to itself: it may take what it finds."""
    if level == 1:
        return None
    usable = _usable_bytes(gpu, level)
    if usable is None or gpu.memory_bytes is None:
        return MemoryShare(0.9 / level)
    num_bytes = usable // level
    return MemoryShare(num_bytes / gpu.memory_bytes, num_bytes)


def after_out_of_memory(level: int, slot: Slot) -> int | None:
    """The level once a trial's memory ran out on its slot; None where it was alone on its GPU.

    Neighbours whose memory ran out at the same time halve it once, not once each: what counts is
    the packing that the trial ran under.
    """
    if slot.gpu is None or slot.num_sharing < 2:
        return None
    return min(level, slot.num_sharing // 2)


@dataclass(frozen=True)
class LevelMeasure:
    """What one level costs, measured with all slots at work.

    Attributes:
        trial_seconds: one trial from its start to its end.
        memory_bytes: the most that one trial took of its GPU; None where nobody could tell.
    """

    num_slots: int
    trial_seconds: float
    memory_bytes: int | None = None

    @property
    def trials_per_hour(self) -> float:
        """Of all GPUs together."""
        return 3600 * self.num_slots / self.trial_seconds


def fastest(measured: Mapping[int, LevelMeasure]) -> int:
    """The level with the most trials per hour; of nearly equal ones the lowest. 1 without any."""
    best = 1
    for level, measure in sorted(measured.items()):
        if best not in measured or (
            measure.trials_per_hour > CLEARLY_FASTER * measured[best].trials_per_hour
        ):
            best = level
    return best


class Slots(Protocol):
    """The slots of a sweep: who takes one gives that one back."""

    @property
    def has_room(self) -> bool:
        """Whether `take` would return a slot."""

    @property
    def has_room_alone(self) -> bool:
        """Whether `take(alone=True)` would return one."""

    def take(self, *, alone: bool = False) -> Slot:
        """A free slot; IndexError without one.

        Args:
            alone: of a machine on which nothing runs, nor will before the slot is given back.
        """

    def empty_one(self, wanted: bool) -> None:
        """Whether a trial waits for a machine of its own: one of them takes no others meanwhile."""

    def give_back(self, slot: Slot) -> None:
        """The slot is free again."""

    def level_of(self, slot: Slot) -> int:
        """Trials on one GPU like the slot's, for those that start from now on."""

    def lower(self, level: int, slot: Slot) -> None:
        """From now on fewer trials share such a GPU; those that run keep what they have."""


def machine_of(node: str) -> str:
    """What a node is called whenever it joins: without the number of its further times."""
    return re.sub(r"(-[0-9a-f]{6})\.\d+$", r"\1", node)


class NodeSlots(Slots, Protocol):
    """Slots of machines that come and go."""

    @property
    def num_slots(self) -> int:
        """How many there are now, free or taken."""

    @property
    def nodes(self) -> Mapping[str, str]:
        """Name of each machine that is there now -> what it has, for people."""

    @property
    def most(self) -> int | None:
        """Trials at once in all, whoever joins; None for no limit."""

    @property
    def num_gpus_to_come(self) -> int:
        """GPUs of machines that are there and cannot take trials yet."""

    def spare(self, machines: Collection[str]) -> None:
        """These (`machine_of`) get no more trials while there are others."""

    def has_room_beyond(self, machines: Collection[str]) -> bool:
        """Whether `take` would return a slot that is not of these machines, if there are others."""

    def take(self, *, alone: bool = False, beyond: Collection[str] = ()) -> Slot:
        """As `Slots.take`, of other machines than `beyond`, if there are others."""

    def gpus_of(self, slot: Slot) -> tuple[str, ...]:
        """The names of the GPUs of the slot's machine, also of one that is gone."""

    def layouts(self) -> Mapping[tuple[str, ...], tuple[str, GpuLayout]]:
        """Names of GPUs -> a machine that is there and has them, and how they are shared."""

    def settle(self, gpus: tuple[str, ...], level: int) -> None:
        """Machines with these GPUs have so many trials on each, those that join later, too."""


class FixedSlots:
    """Slots that stay what they are; the lowest free index goes first."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._free, self._num = list(slots), len(slots)
        self._alone: Slot | None = None
        self._is_emptied = False

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free) and self._alone is None and not self._is_emptied

    @property
    def has_room_alone(self) -> bool:
        """Whether all slots are free."""
        return len(self._free) == self._num

    def take(self, *, alone: bool = False) -> Slot:
        """The free slot of the lowest index."""
        slot = self._free.pop(0)
        self._alone = slot if alone else self._alone
        return slot

    def empty_one(self, wanted: bool) -> None:
        """Whether nothing starts until all slots are free."""
        self._is_emptied = wanted

    def give_back(self, slot: Slot) -> None:
        """The slot is free again."""
        self._alone = None if slot == self._alone else self._alone
        self._free.append(slot)
        self._free.sort(key=lambda free: free.index)

    def level_of(self, slot: Slot) -> int:
        """Nothing shares a GPU here."""
        return 1

    def lower(self, level: int, slot: Slot) -> None:
        """Nothing shares a GPU here."""


class PackedSlots:
    """Shares of GPUs, cut as they are taken: the emptiest GPU goes first.

    While trials of an earlier, tighter packing still run, a new share fits only where the shares
    on its GPU do not add up to more than one.
    """

    def __init__(self, layout: GpuLayout, level: int) -> None:
        self._layout, self.level = layout, level
        self._busy: list[Slot] = []
        self._alone: Slot | None = None
        self._is_emptied = False

    @property
    def has_room(self) -> bool:
        """Whether another trial may start."""
        return self._roomiest() is not None and self._alone is None and not self._is_emptied

    @property
    def has_room_alone(self) -> bool:
        """Whether nothing runs on any GPU."""
        return not self._busy

    def empty_one(self, wanted: bool) -> None:
        """Whether nothing starts until nothing runs."""
        self._is_emptied = wanted

    def take(self, *, alone: bool = False) -> Slot:
        """A share of the emptiest GPU."""
        gpu = self._roomiest()
        if gpu is None:
            raise IndexError("No GPU has room for another trial.")
        used = {slot.index for slot in self._busy}
        index = next(index for index in range(len(used) + 1) if index not in used)
        level = 1 if alone and not self._busy else self.level
        slot = self._layout.slot(gpu, level, index)
        self._busy.append(slot)
        self._alone = slot if alone else self._alone
        return slot

    def give_back(self, slot: Slot) -> None:
        """The share is free again."""
        self._alone = None if slot == self._alone else self._alone
        self._busy.remove(slot)

    def level_of(self, slot: Slot) -> int:
        """Trials on each GPU, for those that start from now on."""
        return self.level

    def lower(self, level: int, slot: Slot) -> None:
        """From now on shares are larger."""
        self.level = min(self.level, level)

    def _roomiest(self) -> Gpu | None:
        most = self._layout.max_slots
        if most is not None and len(self._busy) >= most:
            return None
        used = {gpu.index: Fraction(0) for gpu in self._layout.gpus}
        for slot in self._busy:
            assert slot.gpu is not None
            used[slot.gpu] += Fraction(1, slot.num_sharing)
        gpu = min(self._layout.gpus, key=lambda gpu: used[gpu.index])
        return gpu if used[gpu.index] + Fraction(1, self.level) <= 1 else None
