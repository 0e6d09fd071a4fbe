"""Hand-written stand-ins, and jobs that worker processes of the tests run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.trial import EpochReport, TrialResult, TrialTask
from sweeps.board import Board, TrialRow
from sweeps.engines.base import Proposal, TrialState
from sweeps.executors.base import Event, Job, Raised, Reported, Returned, Slot
from sweeps.views import QuietView
from tracking.records import ModelRecord, SweepEnd, SweepRecord, TrialEnd, TrialRecord


def curve_of(task: TrialTask) -> list[float]:
    """A made-up learning curve that follows from the seed."""
    top = 0.5 + 0.5 * (task.seed % 1000) / 1000
    return [top * (1 - 0.5**epoch) for epoch in range(1, task.num_epochs + 1)]


def recorded_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Reports a made-up curve instead of training, and leaves the files that training leaves."""
    history = []
    stopped_by = "epochs"
    for epoch, value in enumerate(curve_of(task), start=1):
        metrics = {"loss": 1 - value, "accuracy": value, "val_loss": 1 - value,
                   "val_accuracy": value, "learning_rate": 0.001, "epoch_seconds": 0.01,
                   "images_per_second": 100.0}  # fmt: skip
        history.append(EpochReport(task.number, epoch, metrics))
        if not report(history[-1]):
            stopped_by = "driver"
            break
    folder = Path(task.folder)
    (folder / "model.keras").write_bytes(b"weights")
    (folder / "model_summary.txt").write_text("summary")
    best = history[-1]
    return TrialResult(
        task.number, best.metrics["val_accuracy"], best.epoch, len(history), best.metrics,
        10, 7, 0.01 * len(history), f"cpu, slot {slot.index}", stopped_by,
    )  # fmt: skip


def slow_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """As `recorded_job`, after a pause in which it can be interrupted."""
    time.sleep(0.3)
    return recorded_job(task, report, slot)


def uneven_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """The first trial ends at once, the others would take a minute."""
    time.sleep(60 if task.number else 0)
    return recorded_job(task, report, slot)


def raising_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Raises in every second trial, before its first report."""
    if task.number % 2:
        raise RuntimeError(f"no luck\nwith trial {task.number}")
    return recorded_job(task, report, slot)


def always_raising_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Raises for one and the same reason."""
    raise ValueError("the data has no pictures")


def numbered_failure_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Raises for one reason whose text names the trial."""
    raise OSError(28, "No space left on device", f"trial-{task.number:04d}/model.keras")


def endless_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Never ends its first epoch."""
    time.sleep(60)
    return recorded_job(task, report, slot)


def full_disk_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Writes its model to a device that is always full, in its second trial."""
    if task.number == 1:
        with Path("/dev/full").open("wb") as file:
            file.write(b"weights" * 10_000)
    return recorded_job(task, report, slot)


def dying_job(argument: str, report: Any, slot: Slot) -> None:
    """Dies as told."""
    if argument == "exit":
        print("last words", flush=True)
        os._exit(7)
    os.kill(os.getpid(), getattr(signal, argument))
    time.sleep(30)


def echo_job(argument: Any, report: Any, slot: Slot) -> Any:
    """Reports its argument, and returns it with the answer and the slot."""
    return argument, report(argument), slot


def sleeping_job(argument: float, report: Any, slot: Slot) -> str:
    """Sleeps, ignoring nothing."""
    time.sleep(argument)
    return "slept"


def pid_job(argument: str, report: Any, slot: Slot) -> None:
    """Writes its process id to a file and sleeps."""
    Path(argument).write_text(str(os.getpid()))
    time.sleep(60)


def failing_eof_job(argument: Any, report: Any, slot: Slot) -> None:
    """Raises the exception that a lost channel raises, too."""
    raise EOFError("ran out of input")


class InlineExecutor:
    """Runs each job at once, in this process, when its events are asked for."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
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
        answers: queue.Queue[bool] = queue.Queue()

        def report(message: Any) -> bool:
            out.put(Reported(job_id, message))
            return answers.get()

        def work() -> None:
            try:
                out.put(Returned(job_id, job(argument, report, slot)))
            except Exception as error:
                first = str(error).splitlines()[0]
                out.put(Raised(job_id, type(error).__name__, first, f"Traceback: {error}"))

        threading.Thread(target=work, daemon=True).start()
        return out, answers

    def events(self, timeout_seconds: float) -> list[Event]:
        import queue

        found: list[Event] = []
        deadline = time.monotonic() + timeout_seconds
        while not found and time.monotonic() < deadline and self._jobs:
            for job_id, (out, _) in list(self._jobs.items()):
                try:
                    event = out.get(timeout=0.01)
                except queue.Empty:
                    continue
                if not isinstance(event, Reported):
                    del self._jobs[job_id]
                found.append(event)
        return found

    def answer(self, job_id: str, go_on: bool) -> None:
        self._jobs[job_id][1].put(go_on)

    def stop(self, job_id: str) -> None:
        del self._jobs[job_id]
        self.stopped.append(job_id)

    def close(self) -> None:
        for job_id in list(self._jobs):
            self.stop(job_id)
        self.closed = True


