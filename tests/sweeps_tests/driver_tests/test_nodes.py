"""Trials whose node is lost go on elsewhere; a sweep without nodes waits, and then to be resumed."""

from __future__ import annotations

import time
from typing import Any

import fake_jobs
import pytest
from loop_scene import Scene, states_of

from pipelines.training.trial import Decision
from sweeps.cluster.protocol import Node
from sweeps.cluster.slots import ClusterSlots
from sweeps.driver.plan import MOST_MOVES, StopReason
from sweeps.engines.base import TrialState
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Machine
from sweeps.resources.packing import machine_of
from tracking.spool.history import Moves, TrialHistory
from tracking.spool.records import EpochRecord, TagsRecord
from tracking.spool.spool import Spool
from tracking.tags import Tag

GIB = 2**30


class Lost(Exception):
    """As the executor calls the end of a job whose node is gone."""


def losing_job(number: int, times: int, *, after_report: bool = False) -> Any:
    """The node of one trial is lost so often, before a report or after it."""
    left = [times]

    def job(task: Any, report: Any, slot: Any) -> Any:
        def losing(message: Any) -> Any:
            is_lost = task.number == number and left[0] and message.step > task.reported_step
            answer = None if is_lost and not after_report else report(message)
            if is_lost:
                left[0] -= 1
                raise Lost(f"node {slot.node} was lost")
            return answer

        return fake_jobs.recorded_job(task, losing, slot)

    return job


def node(name: str, num_cores: int = 1, num_gpus: int = 0) -> Node:
    gpus = tuple(Gpu(str(index), "A", 8 * GIB) for index in range(num_gpus))
    return Node(name, Machine(num_cores, 64 * GIB, gpus))


@pytest.fixture
def scene(tiny_data, tmp_path):
    def make(nodes: dict[str, Node], **options: Any) -> Scene:
        return Scene(tiny_data, tmp_path, pool=ClusterSlots(lambda: nodes, 1), **options)

    return make


@pytest.mark.parametrize(("times", "state"), [(MOST_MOVES, "COMPLETE"), (MOST_MOVES + 1, "FAILED")])
def test_a_trial_goes_on_elsewhere_so_often_and_then_it_may_be_what_ends_nodes(scene, times, state):
    s = scene({"a": node("a"), "b": node("b")}, job=losing_job(1, times), num_retries=0)
    assert s.run() is StopReason.TRIALS
    assert states_of(s) == {0: "COMPLETE", 1: state, 2: "COMPLETE", 3: "COMPLETE"}
    row = s.board.rows[1]
    assert row.num_moved == MOST_MOVES and row.num_retries == 0
    if state == "FAILED":
        assert row.reason.startswith("Crash: node ") and "5 nodes under it before" in row.reason


def test_a_trial_that_reports_between_its_losses_is_not_what_ends_nodes(scene):
    job = losing_job(1, MOST_MOVES + 2, after_report=True)
    s = scene({"a": node("a"), "b": node("b")}, job=job, num_retries=0, num_epochs=9)
    s.run()
    assert s.board.rows[1].num_moved == MOST_MOVES + 2
    assert states_of(s)[1] == "COMPLETE"


def failing_job(*bad: str, own: tuple[int, ...] = ()) -> Any:
    """No trial trains on these nodes, whose disks are full; these trials do nowhere."""

    def job(task: Any, report: Any, slot: Any) -> Any:
        if slot.node in bad or task.number in own:
            raise OSError(28, f"No space left on device /tmp/{task.number}")
        return fake_jobs.recorded_job(task, report, slot)

    return job


@pytest.mark.parametrize(("names", "bad"), [("ab", "a"), ("abcd", "ab"), ("abcdefgh", "abc")])
@pytest.mark.parametrize("num_cores", [1, 4])
def test_a_node_that_fails_every_trial_gets_no_more_and_they_go_on_elsewhere(
    scene, names, bad, num_cores, caplog
):
    nodes = {name: node(name, num_cores) for name in names}
    s = scene(nodes, job=failing_job(*bad), num_trials=30, num_points=30)
    assert s.run() is StopReason.TRIALS
    assert states_of(s) == dict.fromkeys(range(30), "COMPLETE")
    rows = s.board.rows.values()
    assert {row.node for row in rows} <= set(names) - set(bad)
    assert {name for row in rows for name in row.failed_on} == set(bad)
    assert all(row.num_retries == 0 for row in rows)
    for name in bad:
        assert f"node {name} gets no more trials: 3 in a row failed there" in caplog.text


