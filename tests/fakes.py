"""Hand-written stand-ins, and jobs that worker processes of the tests run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipelines.training.cost import Measurement, MeasureTask
from pipelines.training.trial import Decision, EpochReport, TrialResult, TrialTask
from pipelines.training.trial_files import CHECKPOINT_FILE
from search_spaces.errors import SourceChangedError
from sweeps.driver.status import Board, TrialRow
from sweeps.engines.base import PastTrial, Proposal, TrialState
from sweeps.executors.base import Event, Job, Raised, Reported, Returned, Slot
from sweeps.reporting.progress import QuietView
from sweeps.resources.gpus import Gpu, visible
from sweeps.resources.nvml import GpuFigures, MeterError, ProcessFigures
from tracking.spool.records import (
    EpochRecord,
    FilesRecord,
    MachineRecord,
    ModelDropRecord,
    ModelRecord,
    ProgressRecord,
    Record,
    SweepEnd,
    SweepRecord,
    SweepStateRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
)


def curve_of(task: TrialTask) -> list[float]:
    """A made-up learning curve that follows from the seed."""
    top = 0.5 + 0.5 * (task.seed % 1000) / 1000
    return [top * (1 - 0.5**epoch) for epoch in range(1, task.num_epochs + 1)]


def recorded_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Reports a made-up curve instead of training, and leaves the files that training leaves.

    As training does, it goes on after the epochs of its checkpoint and reports the last one again.
    """
    folder = Path(task.folder)
    checkpoint = folder / CHECKPOINT_FILE
    curve = curve_of(task)
    done = len(checkpoint.read_text()) if checkpoint.exists() else 0
    stopped_by = "epochs"
    while True:
        if done and done >= task.num_reported:
            decision = report(EpochReport(task.number, done, metrics_of(curve[done - 1])))
            if decision is not Decision.GO_ON:
                stopped_by = decision.value
                break
        if done >= task.num_epochs:
            break
        done += 1
        with (folder / "trained.txt").open("a") as file:
            file.write(f"{done}\n")
        checkpoint.write_text("x" * done)
    weights = b"" if stopped_by in (Decision.PAUSE, Decision.STOP) else b"weights"
    if weights:
        (folder / "model.keras").write_bytes(weights)
    (folder / "model_summary.txt").write_text("summary")
    best = max(range(done), key=lambda k: curve[k]) + 1
    return TrialResult(
        task.number, curve[best - 1], best, done, metrics_of(curve[best - 1]), 10,
        len(weights), 0.01 * done, f"cpu, slot {slot.index}", stopped_by,
    )  # fmt: skip


def finalist_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """As `recorded_job` for a finalist: with a test result; also for a winner on all data."""
    result = recorded_job(replace(task, num_epochs=task.end_epoch), report, slot)
    (Path(task.folder) / "model.keras").write_text(f"weights of seed {task.seed}")
    (Path(task.folder) / "predictions.npz").write_text("not drawn yet")
    assert task.measure_test
    return replace(result, test_metrics={"test_accuracy": result.value - 0.01, "test_loss": 0.1})


def failing_finalist_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """The second of two finalists fails always."""
    if task.number % 2:
        raise ValueError(f"no luck with training {task.number}")
    return finalist_job(task, report, slot)


def metrics_of(value: float) -> dict[str, float]:
    """An epoch's metrics around a validation accuracy."""
    return {
        "loss": 1 - value, "accuracy": value, "val_loss": 1 - value, "val_accuracy": value,
        "learning_rate": 0.001, "epoch_seconds": 0.01, "images_per_second": 100.0,
    }  # fmt: skip


def chaos_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """As `recorded_job`, at a pace at which something can be killed."""

    def unhurried(message: EpochReport) -> Any:
        time.sleep(0.03)
        return report(message)

    result = recorded_job(task, unhurried, slot)
    (Path(task.folder) / "predictions.npz").write_text("not drawn yet")
    return result


def chaos_figures_job(argument: tuple[str, Any], report: Any, slot: Slot) -> None:
    """Leaves a picture."""
    time.sleep(0.02)
    (Path(argument[0]) / "curves.png").write_bytes(b"png")


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


def source_changed_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """The user saves the space's file while trial 1 is about to start."""
    if task.number:
        raise SourceChangedError("the source of the space has changed (my_space.py)")
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


def _first_time(task: TrialTask) -> bool:
    """Whether this trial is tried for the first time; only trial 0 has trouble."""
    marker = Path(task.folder) / "tried"
    first = task.number == 0 and not marker.exists()
    marker.touch()
    return first


def _after_one_epoch(task: TrialTask, report: Any, slot: Slot, trouble: Any) -> TrialResult:
    def then(message: EpochReport) -> Any:
        if message.epoch == 2 and first:
            trouble()
        return report(message)

    first = _first_time(task)
    return recorded_job(task, then, slot)


class Died(Exception):
    """Stands for the end of a process, where jobs are threads."""