class ListEngine:
    """Proposes the points that it was given, in order."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        self._points = list(points)
        self._next = 0
        self.told: dict[int, tuple[TrialState, float | None, str]] = {}
        self.reports: list[tuple[int, int, float]] = []

    def ask(self) -> Proposal | None:
        if self._next == len(self._points):
            return None
        self._next += 1
        return Proposal(self._next - 1, self._points[self._next - 1])

    def report(self, number: int, epoch: int, value: float) -> bool:
        self.reports.append((number, epoch, value))
        return True

    def tell(
        self, number: int, state: TrialState, value: float | None = None, reason: str = ""
    ) -> None:
        self.told[number] = (state, value, reason)

    def plots_html(self) -> str:
        return "<html></html>"


class MemoryTracker:
    """Remembers what it is told, in the order of the calls."""

    experiment_id = "0"
    parent_run_id = "parent"

    def __init__(self) -> None:
        self.started: list[TrialRecord] = []
        self.epochs: list[tuple[int, int]] = []
        self.ended: dict[int, TrialEnd] = {}
        self.kept: list[int] = []
        self.progress: list[float] = []
        self.files: dict[int, list[str]] = {}
        self.tags: dict[int, Mapping[str, str]] = {}
        self.end: SweepEnd | None = None
        self.sweep: SweepRecord | None = None

    def start_sweep(self, record: SweepRecord) -> None:
        self.sweep = record

    def start_trial(self, record: TrialRecord) -> None:
        self.started.append(record)

    def log_epoch(self, number: int, epoch: int, metrics: Mapping[str, float], now: int) -> None:
        assert now > 0 and metrics
        self.epochs.append((number, epoch))

    def log_files(self, number: int, paths: list[str]) -> None:
        self.files[number] = [Path(path).name for path in paths if Path(path).is_file()]

    def end_trial(self, end: TrialEnd) -> None:
        self.ended[end.number] = end

    def set_tags(self, number: int, tags: Mapping[str, str]) -> None:
        self.tags[number] = tags

    def log_progress(self, metrics: Mapping[str, float], step: int) -> None:
        self.progress += metrics.values()

    def keep_model(self, record: ModelRecord, replaced: int | None = None) -> None:
        self.kept.append(record.number)
        Path(record.path).unlink()
        if replaced is not None:
            self.kept.remove(replaced)

    def end_sweep(self, end: SweepEnd) -> None:
        self.end = end


class ScriptedView(QuietView):
    """Calls a function at every end of a trial."""

    def __init__(self, on_end: Any = lambda board: None) -> None:
        self._on_end = on_end

    def ended(self, board: Board, row: TrialRow) -> None:
        self._on_end(board)


def random_points(space: Any, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Points of a space, uniformly drawn."""
    from search_spaces.hyperparameters import RandomHyperParameters

    generator = np.random.default_rng(seed)
    return [space.sample(RandomHyperParameters(generator)) for _ in range(count)]
