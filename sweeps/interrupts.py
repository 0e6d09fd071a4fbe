"""Ctrl-C, termination and a closed terminal as a count that the loop looks at."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupts:
    """Counts signals while entered.

    The first one asks for an orderly end, the second for one without waiting for anything; only the
    third raises KeyboardInterrupt, because it leaves runs open.

    `terminated` says that the first one was not Ctrl-C: a node is preempted, a service stopped, a
    terminal closed, and the sweep will go on elsewhere or later.

    Outside of the main thread no signal can be handled: there nothing is counted, and handlers stay
    as they are.

    Attributes:
        first: the number of the first signal; None before any.
    """

    def __init__(self) -> None:
        self.count = 0
        self.terminated = False
        self.first: int | None = None
        self._previous: dict[int, object] = {}

    @property
    def received(self) -> bool:
        """Whether the sweep is to end."""
        return self.count >= 1

    @property
    def urgent(self) -> bool:
        """Whether it is to end without waiting."""
        return self.count >= 2

    def ask_to_end(self) -> None:
        """Counts as a signal that asks for an orderly end, of a sweep that can be resumed."""
        self.count += 1
        self.terminated = self.terminated or self.count == 1

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self
        for name in SIGNALS:
            number = getattr(signal, name, None)
            # Who started the sweep with `nohup` wants it to outlive the terminal.
            nohup = name == "SIGHUP" and number and signal.getsignal(number) == signal.SIG_IGN
            if number is not None and not nohup:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.count += 1
        if self.count == 1:
            self.first, self.terminated = number, number != signal.SIGINT
        if self.count > 2:
            raise KeyboardInterrupt