def crashing_once_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Dies in its second epoch, the first time."""

    def die() -> None:
        raise Died("the process was killed by signal SIGSEGV")

    return _after_one_epoch(task, report, slot, die)


def memory_once_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Runs out of memory in its second epoch, the first time."""

    def run_out() -> None:
        raise MemoryError("out of memory")

    return _after_one_epoch(task, report, slot, run_out)


def crowded_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Runs out of memory in its second epoch where it has less than half of a GPU."""

    def then(message: EpochReport) -> Any:
        time.sleep(0.05)  # Until the neighbours are in their second epoch, too.
        if message.epoch == 2 and slot.num_sharing > 2:
            raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY: failed to allocate 1.00GiB")
        return report(message)

    return recorded_job(task, then, slot)


def crowded_chaos_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """As `chaos_job`, at a slower pace, where the memory of a GPU is enough for two trials."""

    def then(message: EpochReport) -> Any:
        time.sleep(0.2)
        if message.epoch == 2 and slot.num_sharing > 2:
            raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY: failed to allocate 1.00GiB")
        return report(message)

    return chaos_job(task, then, slot)


def measuring_job(task: MeasureTask, report: Any, slot: Slot) -> list[Measurement]:
    """Finds that four trials on a GPU are fastest."""
    report("ready")
    time.sleep(0.1)
    return [Measurement(task.points[0], 10, 10, 1.0, 1.0 + 0.1 * slot.num_sharing)]


def always_short_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Runs out of memory every time."""
    raise MemoryError("out of memory")


def hanging_once_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Hangs in its second epoch, the first time."""
    return _after_one_epoch(task, report, slot, lambda: time.sleep(60))


def passing_error_once_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Loses a connection in its second epoch, the first time."""

    def lose() -> None:
        raise ConnectionError("reset by peer")

    return _after_one_epoch(task, report, slot, lose)


def always_dying_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Dies every time."""
    raise Died("the process was killed by signal SIGSEGV")


def not_finite_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Ends as training ends when the loss is NaN."""
    from pipelines.training.trial import NonFiniteLossError

    raise NonFiniteLossError("The training loss became nan in epoch 1.")


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


def warm_up(slot: Slot) -> None:
    """Stands for the seconds in which a device starts; a marker in the folder says that it ran."""
    Path(f"warm-{os.getpid()}").touch()


def raising_warm_up(slot: Slot) -> None:
    """A device that says why it does not start."""
    raise RuntimeError("no device here")


def dying_warm_up(slot: Slot) -> None:
    """A device that does not start."""
    Path(f"died-{os.getpid()}").touch()
    os._exit(3)


def sleeping_job(argument: float, report: Any, slot: Slot) -> str:
    """Sleeps, ignoring nothing."""
    time.sleep(argument)
    return "slept"


def own_pid_job(argument: Any, report: Any, slot: Slot) -> int:
    """Prints something and answers its process."""
    print("said by the job", flush=True)
    return os.getpid()


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
                out.put(Raised(job_id, type(error).__name__, first, f"Traceback: {error}"))

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


