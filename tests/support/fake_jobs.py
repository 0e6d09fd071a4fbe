"""Jobs that worker processes of the tests run instead of training."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.data.prepared import DataLostError
from pipelines.training.checkpoints import CHECKPOINT_FILE
from pipelines.training.cost import Measurement, MeasureTask
from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, TrialResult, TrialTask
from search_spaces.errors import SourceChangedError
from sweeps.executors.base import Slot


def curve_of(task: TrialTask) -> list[float]:
    """A made-up learning curve that follows from the seed."""
    top = 0.5 + 0.5 * (task.seed % 1000) / 1000
    return [top * (1 - 0.5**epoch) for epoch in range(1, task.schedule.num_epochs + 1)]


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
        if done and done >= task.reported_step:
            decision = report(TrialReport(task.number, done, metrics_of(curve[done - 1])))
            if decision is not Decision.GO_ON:
                stopped_by = decision.value
                break
        if done >= task.schedule.num_epochs:
            break
        done += 1
        with (folder / "trained.txt").open("a") as file:
            file.write(f"{done}\n")
        checkpoint.write_text("x" * done)
    weights = b"" if stopped_by in (Decision.PAUSE, Decision.STOP) else b"weights"
    if weights:
        (folder / "model.keras").write_bytes(weights)
    (folder / "model_summary.txt").write_text("summary")
    (folder / "curves.csv").write_text("nothing to draw")
    best = max(range(done), key=lambda k: curve[k]) + 1
    return TrialResult(
        task.number, curve[best - 1], best, done, metrics_of(curve[best - 1]), 10,
        len(weights), 0.01 * done, f"cpu, slot {slot.index}", stopped_by,
    )  # fmt: skip


def finalist_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """As `recorded_job` for a finalist: with a test result; also for a winner on all data."""
    result = recorded_job(
        replace(task, schedule=replace(task.schedule, num_epochs=task.schedule.end_epoch)),
        report,
        slot,
    )
    (Path(task.folder) / "model.keras").write_text(f"weights of seed {task.seed}")
    (Path(task.folder) / "predictions.npz").write_text("not drawn yet")
    assert task.schedule.measure_test
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

    def unhurried(message: TrialReport) -> Any:
        time.sleep(0.03)
        return report(message)

    result = recorded_job(task, unhurried, slot)
    (Path(task.folder) / "predictions.npz").write_text("not drawn yet")
    return result


LIVES = "SWEEPS_CHAOS_LIVES"
"""The variable that names the folder in which trials on nodes show that they live."""
DYING_SECONDS = 2.0
_life: list[Any] = []


def node_chaos_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """As `chaos_job`, slower, on a node; notes where another life of its trial still runs."""

    def unhurried(message: TrialReport) -> Any:
        time.sleep(0.2)
        return report(message)

    _be_the_only_life(Path(os.environ[LIVES]), task.number)
    return chaos_job(task, unhurried, slot)


def _be_the_only_life(folder: Path, number: int) -> None:
    """Holds a lock to the end of this process; leaves a file where another process has it.

    A process that is being killed may hold it for a moment, and a frozen one for as long as it is
    frozen: what it says afterwards is dropped.
    """
    file = (folder / f"trial-{number}").open("a+")
    _life.append(file)
    deadline = time.monotonic() + DYING_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            print(os.getpid(), file=file, flush=True)
            return
        time.sleep(0.05)
    file.seek(0)
    holder = file.read().split()[-1]
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{holder}/stat").read_text().rpartition(")")[2].split()[0]
        if state not in ("T", "Z"):
            (folder / f"twice-{number}-{os.getpid()}").write_text(f"beside {holder} ({state})")


def slow_baseline_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """As `recorded_job` for a published model; the second takes long enough to be interrupted."""

    def unhurried(message: TrialReport) -> Any:
        time.sleep(0.5 if task.number == 1 else 0.0)
        return report(message)

    assert task.schedule.measure_test and task.schedule.keeps_last
    result = recorded_job(task, unhurried, slot)
    return replace(result, test_metrics={"test_accuracy": 0.9, "test_loss": 0.3})


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


def lost_data_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """The prepared data are removed after two trials."""
    if task.number > 1:
        raise DataLostError("data/digits-1", "No such file")
    return recorded_job(task, report, slot)


def filled_disk_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """The disk is full after two trials, which shows itself at different places."""
    if task.number == 3:
        raise RuntimeError("database or disk is full")
    if task.number > 1:
        Path(task.folder, "begun").touch()
        raise OSError(28, "No space left on device", f"/tmp/x{task.number}.npz")
    return recorded_job(task, report, slot)


def often_failing_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Two of three trials cannot read a file."""
    if task.number % 3:
        raise FileNotFoundError(2, "No such file or directory", "extra.npy")
    return recorded_job(task, report, slot)


