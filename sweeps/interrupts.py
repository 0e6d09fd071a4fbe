"""Ctrl-C and termination as a flag that the loop looks at; a second one ends at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupts:
    """The first SIGINT or SIGTERM sets `received`; the next one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
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
        del number, frame
        if self.received:
            raise KeyboardInterrupt
        self.received = True
