"""The end of a sweep's time is reserved for training its best candidates in full."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import fake_jobs
import pytest

from pipelines.objectives import OBJECTIVES
from pipelines.training.reports import Reports
from pipelines.training.trial import Schedule
from search_spaces.registry import get_space
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.choosing.time_plan import MARGIN, NUM_CANDIDATES, TimePlan
from sweeps.driver.plan import LoopPlan, StopRules
from sweeps.engines.base import DEFAULTS, TrialState
from sweeps.executors.base import Slot
from sweeps.state.paths import SweepPaths

SPACE = get_space("mlp")
NINTHS = Reports(9, (1, 3))
EPOCH_SECONDS, START_SECONDS, VALIDATION_SECONDS = 10.0, 2.0, 1.0


class Sweep:
    """A board whose clock the test sets, and a plan that has seen the reports of its rows."""

    def __init__(self, tiny_data: Any, tmp_path: Any, limit: float, **options: Any) -> None:
        num_slots = options.pop("num_slots", 1)
        waits = options.pop("waits", True)
        plan = LoopPlan(
            space=SPACE, data=tiny_data, num_trials=None, schedule=Schedule(8, reports=NINTHS),
            seed=0, slots=tuple(Slot(k, 1) for k in range(num_slots)),
            paths=SweepPaths(tmp_path, "s"), rules=StopRules(timeout_seconds=limit),
            job=fake_jobs.recorded_job, rungs=(1, 3, 9, 27, 72) if waits else (),
        )  # fmt: skip
        self.board = Board("s", OBJECTIVES["val_accuracy"], None, num_slots, limit)
        self.plan = TimePlan(plan, self.board, waits=waits)

    def row(self, number: int, step: int, value: float, state: TrialState, **more: Any) -> TrialRow:
        row = TrialRow(
            number, f"trial {number}", {}, 0, Schedule(8, reports=NINTHS), SPACE, state=state
        )
        at, first = 0, True
        while at < step:
            before, at = at, NINTHS.next_step(at)
            row.curve[at] = value
            seconds = EPOCH_SECONDS * (at - before) / 9
            seconds += START_SECONDS if first else VALIDATION_SECONDS
            self.plan.reported(row, {"epoch_seconds": EPOCH_SECONDS}, seconds, first=first)
            first = False
        if state is TrialState.COMPLETE:
            row.value = value
        if state is TrialState.PAUSED:
            self.plan.paces.started(row, START_SECONDS)
        self.board.rows[number] = row
        return row

    def left(self, seconds: float) -> None:
        assert self.board.timeout_seconds is not None
        self.board.started = time.monotonic() - (self.board.timeout_seconds - seconds)


PAUSED, RUNNING, COMPLETE = TrialState.PAUSED, TrialState.RUNNING, TrialState.COMPLETE


@pytest.fixture
def sweep(tiny_data, tmp_path):
    return lambda limit=900.0, **options: Sweep(tiny_data, tmp_path, limit, **options)


def test_new_points_end_when_the_best_three_need_the_time_that_is_left(sweep):
    here = sweep()
    for number, value in enumerate((0.5, 0.9, 0.8, 0.7, 0.6)):
        here.row(number, 27, value, PAUSED)
    # Five epochs each, with their validation and a start: three of them.
    needed = 3 * (5 * (EPOCH_SECONDS + VALIDATION_SECONDS) + START_SECONDS)
    assert here.plan.reserved_seconds == pytest.approx(MARGIN * needed)
    here.left(MARGIN * needed + 5)
    assert not here.plan.enters_final_phase()
    here.left(MARGIN * needed - 5)
    assert here.plan.enters_final_phase()
    here.left(800)
    assert not here.plan.enters_final_phase(), "a forecast may have been too long"
    assert here.plan.next_waiting().number == 1
    assert here.plan.enters_final_phase(), "once a last training began it stays so"


@pytest.mark.parametrize(("left", "reopens"), [(25, True), (15, False)])
def test_a_slow_epoch_that_reserved_all_the_time_does_not_close_the_search(sweep, left, reopens):
    here = sweep(limit=40.0)
    only = here.row(0, 9, 0.9, RUNNING)
    here.left(30)
    assert here.plan.enters_final_phase(), "by its first epochs it takes longer than all that"
    assert here.plan.goes_on(only)
    here.left(left)
    assert here.plan.enters_final_phase(), "while it trains no new point is begun"
    only.state, only.value, only.seconds = COMPLETE, 0.9, 20.0
    assert here.plan.enters_final_phase() is not reopens


def test_the_search_stays_closed_while_one_waits_that_the_end_was_kept_for(sweep):
    """Trial 2 does not fit beside the others any more; 1 is to be trained nevertheless."""
    here = sweep()
    needs = {0: 110.0, 1: 120.0, 2: 180.0}
    for number, seconds in needs.items():
        here.row(number, 27, 0.9 - number / 10, PAUSED)
        here.plan.paces._pace[number] = seconds / 5 - VALIDATION_SECONDS
    here.left(250)
    assert here.plan.enters_final_phase()
    first = here.plan.next_waiting()
    assert first.number == 0
    first.state, first.value, first.seconds = COMPLETE, 0.9, 50.0
    here.left(150)
    assert here.plan.reserved_seconds < 150, "so by itself it would open again"
    assert here.plan.enters_final_phase() and here.plan.next_waiting().number == 1


def test_the_search_opens_again_where_what_waits_cannot_end_any_more(sweep):
    here = sweep()
    for number in range(2):
        here.row(number, 27, 0.9 - number / 10, PAUSED)
    here.left(60)
    assert here.plan.enters_final_phase()
    first = here.plan.next_waiting()
    first.state, first.value, first.seconds = COMPLETE, 0.9, 20.0
    here.left(30)
    assert not here.plan.enters_final_phase()
    here.left(15)
    assert not here.plan.enters_final_phase() or here.plan.next_waiting() is None


def test_the_search_opens_again_where_the_only_one_chosen_failed(sweep):
    here = sweep(limit=40.0)
    only = here.row(0, 9, 0.9, RUNNING)
    here.left(30)
    assert here.plan.enters_final_phase() and here.plan.goes_on(only)
    only.state = TrialState.FAILED
    assert not here.plan.enters_final_phase()


def test_what_earlier_sessions_recorded_is_the_pace_of_a_resumed_trial(sweep):
    here = sweep()
    row = here.row(0, 9, 0.9, PAUSED)
    here.plan.paces._pace.clear()
    here.plan.paces._paces.clear()
    here.plan.paces.known_before(0, 2.0, 18.0)
    assert here.plan.paces.of(row) == 9.0
    here.plan.paces.known_before(1, 0.0, 0.0)
    assert 1 not in here.plan.paces._pace


def test_the_search_stays_closed_while_another_of_the_chosen_goes_on(sweep):
    here = sweep(num_slots=2)
    rows = [here.row(number, 27, 0.9, RUNNING) for number in range(2)]
    here.left(50)
    assert here.plan.enters_final_phase() and all(here.plan.goes_on(row) for row in rows)
    rows[0].state, rows[0].value, rows[0].seconds = COMPLETE, 0.9, 20.0
    here.left(500)
    assert here.plan.enters_final_phase()
    rows[1].state, rows[1].value, rows[1].seconds = COMPLETE, 0.9, 20.0
    assert not here.plan.enters_final_phase()


def test_the_highest_rung_comes_first_and_then_the_value(sweep):
    here = sweep()
    here.row(0, 1, 0.99, PAUSED)
    here.row(1, 27, 0.80, PAUSED)
    here.row(2, 27, 0.85, PAUSED)
    here.row(3, 9, 0.90, PAUSED)
    here.row(4, 72, 0.95, COMPLETE)
    assert [row.number for row in here.plan._candidates()] == [2, 1, 3]
    here.left(300)
    assert here.plan.next_waiting().number == 2


def test_of_those_that_run_only_candidates_go_on(sweep):
    here = sweep()
    kept = here.row(0, 27, 0.9, RUNNING)
    other = here.row(1, 3, 0.2, RUNNING)
    for number in (2, 3):
        here.row(number, 27, 0.8, PAUSED)
    here.left(10)
    assert here.plan.enters_final_phase()
    assert here.plan.goes_on(kept) and not here.plan.goes_on(other)


def test_a_short_sweep_reserves_its_end_for_fewer(sweep):
    here = sweep(limit=180.0)
    for number in range(5):
        here.row(number, 9, 0.5 + number / 10, PAUSED)
    assert [row.number for row in here.plan._candidates()] == [4]
    assert len(sweep(limit=3600.0).plan._candidates()) == 0
    long = sweep(limit=3600.0)
    for number in range(5):
        long.row(number, 9, 0.5, PAUSED)
    assert len(long.plan._candidates()) == NUM_CANDIDATES


def test_what_cannot_end_in_time_is_not_begun_unless_nothing_is_complete(sweep):
    here = sweep()
    here.row(0, 27, 0.9, PAUSED)
    here.left(20)
    assert here.plan.next_waiting().number == 0, "a sweep must not end without a winner"
    here.row(1, 72, 0.8, COMPLETE)
    assert here.plan.next_waiting() is None
    here.left(100)
    assert here.plan.next_waiting().number == 0


def test_several_slots_train_candidates_beside_each_other(sweep):
    one, two = sweep(), sweep(num_slots=2)
    for here in (one, two):
        for number in range(4):
            here.row(number, 27, 0.5, PAUSED)
    assert two.plan.reserved_seconds < 0.6 * one.plan.reserved_seconds


def test_without_rungs_a_trial_that_cannot_end_in_time_is_not_begun(sweep):
    here = sweep(waits=False)
    here.left(10)
    assert not here.plan.enters_final_phase(), "nothing is complete"
    here.row(0, 72, 0.8, COMPLETE).seconds = 100.0
    here.left(150)
    assert not here.plan.enters_final_phase()
    here.left(90)
    assert here.plan.enters_final_phase()


def test_without_a_time_limit_nothing_is_reserved(sweep):
    here = sweep(limit=None)
    here.row(0, 27, 0.9, PAUSED)
    assert not here.plan.enters_final_phase()
    assert here.plan.next_waiting() is None, "the pruner decides"


@pytest.mark.parametrize("limit", [None, 900.0])
def test_one_that_was_better_than_the_winner_after_as_much_training_goes_on(sweep, limit):
    here = sweep(limit=limit)
    here.row(0, 72, 0.6, COMPLETE).curve.update({3: 0.2, 9: 0.5, 18: 0.5, 27: 0.5})
    for number in (1, 2):
        here.row(number, 72, 0.4, COMPLETE)
    ahead, behind = here.row(3, 27, 0.55, PAUSED), here.row(4, 3, 0.1, PAUSED)
    here.plan.no_more_points()
    assert here.board.is_ahead(ahead) and not here.board.is_ahead(behind)
    assert here.board.ahead() == [ahead]
    assert here.plan.next_waiting() is ahead
    ahead.curve = dict.fromkeys(ahead.curve, 0.45)
    assert here.board.ahead() == [] and here.plan.next_waiting() is None


def test_what_was_chosen_goes_on_although_it_is_no_candidate(sweep):
    here = sweep()
    here.row(3, 72, 0.5, COMPLETE)
    cheap = here.row(4, 27, 0.6, PAUSED)
    here.left(60)
    assert here.plan.enters_final_phase() and here.plan.next_waiting() is cheap
    cheap.state = RUNNING
    for number in range(3):
        here.row(number, 27, 0.9, PAUSED)
    assert cheap not in here.plan._candidates() and here.plan.goes_on(cheap)


def test_once_a_trial_is_complete_no_time_is_kept_for_what_comes_nowhere_near_its_end(sweep):
    here = sweep()
    for number in range(3):
        here.row(number, 27, 0.9, PAUSED)
        here.plan.paces._pace[number] = 60.0
    cheap = here.row(4, 27, 0.6, PAUSED)
    here.left(100)
    assert cheap not in here.plan._candidates() and here.plan.enters_final_phase()
    here.row(3, 72, 0.5, COMPLETE)
    assert here.plan._candidates() == [cheap] and not here.plan.enters_final_phase()
    here.left(60)
    assert here.plan.enters_final_phase() and here.plan.next_waiting() is cheap


def test_the_first_pace_does_not_hold_for_what_was_compiled_first(sweep):
    here = sweep(limit=180.0)
    row = here.row(0, 1, 0.5, RUNNING)
    # A ninth of an epoch that took 2 s to compile and 1 s to train looks like 27 s an epoch.
    here.plan.paces._pace.clear()
    here.plan.reported(row, {"epoch_seconds": 27.0}, 4.0, first=True)
    assert here.plan.paces.of(row) == pytest.approx(13.5)
    row.curve[3] = 0.6
    here.plan.reported(row, {"epoch_seconds": 9.0}, 2.5, first=False)
    assert here.plan.paces.of(row) == 9.0
    assert here.plan.paces._tracing.value(0.0) == pytest.approx(2.0)


def test_a_better_one_that_waits_comes_before_one_that_runs(sweep):
    here = sweep()
    for number in range(2):
        here.row(number, 27, 0.9, PAUSED)
    third = here.row(2, 27, 0.8, RUNNING)
    here.left(100)
    assert here.plan.enters_final_phase() and not here.plan.goes_on(third)
    here.left(189)
    assert here.plan.goes_on(third), "there is time for all three"


def test_protected_baselines_go_on_and_are_counted(sweep):
    here = sweep()
    object.__setattr__(here.plan.plan, "protects_baselines", True)
    row = here.row(0, 3, 0.2, RUNNING)
    alone = here.plan.reserved_seconds
    row.baseline = "published"
    for number in (1, 2, 3):
        here.row(number, 27, 0.8, PAUSED)
    assert here.plan.goes_on(row)
    assert here.plan.reserved_seconds > alone


@pytest.mark.parametrize(
    ("limit", "at_one", "at_three"),
    [
        (900.0, True, True),
        (255.0, True, True),  # 77 s to its end: within a third of it.
        (180.0, True, False),  # 30 s by three epochs, then 55 s to its end.
        (149.0, False, False),
        (None, True, True),
    ],
)
def test_the_defaults_go_on_to_their_end_or_to_the_next_rung_where_that_takes_little_of_the_time(
    sweep, limit, at_one, at_three
):
    """Epochs of 10 s and validations of 1 s, rungs at one, three and eight epochs."""
    here = sweep(limit)
    row = here.row(0, 9, 0.5, RUNNING)
    assert not here.plan.leads(row), "it was drawn from something else"
    row.proposed_by = DEFAULTS
    assert here.plan.leads(row) is at_one
    row.curve[27] = 0.5
    assert here.plan.leads(row) is at_three


def test_where_a_trial_is_complete_a_slow_one_does_not_end_the_search_of_a_short_sweep(sweep):
    here = sweep(200.0)
    here.row(1, 9, 0.7, PAUSED)  # Seven epochs, their validation and a start: 79 s.
    here.left(90.0)
    assert here.plan.reserved_seconds == pytest.approx(MARGIN * 79.0)
    here.row(0, 72, 0.8, COMPLETE)
    assert here.plan.reserved_seconds == 0.0 and not here.plan.enters_final_phase()


def test_what_is_ahead_of_the_winner_has_its_time_kept_though_it_is_slow(sweep):
    here = sweep(180.0)
    here.row(0, 72, 0.8, COMPLETE)
    here.row(1, 9, 0.7, PAUSED)
    here.row(2, 9, 0.9, PAUSED)
    assert here.plan.reserved_seconds == pytest.approx(MARGIN * 79.0)


def test_one_that_broke_a_limit_is_not_better_than_the_defaults(sweep):
    here = sweep()
    row = here.row(0, 9, 0.8, RUNNING)
    row.proposed_by = DEFAULTS
    other = here.row(1, 9, 0.9, TrialState.PRUNED)
    assert not here.plan.leads(row)
    other.breaks_limit = "latency_ms 9 > 5"
    assert here.plan.leads(row)


def test_the_defaults_wait_like_others_once_one_was_better_after_as_much_training(sweep):
    here = sweep()
    row = here.row(0, 9, 0.5, RUNNING)
    row.proposed_by = DEFAULTS
    here.row(1, 3, 0.9, PAUSED)
    here.row(2, 9, 0.4, COMPLETE)
    assert here.plan.leads(row), "nothing better at its rung"
    here.row(3, 27, 0.6, COMPLETE)
    assert not here.plan.leads(row)


def test_a_slow_one_does_not_close_a_short_sweep_that_a_cheaper_one_can_end(sweep):
    here = sweep(limit=120.0)
    slow = here.row(0, 9, 0.98, RUNNING)
    here.plan.paces._pace[0] = 14.0
    cheap = here.row(1, 9, 0.97, PAUSED)
    here.plan.paces._pace[1] = 3.0
    assert here.plan._candidates() == [cheap]
    here.left(100)
    assert not here.plan.enters_final_phase(), "new points are tried"
    here.left(32)
    assert here.plan.enters_final_phase() and not here.plan.goes_on(slow)
    assert here.plan.next_waiting() is cheap


def test_the_best_of_the_highest_rung_may_take_more_where_none_there_is_cheap(sweep):
    here = sweep(limit=180.0)
    here.row(0, 3, 0.96, PAUSED)
    here.plan.paces._pace[0] = 3.0
    best, slow = here.row(1, 9, 0.99, PAUSED), here.row(2, 9, 0.995, PAUSED)
    here.plan.paces._pace[1], here.plan.paces._pace[2] = 11.0, 20.0
    assert here.plan._candidates() == [best], "more than 2/5 of the time, less than 3/5"
    here.plan.paces._pace[2] = 11.0
    assert here.plan._candidates() == [slow]
    here.plan.paces._pace[1] = 3.0
    assert here.plan._candidates()[0] is best, "a cheap one there comes first"


def test_with_time_left_after_all_points_the_best_three_are_trained_in_full_and_no_more(sweep):
    here = sweep()
    rows = [here.row(n, 27, v, PAUSED) for n, v in enumerate((0.5, 0.9, 0.8, 0.7))]
    done = here.row(4, 72, 0.6, COMPLETE)
    assert done.state is COMPLETE and not here.plan.enters_final_phase()
    here.plan.no_more_points()
    assert here.plan.next_waiting() is rows[1]
    rows[1].state = RUNNING
    assert here.plan.goes_on(rows[1])
    assert here.plan.next_waiting() is rows[2], "one is complete, and one on its way"
    rows[2].state = RUNNING
    assert here.plan.next_waiting() is None
    rows[1].state = rows[2].state = COMPLETE
    rows[1].value, rows[2].value = 0.9, 0.8
    assert here.plan.next_waiting() is None


def test_in_a_small_sweep_what_may_be_trained_in_full_at_its_end_waits_until_then(sweep):
    plan = sweep().plan.plan
    assert replace(plan, num_trials=4).most_trials(4) == 24
    assert replace(plan, num_trials=200).most_trials(4) == 200
    assert [plan.most_trials(n) for n in (4, 30)] == [24, 60]


def test_what_cannot_end_in_time_is_not_trained_any_further(sweep):
    here = sweep(limit=900.0)
    slow = here.row(0, 3, 0.97, RUNNING)
    here.plan.paces._pace[0] = 180.0
    assert here.plan.cannot_end(slow) == "", "nothing else could be the winner"
    here.row(1, 3, 0.96, PAUSED)
    reason = here.plan.cannot_end(slow)
    assert reason.startswith("its full training would take 23:")
    assert reason.endswith(" min more, and 15:00 min are left")
    here.plan.paces._pace[0] = 60.0
    assert here.plan.cannot_end(slow) == ""
    assert sweep(limit=900.0, waits=False).plan.cannot_end(slow) == ""


def test_the_better_one_goes_on_as_long_as_it_comes_near_its_end(sweep):
    here = sweep()
    here.row(0, 72, 0.8, COMPLETE)
    better = here.row(1, 27, 0.9, PAUSED)
    here.row(2, 9, 0.8, PAUSED)
    here.plan.paces._pace[1] = 40.0
    needed = here.plan.paces.seconds_to_end(better)
    here.left(1.05 * needed)
    assert here.plan.next_waiting() is better
    # Five of its eight epochs are left: a tenth of the schedule is 0.8 of them.
    here.left((1 - 0.7 / 5) * needed)
    assert here.plan.next_waiting() is better, "it would lack 0.7 of an epoch"
    here.left((1 - 0.9 / 5) * needed)
    assert here.plan.next_waiting().number == 2, "it would lack 0.9, and the other one can end"


def test_one_that_was_chosen_goes_on_to_where_the_time_ends(sweep):
    here = sweep()
    here.row(0, 72, 0.8, COMPLETE)
    row = here.row(1, 27, 0.9, PAUSED)
    here.left(200)
    assert here.plan.next_waiting() is row
    row.state = RUNNING
    needed = here.plan.paces.seconds_to_end(row)
    other = here.row(2, 63, 0.7, PAUSED)
    here.left(needed - 2)
    assert here.plan._fits(other) and here.plan.cannot_end(row) == ""
    here.left(needed / 1.5)
    assert here.plan.cannot_end(row).startswith("its full training would take 5")


def test_the_pace_is_the_slower_of_the_last_epoch_and_of_all(sweep):
    here = sweep()
    row = here.row(0, 27, 0.9, RUNNING)
    usual = here.plan.paces.of(row)
    row.curve[36] = 0.9
    here.plan.reported(row, {"epoch_seconds": 1.0}, 2.0, first=False)
    assert EPOCH_SECONDS / 2 < here.plan.paces.of(row) < usual
    row.curve[45] = 0.9
    here.plan.reported(row, {"epoch_seconds": 60.0}, 61.0, first=False)
    assert here.plan.paces.of(row) == 60.0


def test_the_pace_is_exact_where_a_trial_tells_what_compiling_took(sweep):
    here = sweep()
    row = TrialRow(0, "trial 0", {}, 0, Schedule(8, reports=NINTHS), SPACE)
    row.curve[3] = 0.9
    metrics = {"epoch_seconds": 15.0, "compile_seconds": 2.0}
    here.plan.reported(row, metrics, 6.0, first=True)
    assert here.plan.paces._pace[0] == pytest.approx(9.0), "a third of 15 s, less 2 s, three times"
    assert here.plan.paces._tracing.value(0.0) == 2.0


@pytest.mark.parametrize("seed", range(20))
def test_the_order_that_is_kept_is_the_one_that_sorting_all_anew_gives(sweep, seed):
    chance, here = random.Random(seed), sweep()
    steps = (1, 3, 9, 18, 27)
    for number in range(30):
        state = chance.choice([PAUSED, RUNNING, COMPLETE])
        here.row(number, chance.choice(steps), chance.choice([0.3, 0.5, 0.7]), state)
    rows = here.board.rows
    for _ in range(60):
        row = chance.choice(list(rows.values()))
        row.state = chance.choice([PAUSED, RUNNING, TrialState.PRUNED])
        row.curve[NINTHS.next_step(row.step)] = chance.random()
        here.plan.reported(row, {}, 1.0, first=False)
        if chance.random() < 0.1:
            del rows[row.number]
        going = [r for state in (RUNNING, PAUSED) for r in here.board.in_state(state)]
        assert list(here.plan._ranked()) == sorted(going, key=here.plan._rank_key)
    again = TimePlan(here.plan.plan, here.board, waits=True)
    assert list(again._ranked()) == list(here.plan._ranked()), "rows that were there before"
