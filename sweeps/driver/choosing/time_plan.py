"""The plan for a sweep's time: its end is reserved for training the best candidates in full.

A sweep that tries points until its time is over has measured its best ones after a part of their
training only, in the middle of their learning rate schedules. So no new points are tried once what
is left is needed to train the best candidates to their ends. How long that takes follows from what
each has taken so far; the plan is looked at again with every report.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter

from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.choosing.paces import Paces
from sweeps.driver.plan import LoopPlan
from sweeps.engines.base import DEFAULTS, TrialState
from sweeps.formatting import duration

NUM_CANDIDATES = 3
"""How many are trained in full at the end, where there is time."""
RESERVED_SHARE = 0.4
"""Of the whole time for that; a short sweep trains fewer candidates, but always one."""
LARGEST_SHARE = 0.6
"""One candidate may take so much where all that have come as far take more than `RESERVED_SHARE`:
the best after an epoch is worth more than the cheapest after a third."""
LEADING_SHARE, NEXT_RUNG_SHARE = 1 / 3, 0.2
"""The space's defaults do not wait at a rung where their training takes no more of the time, or
what they have taken by the next rung is no more: slow ones that are bad, too, cost a short sweep
dearly (docs/adr/0026)."""
MARGIN = 1.1
"""Times differ: an epoch took up to a tenth longer than those before it (docs/log.md)."""
MISSING_SHARE = 0.1
"""Of its schedule that one of the best may lack at the end: it had little left to gain there."""
_RankKey = tuple[int, float, int]


@dataclass
class TimePlan:
    """When new points end, and which trials go on then; the loop tells it what it sees.

    Args:
        waits: whether trials can wait and go on later: under pruners with rungs. Without, a trial
            is not started when it cannot end in time, unless it is the first that could.

    Attributes:
        paces: how long training takes, as far as it was seen.
        in_final_phase: whether only the best are trained in full now, and no new points tried.
        all_tried: whether there are no new points although there is time: then the best are
            trained in full, until `NUM_CANDIDATES` are complete, and those that are ahead of the
            winner.
    """

    plan: LoopPlan
    board: Board
    waits: bool
    paces: Paces = field(default_factory=Paces)
    in_final_phase: bool = False
    all_tried: bool = False
    _chosen: set[int] = field(default_factory=set)
    _planned: set[int] = field(default_factory=set)
    _keys: dict[int, _RankKey] = field(default_factory=dict)
    _order: list[_RankKey] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board.rows.listeners.append(self._place)
        for row in self.board.rows.values():
            self._place(row)

    def _place(self, row: TrialRow) -> None:
        """Takes in a row that has changed: the order of all that wait is not worked out anew."""
        known = self._keys.pop(row.number, None)
        if known is not None:
            del self._order[bisect_left(self._order, known)]
        is_going = row.state in (TrialState.RUNNING, TrialState.PAUSED)
        if is_going and row.curve and self.board.rows.get(row.number) is row:
            self._keys[row.number] = key = self._rank_key(row)
            insort(self._order, key)

    def reported(
        self, row: TrialRow, metrics: Mapping[str, float], seconds: float, *, first: bool
    ) -> None:
        """Takes in a new report, as `Paces.reported` does."""
        self._place(row)
        self.paces.reported(row, metrics, seconds, first=first)

    def enters_final_phase(self) -> bool:
        """Whether no new points are tried now: from when the first full training begins until all
        that were chosen have ended, and there is no time for another.
        """
        if self._chosen and self._ended_early():
            self._chosen.clear()
            self._planned.clear()
        self.in_final_phase = bool(self._chosen) or self._time_is_up()
        return self.in_final_phase

    def _ended_early(self) -> bool:
        """Whether all that the end was kept for have ended, and there is time for another to.

        The plan follows from what was seen, and one slow epoch on a busy machine can reserve all
        the time: a sweep of 40 s had ended after its first trial.
        """
        rows = [self.board.rows[number] for number in self._chosen | self._planned]
        if self.all_tried or any(map(self._may_end, rows)):
            return False
        quickest = min((row.seconds for row in self.board.ranking()), default=0.0)
        return quickest < self._left()

    def _may_end(self, row: TrialRow) -> bool:
        """Whether a trial is trained to its end now, or could be in what is left."""
        waits = row.state is TrialState.PAUSED and self._comes_near(row)
        return waits or row.state is TrialState.RUNNING

    def _choose(self, row: TrialRow) -> None:
        """Has a trial trained to its end; with the first, the plan for the others is made."""
        if not self._chosen:
            self._planned = {candidate.number for candidate in self._candidates()}
        self._chosen.add(row.number)

    def no_more_points(self) -> None:
        """All points have been tried; a sweep with a time limit enters its final phase now."""
        self.all_tried = self.is_timed

    @property
    def is_timed(self) -> bool:
        """Whether the end of the time is kept for trials that wait."""
        return self.waits and self.plan.rules.timeout_seconds is not None

    def goes_on(self, row: TrialRow) -> bool:
        """Whether a trial that runs is trained to its end in the final phase.

        It is one of the best that there are slots for, or leaves time for those that are better.
        """
        if row.number in self._chosen or self._is_protected(row):
            return True
        candidates = self._candidates()
        if (
            self._has_enough()
            or row not in candidates
            or not (self._fits(row) or not self.board.ranking())
        ):
            return False
        place = candidates.index(row)
        needed = self._needed(candidates[: place + 1])
        if place < self.board.num_slots or needed <= self._left():
            self._choose(row)
            return True
        return False

    def leads(self, row: TrialRow) -> bool:
        """Whether a trial is not paused at its rung: that of the space's defaults, while none was
        better after as much training, and it comes to its end or to the next rung in a small share
        of the time.

        Whoever wrote the space takes them for good. A sweep that is ended early has a good model
        then, and others are measured against it.
        """
        if row.proposed_by != DEFAULTS or not (
            self._share(row) <= LEADING_SHARE or self._share_by_next_rung(row) <= NEXT_RUNG_SHARE
        ):
            return False
        key, step = self.board.objective.sort_key, row.step
        own = key(row.curve[step])
        return all(
            not key(other.curve[step]) < own
            for other in self.board.rows.values()
            if step in other.curve and not other.breaks_limit
        )

    def next_waiting(self) -> TrialRow | None:
        """The paused trial to train on now: the best that can end in time.

        One that comes near its end does, too: it ends with what it has reached. The cheapest goes
        on in any case while nothing is complete and nothing runs. Once enough are complete, only
        one that is ahead of the winner goes on, and alone: it may win.
        """
        waiting = [row for row in self._ranked() if row.state is TrialState.PAUSED]
        if self._has_enough():
            if self.board.running():
                return None
            waiting = [row for row in waiting if self.board.is_ahead(row)]
        if not self.is_timed:
            return waiting[0] if waiting else None
        chosen = next((row for row in waiting if self._comes_near(row)), None)
        if chosen is None and waiting and not self.board.ranking() and not self.board.running():
            chosen = min(waiting, key=self.paces.seconds_to_end)
        if chosen is not None:
            self._choose(chosen)
        return chosen

    def cannot_end(self, row: TrialRow) -> str:
        """Why training a trial any further is lost time; empty while it can end in time.

        While nothing is complete and nothing else can end in time either, it goes on; and so does
        one that was chosen and comes near its end.
        """
        if not self.waits or self._is_protected(row) or self._fits(row):
            return ""
        others = [other for other in self._ranked() if self._fits(other)]
        if not self.board.ranking() and not others:
            return ""
        if row.number in self._chosen and self._comes_near(row):
            return ""
        needed, left = self.paces.seconds_to_end(row), max(0.0, self._left())
        return (
            f"its full training would take {duration(needed)} more, and {duration(left)} are left"
        )

    def _has_enough(self) -> bool:
        """Whether as many are complete, or on their way, as a sweep trains whatever they reach.

        Without a time to fill, the pruner alone decides how many those are.
        """
        if not self.is_timed:
            return True
        ending = [row for row in self.board.running() if row.number in self._chosen]
        return self.all_tried and len(self.board.ranking()) + len(ending) >= NUM_CANDIDATES

    @property
    def final_phase_from(self) -> float | None:
        """Seconds after the sweep's start at which its final phase begins, by present estimates.

        None where nothing is to be trained in full then, as things stand.
        """
        limit = self.plan.rules.timeout_seconds
        if limit is None or not self.waits:
            return None
        if self.in_final_phase:
            return 0.0
        reserved = self.reserved_seconds
        return limit - reserved if reserved else None

    @property
    def reserved_seconds(self) -> float:
        """How long before the limit the last full trainings begin, as things stand."""
        protected = [row for row in self.board.running() if self._is_protected(row)]
        candidates = self._candidates()
        return self._needed([*candidates, *(row for row in protected if row not in candidates)])

    def _time_is_up(self) -> bool:
        if self.plan.rules.timeout_seconds is None:
            return False
        if self.waits:
            return self._left() < self.reserved_seconds
        return bool(self.board.ranking()) and self._left() < self._typical_seconds()

    def _left(self) -> float:
        limit = self.plan.rules.timeout_seconds
        return math.inf if limit is None else limit - self.board.limited_seconds()

    def _fits(self, row: TrialRow) -> bool:
        """Whether a trial can end in time, on a slot that is free now or that it has."""
        return self.paces.seconds_to_end(row) < self._left()

    def _comes_near(self, row: TrialRow) -> bool:
        """Whether a trial gets through nearly all of its schedule in time.

        Most of what a schedule's end brings is there by then, and a better trial is worth more than
        one that surely ends.
        """
        needed, left = self.paces.seconds_to_end(row), max(0.0, self._left())
        if needed <= left:
            return True
        rest = 1 - row.epochs / row.schedule.num_epochs
        return rest * (1 - left / needed) <= MISSING_SHARE

    def _is_protected(self, row: TrialRow) -> bool:
        return self.plan.protects_baselines and row.baseline is not None

    def _candidates(self) -> list[TrialRow]:
        """The best that are not complete: as many as the reserved share of the time trains.

        What alone takes more than that is none, unless no cheaper one has come as far. Once a trial
        is complete, no time is kept for what gets nowhere near its end in it.
        """
        cheap = (row for row in self._possible(self._ranked()) if self._is_cheap(row))
        first = self._first_candidate()
        chosen = [] if first is None else [first]
        limit = self.plan.rules.timeout_seconds or math.inf
        for row in itertools.islice(cheap, NUM_CANDIDATES):
            if row is first:
                continue
            if (
                len(chosen) == NUM_CANDIDATES
                or self._needed([*chosen, row]) > RESERVED_SHARE * limit
            ):
                break
            chosen.append(row)
        return chosen

    def _first_candidate(self) -> TrialRow | None:
        """Of the highest rung where one can be trained: the best cheap one, or else the best.

        Where a trial is complete there is a winner: only what is ahead of it may take more.
        """
        has_winner = bool(self.board.ranking())
        for _, keys in itertools.groupby(self._order, itemgetter(0)):
            rows = list(self._possible(self.board.rows[number] for *_, number in keys))
            for row in rows:
                if self._is_cheap(row):
                    return row
            for row in rows:
                if self._share(row) <= LARGEST_SHARE and (
                    not has_winner or self.board.is_ahead(row)
                ):
                    return row
        return (
            None if has_winner else min(self._ranked(), key=self.paces.seconds_to_end, default=None)
        )

    def _possible(self, rows: Iterable[TrialRow]) -> Iterator[TrialRow]:
        has_winner = bool(self.board.ranking())
        return (row for row in rows if not has_winner or self._comes_near(row))

    def _is_cheap(self, row: TrialRow) -> bool:
        return self._share(row) <= RESERVED_SHARE

    def _share(self, row: TrialRow) -> float:
        """What training it to its end takes of the sweep's whole time."""
        return self._needed([row]) / (self.plan.rules.timeout_seconds or math.inf)

    def _share_by_next_rung(self, row: TrialRow) -> float:
        """What it has taken of the sweep's whole time when it comes to its next rung."""
        ends = [*self.plan.rungs, row.schedule.end_step]
        step = min((step for step in ends if step > row.step), default=row.step)
        seconds = self.paces.of(row) * row.schedule.reports.epochs(step)
        return seconds / (self.plan.rules.timeout_seconds or math.inf)

    def _rung(self, row: TrialRow) -> int:
        """The highest rung that it has reached."""
        return max((step for step in self.plan.rungs if step <= row.step), default=row.step)

    def _ranked(self) -> Iterator[TrialRow]:
        """Trials that are neither complete nor lost: by the highest rung reached, then by value."""
        return (self.board.rows[number] for *_, number in self._order)

    def _rank_key(self, row: TrialRow) -> _RankKey:
        rung = self._rung(row)
        at = rung if rung in row.curve else row.step
        value = min(
            map(self.board.objective.sort_key, row.schedule.reports.comparable(row.curve, at))
        )
        # Nothing can be found again beside a NaN, which is neither less nor more.
        return -rung, math.inf if math.isnan(value) else value, row.number

    def _needed(self, rows: list[TrialRow]) -> float:
        seconds = [self.paces.seconds_to_end(row) for row in rows]
        if not seconds:
            return 0.0
        return MARGIN * max(*seconds, sum(seconds) / self.board.num_slots)

    def _typical_seconds(self) -> float:
        done = [row.seconds for row in self.board.ranking()]
        return MARGIN * sum(done) / len(done)
