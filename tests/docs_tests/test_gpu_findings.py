"""What the GPU proving script makes of what it saw: made-up trials, and no GPU."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def task(*, stand_in: bool = False):
    from gpu_parts.findings import Task

    return Task("a", "gpu_parts.a", "torch", 60, math.inf, False, stand_in, "mnist", "0", "found")


def life(number: int, state: str, began: float = 0.0, ended: float | None = None):
    """A trial of three epochs of one second each."""
    from gpu_parts.trials import Life

    num = {"COMPLETE": 3, "FAILED": 0}.get(state, 2)
    epochs = tuple((began + 1.0 + k, {"epoch_seconds": 1.0}) for k in range(num))
    best = 0.9 if state == "COMPLETE" else None
    return Life(number, began, epochs, ended, state, best)


def ended(status: int, *, interrupted: bool = False):
    from gpu_parts.trials import SweepEnd

    return SweepEnd(status, interrupted)


def complaints(*findings, problem: str = "") -> list[str]:
    from gpu_parts.results import Ended

    return Ended("a", "", 1.0, 1.0, findings, problem).complaints


@pytest.mark.parametrize(
    ("status", "interrupted", "states", "held"),
    [
        (0, False, ["COMPLETE", "PRUNED"], True),
        (130, True, ["COMPLETE", "RUNNING"], True),
        (130, False, ["COMPLETE"], False),
        (1, False, ["PRUNED", "PRUNED"], True),  # The time limit stopped all of them.
        (1, False, ["FAILED", "FAILED"], False),
        (1, False, ["COMPLETE"], False),
        (0, False, ["COMPLETE", "FAILED"], False),
        (130, True, ["FAILED"], False),
        (2, False, [], False),
        (1, False, [], False),
    ],
)
def test_a_sweep_that_fails_is_a_promise_that_does_not_hold(status, interrupted, states, held):
    from gpu_parts.trials import in_order

    lives = [life(number, state, 0.0, 3.0) for number, state in enumerate(states)]
    found = in_order("s", ended(status, interrupted=interrupted), lives)
    assert found.held is held and found.n == len(states)
    assert bool(complaints(found)) is not held


def test_a_promise_of_which_nothing_was_measured_is_a_complaint():
    from gpu_parts.findings import Finding
    from gpu_parts.results import verdict

    unseen = Finding("memory stays", "not seen", n=0, kind="promise")
    open_ = Finding("auto", "4 at once", n=2, kind="promise")
    empty = Finding("all of none", "0 of 0", n=0, kind="promise", held=True)
    assert complaints(unseen, open_, empty, Finding("a figure", "not seen", n=0)) == [
        "not shown to hold: a: memory stays",
        "not shown to hold: a: auto",
        "not shown to hold: a: all of none",
    ]
    assert verdict(unseen) == verdict(empty) == "NOT SHOWN"
    both = complaints(Finding("b", "no", n=0, kind="promise", held=False), problem="out of time")
    assert both == ["does not hold: a: b", "not shown to hold: a: out of time"]


def test_only_trials_that_ended_with_something_count_as_points():
    from gpu_parts.sweep import compared, findings

    failing = [life(n, "FAILED", 0.0, 1.0) for n in range(40)]
    cores = [life(0, "COMPLETE", 0.0, 50.0), life(1, "RUNNING", 50.0)]
    found = compared(task(), failing, cores)
    assert found.found == 0.0 and found.held is False
    told = {finding.name: finding for finding in findings("gpu", ended(1), failing)}
    assert told["on the GPU: points tried"].found == 0
    assert told["on the GPU: best val_accuracy"].found == "none was trained in full"
    assert complaints(*told.values()) == ["does not hold: a: gpu: ends in order"]
    good = [life(n, "COMPLETE" if n < 4 else "PRUNED", 0.0, 3.0) for n in range(9)]
    assert compared(task(), good, cores).found == 9.0
    assert compared(task(), good, cores).held is True
    assert compared(task(), good, []).found == "9 against none"
    pruned = [life(n, "PRUNED", 0.0, 2.0) for n in range(9)]
    assert compared(task(), pruned, cores).held is False, "none was trained in full"
    assert compared(task(stand_in=True), failing, cores).held is None


def test_trials_an_hour_are_those_that_ended_over_the_seconds_they_took_together():
    from gpu_parts.packing import measured

    # Two at once, and a pause between: 4 trials in 20 s, though each takes 8 s.
    lives = [life(n, "COMPLETE", 12.0 * (n // 2), 12.0 * (n // 2) + 8) for n in range(4)]
    rate, found = measured(2, 2, lives, 3)
    assert rate is not None and rate.per_hour == pytest.approx(720)
    assert found.n == 4 and found.unit == "trials/h"
    # What the end of the time cut off is behind the last trial that counts.
    rate, found = measured(2, 2, [*lives, life(4, "PRUNED", 20.0, 22.0)], 3)
    assert rate is not None and rate.per_hour == pytest.approx(720) and found.n == 4
    cut = [life(0, "RUNNING", 0.0), life(1, "RUNNING", 0.0)]
    rate, found = measured(2, 2, cut, 3)
    assert rate is not None and rate.extrapolated and rate.per_hour == pytest.approx(2400)
    assert found.unit == "trials/h, extrapolated"


@pytest.mark.parametrize(
    ("kept", "states", "words"),
    [
        (1, ["COMPLETE", "COMPLETE"], "not measured: lowered to 1"),
        (2, ["FAILED", "FAILED"], "not measured: no trial trained"),
        (None, [], "not measured: no trial trained"),
    ],
)
def test_no_figure_where_so_many_were_not_at_once(kept, states, words):
    from gpu_parts.packing import goal, measured

    lives = [life(number, state, 0.0, 3.0) for number, state in enumerate(states)]
    rate, found = measured(2, kept, lives, 3)
    assert rate is None and found.found == words and found.n == 0
    missed = goal(task(), {}, 10.0)
    assert missed.held is False and missed.found == "no trial was trained in full"


def test_the_goal_is_reached_by_trials_that_ended_only():
    from gpu_parts.packing import Rate, goal

    rates = {1: Rate(150.0, 24.0, 3, False), 4: Rate(900.0, 16.0, 2, True)}
    assert goal(task(), rates, 10.0).found == 15.0 and goal(task(), rates, 10.0).held is False
    assert goal(task(), {2: Rate(250.0, 28.8, 4, False)}, 10.0).held is True


def test_a_trial_that_takes_more_than_its_part_is_a_complaint():
    from gpu_parts.packing import within
    from gpu_parts.trials import Life

    epochs = ((1.0, {"system/gpu_memory_usage_megabytes": 4000.0}), (2.0, {}))
    lives = [Life(0, 0.0, epochs, 3.0, "COMPLETE", 0.9)]
    assert [found.held for found in within(4, 4 * 10**9, lives)] == [True]
    assert [found.held for found in within(4, 3 * 10**9, lives)] == [False]
    assert list(within(1, None, lives)) == list(within(4, 10**9, [life(0, "COMPLETE")])) == []


def test_a_choice_that_cannot_be_compared_is_not_shown_to_hold():
    from gpu_parts.packing import Rate, chosen

    rates = {1: Rate(100.0, 36.0, 3, False), 2: Rate(180.0, 40.0, 4, False)}
    assert chosen(task(), 2, "measured", rates).held is True
    assert chosen(task(), 1, "measured", rates).held is False
    unknown = chosen(task(), 4, "measured", rates)
    assert complaints(unknown) == ["not shown to hold: a: what auto chooses"]


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_numbers_that_are_not_finite_are_printed_as_they_are(value, text):
    from gpu_parts.results import number

    assert number(value) == text


def reading(mebibytes: int, *processes: int):
    """What is made into a `Reading` once the parts can be imported."""
    return frozenset(processes), mebibytes * 2**20


@pytest.mark.parametrize(
    ("during", "after", "held", "words"),
    [
        (reading(2100, 7, 50), reading(105, 7), True, "0 processes, 5 MiB"),
        (reading(2100, 7, 50), reading(105, 7, 50), False, "1 processes, 5 MiB"),
        (reading(2100, 7, 50), reading(700, 7), False, "0 processes, 600 MiB"),
        (reading(2100, 7), reading(100, 7), True, "0 processes, 0 MiB"),  # A container: no ids.
        (reading(2100, 7), reading(700, 7), False, "0 processes, 600 MiB"),
    ],
)
def test_what_is_left_on_the_gpu_is_seen_by_process_and_by_memory(during, after, held, words):
    from gpu_parts.kill import Reading, left_on_gpu

    looks = [Reading(*look) for look in (reading(100, 7), during, after)]
    found = left_on_gpu(*looks, [50, 51])
    assert found.held is held and found.found == words and found.n == 2


def test_nothing_left_is_not_shown_where_nothing_was_seen_before():
    from gpu_parts.kill import Reading, left_on_gpu

    clean = Reading(*reading(100, 7))
    for found in (left_on_gpu(clean, clean, clean, [50]), left_on_gpu(None, None, None, [50])):
        assert complaints(found) == ["not shown to hold: a: nothing is left on the GPU"]


def test_a_process_that_was_left_behind_is_on_the_stand_in_for_a_gpu():
    code = (
        "import os, subprocess, sys; from gpu_parts.load import descendants, group;"
        "subprocess.run(['sh', '-c', 'sleep 60 & echo $!']);"
        "print(len(group()), len(descendants(os.getpid())))"
    )
    done = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'benchmarks'}:{ROOT}"}, start_new_session=True,
    )  # fmt: skip
    assert done.stdout is not None
    orphan, counts = done.stdout.readline(), done.stdout.readline()
    os.kill(int(orphan), signal.SIGKILL)
    done.communicate()
    assert counts.split() == ["1", "0"]


def test_what_auto_chose_is_compared_with_the_plain_way_or_the_next_best():
    from gpu_parts.auto import compared, rival

    from pipelines.runtime.compute import Compute

    plain, half, compiled = (Compute("torch", *way) for way in (
        ("float32", "off"), ("mixed_bfloat16", "off"), ("float32", "on"),
    ))  # fmt: skip
    ways = [plain, half, compiled]
    assert rival(ways, {plain: 9.0, half: 5.0, compiled: 8.0}, half) == plain
    assert rival(ways, {plain: 9.0, half: 8.9, compiled: 8.5}, plain) == compiled
    assert rival(ways, {plain: 9.0, half: None, compiled: None}, plain) is None
    assert rival(ways, dict.fromkeys(ways), plain) == half
    assert rival([plain], {plain: None}, plain) is None
    assert compared(task(), half, plain, (5.0, 8.0)).held is True
    assert compared(task(), half, plain, (9.5, 8.0)).held is False
    assert compared(task(stand_in=True), half, plain, (9.5, 8.0)).kind == "figure"
    unseen = compared(task(), half, plain, (None, 8.0))
    assert complaints(unseen) == ["not shown to hold: a: auto's choice / another way"]


def test_a_trial_of_more_epochs_takes_what_its_epochs_took():
    from gpu_parts.auto import trained_seconds

    whole = life(0, "COMPLETE", 10.0, 14.0)
    assert whole.seconds(5) == 4.0 and whole.seconds_for(5) == 5.0
    slow = replace(whole, epochs=((19.0, {"epoch_seconds": 1.0}), (21.0, {})))
    assert trained_seconds([slow, whole, life(1, "FAILED", 0.0, 1.0)], 5) == 5.0
    assert trained_seconds([life(1, "FAILED", 0.0, 1.0)], 5) is None


def crowded(
    number: int, num_retries: int = 1, kind: str = "out of memory", state: str = "COMPLETE"
):
    return replace(
        life(number, state, 0.0, 9.0), num_retries=num_retries, retry_kind=kind,
        retry_reason="OutOfMemoryError: no room", params={"rate": f"0.{number}"},
    )  # fmt: skip


AGAIN, ANEW = [0, 1, 1, 2], [0, 1, 0, 1, 2]


@pytest.mark.parametrize(
    ("lives", "level", "epochs", "broken"),
    [
        ([(0, 1), (1, 1)], 1, {"0.0": AGAIN, "0.1": AGAIN}, []),
        ([(0, 1), (1, 0, "")], 1, {"0.0": AGAIN}, []),
        ([(0, 2)], 1, {"0.0": AGAIN}, ["tried again, once"]),
        ([(0, 1, "crash")], 1, {"0.0": AGAIN}, ["tried again, once"]),
        ([(0, 1, "out of memory", "FAILED")], 1, {"0.0": AGAIN}, ["tried again, once"]),
        ([(0, 1)], 2, {"0.0": AGAIN}, ["half as many at once"]),
        ([(0, 1)], 1, {"0.0": ANEW}, ["from the last epoch"]),
        ([(0, 1)], 1, {}, ["from the last epoch"]),
    ],
)
def test_a_trial_without_room_goes_on_from_its_last_epoch_with_half_as_many(
    lives, level, epochs, broken
):
    from gpu_parts.halving import findings

    found = list(findings([crowded(*one) for one in lives], level, epochs))
    assert complaints(*found) == [f"does not hold: a: without room: {name}" for name in broken]


def test_what_looks_at_a_space_begins_no_epoch(tmp_path):
    from gpu_parts.halving import begun

    (tmp_path / "log").write_text("0.1 0\n0.2 0\n0.1 0\n0.1 1\n0.1 1\n0.2 0\n0.2 1\n0.2 0\n")
    assert begun(tmp_path / "log") == {"0.1": [0, 1, 1], "0.2": [0, 1, 0]}
    assert begun(tmp_path / "none") == {}


def test_memory_that_is_granted_beyond_the_part_is_a_complaint():
    from gpu_parts.halving import findings

    told = complaints(*findings([crowded(0, 0, ""), crowded(1, 0, "")], 2, {}))
    assert told == [
        "does not hold: a: without room: tried again, once",
        "does not hold: a: without room: half as many at once",
        "not shown to hold: a: without room: from the last epoch",
    ]


def test_a_graph_that_cannot_be_captured_is_a_finding_with_its_exception():
    from gpu_parts.cuda_graph import EAGER, GRAPH, TINY, StepTime, findings

    times = [StepTime(EAGER, 0.004, 0.003), StepTime(TINY, 0.002, 0.002)]
    captured = {found.name: found for found in findings([*times, StepTime(GRAPH, 0.001)], "")}
    assert captured["steps/s: CUDA graph / step by step"].found == 4.0
    assert captured[f"PyTorch, {EAGER}"].found == 250.0
    assert captured[f"PyTorch, {EAGER}"].note == "3.00 ms of the host's for a step"
    raised = StepTime(GRAPH, problem="RuntimeError: not when stream is capturing")
    *_, graph = findings([*times, raised], "")
    assert graph.found == "not possible" and graph.note == raised.problem
    *_, died = findings(times, "Died: killed by SIGSEGV")
    assert died.note == "Died: killed by SIGSEGV" and died.n == 0
