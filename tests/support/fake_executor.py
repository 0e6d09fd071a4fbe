"""An executor without processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sweeps.executors.base import Event, Job, Raised, Reported, Returned, Slot


class InlineExecutor:
    """Runs each job at once, in this process, when its events are asked for."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.warm: list[tuple[Slot, ...]] = []
        self.closed = False
        self._jobs: dict[str, Any] = {}
        self._pending: list[Event] = []

    def start(self, job_id: str, job: Job, argument: Any, slot: Slot, log_path: str) -> None:
        if job_id in self._jobs:
            raise ValueError(f"A job's id must be unique among running jobs. Received: {job_id!r}.")
        self._jobs[job_id] = self._run(job_id, job, argument, slot)

    def _run(self, job_id: str, job: Job, argument: Any, slot: Slot) -> Any:
        # A generator cannot be entered by a callback, so a thread carries each job's stack.
        import queue
        import threading

        out: queue.Queue[Event] = queue.Queue()
        answers: queue.Queue[Any] = queue.Queue()

        def report(message: Any) -> Any:
            out.put(Reported(job_id, message))
            return answers.get()

        def work() -> None:
            try:
                out.put(Returned(job_id, job(argument, report, slot)))
            except Exception as error:  # As of a worker: whatever a job raises is an event.
                first = str(error).splitlines()[0]
                text, signal = f"Traceback: {error}", getattr(error, "signal", "")
                out.put(Raised(job_id, type(error).__name__, first, text, signal))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return out, answers, thread.native_id

    def events(self, timeout_seconds: float) -> list[Event]:
        import queue

        found: list[Event] = []
        deadline = time.monotonic() + timeout_seconds
        while not found and time.monotonic() < deadline and self._jobs:
            for job_id, (out, *_) in list(self._jobs.items()):
                try:
                    event = out.get(timeout=0.01)
                except queue.Empty:
                    continue
                if not isinstance(event, Reported):
                    del self._jobs[job_id]
                found.append(event)
        return found

    def answer(self, job_id: str, answer: Any) -> None:
        self._jobs[job_id][1].put(answer)

    def process_id(self, job_id: str) -> int | None:
        # A thread's number stands for a process's.
        return self._jobs[job_id][2] if job_id in self._jobs else None

    def stop(self, job_id: str) -> None:
        del self._jobs[job_id]
        self.stopped.append(job_id)

    def keep_warm(self, slots: Sequence[Slot]) -> None:
        self.warm.append(tuple(slots))

    def close(self) -> None:
        for job_id in list(self._jobs):
            self.stop(job_id)
        self.closed = True
