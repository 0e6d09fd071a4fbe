"""Sends a spool to the tracking store, in one thread, so that training never waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from tracking.spool.records import Record
from tracking.spool.spool import Spool

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0


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
        while left:
            if time.monotonic() - since > patience_seconds or give_up():
                return False
            time.sleep(0.02)
            now = self._spool.num_waiting
            if now < left:
                since = time.monotonic()
            left = now
        return True

    def close(self) -> None:
        """Sends nothing more after the record in hand."""
        self._closed.set()
        self._hurry.set()

    def _work(self) -> None:
        destination: Destination | None = None
        # What waits at the start may have arrived before the last session ended: acknowledgements
        # are not synchronised to disk, so a loss of power takes any number of them.
        num_doubtful, again, pause = self._spool.num_waiting, False, FIRST_PAUSE_SECONDS
        while not self._closed.is_set():
            record = self._spool.next(0.2)
            if record is None:
                continue
            try:
                if destination is None:
                    destination = self._open()
                try:
                    answer = destination.apply(record, again=again or num_doubtful > 0)
                except RejectedError as error:
                    self._spool.reject(record, str(error))
                else:
                    self._spool.acknowledge(record, answer)
            except Exception as error:  # Whatever a store or a disk raises: it may pass.
                first_line = (str(error).strip().splitlines() or [""])[0][:300]
                self.problem = f"{type(error).__name__}: {first_line}"
                again = True
                self._hurry.clear()
                self._hurry.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            num_doubtful = max(0, num_doubtful - 1)
            self.problem, again, pause = "", False, FIRST_PAUSE_SECONDS
