"""How many trials share a GPU: decided without processes, kept to by the loop."""

from __future__ import annotations

import dataclasses
import json

import fake_jobs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_scene import Scene

from search_spaces.errors import InputError
from sweeps.driver.plan import StopReason
from sweeps.executors.base import Slot
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Machine, allot
from sweeps.resources.packer import Packing, read_packing, write_packing
from sweeps.resources.packing import (
    CONTEXT_BYTES,
    FixedSlots,
    GpuLayout,
    LevelMeasure,
    PackedSlots,
    after_out_of_memory,
    fastest,
)

GIB = 2**30
H200 = Gpu("0", "NVIDIA H200", 141 * GIB)
SMALL = Gpu("1", "NVIDIA T4", 15 * GIB)
TINY = Gpu("2", "NVIDIA GT", 2 * GIB)


def layout(*gpus: Gpu, **options: object) -> GpuLayout:
    return GpuLayout(gpus or (H200,), **{"num_cores": 16, **options})  # type: ignore[arg-type]


@given(st.integers(2, 8), st.integers(8, 200))
def test_all_shares_and_contexts_fit_into_the_gpu(level, gibibytes):
    gpu = Gpu("0", "any", gibibytes * GIB)
    memory = layout(gpu).slot(gpu, level, 0).memory
    assert memory is not None and memory.num_bytes is not None
    # One context more than trials: a warm spare process waits beside them.
    contexts = level + len(layout(gpu).spare_slots(level))
    assert level * memory.num_bytes + contexts * CONTEXT_BYTES <= gpu.memory_bytes
    assert memory.fraction == pytest.approx(memory.num_bytes / gpu.memory_bytes)


def test_a_trial_alone_on_its_gpu_takes_what_it_finds():
    slot = layout().slot(H200, 1, 0)
    assert slot == Slot(0, 16, "0", 1, None, H200.memory_bytes)


def test_unknown_memory_is_shared_by_fractions():
    gpu = Gpu("0", "NVIDIA GB10")
    memory = layout(gpu).slot(gpu, 2, 0).memory
    assert memory is not None and (memory.fraction, memory.num_bytes) == (0.45, None)


def test_only_a_large_gpu_has_room_for_a_spare():
    assert [slot.gpu for slot in layout(H200, SMALL, TINY).spare_slots(2)] == ["0", "1"]


@pytest.mark.parametrize(
    ("found", "levels"),
    [
        (layout(), (1, 2, 4)),
        (layout(H200, max_slots=2), (1, 2)),
        (layout(H200, max_slots=3), (1, 2, 3)),
        (layout(H200, SMALL, max_slots=3), (1, 2)),
        (layout(H200, SMALL, max_slots=2), (1,)),
        (layout(TINY), (1,)),
        (layout(Gpu("0", "x", 4 * GIB)), (1, 2)),
        (layout(H200, host_bytes=7 * GIB), (1, 2)),
        (layout(H200, host_bytes=1 * GIB), (1,)),
    ],
)
def test_only_levels_that_differ_and_fit_are_compared(found, levels):
    assert found.levels() == levels


def test_a_level_that_leaves_too_little_memory_is_refused():
    with pytest.raises(InputError, match="leave each trial 512 MiB .* Received: 4, on GPU 2 with"):
        allot(Machine(8, 24 * GIB, (H200, TINY)), None, None, 4)
    assert len(allot(Machine(8, 24 * GIB, (TINY,)), None, None, 1).slots) == 1


def test_asked_for_packing_is_spread_over_the_gpus():
    found = allot(Machine(16, 64 * GIB, (H200, SMALL)), None, None, 2)
    assert [(s.index, s.gpu, s.num_threads) for s in found.slots] == [
        (0, "0", 4), (1, "1", 4), (2, "0", 4), (3, "1", 4),
    ]  # fmt: skip
    assert found.reason == "4 trials at once, 2 per GPU (NVIDIA H200, NVIDIA T4)"
    assert found.num_parallel == 4 and found.levels == ()


def test_automatic_packing_begins_with_one_and_proposals_count_with_all():
    found = allot(Machine(16, 64 * GIB, (H200,)), None, None, None)
    assert (len(found.slots), found.levels, found.num_parallel) == (1, (1, 2, 4), 4)
    assert "1, 2 or 4 trials at once on each" in found.reason
    chosen = found.at(2)
    assert (len(chosen.slots), chosen.levels) == (2, ()) and "2 per GPU" in chosen.reason


def test_few_trials_need_no_comparison_and_proposals_do_not_follow_from_that():
    found = allot(Machine(16, 64 * GIB, (H200,)), None, None, None)
    assert [found.for_trials(num).levels for num in (1, 2, 3, 4)] == [
        (1,), (1, 2), (1, 2), (1, 2, 4),
    ]  # fmt: skip
    assert found.num_parallel == 4
    cores = allot(Machine(2, 24 * GIB), None, None, None)
    assert cores.for_trials(1) is cores


