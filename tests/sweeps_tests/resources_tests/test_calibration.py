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
from sweeps.cluster.protocol import Node
from sweeps.cluster.slots import ClusterSlots
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.resources.calibration import Bench, Calibration, measured_point, seconds_for
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Allotment, Machine, allot
from sweeps.resources.packer import Packer, packed, read_packing
from sweeps.resources.packing import LevelMeasure
from sweeps.state.paths import SweepPaths

GIB = 2**30
SPACE = get_space("mlp")
H200 = Gpu("0", "NVIDIA H200", 141 * GIB)


def automatic(*gpus: Gpu) -> Allotment:
    return allot(Machine(16, 64 * GIB, gpus or (H200,)), None, None, None)


class MadeUp:
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
        self.slots: list[Slot] = []
        self._lock, self._running = threading.Lock(), 0
        monkeypatch.setattr(calibration, "measure_job", self._job)

    def _job(self, task: MeasureTask, report: Any, slot: Slot) -> list[Measurement]:
        level = slot.num_sharing
        self.slots.append(slot)
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

    def bench(self, say: Any = lambda text: None) -> Bench:
        return Bench(
            lambda: self.task, self.executor, None, self.interrupts, self.folder, self.limit, say
        )

    def run(self, *gpus: Gpu) -> Calibration:
        allotment = automatic(*gpus)
        return self.bench().calibrate(allotment.levels, allotment.layout.first_slots)


@pytest.fixture
def bench(tiny_data, tmp_path, monkeypatch):
    return MadeUp(tiny_data, tmp_path, monkeypatch)


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
    found = bench.run(H200, Gpu("1", "NVIDIA H200", 141 * GIB))
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
        return packed(start, asked, None, paths.packing, note_in(notes), bench.bench(said.append))

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
    found = packed(automatic(), None, None, paths.packing, note_in(notes), bench.bench())
    assert found.level == 1 and notes == []
    assert read_packing(paths.packing, automatic(), None) is None


def test_a_measurement_without_any_figure_is_not_remembered(bench, tmp_path):
    paths, notes = SweepPaths(tmp_path, "s"), []
    paths.sweep.mkdir(parents=True)
    bench.trouble[1] = RuntimeError("TensorFlow does not find GPU 0")
    found = packed(automatic(), None, None, paths.packing, note_in(notes), bench.bench())
    assert found.level == 1 and "does not find GPU 0" in notes[0][1]
    assert list(paths.sweep.iterdir()) == []


L4 = Gpu("0", "NVIDIA L4", 24 * GIB)


def cluster(
    nodes: dict[str, Node], asked: int | None = None, most: int | None = None, **more: Any
) -> Allotment:
    pool = ClusterSlots(lambda: nodes, 4, asked or 1, most, **more)
    return Allotment((Slot(0, 4),), "a cluster", pool=pool)


def node(name: str, *gpus: Gpu) -> Node:
    return Node(name, Machine(16, 64 * GIB, gpus))


def test_each_kind_of_gpu_of_a_cluster_is_measured_once_on_one_node(bench, tmp_path):
    path, notes, said = tmp_path / "packing.json", [], []
    nodes = {"a": node("a", L4), "b": node("b", H200), "c": node("c", H200), "d": node("d")}
    allotment = cluster(nodes)

    def begin(allotment: Allotment, asked: int | None = None) -> Any:
        assert packed(allotment, asked, None, path, note_in(notes), bench.bench(said.append))
        return allotment.pool

    pool = begin(allotment)
    assert len(bench.together) == 14, "1, 2 and 4 trials on one node of each kind"
    assert {slot.node for slot in bench.slots} == {"a", "b"}
    assert pool.num_slots == 2 + 2 + 2 + 4, "two on each GPU, and the cores of the last node"
    nodes["e"] = node("e", H200)
    assert pool.num_slots == 12, "a node that joins later has what its kind has"
    assert {pool.level_of(Slot(0, 4, node=name)) for name in "abce"} == {2}
    ((level, reason),) = notes
    assert level == 2 and reason.startswith("1 x NVIDIA H200: 1 per GPU: 360 trials/h; ")
    assert "; 1 x NVIDIA L4: 1 per GPU" in reason
    assert said[0] == "measuring 1 trial at once, 1 per GPU on b ..."
    # A session that goes on remembers, and measures only what is new.
    nodes["f"] = node("f", Gpu("0", "NVIDIA A100", 80 * GIB))
    bench.slots.clear()
    pool = begin(cluster(nodes))
    assert {slot.node for slot in bench.slots} == {"f"} and pool.num_slots == 14
    # Memory that runs out on one kind is remembered, too, and for that kind.
    slot = next(slot for slot in iter(pool.take, None) if slot.node == "a")
    pool.give_back(slot)
    packer = Packer((), None, 1, None, path, bench.executor, note_in(notes), pool)
    text = "memory ran out with 2 trials per GPU, 1 from now on"
    assert packer.ran_out_of_memory(slot) == text
    assert notes[-1] == (1, f"1 x NVIDIA L4: {text}") and packer.num_slots == 13
    before = len(bench.together)
    assert begin(cluster(nodes)).num_slots == 13 and len(bench.together) == before
    # As asked: nothing is measured.
    assert begin(cluster(nodes, 4), 4).num_slots == 4 * 5 + 4
    assert len(bench.together) == before and notes[-1][1].startswith("1 x NVIDIA A100: as asked")