@pytest.mark.parametrize("names", ["a", "ab", "abcdefgh"])
def test_what_fails_on_every_node_breaks_the_sweep_off(scene, names):
    nodes = {name: node(name) for name in names}
    s = scene(nodes, job=failing_job(*names), num_trials=30, num_points=30)
    assert s.run() is StopReason.TROUBLE
    assert s.sweep.error.startswith("3 trials in a row failed: OSError: [Errno 28]")
    assert states_of(s) == {}, "none has failed"
    assert len(s.board.rows) <= 3 * len(names)


@pytest.mark.parametrize("num_cores", [1, 4])
def test_points_that_fail_wherever_they_are_trained_take_no_node_along(scene, num_cores):
    bad = (2, 5, 6, 7, 8)
    nodes = {name: node(name, num_cores) for name in "abc"}
    s = scene(nodes, job=failing_job(own=bad), num_trials=40, num_points=40)
    s.sweep._retries._doubts.trouble = lambda: (
        ""
    )  # All of one cause in a row, which is another rule.
    assert s.run() is StopReason.TRIALS
    failed = {number for number, state in states_of(s).items() if state == "FAILED"}
    assert failed == set(bad)
    assert s.sweep._retries._suspects == set(), "no node is to blame"


def test_what_is_moved_too_often_has_failed_once_another_trial_reports(scene):
    nodes = {name: node(name) for name in "abcdefghij"}
    s = scene(nodes, job=failing_job(own=(4,)), num_trials=30, num_points=30)
    assert s.run() is StopReason.TRIALS
    assert [n for n, state in states_of(s).items() if state == "FAILED"] == [4]
    assert len(s.board.rows[4].failed_on) <= MOST_MOVES + 1


def test_what_failed_on_every_node_goes_on_on_one_that_comes(scene):
    nodes = {"a": node("a")}

    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == 1 and slot.node == "a":
            nodes["b"] = node("b")
        return failing_job(*("a" if task.number == 1 else ""))(task, report, slot)

    s = scene(nodes, job=job)
    assert s.run() is StopReason.TRIALS
    assert set(states_of(s).values()) == {"COMPLETE"}
    row = s.board.rows[1]
    assert (row.node, row.num_moved, row.num_retries) == ("b", 0, 0)


def test_a_start_that_fails_here_is_no_fault_of_a_node(scene, monkeypatch):
    s = scene({"a": node("a"), "b": node("b")}, num_trials=30, num_points=30, num_retries=0)
    monkeypatch.setattr(s.executor, "start", full_disk)
    assert s.run() is StopReason.TROUBLE
    assert len(s.board.rows) <= 4 and s.sweep._retries._suspects == set()