def test_workers_limit_packed_trials_and_must_find_room():
    machine = Machine(16, 64 * GIB, (H200, SMALL))
    assert len(allot(machine, 3, None, 2).slots) == 3
    # Nobody shares: neither is the memory divided.
    assert allot(machine, 1, None, 2).slots == (Slot(0, 16, "0", gpu_bytes=H200.memory_bytes),)
    assert {slot.num_sharing for slot in allot(machine, 2, None, 4).slots} == {1}
    with pytest.raises(InputError, match="at most the number of GPUs times .* Received: 5, with 2"):
        allot(machine, 5, None, 2)
    with pytest.raises(InputError, match="Received: 9, with 2 GPUs and at most 4 on each"):
        allot(machine, 9, None, None)


def test_without_a_gpu_the_option_says_that_it_means_nothing():
    found = allot(Machine(2, 24 * GIB), None, None, 3)
    assert found.reason.endswith("no GPU, so --trials-per-gpu means nothing")
    assert found.at(4) == found


def test_fixed_slots_give_the_lowest_index():
    slots = FixedSlots((Slot(0, 1), Slot(1, 1)))
    first, second = slots.take(), slots.take()
    assert (first.index, second.index, slots.has_room) == (0, 1, False)
    slots.give_back(second)
    slots.give_back(first)
    assert slots.take() == first


def test_packed_slots_fill_the_emptiest_gpu_first():
    slots = PackedSlots(layout(H200, SMALL), 2)
    taken = [slots.take() for _ in range(4)]
    assert [(s.index, s.gpu) for s in taken] == [(0, "0"), (1, "1"), (2, "0"), (3, "1")]
    assert not slots.has_room
    with pytest.raises(IndexError):
        slots.take()
    slots.give_back(taken[1])
    assert slots.take() == taken[1]


def test_a_trial_alone_has_the_gpu_whole_and_nothing_starts_beside_it():
    slots = PackedSlots(layout(), 4)
    first = slots.take()
    slots.empty_one(True)
    assert not slots.has_room and not slots.has_room_alone
    slots.give_back(first)
    alone = slots.take(alone=True)
    assert alone.num_sharing == 1 and alone.memory is None
    slots.empty_one(False)
    assert not slots.has_room and not slots.has_room_alone
    slots.give_back(alone)
    assert slots.has_room and slots.take().num_sharing == 4


def test_a_larger_share_waits_until_the_smaller_ones_leave_room():
    slots = PackedSlots(layout(), 4)
    small = [slots.take() for _ in range(4)]
    slots.lower(2, small[0])
    slots.give_back(small[0])
    assert not slots.has_room  # Three quarters are taken.
    slots.give_back(small[1])
    assert slots.take().num_sharing == 2
    assert not slots.has_room
    slots.give_back(small[2])
    slots.give_back(small[3])
    assert slots.take().num_sharing == 2


