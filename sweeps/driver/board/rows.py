"""The rows of a sweep by what is asked of them again and again: nothing is searched for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING

from sweeps.engines.base import TrialState
from sweeps.engines.pruners.standings import Standings

if TYPE_CHECKING:
    from sweeps.driver.board.row import TrialRow


class TrialRows(MutableMapping[int, "TrialRow"]):
    """Rows by number, also by state and by value.

    A row that is in here tells of each change of what is `WATCHED`.

    Args:
        sort_key: of a value, lower for better.

    Attributes:
        listeners: called with a row that is new or has changed, once all here is up to date.
    """

    WATCHED = frozenset({"state", "waiting", "value", "duplicate_of", "breaks_limit"})

    def __init__(self, sort_key: Callable[[float], float]) -> None:
        self._sort_key = sort_key
        self._rows: dict[int, TrialRow] = {}
        self._states: dict[TrialState, dict[int, TrialRow]] = {state: {} for state in TrialState}
        self._waiting: dict[int, TrialRow] = {}
        self._untrained: dict[int, TrialRow] = {}
        self._ranking = Standings()
        self.listeners: list[Callable[[TrialRow], None]] = []

    def __getitem__(self, number: int) -> TrialRow:
        return self._rows[number]

    def __setitem__(self, number: int, row: TrialRow) -> None:
        if number in self._rows:
            self._rows[number].rows = None
        self._rows[number], row.rows = row, self
        self.changed(row)

    def __delitem__(self, number: int) -> None:
        gone = self._rows.pop(number)
        gone.rows = None
        for group in (*self._states.values(), self._waiting, self._untrained):
            group.pop(number, None)
        self._ranking.remove(number)
        for listener in self.listeners:
            listener(gone)

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def sort(self) -> None:
        """Orders the rows by number."""
        self._rows = dict(sorted(self._rows.items()))

    def changed(self, row: TrialRow) -> None:
        """Takes in what a row tells now."""
        for state, group in self._states.items():
            _keep(group, row, state is row.state)
        _keep(self._waiting, row, row.waiting)
        _keep(self._untrained, row, row.is_untrained)
        if row.value is None or row.duplicate_of is not None:
            self._ranking.remove(row.number)
        else:
            self._ranking.put(row.number, self._sort_key(row.value))
        for listener in self.listeners:
            listener(row)

    def num_in(self, state: TrialState) -> int:
        """How many trials are in a state."""
        return len(self._states[state])

    def in_state(self, state: TrialState) -> list[TrialRow]:
        """The trials in a state, by number."""
        return _by_number(self._states[state])

    def waiting(self) -> list[TrialRow]:
        """The trials that are to run as soon as they can, by number."""
        return _by_number(self._waiting)

    def running(self) -> list[TrialRow]:
        """The trials that train now, by number."""
        running = self._states[TrialState.RUNNING]
        return _by_number({n: row for n, row in running.items() if not row.waiting})

    def untrained(self) -> list[TrialRow]:
        """The trials that ended without training, by number."""
        return _by_number(self._untrained)

    def ranking(self) -> list[TrialRow]:
        """The complete trials, best first; of equals the earlier one."""
        return [self._rows[number] for number in self._ranking]

    def best(self) -> TrialRow | None:
        """The first of the ranking."""
        number = next(iter(self._ranking), None)
        return None if number is None else self._rows[number]


def _keep(group: dict[int, TrialRow], row: TrialRow, belongs: bool) -> None:
    if belongs:
        group[row.number] = row
    else:
        group.pop(row.number, None)


def _by_number(group: dict[int, TrialRow]) -> list[TrialRow]:
    return [group[number] for number in sorted(group)]