def numbered_failure_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """Raises for one reason whose text names the trial."""
    raise ValueError(f"no layer in trial-{task.number:04d}")


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
    def then(message: TrialReport) -> Any:
        if message.step == 2 and first:
            trouble()
        return report(message)

    first = _first_time(task)
    return recorded_job(task, then, slot)


class Died(Exception):
    """Stands for the end of a process, where jobs are threads.

    Attributes:
        signal: what killed it.
    """

    def __init__(self, reason: str, signal: str = "") -> None:
        super().__init__(reason)
        self.signal = signal


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

    def then(message: TrialReport) -> Any:
        time.sleep(0.05)  # Until the neighbours are in their second epoch, too.
        if message.step == 2 and slot.num_sharing > 2:
            raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY: failed to allocate 1.00GiB")
        return report(message)

    return recorded_job(task, then, slot)


def crowded_chaos_job(task: TrialTask, report: Any, slot: Slot) -> TrialResult:
    """As `chaos_job`, at a slower pace, where the memory of a GPU is enough for two trials."""

    def then(message: TrialReport) -> Any:
        time.sleep(0.2)
        if message.step == 2 and slot.num_sharing > 2:
            raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY: failed to allocate 1.00GiB")
        return report(message)

    return chaos_job(task, then, slot)


def measuring_job(task: MeasureTask, report: Any, slot: Slot) -> list[Measurement]:
    """Finds that four trials on a GPU are fastest."""
    report("ready")
    time.sleep(1.0)  # Long enough to be read, by whoever looks at all processes each time.
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
    from pipelines.training.epoch import NonFiniteLossError

    raise NonFiniteLossError("The training loss became nan in epoch 1.")


HEAVY_BYTES = 30 * 2**20


def heavy_job(task: TrialTask, report: Any, slot: Slot) -> int:
    """Leaves a large file with its report; returns how large the one was that it began with."""
    path = Path(task.folder) / "checkpoint.npz"
    before = path.stat().st_size if path.exists() else 0
    if not before:
        path.write_bytes(os.urandom(HEAVY_BYTES))
        report(TrialReport(task.number, 1, metrics_of(0.5)))
    return before


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
    """Prints something and returns its process id."""
    print("said by the job", flush=True)
    return os.getpid()


def pid_job(argument: str, report: Any, slot: Slot) -> None:
    """Writes its process id to a file and sleeps."""
    Path(argument).write_text(str(os.getpid()))
    time.sleep(60)


def failing_eof_job(argument: Any, report: Any, slot: Slot) -> None:
    """Raises the exception that a lost channel raises, too."""
    raise EOFError("ran out of input")


def environment_job(argument: object, report: object, slot: Slot) -> str:
    """Which of some variables a worker has."""
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD",
             "MLFLOW_TRACKING_URI", "SWEEPS_STORAGE", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY",
             "DATABASE_URL")  # fmt: skip
    return " ".join(name for name in names if name in os.environ)


def variable_job(argument: str, report: object, slot: Slot) -> tuple[str | None, str | None]:
    """A variable as this process has it, and as its spare had it while it warmed up."""
    return os.environ.get(argument), _seen_warm.get(argument)


_seen_warm: dict[str, str] = {}


def noting_warm_up(slot: Slot) -> None:
    """Notes the environment, and that it is there."""
    _seen_warm.update(os.environ)
    warm_up(slot)


def matplotlib_job(argument: object, report: object, slot: Slot) -> str:
    """The Matplotlib backend that a worker has."""
    import matplotlib.pyplot as plt

    return plt.get_backend()


def littering_job(argument: Any, report: Any, slot: Slot) -> str:
    """Leaves a temporary file behind; returns where."""
    del argument, report, slot
    descriptor, path = tempfile.mkstemp()
    os.close(descriptor)
    return path


def started_job(argument: Any, report: Any, slot: Slot) -> tuple[bool, bool]:
    """Whether Ctrl-C was blocked since this process started, and how its own children start."""
    del argument, report, slot
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return blocked, "PYTHONSAFEPATH" in os.environ