class FakeInventory:
    """GPUs that are not there; the environment hides them as it hides real ones."""

    def __init__(self, *gpus: Gpu) -> None:
        self._gpus = gpus or tuple(
            Gpu(str(index), "NVIDIA H200", 141 * 2**30, f"GPU-{index}aaa") for index in range(2)
        )

    def gpus(self) -> tuple[Gpu, ...]:
        return visible(self._gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


class FakeMeter:
    """Figures as they were set; processes are those of `processes`, by GPU."""

    def __init__(self, **processes: dict[int, ProcessFigures]) -> None:
        self.gpus = {
            name.removeprefix("gpu"): GpuFigures(2**30, 141 * 2**30, 50.0, 200.0, found)
            for name, found in (processes or {"gpu0": {7: ProcessFigures(2**29, 40.0)}}).items()
        }
        self.closed = False
        self.num_readings = 0

    def read(self, gpu: str) -> GpuFigures:
        self.num_readings += 1
        if gpu not in self.gpus:
            raise MeterError(f"GPU {gpu} does not answer NVML: lost")
        return self.gpus[gpu]

    def close(self) -> None:
        self.closed = True


class FakeNvml:
    """`pynvml` for one GPU that is not there: its functions, structures and errors.

    Args:
        silent: names of functions that this GPU does not support.
        samples: what `nvmlDeviceGetProcessUtilization` knows, as (process, microseconds, percent).
    """

    import pynvml as _real

    NVMLError = _real.NVMLError
    NVML_ERROR_NOT_FOUND = _real.NVML_ERROR_NOT_FOUND
    NVML_SUCCESS = _real.NVML_SUCCESS

    def __init__(
        self,
        processes: Mapping[int, int | None] | None = None,
        samples: tuple[tuple[int, int, int], ...] = (),
        silent: tuple[str, ...] = (),
    ) -> None:
        self._processes = {7: 2**29} if processes is None else processes
        self.samples, self._silent = samples, silent
        self.starts = 0

    def _check(self, name: str) -> None:
        if not self.starts:
            raise self.NVMLError(self._real.NVML_ERROR_UNINITIALIZED)
        if name in self._silent:
            raise self.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)

    def nvmlInit(self) -> None:
        if "nvmlInit" in self._silent:
            raise self.NVMLError(self._real.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.starts += 1

    def nvmlShutdown(self) -> None:
        self._check("nvmlShutdown")
        self.starts -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._check("nvmlDeviceGetHandleByIndex")
        if index != 0:
            raise self.NVMLError(self._real.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        self._check("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(total=141 * 2**30, used=2**30, free=140 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._check("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=50, memory=10)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        self._check("nvmlDeviceGetPowerUsage")
        return 200_500

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        self._check("nvmlDeviceGetComputeRunningProcesses")
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self._processes.items()
        ]

    def nvmlDeviceGetProcessUtilization(self, handle: int, since: int) -> list[Any]:
        self._check("nvmlDeviceGetProcessUtilization")
        found = [
            SimpleNamespace(pid=p, timeStamp=t, smUtil=u) for p, t, u in self.samples if t > since
        ]
        if not found:
            raise self.NVMLError(self._real.NVML_ERROR_NOT_FOUND)
        return found


class ListEngine:
    """Proposes the points that it was given, in order; decides as told, by default to go on."""

    def __init__(self, points: list[dict[str, Any]], decide: Any = None) -> None:
        self._points = list(points)
        self._next = 0
        self._decide = decide or (lambda number, epoch: Decision.GO_ON)
        self.told: dict[int, tuple[TrialState, float | None, str]] = {}
        self.reports: list[tuple[int, int, float]] = []
        self.paused: list[int] = []
        self.promotions: list[int] = []
        self.duplicates: dict[int, int] = {}
        self.history: list[PastTrial] = []

    def past(self) -> list[PastTrial]:
        return self.history

    def ask(self) -> Proposal | None:
        if self._next == len(self._points):
            return None
        number = self._next
        self._next += 1
        return Proposal(number, self._points[number], None, self.duplicates.get(number))

    def report(self, number: int, epoch: int, value: float) -> Decision:
        if (number, epoch) not in {report[:2] for report in self.reports}:
            self.reports.append((number, epoch, value))
        return self._decide(number, epoch)

    def pause(self, number: int) -> None:
        self.paused.append(number)

    def next_promotion(self, *, closing: bool) -> int | None:
        return self.promotions.pop(0) if self.promotions else None

    def hopeless(self, num_trials: int) -> list[int]:
        return []

    def tell(
        self,
        number: int,
        state: TrialState,
        value: float | None = None,
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.told[number] = (state, value, reason)

    def plots_html(self) -> str:
        return "<html></html>"


class MemoryTracker:
    """Remembers what it is told, in the order of the calls; the same record only once."""

    experiment_id = "0"
    parent_run_id = "parent"

    def __init__(self, files: Any = None) -> None:
        self._files = files
        self.keys: list[str] = []
        self.started: list[TrialRecord] = []
        self.epochs: list[tuple[int, int]] = []
        self.states: list[tuple[int, str]] = []
        self.ended: dict[int, TrialEnd] = {}
        self.kept: list[int] = []
        self.progress: list[float] = []
        self.files: dict[int, list[str]] = {}
        self.tags: dict[int, dict[str, str]] = {}
        self.end: SweepEnd | None = None
        self.sweep: SweepRecord | None = None
        self.parent_tags: dict[str, str] = {}
        self.metrics: dict[tuple[int, int], dict[str, float]] = {}
        self.machine: dict[int, dict[str, float]] = {}

    def apply(self, record: Record, *, again: bool = False) -> dict[str, str]:
        self.keys.append(record.key)
        if isinstance(record, SweepRecord):
            self.sweep = record
        elif isinstance(record, SweepStateRecord):
            self.parent_tags.update(record.tags)
        elif isinstance(record, TrialRecord):
            self.started.append(record)
        elif isinstance(record, EpochRecord):
            assert record.at_ms > 0 and record.metrics
            self.metrics[(record.number, record.epoch)] = dict(record.metrics)
            self.epochs.append((record.number, record.epoch))
        elif isinstance(record, TrialStateRecord):
            self.states.append((record.number, record.state))
        elif isinstance(record, FilesRecord):
            names = [path.name for path in sorted(self._files(record.key).iterdir())]
            self.files.setdefault(record.number, []).extend(names)
        elif isinstance(record, TagsRecord):
            self.tags.setdefault(record.number, {}).update(record.tags)
        elif isinstance(record, TrialEnd):
            assert record.number not in self.ended
            self.ended[record.number] = record
        elif isinstance(record, ModelRecord):
            self.kept.append(record.number)
        elif isinstance(record, ModelDropRecord):
            self.kept.remove(record.number)
        elif isinstance(record, MachineRecord):
            self.machine[record.step] = dict(record.metrics)
        elif isinstance(record, ProgressRecord):
            self.progress += record.metrics.values()
        elif isinstance(record, SweepEnd):
            self.end = record
        return {}


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


def environment_job(argument: object, report: object, slot: Slot) -> str:
    """Which of some variables a worker has."""
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD",
             "MLFLOW_TRACKING_URI", "SWEEPS_STORAGE")  # fmt: skip
    return " ".join(name for name in names if name in os.environ)