def full_disk(*arguments: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_promoted_trial_waits_for_a_node_on_which_it_has_not_failed(scene):
    """Trial 0 fails on a, waits at a rung on b, and is promoted while a alone is free."""
    began: list[tuple[int, str]] = []
    promoted: list[set[str]] = []

    def decide(number: int, epoch: int) -> Decision:
        first = (number, epoch) == (0, 2) and not s.engine.paused
        return Decision.PAUSE if first else Decision.GO_ON

    def next_promotion(*, no_more_trials: bool) -> int | None:
        busy = {row.node for row in s.board.running()}
        if promoted or s.engine.paused != [0] or busy != {"b"}:
            return None
        promoted.append(busy)
        return 0

    def job(task: Any, report: Any, slot: Any) -> Any:
        began.append((task.number, slot.node))
        if (task.number, slot.node) == (0, "a"):
            raise OSError(28, "No space left on device")
        if task.number:
            time.sleep(0.3 if slot.node == "b" else 0.02)
        return fake_jobs.recorded_job(task, report, slot)

    nodes = {"a": node("a"), "b": node("b")}
    s = scene(nodes, job=job, decide=decide, num_trials=40, num_points=40)
    s.engine.next_promotion = next_promotion
    assert s.run() is StopReason.TRIALS
    assert promoted and set(states_of(s).values()) == {"COMPLETE"}
    assert [name for number, name in began if number == 0] == ["a", "b", "b"]


def test_one_whose_memory_ran_out_and_that_fails_on_has_an_end(scene):
    """It has a machine to itself, the same one again and again: there is no other as large."""
    lives = []

    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == 1:
            lives.append(slot.node)
            if len(lives) == 1:
                raise MemoryError("no room")
            raise OSError(28, "No space left on device")
        return fake_jobs.recorded_job(task, report, slot)

    nodes = {"a": node("a"), "b": Node("b", Machine(1, 8 * GIB))}
    s = scene(nodes, job=job, num_trials=6, num_points=6, num_retries=1)
    assert s.run() is StopReason.TRIALS
    assert states_of(s)[1] == "FAILED" and len(lives) <= 3


def test_what_fails_at_the_driver_is_settled_by_any_later_report(scene, monkeypatch):
    nodes = {"a": node("a"), "b": node("b")}
    s = scene(nodes, num_trials=12, num_points=12, num_retries=0)
    start = s.executor.start

    def now_and_then(job_id: str, *rest: Any) -> None:
        if job_id in ("trial-2", "trial-5", "trial-8", "trial-11"):
            raise OSError(28, "No space left on device")
        start(job_id, *rest)

    monkeypatch.setattr(s.executor, "start", now_and_then)
    assert s.run() is StopReason.TRIALS
    failed = {number for number, state in states_of(s).items() if state == "FAILED"}
    assert failed == {2, 5, 8, 11} and s.sweep._retries._suspects == set()


def test_what_is_spared_counts_as_no_capacity_and_is_used_where_nothing_else_is():
    nodes = {name: node(name, 2) for name in "ab"}
    slots = ClusterSlots(lambda: nodes, 1)
    slots.spare({"a"})
    assert slots.num_slots == 2
    assert {slots.take().node for _ in range(2)} == {"b"} and not slots.has_room
    slots.spare({"a", "b"})
    assert slots.num_slots == 4 and slots.take(beyond={"b"}).node == "a"
    assert slots.take(beyond={"a", "b"}).node == "a"


def test_a_node_is_the_same_machine_whenever_it_joins():
    assert (
        machine_of("host.name.2-1a2b3c.12")
        == "host.name.2-1a2b3c"
        == machine_of("host.name.2-1a2b3c")
    )
    nodes = {name: node(name) for name in ("a-1a2b3c", "b-1a2b3c")}
    slots = ClusterSlots(lambda: nodes, 1)
    slots.spare({"a-1a2b3c"})
    nodes["a-1a2b3c.2"] = nodes.pop("a-1a2b3c")
    assert slots.take().node == "b-1a2b3c" and not slots.has_room
    del nodes["b-1a2b3c"]
    assert slots.take().node == "a-1a2b3c.2", "there is no other"


def test_losses_in_a_row_count_over_sessions(tmp_path):
    def put(spool: Spool, number: int, total: int) -> None:
        tags = {Tag.NUM_MOVES: str(total), Tag.LOST_SECONDS: f"{2.5 * total}"}
        spool.put(TagsRecord(number, tags, at_ms=total))

    spool = Spool(tmp_path)
    for number in (0, 1):
        for total in (1, 2):
            put(spool, number, total)
    spool.put(EpochRecord(1, 1, {"val_accuracy": 0.5}, 1_000))
    put(spool, 1, 3)
    history = TrialHistory(spool)
    assert history.moves(0) == Moves(2, 2, 5.0)
    assert history.moves(1) == Moves(3, 1, 7.5)
    assert history.moves(2) == Moves()


def test_without_a_node_the_trials_wait_and_then_the_sweep(scene):
    nodes = {"a": node("a")}

    def job(task: Any, report: Any, slot: Any) -> Any:
        if task.number == 1:
            nodes.clear()
            raise Lost("node a was lost")
        return fake_jobs.recorded_job(task, report, slot)

    s = scene(nodes, job=job, node_wait_seconds=0.1)
    stop = s.run()
    assert stop is StopReason.NO_NODE and stop.is_break
    assert states_of(s) == {0: "COMPLETE"}
    assert s.board.rows[1].state is TrialState.PAUSED, "it waits to be resumed"


def test_slots_are_those_of_the_nodes_of_now_the_emptiest_first():
    nodes = {"a": node("a", 4), "b": node("b", 2)}
    slots = ClusterSlots(lambda: nodes, num_threads=2)
    assert slots.num_slots == 3
    taken = [slots.take() for _ in range(3)]
    assert [slot.node for slot in taken] == ["a", "b", "a"]
    assert [slot.index for slot in taken] == [0, 1, 2] and not slots.has_room
    del nodes["a"]
    nodes["c"] = node("c", num_gpus=2)
    assert slots.num_slots == 3
    slots.give_back(taken[0])
    assert [slots.take().gpu for _ in range(2)] == ["0", "1"]
    slots.give_back(taken[1])
    assert slots.take().node == "b"


def test_nodes_of_the_same_size_take_turns_and_no_more_trials_run_than_asked_for():
    nodes = {"a": node("a"), "b": node("b")}
    slots = ClusterSlots(lambda: nodes, num_threads=1, most=1)
    names = []
    for _ in range(4):
        slot = slots.take()
        assert not slots.has_room
        names.append(slot.node)
        slots.give_back(slot)
    assert names == ["a", "b", "a", "b"]


def test_memory_that_runs_out_lowers_the_packing_of_every_node_with_such_gpus():
    nodes = {"a": node("a", num_gpus=1), "b": node("b", num_gpus=1), "d": node("d", num_gpus=2)}
    slots = ClusterSlots(lambda: nodes, 1, trials_per_gpu=2)
    assert slots.num_slots == 8
    taken = [slots.take() for _ in range(3)]
    slot = next(slot for slot in taken if slot.node == "a")
    del nodes["a"]
    assert slots.level_of(slot) == 2, "its node is gone, and its GPUs are known"
    slots.lower(1, slot)
    nodes["c"] = node("c", num_gpus=1)
    assert slots.num_slots == 1 + 1 + 4
    assert slots.level_of(slot) == 1


def test_a_trial_whose_memory_ran_out_has_the_node_with_most_memory_to_itself():
    nodes = {"a": node("a", 2), "b": node("b", 2), "c": node("c", 2)}
    nodes["small"] = Node("small", Machine(2, 8 * GIB))
    slots = ClusterSlots(lambda: nodes, 1)
    taken = [slots.take() for _ in range(8)]
    assert not slots.has_room and not slots.has_room_alone
    for slot in taken:
        if slot.node in ("a", "small"):
            slots.give_back(slot)
    slots.empty_one(True)
    assert slots.has_room_alone, "a is idle; that the small one is does not matter"
    assert slots.take().node == "small", "a takes nothing else meanwhile"
    alone = slots.take(alone=True)
    assert alone.node == "a"
    slots.empty_one(False)
    assert slots.take().node == "small" and not slots.has_room, "a is not shared"
    slots.give_back(alone)
    assert slots.take().node == "a"


def test_the_other_nodes_work_on_while_one_trial_has_a_node_to_itself(scene):
    """Trial 0's memory runs out once; others start while its second life trains."""
    began: list[tuple[int, str]] = []
    alone: list[str] = []

    def job(task: Any, report: Any, slot: Any) -> Any:
        began.append((task.number, slot.node))
        if task.number == 0 and not alone:
            alone.append("")
            raise MemoryError("no room")
        if task.number == 0:
            alone.append(slot.node)
        else:
            time.sleep(0.2)
        return fake_jobs.recorded_job(task, report, slot)

    nodes = {"a": node("a"), "b": node("b")}
    s = scene(nodes, job=job, num_retries=1, num_trials=6, num_points=6)
    assert s.run() is StopReason.TRIALS
    assert states_of(s) == dict.fromkeys(range(6), "COMPLETE")
    second = [number for number, _ in began].index(0, 1)
    assert began[second + 1 :], "others start after it"
    assert s.tracker.tags[0]["sweeps.num_retries"] == "1"
