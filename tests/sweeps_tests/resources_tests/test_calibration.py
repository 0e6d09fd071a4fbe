"""`--trials-per-gpu auto`: what is measured, when it ends, and what a sweep begins with."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import fake_executor
import pytest

import sweeps.resources.calibration as calibration
from pipelines.training.cost import Measurement, MeasureTask
from search_spaces.registry import get_space
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.resources.calibration import Calibration, calibrate, measured_point, seconds_for
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Allotment, Machine, allot
from sweeps.resources.packer import packed, read_packing
from sweeps.resources.packing import LevelMeasure
from sweeps.state.paths import SweepPaths

GIB = 2**30
SPACE = get_space("mlp")
H200 = Gpu("0", "NVIDIA H200", 141 * GIB)


def automatic(*gpus: Gpu) -> Allotment:
    return allot(Machine(16, 64 * GIB, gpus or (H200,)), None, None, None)


class Bench:
    """A calibration with a made-up job that costs `seconds[level]` per trial."""

    def __init__(self, tiny_data: Any, tmp_path: Path, monkeypatch: Any) -> None:
        self.executor = fake_executor.InlineExecutor()
        self.interrupts = Interrupts()
        self.task = MeasureTask(SPACE.key, (SPACE.complete({}),), tiny_data, 2, 0)
        self.folder = tmp_path / "measuring"
        self.limit = 60.0
        self.seconds: dict[int, float] = {1: 10.0, 2: 12.0, 4: 30.0}
        self.trouble: dict[int, Exception] = {}
        self.together: list[tuple[int, int]] = []
        self._lock, self._running = threading.Lock(), 0
        monkeypatch.setattr(calibration, "measure_job", self._job)

    def _job(self, task: MeasureTask, report: Any, slot: Slot) -> list[Measurement]:
        level = slot.num_sharing
        if level in self.trouble:
            raise self.trouble[level]
        report("ready")
        with self._lock:
            self._running += 1
        time.sleep(0.1)  # All of a level begin at the same moment, so all are here now.
        with self._lock:
            self.together.append((level, self._running))
        time.sleep(0.1)
        with self._lock:
            self._running -= 1
        epoch = (self.seconds[level] - 2) / task.num_epochs
        return [Measurement(task.points[0], 1, 1, 2.0, epoch)]

    def run(self, allotment: Allotment | None = None) -> Calibration:
        return calibrate(
            allotment or automatic(), self.task, self.executor, None, self.interrupts, self.folder,
            self.limit,
        )  # fmt: skip


@pytest.fixture
def bench(tiny_data, tmp_path, monkeypatch):
    return Bench(tiny_data, tmp_path, monkeypatch)


def test_one_two_and_four_trials_are_measured_at_once_and_the_fastest_is_kept(bench):
    found = bench.run()
    assert bench.together == [(1, 1), (2, 2), (2, 2), (4, 4), (4, 4), (4, 4), (4, 4)]
    assert {n: m.trials_per_hour for n, m in found.measured.items()} == {
        1: 360.0, 2: 600.0, 4: 480.0,
    }  # fmt: skip
    assert found.level == 2
    assert found.text == (
        "1 per GPU: 360 trials/h; 2 per GPU: 600 trials/h; 4 per GPU: 480 trials/h; 2 from now on"
    )
    assert not bench.folder.exists() and bench.executor.stopped == []


def test_all_gpus_are_measured_together(bench):
    found = bench.run(automatic(H200, Gpu("1", "NVIDIA H200", 141 * GIB)))
    assert [m.num_slots for m in found.measured.values()] == [2, 4, 8]
    assert {together for level, together in bench.together if level == 4} == {8}


def test_memory_that_runs_out_ends_the_measurement(bench):
    bench.trouble[4] = MemoryError("CUDA_ERROR_OUT_OF_MEMORY")
    found = bench.run()
    assert set(found.measured) == {1, 2} and found.level == 2
    assert found.text.endswith("; memory ran out with 4 per GPU; 2 from now on")
    assert bench.executor.events(0.1) == []  # Nothing of it runs any more.


def test_a_model_that_cannot_be_measured_is_trained_one_at_a_time(bench):
    bench.trouble[1] = ValueError("no such layer")
    found = bench.run()
    assert found.measured == {} and found.level == 1
    assert found.text == (
        "1 per GPU could not be measured (ValueError: no such layer); 1 from now on"
    )


def test_the_time_limit_ends_the_measurement_with_what_is_there(bench):
    bench.limit = 0.0
    found = bench.run()
    assert found.text == "no time was left to measure 1 per GPU; 1 from now on"
    assert bench.executor.events(0.1) == []
    assert seconds_for(None) == 180.0 and seconds_for(900.0) == 180.0 and seconds_for(100) == 20.0


def test_an_interrupt_ends_the_measurement(bench):
    bench.interrupts.count = 1
    assert bench.run().ended_by == "interrupted"
    assert bench.executor.events(0.1) == []


def test_memory_is_told_where_it_was_seen():
    text = Calibration({2: LevelMeasure(2, 36.0, 3 * GIB)}).text
    assert text == "2 per GPU: 200 trials/h, 3.0 GiB each; 2 from now on"


def test_the_first_baseline_is_measured_or_the_defaults():
    first = SPACE.distinct_baselines()[0][1]
    assert measured_point(SPACE, baselines=True) == first
    assert measured_point(SPACE, baselines=False) == SPACE.complete({})


def note_in(notes: list[tuple[int, str]]):
    """What a recorder does with a packing, as far as it matters here."""
    return lambda level, reason: notes.append((level, reason))


def test_a_sweep_measures_once_and_a_resumed_one_remembers(bench, tmp_path):
    paths, notes, said = SweepPaths(tmp_path, "s"), [], []
    paths.sweep.mkdir(parents=True)

    def begin(asked: int | None) -> Allotment:
        start = allot(Machine(16, 64 * GIB, (H200,)), None, None, asked)
        return packed(
            start, asked, paths, note_in(notes), bench.executor, None, bench.interrupts,
            lambda: bench.task, None, said.append,
        )  # type: ignore[arg-type]  # fmt: skip

    assert (begin(None).level, len(bench.together)) == (2, 7)
    assert (begin(None).level, len(bench.together)) == (2, 7)
    assert [level for level, _ in notes] == [2, 2]
    assert notes[0] == notes[1] and "600 trials/h" in notes[0][1]
    assert said[-1].startswith("packing   1 per GPU: 360")
    # Another request is another matter, and is not measured.
    assert (begin(4).level, len(bench.together)) == (4, 7)
    assert notes[-1] == (4, "as asked")


def test_an_interrupted_measurement_is_not_remembered(bench, tmp_path):
    paths, notes = SweepPaths(tmp_path, "s"), []
    paths.sweep.mkdir(parents=True)
    bench.interrupts.count = 1
    found = packed(
        automatic(), None, paths, note_in(notes), bench.executor, None, bench.interrupts,
        lambda: bench.task, None, lambda text: None,
    )  # type: ignore[arg-type]  # fmt: skip
    assert found.level == 1 and notes == []
    assert read_packing(paths.packing, automatic(), None) is None


def test_a_measurement_without_any_figure_is_not_remembered(bench, tmp_path):
    paths, notes = SweepPaths(tmp_path, "s"), []
    paths.sweep.mkdir(parents=True)
    bench.trouble[1] = RuntimeError("TensorFlow does not find GPU 0")
    found = packed(
        automatic(), None, paths, note_in(notes), bench.executor, None, bench.interrupts,
        lambda: bench.task, None, lambda text: None,
    )  # type: ignore[arg-type]  # fmt: skip
    assert found.level == 1 and "does not find GPU 0" in notes[0][1]
    assert list(paths.sweep.iterdir()) == []


def test_cores_are_left_alone(bench, tmp_path):
    cores = allot(Machine(2, 24 * GIB), None, None, None)
    found = packed(
        cores, None, SweepPaths(tmp_path, "s"), note_in([]), bench.executor, None, bench.interrupts,
        lambda: bench.task, None, lambda text: None,
    )  # type: ignore[arg-type]  # fmt: skip
    assert found is cores and bench.together == []