@given(st.data())
def test_no_gpu_is_ever_overcommitted(data):
    gpus = (H200, SMALL)
    slots, busy = PackedSlots(layout(*gpus), 4), []
    for _ in range(data.draw(st.integers(1, 30))):
        step = data.draw(st.sampled_from(["take", "give", "lower"]))
        if step == "take" and slots.has_room:
            busy.append(slots.take())
        elif step == "give" and busy:
            slots.give_back(busy.pop(data.draw(st.integers(0, len(busy) - 1))))
        elif step == "lower":
            slots.lower(max(1, slots.level // 2), Slot(0, 1))
        for gpu in gpus:
            assert sum(1 / s.num_sharing for s in busy if s.gpu == gpu.index) <= 1
        assert len({s.index for s in busy}) == len(busy)


@pytest.mark.parametrize(
    ("level", "sharing", "new"),
    [(4, 4, 2), (2, 4, 2), (1, 4, 1), (2, 2, 1), (1, 2, 1), (3, 3, 1), (1, 1, None), (4, 1, None)],
)
def test_memory_that_ran_out_halves_the_packing_it_ran_out_under(level, sharing, new):
    assert after_out_of_memory(level, Slot(0, 1, "0", sharing)) == new
    assert after_out_of_memory(level, Slot(0, 1)) is None


@pytest.mark.parametrize(
    ("seconds", "level"),
    [
        ({}, 1),
        ({1: 60.0}, 1),
        ({1: 60.0, 2: 70.0, 4: 100.0}, 4),
        ({1: 60.0, 2: 70.0, 4: 160.0}, 2),
        ({1: 60.0, 2: 119.0, 4: 240.0}, 1),
        ({1: 60.0, 2: 125.0, 4: 150.0}, 4),
        ({2: 60.0}, 2),
    ],
)
def test_the_level_with_clearly_more_trials_per_hour_wins(seconds, level):
    measured = {number: LevelMeasure(number, value) for number, value in seconds.items()}
    assert fastest(measured) == level


def test_a_packing_is_remembered_for_the_same_gpus_and_the_same_request(tmp_path):
    path = tmp_path / "packing.json"
    found = allot(Machine(16, 64 * GIB, (H200,)), None, None, None)
    assert read_packing(path, found, None) is None
    packing = Packing(None, ("NVIDIA H200",), 2, "measured")
    write_packing(path, packing)
    assert read_packing(path, found, None) == packing
    # Other GPUs and requests are remembered beside it, the latest of each.
    write_packing(path, dataclasses.replace(packing, gpus=("NVIDIA L4",), level=1))
    write_packing(path, dataclasses.replace(packing, asked=4, level=4))
    write_packing(path, dataclasses.replace(packing, reason="measured again"))
    packing = dataclasses.replace(packing, reason="measured again")
    assert read_packing(path, found, None) == packing
    assert len(json.loads(path.read_text())) == 3
    # As it was written until November 2026.
    path.write_text(json.dumps(dataclasses.asdict(packing)))
    assert read_packing(path, found, None) == packing
    assert read_packing(path, found, 2) is None
    other = allot(Machine(16, 64 * GIB, (SMALL,)), None, None, None)
    assert read_packing(path, other, None) is None
    assert read_packing(path, allot(Machine(2, 24 * GIB), None, None), None) is None
    for text in ("", "{", "[]", '{"asked": null, "gpus": 3, "level": 2, "reason": ""}'):
        path.write_text(text)
        assert read_packing(path, found, None) is None
    write_packing(path, dataclasses.replace(packing, level=99))
    assert read_packing(path, found, None) is None


@pytest.fixture
def scene(tiny_data, tmp_path):
    return lambda **options: Scene(tiny_data, tmp_path, **options)


def crowded(scene, **options):
    """Four trials on a GPU that has room for the memory of two."""
    gpus = allot(Machine(16, 64 * GIB, (H200,)), None, None, 4)
    return scene(
        job=fake_jobs.crowded_job, slots=gpus.slots, layout=gpus.layout, level=4, trials_per_gpu=4,
        **options,
    )  # fmt: skip


def test_trials_whose_memory_ran_out_go_on_with_fewer_neighbours(scene):
    s = crowded(scene, num_trials=6, num_points=6, num_retries=0)
    running = []
    original = s.executor.start

    def start(job_id, job, task, slot, log_path):
        if job_id.startswith("trial-"):
            running.append((slot.num_sharing, len(s.board.running())))
        original(job_id, job, task, slot, log_path)

    s.executor.start = start
    assert s.run() is StopReason.TRIALS
    # Nothing is lost and nothing doubled: every trial has one end and each epoch once.
    assert {n: end.state for n, end in s.tracker.ended.items()} == dict.fromkeys(
        range(6), "COMPLETE"
    )
    assert sorted(s.tracker.epochs) == [(n, e) for n in range(6) for e in (1, 2, 3)]
    assert sorted(r[:2] for r in s.engine.reports) == sorted(s.tracker.epochs)
    # A spare waits for what starts next, with the share that is given out then.
    assert [[slot.num_sharing for slot in slots] for slots in s.executor.warm] == [[4], [2]]
    # The packing was halved once, although the memory of several ran out at the same time.
    assert {sharing for sharing, _ in running} == {4, 2}
    assert max(num for sharing, num in running if sharing == 4) == 4
    assert s.board.num_slots == 2
    # As it was: the trials' tries, their shares, and the sweep's packing.
    again = [n for n, tags in s.tracker.tags.items() if "sweeps.retry_reason" in tags]
    assert again and set(again) <= set(range(4))
    for number in again:
        tags = s.tracker.tags[number]
        assert tags["sweeps.num_retries"] == "1"
        assert "MemoryError" in tags["sweeps.retry_reason"]
        assert "with 4 trials per GPU, 2 from now on" in tags["sweeps.retry_reason"]
    known = allot(Machine(16, 64 * GIB, (H200,)), None, None, 4)
    remembered = read_packing(s.paths.packing, known, 4)
    assert remembered is not None and remembered.level == 2
    assert s.tracker.parent_tags["sweeps.trials_per_gpu"] == "2"


def test_memory_that_runs_out_alone_on_a_gpu_is_an_ordinary_failure(scene):
    gpus = allot(Machine(16, 64 * GIB, (H200,)), None, None, 1)
    s = scene(
        job=fake_jobs.always_short_job, slots=gpus.slots, layout=gpus.layout, num_trials=1,
        num_points=1, num_retries=1,
    )  # fmt: skip
    s.run()
    assert s.tracker.ended[0].state == "FAILED"
    assert s.tracker.ended[0].tags["sweeps.reason"].endswith("(after 2 tries)")
    assert not s.paths.packing.exists()
    assert s.executor.warm == [(gpus.layout.slot(H200, 1, 0),), (), ()]  # It took memory, too.


def test_a_trial_that_never_fits_fails_after_every_packing_and_its_retries(scene):
    gpus = allot(Machine(16, 64 * GIB, (H200,)), None, None, 4)
    s = scene(
        job=fake_jobs.always_short_job, slots=gpus.slots, layout=gpus.layout, level=4,
        trials_per_gpu=4, num_trials=1, num_points=1, num_retries=2,
    )  # fmt: skip
    s.run()
    # Four, two and one on the GPU, then its two retries.
    assert s.tracker.ended[0].tags["sweeps.reason"].endswith("(after 5 tries)")
    assert s.board.num_slots == 1