def test_the_measurement_waits_until_nodes_with_gpus_have_the_data(bench, tmp_path):
    nodes: dict[str, Node] = {}
    original = bench.executor.events

    def events(seconds: float) -> Any:
        nodes["b"] = node("b", H200)  # As it is when the driver reads what the bridge has said.
        return original(seconds)

    bench.executor.events = events
    allotment = cluster(nodes, to_come=lambda: 0 if nodes else 1)
    packed(allotment, None, None, tmp_path / "packing.json", note_in([]), bench.bench())
    assert len(bench.together) == 7 and allotment.pool.num_slots == 2


def test_a_node_that_is_lost_while_it_measures_says_nothing_of_its_kind(bench, tmp_path):
    class Lost(Exception):
        """As the executor calls it."""

    path, notes = tmp_path / "packing.json", []
    bench.trouble[2] = Lost("node b was lost")
    allotment = cluster({"b": node("b", H200)})
    packed(allotment, None, None, path, note_in(notes), bench.bench())
    assert allotment.pool.num_slots == 1 and "node b was lost" in notes[0][1]
    bench.trouble.clear()
    allotment = cluster({"b": node("b", H200)})
    packed(allotment, None, None, path, note_in(notes), bench.bench())
    assert allotment.pool.num_slots == 2, "the next session measures again"


def test_time_is_shared_by_the_kinds_that_are_measured(bench, tmp_path):
    path = tmp_path / "packing.json"
    limits = []
    bench.limit = 60.0
    nodes = {"a": node("a", L4), "b": node("b", H200)}

    class Watched(Bench):
        def calibrate(self, *arguments: Any) -> Calibration:
            limits.append(self.limit_seconds)
            return super().calibrate(*arguments)

    def begin() -> None:
        watched = Watched(**vars(bench.bench()))
        packed(cluster(nodes), None, None, path, note_in([]), watched)

    begin()
    nodes["c"] = node("c", Gpu("0", "NVIDIA A100", 80 * GIB))
    begin()
    assert limits == pytest.approx([30.0, 30.0, 60.0], abs=1.0)


def test_a_node_has_no_more_trials_than_its_memory_and_the_sweep_allow():
    small = Node("s", Machine(16, 8 * GIB, (H200,)))  # 3 GiB of the machine for each trial.
    tight = node("t", Gpu("0", "NVIDIA H200", 3 * GIB))  # And 512 MiB of a GPU.
    pool = cluster({"b": node("b", H200), "s": small, "t": tight}, 8).pool
    assert pool.num_slots == 8 + 2 + 2
    shares = [pool.take() for _ in range(12)]
    assert not pool.has_room
    assert all(s.memory.num_bytes >= 512 * 2**20 for s in shares)
    alone = cluster({"b": node("b", H200)}, 4, most=1).pool.take()
    assert alone.num_sharing == 1 and alone.memory is None, "one trial has the GPU to itself"


def test_no_more_trials_share_a_gpu_of_a_cluster_than_the_sweep_has(bench, tmp_path):
    allotment = cluster({"b": node("b", H200)})
    packed(allotment, None, 2, tmp_path / "packing.json", note_in([]), bench.bench())
    assert {slot.num_sharing for slot in bench.slots} == {1, 2}


def test_an_interrupt_leaves_a_cluster_with_one_trial_on_each_gpu(bench, tmp_path):
    bench.interrupts.count, notes = 1, []
    allotment = cluster({"b": node("b", H200)})
    packed(allotment, None, None, tmp_path / "packing.json", note_in(notes), bench.bench())
    assert allotment.pool.num_slots == 1 and notes == []


def test_cores_are_left_alone(bench, tmp_path):
    cores = allot(Machine(2, 24 * GIB), None, None, None)
    path = SweepPaths(tmp_path, "s").packing
    found = packed(cores, None, None, path, note_in([]), bench.bench())
    assert found is cores and bench.together == []
