"""What a spool holds of its trials: states, ends, moves and training times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tracking.spool.records import (
    EpochRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
)
from tracking.spool.spool import Spool
from tracking.tags import Tag


@dataclass(frozen=True)
class Moves:
    """How often a trial lost its node.

    Attributes:
        in_a_row: without a report in between.
        lost_seconds: what it had trained then beyond its last reports.
    """

    total: int = 0
    in_a_row: int = 0
    lost_seconds: float = 0.0

    def one_more(self, tags: Mapping[str, str]) -> Moves:
        """With the next loss, of which these tags tell."""
        lost = float(tags.get(Tag.LOST_SECONDS, self.lost_seconds))
        return Moves(int(tags[Tag.NUM_MOVES]), self.in_a_row + 1, lost)


class TrialHistory:
    """Puts states and ends of trials into a spool, and knows what it holds of them.

    A trial may end, run again and end again: a driver that is killed between the spooled end and
    the study's runs it once more when the sweep is resumed. The second end must not be taken for
    the first one, or the run would stay RUNNING; and it must carry the first one's time, or its
    final metrics would be there twice.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._last: dict[int, str] = {}
        self._ends: dict[int, list[TrialEnd]] = {}
        self._seconds: dict[int, float] = {}
        self._compiling: dict[int, float] = {}
        self._epochs: dict[int, float] = {}
        self._moves: dict[int, Moves] = {}
        self.longest_epoch_seconds = 0.0
        for record in spool.replay():
            if isinstance(record, TrialRecord):
                self._last.setdefault(record.number, "RUNNING")
            elif isinstance(record, TrialStateRecord):
                self._last[record.number] = record.state
            elif isinstance(record, TrialEnd):
                self._last[record.number] = record.state
                self._ends.setdefault(record.number, []).append(record)
            elif isinstance(record, TagsRecord) and Tag.NUM_MOVES in record.tags:
                self._moves[record.number] = self.moves(record.number).one_more(record.tags)
            elif isinstance(record, EpochRecord):
                if record.number in self._moves:
                    self._moves[record.number] = replace(self._moves[record.number], in_a_row=0)
                seconds = record.metrics.get("epoch_seconds", 0.0)
                # Of a whole epoch at this pace; the part of one that it was follows from `epoch`.
                before = self._epochs.get(record.number, 0.0)
                self._epochs[record.number] = record.metrics.get("epoch", before + 1)
                seconds *= self._epochs[record.number] - before
                compiling = record.metrics.get("compile_seconds", 0.0)
                self._compiling[record.number] = self._compiling.get(record.number, 0.0) + compiling
                self._seconds[record.number] = self._seconds.get(record.number, 0.0) + seconds
                self.longest_epoch_seconds = max(self.longest_epoch_seconds, seconds)

    def last_state(self, number: int) -> str | None:
        """The state that the spool tells last; None for a trial that it does not know."""
        return self._last.get(number)

    def running(self) -> list[int]:
        """The trials that the spool tells last to be running."""
        return [number for number, state in self._last.items() if state == "RUNNING"]

    def moves(self, number: int) -> Moves:
        """How often the trial lost its node in earlier sessions."""
        return self._moves.get(number, Moves())

    def trained_seconds(self, number: int) -> float:
        """Time of the epochs that earlier sessions recorded."""
        return self._seconds.get(number, 0.0)

    def pace(self, number: int) -> tuple[float, float]:
        """Epochs that earlier sessions recorded, and the seconds in them, without compiling."""
        seconds = self.trained_seconds(number) - self._compiling.get(number, 0.0)
        return self._epochs.get(number, 0.0), max(0.0, seconds)

    def put_state(self, record: TrialStateRecord) -> None:
        """The trial pauses or runs."""
        self._spool.put(record)
        self._last[record.number] = record.state

    def put_end(self, end: TrialEnd) -> TrialEnd:
        """The trial ends; returns the end as it is in the spool."""
        known = self._ends.setdefault(end.number, [])
        same = [earlier for earlier in known if earlier.state == end.state]
        if same and self._last.get(end.number) == end.state:
            return same[-1]
        if known:
            at_ms = same[-1].at_ms if same else end.at_ms
            end = replace(end, at_ms=at_ms, life=len(known))
        self._spool.put(end)
        known.append(end)
        self._last[end.number] = end.state
        return end
