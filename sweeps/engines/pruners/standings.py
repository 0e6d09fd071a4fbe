"""Trials in order of their values, kept so as they come: nothing is sorted for a decision."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator


class Standings:
    """Numbers of trials by a key, lower ones first; of equals the earlier trial."""

    def __init__(self) -> None:
        self._keys: dict[int, float] = {}
        self._order: list[tuple[float, int]] = []

    def __contains__(self, number: int) -> bool:
        return number in self._keys

    def __iter__(self) -> Iterator[int]:
        """The trials, best first."""
        return (number for _, number in self._order)

    def __len__(self) -> int:
        return len(self._order)

    def put(self, number: int, key: float) -> None:
        """Places a trial, or moves it; a key that is NaN comes last."""
        self.remove(number)
        self._keys[number] = key = math.inf if math.isnan(key) else key
        insort(self._order, (key, number))

    def remove(self, number: int) -> None:
        """Takes a trial out, where it is in."""
        key = self._keys.pop(number, None)
        if key is not None:
            del self._order[bisect_left(self._order, (key, number))]

    def rank(self, number: int) -> int:
        """A trial's place, from 0."""
        return bisect_left(self._order, (self._keys[number], number))

    def key(self, number: int) -> float:
        """What a trial is placed by."""
        return self._keys[number]

    def place(self, rank: int) -> tuple[float, int]:
        """Key and number of the trial with that rank."""
        return self._order[rank]

    def first(self, count: int) -> list[int]:
        """The best so many trials, best first."""
        return [number for _, number in self._order[:count]]

    def since(self, place: tuple[float, int]) -> list[int]:
        """The trials from that place of these or of other standings on, best first."""
        return [number for _, number in self._order[bisect_left(self._order, place) :]]
