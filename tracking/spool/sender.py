"""Sends a spool to the tracking store, in one thread, so that training never waits for it."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from tracking.spool.records import (
    EpochRecord,
    MachineRecord,
    ModelDropRecord,
    ModelRecord,
    ProgressRecord,
    Record,
    SweepRecord,
    TrialRecord,
)
from tracking.spool.spool import Spool

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
MAX_ATTEMPTS = 6
"""Attempts (15 s) after which another record is tried, to know whether the store is away or whether
it is the record that cannot be sent."""
_HARMLESS = (EpochRecord, ProgressRecord, MachineRecord, SweepRecord)
"""Kinds of records that change nothing of a store that has them already."""


class RejectedError(Exception):
    """The store will never take this record; sending it again is pointless."""


class Destination(Protocol):
    """Where records go; `apply` may be called again for a record that it has taken already."""

    def apply(self, record: Record, *, again: bool) -> Mapping[str, str]:
        """Writes a record; returns what is to be remembered with the acknowledgement.

        Args:
            again: whether an earlier attempt may have arrived.

        Raises:
            RejectedError: The record will never be taken.
        """


class Sender:
    """Replays a spool until everything is acknowledged, and goes on as more comes.

    A record that fails again while others arrive is set aside, whatever the reason, and holds up
    nothing. It is tried once more by `drain`, and at the start of the next session.

    Args:
        open_destination: called in the sender's thread, again and again until it succeeds.
    """

    def __init__(self, spool: Spool, open_destination: Callable[[], Destination]) -> None:
        self._spool = spool
        self._open = open_destination
        self._closed = threading.Event()
        self._hurry = threading.Event()
        self.problem = ""
        """Why the latest attempt failed; empty after one that succeeded."""
        # What waits at the start may have arrived before the last session ended: acknowledgements
        # are not synchronised to disk, so a loss of power takes any number of them.
        self._num_doubtful = spool.num_waiting
        self._num_attempts = 0
        """Failures of the record in hand since it was last known that the store was away."""
        self._is_again = False
        self._unsendable: set[tuple[type[Record], str]] = set()
        self._is_last_try_due = False
        self._tried_aside = threading.Event()
        if not spool.reasons_aside():
            self._tried_aside.set()
        # A daemon: a server that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        self._thread.start()

    def drain(self, patience_seconds: float, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Waits while records arrive; returns whether none is left.

        Args:
            patience_seconds: how long not a single record may arrive before waiting is given up.
        """
        self._hurry.set()
        left, since = self._spool.num_waiting, time.monotonic()
        while left or not self._tried_aside.is_set() or self._is_last_try_due:
            if time.monotonic() - since > patience_seconds or give_up():
                return False
            time.sleep(0.02)
            now = self._spool.num_waiting
            if not now and self._is_last_try_due:
                self._is_last_try_due = False
                self._tried_aside.clear()
            if now < left:
                since = time.monotonic()
            left = now
        return True

    def close(self) -> None:
        """Sends nothing more after the record in hand."""
        self._closed.set()
        self._hurry.set()

    def _work(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        destination: Destination | None = None
        while not self._closed.is_set():
            is_start = not self._tried_aside.is_set()
            record = None if is_start else self._spool.next(0.2)
            if record is None and not is_start:
                continue
            try:
                if destination is None:
                    destination = self._open()
                if is_start or record is None:
                    self._try_aside(destination)
                    self._tried_aside.set()
                else:
                    self._send(destination, record)
            except Exception as error:  # Whatever a store or a disk raises: it may pass.
                self.problem = _line(error)
                self._hurry.clear()
                self._hurry.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self.problem, pause = "", FIRST_PAUSE_SECONDS

    def _send(self, destination: Destination, record: Record) -> None:
        """Sends a record, or sets it aside; raises where it is to be tried again."""
        again = self._is_again or self._num_doubtful > 0
        try:
            answer = destination.apply(record, again=again)
        except RejectedError as error:
            self._set_aside(record, str(error))
        except Exception as error:
            self._is_again = True
            self._num_attempts += 1
            if not self._is_unsendable(destination, record, error):
                raise
            self._set_aside(record, _line(error))
            self._num_doubtful = self._spool.num_waiting + 1  # One of them has arrived by now.
        else:
            self._spool.acknowledge(record, answer)
        self._num_doubtful = max(0, self._num_doubtful - 1)
        self._num_attempts, self._is_again = 0, False

    def _set_aside(self, record: Record, reason: str) -> None:
        self._is_last_try_due = True  # First: then nobody sees that all is sent, and not this.
        self._spool.set_aside(record, reason)

    def _is_unsendable(self, destination: Destination, record: Record, error: Exception) -> bool:
        """Whether it is the record that fails, not the store: others arrive, and it does not."""
        known = type(record), _cause(error)
        if known not in self._unsendable and self._num_attempts < MAX_ATTEMPTS:
            return False
        if not self._others_arrive(destination, record):
            self._num_attempts = 0  # An outage says nothing of the record.
            return False
        if known in self._unsendable:
            return True
        try:  # What failed so far may have been the end of an outage.
            destination.apply(record, again=True)
        except Exception:
            self._unsendable.add(known)
            return True
        return False  # It has arrived, and is sent once more to be acknowledged.

    def _others_arrive(self, destination: Destination, stuck: Record) -> bool:
        """Whether the store takes another record, one of each kind, that does not need this one.

        Where none waits behind it, one that was sent before.
        """
        seen: set[type[Record]] = set()
        waiting = self._spool.waiting()
        aside, sent = self._spool.reasons_aside(), []
        if len(waiting) == 1:
            sent = [r for r in self._spool.replay() if isinstance(r, _HARMLESS)]
        for record in (*waiting[1:], *reversed(sent)):
            known = type(record) in seen or record.key == stuck.key or record.key in aside
            if known or _needs(record, stuck):
                continue
            seen.add(type(record))
            # Refused, or the store is away: it proves nothing.
            with contextlib.suppress(Exception):
                destination.apply(record, again=True)
                return True
        return False

    def _try_aside(self, destination: Destination) -> None:
        """Sends what was set aside in its place: what came later of the same trial follows again.

        A state that a run had once must not be the last that it is told. So a record counts as sent
        once all that follows it has arrived; where anything fails, the next session does it again.
        """
        aside = self._spool.reasons_aside()
        waiting = {record.key for record in self._spool.waiting()}
        arrived: dict[int | None, list[tuple[Record, Mapping[str, str]]]] = {}
        for record in self._spool.replay() if aside else ():
            if self._closed.is_set():
                return
            if record.key in waiting:
                break
            number = getattr(record, "number", None)
            if record.key in aside:
                with contextlib.suppress(Exception):  # Its reason is known.
                    answer = destination.apply(record, again=True)
                    arrived.setdefault(number, []).append((record, answer))
            elif number in arrived:
                try:
                    destination.apply(record, again=True)
                except RejectedError:
                    continue  # Its files are gone, for it had arrived.
                except Exception:  # The store is away again.
                    del arrived[number]
        for record, answer in itertools.chain.from_iterable(arrived.values()):
            self._spool.sent_after_all(record, answer)


def _needs(record: Record, other: Record) -> bool:
    """Whether a record means nothing to a store that has not taken the other."""
    if isinstance(other, SweepRecord):
        return True
    number = getattr(other, "number", None)
    if number is None or getattr(record, "number", None) != number:
        return False
    return isinstance(other, TrialRecord) or (
        isinstance(other, ModelRecord) and isinstance(record, ModelDropRecord)
    )


def _cause(error: Exception) -> str:
    """What failures of one cause have in common: ids and numbers make no other one."""
    return re.sub(r"\b(?=[0-9a-f-]*\d)[0-9a-f-]{8,}\b|\d+", "#", _line(error))


def _line(error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first_line}"
