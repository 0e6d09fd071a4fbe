"""Part 7: `kill -9` of a worker, then of the driver; the sweep goes on, and nothing is left behind.

In small the trials are made up (`tests/support/drivers/gpu_driver.py`); all else is real.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_parts import trials
from gpu_parts.findings import Finding, Task
from gpu_parts.load import descendants, open_meter, running, written_by
from sweeps.resources.nvml import GpuMeter

ROOT = Path(__file__).resolve().parents[2]
MADE_UP = ROOT / "tests" / "support" / "drivers" / "gpu_driver.py"
NAME, NUM_TRIALS, SHARING = "kill", 4, 2
MADE_UP_OPTIONS = (
    "--space", "mlp", "--sampler", "random", "--pruner", "none", "--no-baselines", "--jit", "off",
    "--epochs", "4",
)  # fmt: skip
GONE_SECONDS = 15.0
"""Workers notice at once that their driver is gone; a context takes moments to be given up."""
POLL_SECONDS = 0.25
MIB = 2**20
NOTICED_BYTES = 64 * MIB
"""A context takes hundreds of MiB; the driver's own use varies by less than this."""


def find(task: Task) -> Iterator[Finding]:
    """Both kills, what they leave, and whether every trial is counted once in the end."""
    meter = open_meter()
    before = _read(meter, task.gpu)
    options = MADE_UP_OPTIONS if task.stand_in else (*trials.point_options(task), "--epochs", "2")
    driver = _start(task, "run", [
        *options, "--name", NAME, "--dataset", task.dataset, "--backend", task.backend, "--trials",
        str(NUM_TRIALS), "--timeout", "none", "--gpus", task.gpu, "--workers", str(SHARING),
        "--trials-per-gpu", str(SHARING),
    ])  # fmt: skip
    number = _kill_a_worker(task, driver)
    _wait(task, driver, lambda: _life(number).num_retries > 0 or _life(number).ended is not None)
    retries = _life(number).num_retries
    yield _kept("a killed worker's trial is tried again", retries == 1, f"{retries} more", "1 more")
    _wait(task, driver, lambda: len(_training(driver)) > 0 and bool(_life(number).epochs))
    family = [driver.pid, *descendants(driver.pid)]
    during = _read(meter, task.gpu)
    driver.kill()
    driver.wait()
    gone = _until(lambda: not running(family), GONE_SECONDS)
    left = running(family)
    yield _kept("a killed driver leaves no process", gone, f"{len(left)} of {len(family)} left",
                "none left", n=len(family))  # fmt: skip
    _until(lambda: _is_clean(before, _read(meter, task.gpu)), GONE_SECONDS)
    yield left_on_gpu(before, during, _read(meter, task.gpu), family)
    resumed = _status(task, "run", ["--resume", "--name", NAME])
    yield _kept("the sweep goes on", resumed == 0, f"exit status {resumed}", "0")
    lives = trials.lives(NAME)
    done = [life.number for life in lives if life.state == "COMPLETE"]
    yield _kept("every trial is counted once", done == list(range(NUM_TRIALS)),
                f"{len(set(done))} trials in {len(lives)} records", f"{NUM_TRIALS} in {NUM_TRIALS}",
                n=NUM_TRIALS)  # fmt: skip
    doctor = _status(task, "doctor", [NAME])
    yield _kept("the doctor finds no problem", doctor == 0, f"exit status {doctor}", "0")


def _kept(name: str, held: bool, found: str, expected: str, n: int = 1) -> Finding:
    return Finding(name, found, expected=expected, n=n, kind="promise", held=held)


def _start(task: Task, command: str, options: list[str]) -> subprocess.Popen[bytes]:
    script = [str(MADE_UP), command] if task.stand_in else [str(ROOT / "sweeps" / f"{command}.py")]
    with open("commands.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, *script, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _status(task: Task, command: str, options: list[str]) -> int:
    """The exit status of a command; it is ended with the part where it takes too long."""
    return _start(task, command, options).wait()


def _kill_a_worker(task: Task, driver: subprocess.Popen[bytes]) -> int:
    """Ends the process of a trial that trains; returns the trial's number."""
    while True:
        _wait(task, driver, lambda: len(_training(driver)) > 0)
        for pid, number in _training(driver).items():
            with contextlib.suppress(ProcessLookupError):  # It has just ended by itself.
                os.kill(pid, signal.SIGKILL)
                return number


def _training(driver: subprocess.Popen[bytes]) -> dict[int, int]:
    """Process -> its trial, while that has not ended: a spare writes into another log."""
    known = {f"trial-{life.number:04d}": life.number for life in trials.lives(NAME)
             if life.ended is None}  # fmt: skip
    folders = {pid: Path(written_by(pid)).parent.name for pid in descendants(driver.pid)}
    return {pid: known[folder] for pid, folder in folders.items() if folder in known}


def _life(number: int) -> trials.Life:
    return next(life for life in trials.lives(NAME) if life.number == number)


def _wait(task: Task, driver: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Waits until the condition comes true.

    Raises:
        RuntimeError: The driver has ended before, or the part's time is over.
    """
    while not condition():
        if driver.poll() is not None:
            raise RuntimeError(f"the sweep ended by itself, with status {driver.returncode}")
        if task.left < trials.RESERVE_SECONDS:
            raise RuntimeError("the time was over before anything could be killed")
        time.sleep(POLL_SECONDS)


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


@dataclass(frozen=True)
class Reading:
    """What NVML tells of a GPU: processes by id, and memory of all together."""

    processes: frozenset[int]
    memory_bytes: int


def left_on_gpu(
    before: Reading | None, during: Reading | None, after: Reading | None, family: Sequence[int]
) -> Finding:
    """Whether neither processes nor memory are left; not shown where none was seen before. Pure.

    In a container NVML's ids may be others, or none; then the memory alone tells.

    Args:
        during: while the sweep trained.
        family: its processes then.
    """
    name, expected = "nothing is left on the GPU", "no process and no memory more"
    if before is None or during is None or after is None:
        return Finding(name, "not told: NVML does not start", "", expected, 0, "promise")
    shown = len(during.processes & set(family))
    grown = during.memory_bytes - before.memory_bytes
    note = f"while it trained: {shown} of its processes, {grown / MIB:,.0f} MiB more"
    new = len(after.processes - before.processes)
    more = (after.memory_bytes - before.memory_bytes) / MIB
    seen = shown > 0 or grown > NOTICED_BYTES
    return Finding(
        name, f"{new} processes, {more:,.0f} MiB", "", expected, len(family) if seen else 0,
        "promise", _is_clean(before, after), note,
    )  # fmt: skip


def _is_clean(before: Reading | None, after: Reading | None) -> bool:
    if before is None or after is None:
        return True
    new = after.processes - before.processes
    return not new and after.memory_bytes - before.memory_bytes <= NOTICED_BYTES


def _read(meter: GpuMeter | None, gpu: str) -> Reading | None:
    """A look at a GPU; None where nobody tells."""
    if meter is None:
        return None
    found = meter.read(gpu)
    return Reading(frozenset(found.processes), found.memory_bytes)
