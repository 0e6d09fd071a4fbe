"""The slots of a cluster, whose nodes come and go: who takes one gives that one back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from sweeps.cluster.protocol import Node
from sweeps.executors.base import Slot
from sweeps.resources.machine import TRIAL_GIGABYTES
from sweeps.resources.packing import FixedSlots, GpuLayout, PackedSlots, Slots, machine_of

ROOMY = 0.9
"""A node with this share of the most memory that a node has is one of those with most."""


class ClusterSlots:
    """Slots on the nodes that are there when one is asked for; the emptiest node goes first,
    and of those the one that has waited longest.

    Args:
        nodes: the nodes that take jobs now, by name.
        num_threads: of every trial, whatever its node: numbers depend on it.
        trials_per_gpu: on every GPU for which nothing else is settled.
        most: trials at once in all; None for as many as there is room for.
        to_come: GPUs of nodes that do not take jobs yet.
    """

    def __init__(
        self,
        nodes: Callable[[], Mapping[str, Node]],
        num_threads: int,
        trials_per_gpu: int = 1,
        most: int | None = None,
        to_come: Callable[[], int] = lambda: 0,
    ) -> None:
        self._nodes, self._num_threads, self.most = nodes, num_threads, most
        self._spared: frozenset[str] = frozenset()
        self._to_come = to_come
        self._trials_per_gpu = trials_per_gpu
        self._levels: dict[tuple[str, ...], int] = {}
        self._gpus: dict[str, tuple[str, ...]] = {}
        """By node, also of those that are gone: a trial that was there may tell of them."""
        self._free: dict[str, Slots] = {}
        self._taken: dict[Slot, Slot] = {}
        self._turns: dict[str, int] = {}
        self._is_one_emptied = False

    @property
    def nodes(self) -> dict[str, str]:
        """Name -> what it has, of the nodes of now."""
        return {name: node.text for name, node in self._nodes().items()}

    @property
    def num_slots(self) -> int:
        """Trials at once that there is room for, not on nodes that are spared; 0 without any."""
        found = sum(self._num_slots(node) for node in self._usable().values())
        return found if self.most is None else min(found, self.most)

    @property
    def has_room(self) -> bool:
        """Whether `take` would return a slot."""
        return self._emptiest() is not None

    @property
    def has_room_alone(self) -> bool:
        """Whether nothing runs on one of the nodes that have most memory."""
        return self._idle() is not None

    def spare(self, machines: Collection[str]) -> None:
        """These (`machine_of`) get no more trials while there are others."""
        self._spared = frozenset(machines)

    def has_room_beyond(self, machines: Collection[str]) -> bool:
        """Whether `take` would return a slot that is not of these machines, if there are others."""
        return self._emptiest(machines) is not None

    def empty_one(self, wanted: bool) -> None:
        """Whether one of the nodes that have most memory takes nothing until it is idle."""
        self._is_one_emptied = wanted

    def take(self, *, alone: bool = False, beyond: Collection[str] = ()) -> Slot:
        """A slot of the node that is next; its index is free in all.

        Args:
            alone: of a node on which nothing runs, if there is one.
            beyond: not of these machines, if there are others.
        """
        name = (self._idle() if alone else None) or self._emptiest(beyond)
        if name is None:
            raise IndexError("No node has room for another trial.")
        self._turns[name] = 1 + max(self._turns.values(), default=0)
        own = self._free[name].take(alone=alone)
        used = {slot.index for slot in self._taken}
        index = next(index for index in range(len(used) + 1) if index not in used)
        slot = replace(own, index=index, node=name)
        self._taken[slot] = own
        return slot

    def give_back(self, slot: Slot) -> None:
        """The slot is free again, or gone with its node."""
        own = self._taken.pop(slot)
        if slot.node in self._now():
            self._free[slot.node].give_back(own)

    @property
    def num_gpus_to_come(self) -> int:
        """GPUs of nodes that do not take jobs yet."""
        return self._to_come()

    def gpus_of(self, slot: Slot) -> tuple[str, ...]:
        """The names of the GPUs of the slot's node, also of one that is gone."""
        return self._gpus.get(slot.node, ())

    def level_of(self, slot: Slot) -> int:
        """Trials on one GPU of nodes with such GPUs as the slot's, from now on."""
        return self._level(self.gpus_of(slot))

    def lower(self, level: int, slot: Slot) -> None:
        """From now on fewer trials share a GPU of such nodes."""
        gpus = self.gpus_of(slot)
        self._levels[gpus] = level
        for name, free in self._free.items():
            if self._gpus[name] == gpus:
                free.lower(level, slot)

    def layouts(self) -> dict[tuple[str, ...], tuple[str, GpuLayout]]:
        """Names of GPUs -> the first node by name that has them, and how they are shared."""
        found = {}
        for name, node in sorted(self._now().items(), reverse=True):
            if node.machine.gpus:
                found[self._gpus[name]] = (name, self._layout(node))
        return found

    def settle(self, gpus: tuple[str, ...], level: int) -> None:
        """Nodes with these GPUs have so many trials on each, those that join later, too.

        Nothing runs on them yet.
        """
        self._levels[gpus] = level
        self._free = {name: free for name, free in self._free.items() if self._gpus[name] != gpus}

    def _now(self) -> Mapping[str, Node]:
        """The nodes of now, each with its slots."""
        nodes = self._nodes()
        for name in self._free.keys() - nodes.keys():
            del self._free[name]
        for name in nodes.keys() - self._free.keys():
            layout = self._layout(nodes[name])
            self._gpus[name] = layout.names
            self._free[name] = self._slots_of(nodes[name], layout)
        return nodes

    def _level(self, gpus: tuple[str, ...]) -> int:
        return self._levels.get(gpus, self._trials_per_gpu)

    def _layout(self, node: Node) -> GpuLayout:
        machine = node.machine
        return GpuLayout(
            machine.gpus, machine.num_cores, self._num_threads, self.most, machine.memory_bytes
        )

    def _num_slots(self, node: Node) -> int:
        """Trials at once on one node: shares of its GPUs, or what cores and memory allow."""
        machine = node.machine
        if machine.gpus:
            layout = self._layout(node)
            return layout.num_slots(layout.fitting(self._level(layout.names)))
        by_memory = int(machine.memory_bytes / (TRIAL_GIGABYTES * 2**30))
        return max(1, min(machine.num_cores // self._num_threads, by_memory))

    def _slots_of(self, node: Node, layout: GpuLayout) -> Slots:
        if layout.gpus:
            return PackedSlots(layout, layout.fitting(self._level(layout.names)))
        return FixedSlots([Slot(i, self._num_threads) for i in range(self._num_slots(node))])

    def _emptiest(self, beyond: Collection[str] = ()) -> str | None:
        if self.most is not None and len(self._taken) >= self.most:
            return None
        emptied = self._roomy()[0] if self._is_one_emptied and self._now() else ""
        names = self._by_load(self._usable(beyond))
        return next((n for n in names if self._free[n].has_room and n != emptied), None)

    def _idle(self) -> str | None:
        """A node with most memory on which nothing runs."""
        if self.most is not None and len(self._taken) >= self.most:
            return None
        return next((n for n in self._roomy() if self._free[n].has_room_alone), None)

    def _roomy(self) -> list[str]:
        """The nodes with most memory, the emptiest first."""
        nodes = self._usable()
        most = max((node.machine.memory_bytes for node in nodes.values()), default=0)
        large = {n: node for n, node in nodes.items() if node.machine.memory_bytes >= ROOMY * most}
        return self._by_load(large)

    def _usable(self, beyond: Collection[str] = ()) -> Mapping[str, Node]:
        """The nodes of now without those that are spared, and of these without `beyond`; what
        leaves none is left out."""
        nodes = self._now()
        for machines in (self._spared, beyond):
            nodes = {n: node for n, node in nodes.items() if machine_of(n) not in machines} or nodes
        return nodes

    def _by_load(self, nodes: Mapping[str, Node]) -> list[str]:
        """Names of nodes, the emptiest first, of those the one that has waited longest."""
        busy = Counter(slot.node for slot in self._taken)

        def order(name: str) -> tuple[float, int, str]:
            share = busy[name] / self._num_slots(nodes[name])
            return share, self._turns.get(name, 0), name

        return sorted(nodes, key=order)
