"""How many trials share a GPU while a sweep runs: settled first, halved when memory runs out.

A sweep begins as asked, as remembered, or as measured now.

What was found out is kept beside the sweep's settings, so that a resumed sweep neither measures
again nor runs out of memory once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic

from pipelines.runtime.filesystem import write_json_atomically
from search_spaces.files import UnusableFileError, read_json
from search_spaces.stored_values import as_kind
from sweeps.executors.base import Executor, Slot
from sweeps.resources.calibration import Bench
from sweeps.resources.machine import Allotment
from sweeps.resources.packing import (
    FixedSlots,
    GpuLayout,
    NodeSlots,
    PackedSlots,
    Slots,
    after_out_of_memory,
)

LOOK_SECONDS = 0.5


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


def write_packing(path: Path, packing: Packing) -> None:
    """Writes it beside those of other GPUs and requests, whole, or leaves what is there.

    A sweep that lost it would only measure again.
    """
    others = [p for p in packings(path) if (p.asked, p.gpus) != (packing.asked, packing.gpus)]
    write_json_atomically(path, [asdict(p) for p in (*others, packing)])


def read_packing(path: Path, allotment: Allotment, asked: int | None) -> Packing | None:
    """What an earlier session found for such GPUs and this request; None without any."""
    if allotment.layout is None:
        return None
    return _known(path, allotment.layout.names, asked, (allotment.level, *allotment.levels))


def _known(
    path: Path, gpus: tuple[str, ...], asked: int | None, levels: Sequence[int]
) -> Packing | None:
    fitting = [p for p in packings(path) if (p.asked, p.gpus) == (asked, gpus)]
    return next((p for p in fitting if 1 <= p.level <= max(levels)), None)


def packings(path: Path) -> list[Packing]:
    """All that were written; none where they cannot be read."""
    try:
        found = read_json(path)
        # Before 28 November 2026 there was one, and no list.
        return [as_kind(Packing, one) for one in (found if isinstance(found, list) else [found])]
    except (FileNotFoundError, UnusableFileError):
        return []


def packed(
    allotment: Allotment,
    asked: int | None,
    num_trials: int | None,
    path: Path,
    record: Callable[[int, str], None],
    bench: Bench,
) -> Allotment:
    """The allotment with its packing settled, which is recorded and remembered.

    On a cluster the first node of each kind of GPU measures, one after the other.

    Args:
        asked: `--trials-per-gpu`; None for auto.
        num_trials: of the sweep; None for any number.
        path: what was found out is remembered there.
        record: takes how many trials share a GPU, and why.
    """
    if allotment.pool is not None:
        _pack_nodes(allotment.pool, asked, num_trials, path, record, bench)
        return allotment
    allotment = allotment.for_trials(num_trials)
    layout = allotment.layout
    if layout is None:
        return allotment
    levels = allotment.levels or (allotment.level,)
    found = _settled(layout.names, levels, layout.first_slots, asked, path, bench)
    if found is None:
        return allotment.at(1)  # A resumed sweep measures again.
    level, reason = found
    bench.say(f"packing   {reason}")
    record(level, reason)
    return allotment.at(level)


def _pack_nodes(
    pool: NodeSlots,
    asked: int | None,
    num_trials: int | None,
    path: Path,
    record: Callable[[int, str], None],
    bench: Bench,
) -> None:
    deadline = monotonic() + bench.limit_seconds
    while asked is None and pool.num_gpus_to_come and monotonic() < deadline:
        if bench.interrupts.received:
            return
        bench.executor.events(LOOK_SECONDS)  # Nothing runs; nodes tell that they are ready.
    layouts = pool.layouts()
    levels_of = {
        gpus: (layout.at_most(asked),) if asked is not None else layout.levels(num_trials)
        for gpus, (_, layout) in layouts.items()
    }
    new = [
        g
        for g, levels in levels_of.items()
        if len(levels) > 1 and not _known(path, g, asked, levels)
    ]
    bench = replace(bench, limit_seconds=(deadline - monotonic()) / max(1, len(new)))
    reasons: list[str] = []
    highest = 1
    for gpus, (node, layout) in sorted(layouts.items()):
        levels, slots_of = levels_of[gpus], partial(_slots_on, node, layout)
        found = _settled(gpus, levels, slots_of, asked, path, bench, f" on {node}")
        if found is None:
            return
        level, reason = found
        pool.settle(gpus, level)
        highest = max(highest, level)
        reasons.append(f"{kind_text(gpus)}: {reason}")
        bench.say(f"packing   {reasons[-1]}")
    if reasons:
        record(highest, "; ".join(reasons))


def _slots_on(node: str, layout: GpuLayout, level: int) -> list[Slot]:
    return [replace(slot, node=node) for slot in layout.first_slots(level)]


def _settled(
    gpus: tuple[str, ...],
    levels: Sequence[int],
    slots_of: Callable[[int], Sequence[Slot]],
    asked: int | None,
    path: Path,
    bench: Bench,
    where: str = "",
) -> tuple[int, str] | None:
    """How many trials share each of these GPUs, and why; None where an interrupt came first."""
    known = _known(path, gpus, asked, levels)
    if known is not None:
        return known.level, known.reason
    if len(levels) < 2:
        return levels[0], "as asked" if asked else "no more fit, or so few trials need no more"
    found = bench.calibrate(levels, slots_of, where)
    if bench.interrupts.received:
        return None
    # What could not be measured may be possible in the next session.
    if found.measured and not found.lost:
        write_packing(path, Packing(asked, gpus, found.level, found.text))
    return found.level, found.text


def kind_text(gpus: Sequence[str]) -> str:
    """GPUs by their names, for people: `2 x NVIDIA H100, 1 x NVIDIA L4`."""
    return ", ".join(f"{num} x {name}" for name, num in Counter(gpus).items())


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
        self._layout, self._level, self._asked, self._path = layout, level, asked, path
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
            self._executor.keep_warm(self._layout.spare_slots(self._level))

    def ran_out_of_memory(self, slot: Slot) -> str | None:
        """A trial's memory ran out on its slot, which is free again.

        Returns:
            What changes now, in a few words; None where nothing does, because the trial had its
            GPU to itself.
        """
        now = self.slots.level_of(slot)
        level = after_out_of_memory(now, slot)
        if level is None or (self._layout is None and self._pool is None):
            self._executor.keep_warm(())  # What a spare takes may be what was missing.
            return None
        text = f"memory ran out with {slot.num_sharing} trials per GPU, {level} from now on"
        if level < now:
            self._lower(level, text, slot)
        return text

    def _lower(self, level: int, text: str, slot: Slot) -> None:
        self.slots.lower(level, slot)
        if self._layout is not None:
            self._level, self._num_slots = level, self._layout.num_slots(level)
            self.keep_warm()
        gpus = self._layout.names if self._layout is not None else ()
        if self._pool is not None:
            gpus = self._pool.gpus_of(slot)
        write_packing(self._path, Packing(self._asked, gpus, level, text))
        self._record(level, text if self._pool is None else f"{kind_text(gpus)}: {text}")
