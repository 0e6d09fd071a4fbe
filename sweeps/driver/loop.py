"""The loop: ask the engine, start on a free slot, receive reports, tell, track.

Whatever happens is written in one order: first to the tracker's spool, then to the study, and only
then does the trial go on. A kill between any two steps leaves the study behind the spool, never
ahead of it; when the sweep is resumed, the trial says again what the study has not heard, and the
spool knows it already.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable
from functools import partial

from pipelines.evaluation.metrics import PREDICT_BATCH
from pipelines.training.checkpoints import EpochReport
from pipelines.training.trial import Decision, TrialResult, TrialTask
from search_spaces.errors import SourceChangedError
from sweeps.driver import audit, figures
from sweeps.driver.audit import Audit
from sweeps.driver.figures import Pictures
from sweeps.driver.plan import Plan, trial_seed
from sweeps.driver.recorder import Recorder
from sweeps.driver.status import Board, TrialRow
from sweeps.driver.stop_rules import StopReason
from sweeps.engines.base import Engine, Later, PastTrial, Proposal, TrialState
from sweeps.executors.base import Executor, Raised, Reported, Returned, Slot
from sweeps.executors.failures import Failure, FailureKind, classify, hang, kernel_memory_kills
from sweeps.interrupts import Interrupts
from sweeps.reporting.progress import View
from sweeps.resources.gpu_monitor import GpuUsage, GpuWatch
from sweeps.resources.packer import Packer

WAIT_SECONDS = 0.5
NUM_SAME_FAILURES = 3
"""So many first trials failing for one reason mean that the next would, too."""
FIGURES_SECONDS = 120.0
GRACE_SECONDS = 120.0
"""What an epoch may take beyond the time limit: a whole epoch is worth waiting for, an hour not."""
STALL_SECONDS = 600.0
STALL_EPOCHS = 20
"""Without a limit of the user's, a trial hangs when it reports nothing for the longer of the two:
ten minutes, and twenty times the longest epoch that this sweep has seen."""
FIRST_EPOCH_SECONDS = 6 * 3600.0
"""Before any epoch nobody knows how long one takes; longer ones need `--trial-timeout`."""
SPARING_PREDICT_BATCH = PREDICT_BATCH // 4
_STOPPED = "the sweep was stopped"
_WAITED = "waited at epoch {} for a promotion that did not come"


class Sweep:
    """One sweep; `run` returns why it ended, and `board` holds what it found.

    `source_changed` says what of a user's space is not as it was, where that ended the sweep.

    The trials that the engine holds already are those of earlier sessions: what had ended is
    shown, what was running goes on.
    """

    def __init__(
        self,
        plan: Plan,
        board: Board,
        engine: Engine,
        executor: Executor,
        recorder: Recorder,
        view: View,
        watch: GpuWatch | None = None,
    ) -> None:
        self.board = board
        self._plan = plan
        self._engine = engine
        self._executor = executor
        self._recorder = recorder
        self._view = view
        self._packer = Packer(
            plan.slots, plan.layout, plan.level, plan.trials_per_gpu, plan.paths.packing, executor,
            recorder.packed,
        )  # fmt: skip
        self._slots: dict[int, Slot] = {}
        self._usage = GpuUsage(executor, watch)
        self._exhausted = False
        self._pictures = Pictures(executor, recorder, plan.paths, plan.data)
        self._interrupts = Interrupts()
        self._heard: dict[int, float] = {}
        self._longest_epoch = 0.0
        self._memory_kills: dict[int, int] = {}
        self._audit: Audit | None = None
        self.source_changed = ""

    def run(
        self, interrupts: Interrupts, meanwhile: Callable[[], None] = lambda: None
    ) -> StopReason:
        """Runs trials until a stop rule holds; leaves no trial running, however it ends.

        Args:
            meanwhile: called after the last trial, while its pictures are drawn beside.
        """
        self._interrupts = interrupts
        try:
            self._longest_epoch = self._recorder.longest_epoch_seconds
            for past in sorted(self._engine.past(), key=_end_time):
                self._take_over(past)
            self.board.rows = dict(sorted(self.board.rows.items()))
            self._recorder.models_known(self.board)
            self._packer.keep_warm()
            stop = self._train()
            if stop in (StopReason.INTERRUPTED, StopReason.FAILING):
                self._kill_running()
            if stop not in (StopReason.INTERRUPTED, StopReason.PREEMPTED, StopReason.CHANGED):
                self._end_paused()
                self._run_audit()
                meanwhile()
                self._draw_remaining()
            return stop
        finally:
            self._suspend_running()
            self._executor.close()

    # What is next

    def _train(self) -> StopReason:
        """Runs trials until nothing runs and nothing is to be started."""
        while True:
            if self._interrupts.received:
                preempted = self._interrupts.terminated
                return StopReason.PREEMPTED if preempted else StopReason.INTERRUPTED
            if self.source_changed:
                return StopReason.CHANGED
            if self._all_failed_alike():
                return StopReason.FAILING
            self._fill_slots()
            if not self.board.running():
                rule = self._plan.rules.reached(self.board)
                return rule or (StopReason.EXHAUSTED if self._exhausted else StopReason.TRIALS)
            self._handle_events(WAIT_SECONDS)
            self._end_overdue()
            self._end_stalled()
            self._prune_hopeless()
            seconds = int(self.board.elapsed_seconds())
            self._recorder.machine_used(self._usage.machine(), seconds)
            self._view.update(self.board)

    def _all_failed_alike(self) -> bool:
        ended = [row for row in self.board.ended() if not row.past]
        if len(ended) < min(NUM_SAME_FAILURES, self._plan.num_trials):
            return False
        # Messages often name the trial's number or folder: digits do not make another cause.
        causes = {(row.state, re.sub(r"\d+", "#", row.reason)) for row in ended}
        return len(causes) == 1 and ended[0].state is TrialState.FAILED

    def _fill_slots(self) -> None:
        while (
            self._packer.slots.has_room
            and not self._interrupts.received
            and self._plan.rules.reached(self.board) is None
        ):
            row = self._next()
            if row is None:
                return
            self._start(row, self._packer.slots.take())

    def _next(self) -> TrialRow | None:
        """The trial for a free slot: one that waits, one that is promoted, or a new one."""
        running = self.board.running()
        if any(row.spared_memory for row in running):
            return None  # It has the machine to itself.
        waiting = [row for row in self.board.rows.values() if row.waiting]
        ready = [row for row in waiting if not row.spared_memory]
        if ready:
            return ready[0]
        if waiting:
            return None if running else waiting[0]
        while True:
            last = self._exhausted or len(self.board.proposed()) >= self._plan.num_trials
            number = self._engine.next_promotion(closing=last and not running)
            if number is not None:
                return self.board.rows[number]
            proposal = None if last else self._engine.ask()
            if last or isinstance(proposal, Later):
                return None
            if proposal is None:
                self._exhausted = True
                continue
            row = self._new_row(proposal)
            if proposal.duplicate_of is None or not self._repeat(row, proposal.duplicate_of):
                return row

    def _new_row(self, proposal: Proposal | PastTrial) -> TrialRow:
        number = proposal.number
        baseline = (proposal.baseline or "").partition(",")[0]
        default = f"trial {number} ({baseline})" if baseline else f"trial {number}"
        name = proposal.name or default
        seed = trial_seed(self._plan.seed, number)
        row = TrialRow(number, name, proposal.params, seed, 0, proposal.baseline, waiting=True)
        # From here on the trial has an end, whatever happens: row, study and run know it.
        self.board.rows[number] = row
        self._recorder.trial_started(row, self._plan.num_epochs)
        return row

    def _repeat(self, row: TrialRow, number: int) -> bool:
        """Ends a trial whose point was trained before with that trial's result.

        As Optuna's documentation advises for duplicated samples. Answers False where the earlier
        trial failed, so that training it again is worth while.
        """
        first = self.board.rows.get(number)
        if first is None or first.state in (TrialState.FAILED, TrialState.KILLED):
            return False
        # The result of one that still runs is not known: then the repetition has none.
        state = first.state if first.state.is_end else TrialState.PRUNED
        row.waiting, row.duplicate_of = False, number
        row.reason = f"the same point as trial {number}"
        row.best_epoch, row.num_parameters = first.best_epoch, first.num_parameters
        self._recorder.trial_lost(row, state)
        self._tell(row, state, first.value)
        return True

    # Trials of earlier sessions

    def _take_over(self, past: PastTrial) -> None:
        """A row for a trial of an earlier session: shown, waiting at its rung, or to go on."""
        row = self._new_row(past)
        row.curve = list(past.curve.values())
        row.value, row.state, row.reason = past.value, past.state, past.reason
        row.best_epoch = past.facts.get("best_epoch")
        row.num_parameters = past.facts.get("num_parameters")
        row.duplicate_of = past.facts.get("duplicate_of")
        row.seconds = past.facts.get("seconds", self._recorder.trained_seconds(past.number))
        if past.state.is_end:
            row.end_order = len(self.board.ended()) - 1
        row.past = past.state.is_end
        row.waiting = past.state is TrialState.RUNNING
        if past.duplicate_of is not None and row.waiting:
            self._repeat(row, past.duplicate_of)
        if self._pictures.are_missing(past.number) and not row.waiting:
            self._draw(row)
        else:
            self._forget(row)

    # One trial

    def _start(self, row: TrialRow, slot: Slot) -> None:
        plan, number = self._plan, row.number
        again = bool(row.curve)
        self._slots[number] = slot
        row.slot, row.waiting, row.state = slot.index, False, TrialState.RUNNING
        row.reason = ""
        self._pictures.overtake(number)
        row.started = self._heard[number] = time.monotonic()
        self._memory_kills[number] = kernel_memory_kills()
        self._recorder.trial_runs(row, slot)
        self._view.started(self.board, row, again=again)
        try:
            task = self._task(row)
            plan.paths.trial(number).mkdir(parents=True, exist_ok=True)
            log_path = str(plan.paths.trial_log(number))
            self._executor.start(_job_id(number), plan.job, task, slot, log_path)
            self._usage.started(_job_id(number))
        except (OSError, EOFError) as error:
            details = "".join(traceback.format_exception(error))
            self._broken(row, Raised(_job_id(number), type(error).__name__, str(error), details))

    def _task(self, row: TrialRow) -> TrialTask:
        return TrialTask(
            number=row.number,
            space=self._plan.space.key,
            params=row.params,
            data=self._plan.data,
            num_epochs=self._plan.num_epochs,
            seed=row.seed,
            objective=self.board.objective,
            folder=str(self._plan.paths.trial(row.number)),
            patience=self._plan.patience,
            num_reported=len(row.curve),
            predict_batch=SPARING_PREDICT_BATCH if row.spared_memory else PREDICT_BATCH,
            deterministic=self._plan.deterministic,
            measure_test=self._plan.measure_test,
            class_weights=self._plan.class_weights,
            sources=self._plan.space.sources,
            compute=self._plan.compute,
        )

    def _handle_events(self, timeout_seconds: float) -> None:
        for event in self._executor.events(timeout_seconds):
            if event.job_id.startswith(figures.PREFIX):
                self._forget(self.board.rows[self._pictures.event(event)])
            elif self._audit is not None and event.job_id.startswith(audit.PREFIX):
                self._audit.event(event)
            elif isinstance(event, Reported):
                self._reported(event.message)
            elif isinstance(event, Returned):
                self._returned(event.value)
            else:
                self._raised(event)

    def _reported(self, report: EpochReport) -> None:
        row = self.board.rows[report.number]
        value = self.board.objective.value(report.metrics)
        now = time.monotonic()
        new = report.epoch == len(row.curve) + 1
        if new:
            self._longest_epoch = max(self._longest_epoch, now - self._heard[row.number])
            self._recorder.epoch_reported(report, self._usage.taken(_job_id(row.number)))
        self._heard[row.number] = now
        decision = self._engine.report(report.number, report.epoch, value)
        if new:
            row.curve.append(value)
        decision = self._within_rules(row, report.epoch, value, decision)
        self._executor.answer(_job_id(report.number), decision)
        if new:
            self._view.reported(self.board, row)

    def _within_rules(
        self, row: TrialRow, epoch: int, value: float, decision: Decision
    ) -> Decision:
        """The decision once the sweep's own rules are heard; a full budget stays complete."""
        rules = self._plan.rules
        if rules.meets_target(self.board.objective, value):
            return Decision.ENOUGH
        if epoch >= self._plan.num_epochs:
            return Decision.GO_ON
        rule = rules.reached(self.board)
        if rule is not None:
            row.reason = f"stopped because {rule.value}"
            return Decision.STOP
        if decision is Decision.STOP:
            row.reason = f"pruned at epoch {epoch}"
        return decision

    def _returned(self, result: TrialResult) -> None:
        row = self.board.rows[result.number]
        row.best_epoch = result.best_epoch
        row.num_parameters = result.num_parameters
        if result.stopped_by == Decision.PAUSE:
            self._pause(row, result)
        else:
            pruned = result.stopped_by == Decision.STOP
            state = TrialState.PRUNED if pruned else TrialState.COMPLETE
            self._recorder.trial_completed(row, result, state)
            self._release(row)
            self._tell(row, state, None if pruned else result.value)
        self._recorder.progress(self.board)
        self._draw(row)

    def _draw(self, row: TrialRow) -> None:
        self._pictures.draw(row)
        self._forget(row)  # Where they could not be drawn, nothing keeps the trial's files.

    def _pause(self, row: TrialRow, result: TrialResult) -> None:
        """The trial waits at its rung; its checkpoint stays, its slot is free."""
        self._recorder.trial_paused(row, result)
        self._engine.pause(row.number)
        self._release(row)
        row.state, row.reason = TrialState.PAUSED, "waits for a promotion"
        self._view.ended(self.board, row)

    def _release(self, row: TrialRow) -> None:
        """Frees the slot of a trial that ran."""
        row.seconds += time.monotonic() - row.started
        slot = self._slots.pop(row.number, None)
        if slot is not None:  # None where telling an end failed, and the loop ends it once more.
            self._packer.slots.give_back(slot)

    def _tell(self, row: TrialRow, state: TrialState, value: float | None = None) -> None:
        """Ends a trial in the study, once the spool has its end."""
        facts = {
            "best_epoch": row.best_epoch,
            "num_parameters": row.num_parameters,
            "seconds": round(row.seconds, 3),
            "duplicate_of": row.duplicate_of,
        }
        self._engine.tell(row.number, state, value, row.reason, facts)
        row.end_order = len(self.board.ended())
        row.state, row.value, row.waiting = state, value, False
        self._view.ended(self.board, row)

    # Failures

    def _raised(self, event: Raised) -> None:
        row = self.board.rows[int(event.job_id.removeprefix("trial-"))]
        if event.kind == SourceChangedError.__name__:
            self.source_changed = event.reason
        if self.source_changed or (event.kind == "Died" and self._interrupts.received):
            # What ended the sweep ended its processes, too: service managers signal whole groups.
            # And a trial that was to be built from other code than those before it can wait.
            row.reason = _STOPPED
            self._release(row)
            row.waiting = True
            return
        self._broken(row, event)

    def _broken(self, row: TrialRow, event: Raised) -> None:
        ran_out = kernel_memory_kills() > self._memory_kills[row.number]
        self._failed(row, classify(event, memory_ran_out=ran_out))

    def _failed(self, row: TrialRow, failure: Failure) -> None:
        """Another try where it can help and is left, else the end."""
        slot = self._slots[row.number]
        self._release(row)
        short = failure.kind is FailureKind.OUT_OF_MEMORY
        change = self._packer.ran_out_of_memory(slot) if short else None
        if change is not None:
            # That it shared the GPU is not the trial's fault, so `--retries` does not count it.
            row.num_repacked += 1
            self.board.num_slots = self._packer.num_slots
            self._try_again(row, f"{failure.reason} ({change})")
            return
        if failure.can_retry and row.num_retries < self._plan.num_retries:
            row.num_retries += 1
            row.spared_memory |= short
            self._try_again(row, failure.reason)
            return
        tries = f" (after {row.num_tries} tries)" if row.num_tries > 1 else ""
        row.reason, row.details = failure.reason + tries, failure.details
        self._recorder.trial_lost(row, TrialState.FAILED)
        self._tell(row, TrialState.FAILED)
        self._recorder.progress(self.board)
        self._forget(row)

    def _try_again(self, row: TrialRow, reason: str) -> None:
        row.waiting = True
        self._recorder.trial_retried(row, reason)
        self._view.retried(self.board, row, reason)

    def _end_overdue(self) -> None:
        """Ends trials whose epoch does not end within `GRACE_SECONDS` after the time limit."""
        limit = self._plan.rules.timeout_seconds
        if limit is None or self.board.elapsed_seconds() < limit + GRACE_SECONDS:
            return
        for row in self.board.running():
            self._executor.stop(_job_id(row.number))
            row.reason = f"stopped because {StopReason.TIMEOUT.value}"
            self._recorder.trial_lost(row, TrialState.PRUNED)
            self._release(row)
            self._tell(row, TrialState.PRUNED)
            self._forget(row)

    def _end_stalled(self) -> None:
        """Ends trials that report nothing any more; another try may help."""
        limit, now = self._stall_limit(), time.monotonic()
        for row in self.board.running():
            if now - self._heard[row.number] > limit:
                self._executor.stop(_job_id(row.number))
                self._failed(row, hang(limit))

    def _stall_limit(self) -> float:
        """Seconds without a report after which a trial hangs."""
        if self._plan.stall_seconds is not None:
            return self._plan.stall_seconds
        if not self._longest_epoch:
            return FIRST_EPOCH_SECONDS
        return max(STALL_SECONDS, STALL_EPOCHS * self._longest_epoch)

    # Ends

    def _prune_hopeless(self) -> None:
        """Ends paused trials that can never be promoted, so that their checkpoints can go."""
        for number in self._engine.hopeless(self._plan.num_trials):
            row = self.board.rows[number]
            row.reason = f"pruned at epoch {len(row.curve)}: too many are better"
            self._end_one_paused(row)

    def _end_paused(self) -> None:
        """When no slot will be free again for them, paused trials have been pruned."""
        for row in self.board.in_state(TrialState.PAUSED):
            row.reason = _WAITED.format(len(row.curve))
            self._end_one_paused(row)
        for row in self.board.rows.values():
            if row.waiting:  # A stop rule came before its turn.
                row.reason = _STOPPED
                self._recorder.trial_lost(row, TrialState.PRUNED)
                self._tell(row, TrialState.PRUNED)
                self._forget(row)

    def _end_one_paused(self, row: TrialRow) -> None:
        self._recorder.paused_trial_ended(row, TrialState.PRUNED)
        self._tell(row, TrialState.PRUNED)
        if not self._plan.num_audited:
            self._forget(row)

    def _kill_running(self) -> None:
        """Ends everything that runs or is to run, as far as possible: each step for itself.

        What is paused stays so: a sweep that is resumed may promote it.
        """
        for row in self.board.running():
            self._attempt(partial(self._executor.stop, _job_id(row.number)))
            self._release(row)
            row.waiting = True
        for row in self.board.rows.values():
            if row.waiting:
                row.reason = _STOPPED
                self._attempt(partial(self._recorder.trial_lost, row, TrialState.KILLED))
                self._attempt(partial(self._tell, row, TrialState.KILLED))
                self._forget(row)

    def _suspend_running(self) -> None:
        """Leaves what still runs to be resumed: its last epoch is in its checkpoint."""
        for row in self.board.running():
            self._attempt(partial(self._executor.stop, _job_id(row.number)))
            self._release(row)
            row.waiting = True
        for row in self.board.rows.values():
            if row.waiting:
                row.state, row.reason = TrialState.PAUSED, "waits for the sweep to be resumed"
                self._attempt(partial(self._recorder.trial_suspended, row))
        for number in self._pictures.numbers():
            self._attempt(partial(self._pictures.give_up, number, _STOPPED))
            self._forget(self.board.rows[number])

    @staticmethod
    def _attempt(step: Callable[[], None]) -> None:
        """One step of an orderly end; the next ones must happen even if this one fails."""
        try:
            step()
        except Exception:  # Whatever a full disk or a lost database raises, the rest must end.
            return

    # Files and pictures

    def _forget(self, row: TrialRow) -> None:
        """Removes the files of a trial that has ended, once nobody needs them."""
        audited = self._plan.num_audited and row.state is TrialState.PRUNED
        if row.state.is_end and row.number not in self._pictures and not audited:
            self._recorder.forget(row.number)

    def _draw_remaining(self) -> None:
        deadline = time.monotonic() + FIGURES_SECONDS
        while self._pictures and time.monotonic() < deadline and not self._interrupts.received:
            self._handle_events(WAIT_SECONDS)
            self._view.update(self.board)

    def _run_audit(self) -> None:
        """Trains some pruned trials to the end, where that was asked for."""
        plan = self._plan
        if not plan.num_audited:
            return
        self._audit = Audit(
            self.board, self._executor, self._recorder, plan.paths, plan.num_audited, plan.seed,
            self._packer.slots, self._task, plan.job,
        )  # fmt: skip
        while not self._audit.is_done and not self._interrupts.received:
            self._audit.fill()
            self._handle_events(WAIT_SECONDS)
            self._audit.end_stalled(self._stall_limit())
            self._view.update(self.board)
        self._audit.close()


def _end_time(past: PastTrial) -> tuple[float, int]:
    """Trials that ended in the order in which they did, then the others."""
    return (past.ended_at if past.ended_at is not None else float("inf"), past.number)


def _job_id(number: int) -> str:
    return f"trial-{number}"
