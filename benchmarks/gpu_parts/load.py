"""How busy the GPU and the cores are meanwhile, and which processes there are."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.resources import gpu_monitor
from sweeps.resources.nvml import GpuMeter, MeterError

INTERVAL_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """Means over a stretch of time; None where nobody told.

    Attributes:
        gpu_percent: of the time in which the GPU computed, for all processes.
        cores: how many cores the processes of this part kept busy.
    """

    gpu_percent: float | None
    cores: float | None

    def text(self, num_cores: int) -> str:
        """For people."""
        gpu = "GPU not told" if self.gpu_percent is None else f"GPU {self.gpu_percent:.0f} %"
        cores = "" if self.cores is None else f", {self.cores:.1f} of {num_cores} cores"
        return gpu + cores


def open_meter() -> GpuMeter | None:
    """NVML, or a stand-in for it; None where there is none."""
    try:
        return gpu_monitor.NvmlMeter()
    except MeterError:
        return None


class LoadWatch:
    """Looks twice a second at a GPU and at the processes of this group, until it is closed."""

    def __init__(self, gpu: str) -> None:
        self._gpu, self._meter = gpu, open_meter()
        self._seen: list[tuple[float, float | None, float]] = []
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="watch-load").start()

    def between(self, start: float, end: float) -> Load:
        """The load between two moments, in seconds since 1970."""
        seen = [(gpu, cores) for at, gpu, cores in list(self._seen) if start <= at <= end]
        percents = [gpu for gpu, _ in seen if gpu is not None]
        return Load(
            statistics.mean(percents) if percents else None,
            statistics.mean(cores for _, cores in seen) if seen else None,
        )

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def _run(self) -> None:
        before, since = _cpu_seconds(), time.monotonic()
        while not self._stop.wait(INTERVAL_SECONDS):
            now, at = _cpu_seconds(), time.monotonic()
            # Processes that began or ended meanwhile are left out: there are few.
            spent = sum(seconds - before[pid] for pid, seconds in now.items() if pid in before)
            percent = None
            if self._meter is not None:
                try:
                    percent = self._meter.read(self._gpu).utilization_percent
                except MeterError:
                    self._meter = None
            self._seen.append((time.time(), percent, spent / (at - since)))
            before, since = now, at


def _cpu_seconds() -> dict[int, float]:
    """Process of this group -> CPU seconds that it has used."""
    group, tick = os.getpgrp(), os.sysconf("SC_CLK_TCK")
    return {
        pid: (int(fields[11]) + int(fields[12])) / tick
        for pid, fields in _processes()
        if int(fields[2]) == group
    }


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Every process with the fields of its `stat` after the name: state, parent, group ..."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield int(path.parent.name), path.read_text().rpartition(")")[2].split()
        except OSError:  # It has ended.
            continue


def descendants(root: int) -> list[int]:
    """The processes below one, those that have ended and wait for their parent left out."""
    children: dict[int, list[int]] = {}
    for pid, fields in _processes():
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(pid)
    found, below = [], [root]
    while below:
        below = [child for parent in below for child in children.get(parent, [])]
        found += below
    return found


def group() -> list[int]:
    """The processes of this group but this one, also those whose parent has ended."""
    ours, own = os.getpgrp(), os.getpid()
    return [
        pid
        for pid, fields in _processes()
        if int(fields[2]) == ours and pid != own and fields[0] != "Z"
    ]


def running(pids: list[int]) -> list[int]:
    """Those that have not ended."""
    return [pid for pid, fields in _processes() if pid in pids and fields[0] != "Z"]


def written_by(pid: int) -> str:
    """The file that takes a process' standard output: the log of a trial, while it trains one."""
    try:
        return str(Path(f"/proc/{pid}/fd/1").readlink())
    except OSError:
        return ""
