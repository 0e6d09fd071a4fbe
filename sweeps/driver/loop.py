"""The loop: ask the engine, start on a free slot, receive reports, tell, track.

Whatever happens is written in one order: first to the tracker's spool, then to the study, and only
then does the trial go on. A kill between any two steps leaves the study behind the spool, never
ahead of it; when the sweep is resumed, the trial reports again what the study has not recorded, and
the spool knows it already.

What the loop is made of: `next_trial` (which trial is next), `trials` (one trial on its slot),
`retries` (failures, hangs, further tries), `ends` (what is pruned, killed or left to go on),
`figures` and `audit`, `steering` (what people ask for meanwhile).
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, TrialResult
from sweeps.driver import audit, figures
from sweeps.driver.audit import Audit
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import View
from sweeps.driver.choosing.next_trial import NextTrial
from sweeps.driver.choosing.time_plan import TimePlan
from sweeps.driver.ends import Ends
from sweeps.driver.failures.retries import Retries
from sweeps.driver.figures import Figures
from sweeps.driver.nodes import Nodes
from sweeps.driver.plan import LoopPlan, StopReason
from sweeps.driver.records.recorder import Recorder
from sweeps.driver.steering import Steering
from sweeps.driver.trials import Trials, job_id
from sweeps.engines.base import AT_RUNG, Engine, PastTrial, TrialState
from sweeps.engines.limits import broken_limit, judged, measured
from sweeps.executors.base import Executor, Reported, Returned
from sweeps.interrupts import Interrupts
from sweeps.resources.gpu_monitor import GpuWatch
from sweeps.state.log import sweep_log

WAIT_SECONDS = 0.5
_CUT_SHORT = "trained for {} of {} epochs: {}"
LOGGED_MOVE_SECONDS = 30.0
"""A plan for the time that has moved by less is not written into the log again."""


class SweepLoop:
    """Runs trials until a stop rule holds; `board` has what it found.

    The trials that the engine holds already are those of earlier sessions: what had ended is
    shown, what was running goes on.
    """

    def __init__(
        self,
        plan: LoopPlan,
        board: Board,
        engine: Engine,
        executor: Executor,
        recorder: Recorder,
        view: View,
        interrupts: Interrupts,
        watch: GpuWatch | None = None,
    ) -> None:
        self.board = board
        self._plan, self._engine, self._executor = plan, engine, executor
        self._recorder, self._interrupts = recorder, interrupts
        self._trials = Trials(plan, board, engine, executor, recorder, view, watch)
        self._figures = Figures(self._trials)
        self._time_plan = TimePlan(plan, board, waits=bool(plan.rungs))
        self._next = NextTrial(self._trials, self._time_plan)
        self._retries = Retries(self._trials, self._figures, interrupts)
        self._ends = Ends(self._trials, self._figures)
        self._steering = Steering(self._trials, self._next, self._ends, interrupts)
        self._nodes = Nodes(plan, board, recorder)
        self._audit: Audit | None = None
        self._logged_final_phase: float | None = None
        self._finishing: dict[int, int] = {}

    @property
    def error(self) -> str:
        """What broke the sweep off: a user's space, or what the machine does to every trial."""
        found = self._retries
        return found.source_changed or found.search_ended or found.trouble

    def run(self, meanwhile: Callable[[StopReason], None] = lambda stop: None) -> StopReason:
        """Runs trials until a stop rule holds; leaves no trial running, however it ends.

        Args:
            meanwhile: called after the last trial with the reason, while its figures are drawn.
        """
        try:
            self._retries.longest_epoch = self._recorder.longest_epoch_seconds
            for past in sorted(self._engine.past(), key=_end_time):
                self._figures.draw(self._next.take_over(past))
            self.board.rows.sort()
            self._recorder.models_known(self.board)
            self._trials.packer.keep_warm()
            stop = self._train()
            if stop in (StopReason.INTERRUPTED, StopReason.FAILING):
                self._ends.kill_running()
            if stop is not StopReason.INTERRUPTED and not stop.is_break:
                self._retries.end_doubts()
                self._ends.end_paused()
                self._run_audit()
                meanwhile(stop)
                self._await_figures()
            return stop
        finally:
            self._steering.close()
            self._ends.suspend_running()
            self._executor.close()

    def _train(self) -> StopReason:
        """Runs trials until nothing runs and nothing is to be started."""
        while True:
            self._steering.carry_out()
            if self._interrupts.received:
                preempted = self._interrupts.terminated
                return StopReason.PREEMPTED if preempted else StopReason.INTERRUPTED
            broken_off = self._retries.broken_off()
            if broken_off is not None:
                return broken_off
            self._nodes.look()
            self._retries.nodes_changed()
            if not self._fill_slots() or self._interrupts.received:
                continue
            awaits_node = self._awaits_node()
            if awaits_node and self._nodes.is_over:
                return StopReason.NO_NODE
            if not self.board.running() and not awaits_node:
                if self._finish_best():
                    continue
                rule = self._plan.rules.reached(self.board)
                if (
                    rule is None
                    and self._time_plan.in_final_phase
                    and not self._time_plan.all_tried
                ):
                    return StopReason.TIMEOUT
                ran_out = self._next.exhausted and not self._plan.is_fixed
                return rule or (StopReason.EXHAUSTED if ran_out else StopReason.TRIALS)
            self._handle_events(WAIT_SECONDS)
            self._retries.end_overdue()
            self._retries.end_stalled()
            self._ends.prune_unpromotable()
            seconds = int(self.board.elapsed_seconds())
            self._recorder.machine_used(self._trials.usage.machine(), seconds)
            self.board.final_phase_from = self._time_plan.final_phase_from
            self._log_time()
            self._trials.view.update(self.board)

    def _awaits_node(self) -> bool:
        """Whether there is something to train, and no machine to train it on."""
        if not self._nodes.has_none or self.board.running() or self._next.is_done:
            return False
        return self._plan.rules.reached(self.board) is None

    def _log_time(self) -> None:
        """Says once when the end begins, and again where the plan for the time has moved."""
        if self._logged_final_phase == 0.0 and not self._time_plan.in_final_phase:
            sweep_log.info("there is time left: new points are tried again")
            self._logged_final_phase = None
        begins, known = self.board.final_phase_from, self._logged_final_phase
        if begins is None or begins == known:
            return
        if self._time_plan.in_final_phase:
            sweep_log.info("no new points: the best are trained in full now")
        elif known is None or abs(begins - known) >= LOGGED_MOVE_SECONDS:
            sweep_log.info("the best are trained in full from %.0f s on, as things stand", begins)
        else:
            return
        self._logged_final_phase = begins

    def _fill_slots(self) -> bool:
        """Starts what there is room for; False where that failed in a way that ends the sweep."""
        slots = self._trials.packer.slots
        while not self._interrupts.received and self._plan.rules.reached(self.board) is None:
            row = self._next.choose()
            if row is None:
                return True
            failure = self._trials.start(row, self._trials.slot_for(row))
            if failure is not None:
                self._retries.broken(row, failure)
                if self._retries.broken_off() is not None:
                    return False
        slots.empty_one(False)  # What waits for a machine of its own does not start any more.
        return True

    def _handle_events(self, timeout_seconds: float) -> None:
        events = self._executor.events(timeout_seconds)
        self._trials.stood_still()
        for event in events:
            if event.job_id.startswith(figures.PREFIX):
                self._figures.forget(self.board.rows[self._figures.event(event)])
            elif self._audit is not None and event.job_id.startswith(audit.PREFIX):
                self._audit.event(event)
            elif isinstance(event, Reported):
                self._reported(event.message)
            elif isinstance(event, Returned):
                self._returned(event.value)
            else:
                self._retries.raised(event)

    def _reported(self, report: TrialReport) -> None:
        """Records a report, and tells the trial how it goes on."""
        row, identity = self.board.rows[report.number], job_id(report.number)
        value = self.board.value(row, report.metrics)
        now = self.board.clock()
        new = report.step > row.step
        waited = now - self._trials.last_report[row.number]
        first = self._trials.started_again(row)
        if first and not new:
            self._time_plan.paces.started(row, waited)
        if new:
            self._retries.reported(row)
            self._retries.longest_epoch = max(self._retries.longest_epoch, waited)
            self._recorder.reported(report, self._trials.usage.taken(identity))
        self._trials.last_report[row.number] = now
        if not row.measured:
            share = (report.step - row.step) / row.schedule.reports.per_epoch
            row.measured = measured(report.metrics, share or row.epochs)
        decision = self._engine.report(report.number, report.step, value, row.measured)
        if new:
            row.curve[report.step] = value
            row.moved_in_a_row = 0
            row.measured_at = self.board.elapsed_seconds()
            first = self._trials.compiled(row)
            self._time_plan.reported(row, report.metrics, waited, first=first)
        if row.number in self._finishing:
            decision = self._cut_short(row, "", StopReason.TIMEOUT.value)
        else:
            decision = self._within_rules(row, report.step, value, self._in_time(row, decision))
        decision = self._within_limits(row, decision)
        self._executor.answer(identity, decision)
        if new:
            self._trials.view.reported(self.board, row)

    def _in_time(self, row: TrialRow, decision: Decision) -> Decision:
        """The decision under the plan for the time, which may have begun to close the sweep."""
        if not self._plan.rungs or decision not in (Decision.GO_ON, Decision.PAUSE):
            return decision
        reason = "" if decision is Decision.PAUSE else self._time_plan.cannot_end(row)
        if reason:
            return self._cut_short(row, f"pruned at epoch {row.epochs_text}: {reason}", reason)
        if not self._time_plan.enters_final_phase():
            leads = self._time_plan.leads(row) and not self._time_plan.cannot_end(row)
            return Decision.GO_ON if leads else decision
        return Decision.GO_ON if self._time_plan.goes_on(row) else Decision.PAUSE

    def _within_rules(self, row: TrialRow, step: int, value: float, decision: Decision) -> Decision:
        """The decision after the sweep's own rules; a trial with its full budget stays complete."""
        rules, schedule = self._plan.rules, row.schedule
        # Within the first epoch too few images are measured to say that a target is reached.
        counts = schedule.validates and not schedule.reports.is_early(step)
        if counts and rules.meets_target(self.board.objective, value):
            return Decision.ENOUGH
        if step >= row.schedule.end_step:
            return Decision.GO_ON
        rule = rules.reached(self.board)
        if rule is StopReason.TIMEOUT:
            return self._cut_short(row, f"stopped because {rule.value}", rule.value)
        if rule is not None:
            row.reason = f"stopped because {rule.value}"
            return Decision.STOP
        if self._steering.is_stopped(row.number):
            return Decision.STOP
        if decision is Decision.STOP:
            row.reason = row.reason or f"pruned at epoch {row.epochs_text}"
        return decision

    def _cut_short(self, row: TrialRow, pruned: str, cause: str) -> Decision:
        """Ends a trial that there is no time for: as the best so far where it is that, else pruned.

        Args:
            pruned: the reason where it is pruned.
            cause: why there is no time for it.
        """
        if not self.board.would_win(row):
            row.reason = pruned
            return Decision.STOP
        row.reason = _CUT_SHORT.format(row.epochs_text, row.schedule.num_epochs, cause)
        return Decision.ENOUGH

    def _finish_best(self) -> bool:
        """Has the best of those that wait end with what it reached, where that makes it the winner.

        Its checkpoint has its weights: it starts, reports its last step again, and ends.
        """
        if self._plan.rungs:
            self._ends.pause_waiting()
        if not self._time_plan.is_timed or not self._trials.packer.slots.has_room:
            return False
        row = self._best_waiting()
        if row is None:
            self._retries.end_doubts()  # Nothing will show any more who was to blame.
            row = self._best_waiting()
        if row is None or self._finishing.get(row.number) == row.num_tries:
            return False
        self._finishing[row.number] = row.num_tries
        self._engine.resume(row.number)
        failure = self._trials.start(row, self._trials.slot_for(row))
        if failure is not None:
            self._retries.broken(row, failure)
        return True

    def _best_waiting(self) -> TrialRow | None:
        """The trial that waits and would be the winner, if it ended now."""
        waiting = self.board.in_state(TrialState.PAUSED)
        return next((row for row in waiting if self.board.would_win(row)), None)

    def _within_limits(self, row: TrialRow, decision: Decision) -> Decision:
        """The decision once the limits are looked at that decide while a trial trains."""
        timed = self._plan.rules.timeout_seconds is not None
        broken = broken_limit(judged(self._plan.limits, is_timed=timed), row.measured)
        if not broken:
            return decision
        row.reason = row.breaks_limit = broken
        return Decision.STOP

    def _returned(self, result: TrialResult) -> None:
        """Ends a trial by what it reached, or lets it wait at its rung."""
        row = self.board.rows[result.number]
        row.best_epoch, row.num_parameters = result.best_epoch, result.num_parameters
        if result.stopped_by == Decision.PAUSE:
            self._pause(row, result)
        else:
            pruned = result.stopped_by == Decision.STOP
            size = {"parameters": float(result.num_parameters)}
            broken = broken_limit(self._plan.limits, size | row.measured)
            if broken and not pruned:
                row.reason = row.breaks_limit = broken
                row.left_out_value, pruned = result.value, True
            state = TrialState.PRUNED if pruned else TrialState.COMPLETE
            self._recorder.trial_completed(row, result, state)
            self._trials.release(row)
            valued = not pruned and row.schedule.validates
            self._trials.end(row, state, result.value if valued else None)
            self._figures.draw(row)
        self._recorder.progress(self.board)

    def _pause(self, row: TrialRow, result: TrialResult) -> None:
        """The trial waits at its rung; its checkpoint stays, its slot is free."""
        self._recorder.trial_paused(row, result)
        self._engine.pause(row.number)
        self._trials.release(row)
        row.state, row.reason = TrialState.PAUSED, AT_RUNG
        self._trials.view.ended(self.board, row)

    def _await_figures(self) -> None:
        deadline = self.board.clock() + figures.FIGURES_SECONDS
        while (
            self._figures.numbers()
            and self.board.clock() < deadline
            and not self._interrupts.received
        ):
            self._handle_events(WAIT_SECONDS)
            self._trials.view.update(self.board)

    def _run_audit(self) -> None:
        """Trains some pruned trials to the end, where that was asked for."""
        if not self._plan.num_audited:
            return
        self._audit = Audit(self._trials)
        while not (
            self._audit.is_done
            or self._interrupts.received
            or (self._nodes.has_none and self._nodes.is_over)
        ):
            self._nodes.look()
            self._audit.fill()
            self._handle_events(WAIT_SECONDS)
            self._audit.end_stalled(self._retries.stall_limit())
            self._trials.view.update(self.board)
        self._audit.close()
        self._figures.audit_is_open = False
        for row in self.board.in_state(TrialState.PRUNED):
            self._figures.forget(row)


def _end_time(past: PastTrial) -> tuple[float, int]:
    """Trials that ended in the order in which they did, then the others."""
    return (past.ended_at if past.ended_at is not None else float("inf"), past.number)
