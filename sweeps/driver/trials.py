"""One trial on its slot: started, released, ended; what every other part of the loop calls."""

from __future__ import annotations

import traceback

from pipelines.evaluation.metrics import PREDICT_BATCH
from pipelines.training.trial import TrialTask
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import View
from sweeps.driver.plan import LoopPlan
from sweeps.driver.records.recorder import Recorder
from sweeps.engines.base import LEFT_OUT_VALUE, RUN_PAGE, Engine, TrialState
from sweeps.engines.limits import broken_limit
from sweeps.executors.base import Executor, Raised, Slot
from sweeps.executors.failures import kernel_memory_kills
from sweeps.resources.gpu_monitor import GpuWatch, ResourceUsage
from sweeps.resources.packer import Packer

SMALL_PREDICT_BATCH = PREDICT_BATCH // 4
STOOD_STILL_SECONDS = 30.0
"""A driver that did not look for so long was stopped, or waited for a disk."""
_PREFIX = "trial-"


class Trials:
    """The trials of a loop: their rows, their slots, and what has been received from each.

    Whatever happens to a trial is written in one order: first to the tracker's spool, then to the
    study.
    """

    def __init__(
        self,
        plan: LoopPlan,
        board: Board,
        engine: Engine,
        executor: Executor,
        recorder: Recorder,
        view: View,
        watch: GpuWatch | None = None,
    ) -> None:
        self.plan, self.board, self.engine = plan, board, engine
        self.executor, self.recorder, self.view = executor, recorder, view
        self.packer = Packer(
            plan.slots, plan.layout, plan.level, plan.trials_per_gpu, plan.paths.packing, executor,
            recorder.packed, plan.pool,
        )  # fmt: skip
        self.usage = ResourceUsage(executor, watch)
        self.last_report: dict[int, float] = {}
        """By trial, when it last started or reported (`Board.clock`)."""
        self._looked: float | None = None
        self.slots: dict[int, Slot] = {}
        self._memory_kills: dict[int, int] = {}
        self._unreported: set[int] = set()
        self._uncompiled: set[int] = set()

    def slot_for(self, row: TrialRow) -> Slot:
        """A free slot: of a machine of its own where its memory ran out, else of one on which it
        has not failed, if there are others."""
        pool = self.plan.pool
        if row.ran_out_of_memory:
            return self.packer.slots.take(alone=True)
        if pool is not None and row.failed_on:
            return pool.take(beyond=row.failed_on)
        return self.packer.slots.take()

    def start(self, row: TrialRow, slot: Slot) -> Raised | None:
        """Starts a trial, or goes on with it; returns why its process could not be started."""
        number, again = row.number, bool(row.curve)
        self.slots[number] = slot
        row.slot, row.waiting, row.state, row.reason = slot.index, False, TrialState.RUNNING, ""
        row.node = slot.node
        row.started = self.last_report[number] = self.board.clock()
        self._unreported.add(number)
        self._uncompiled.add(number)
        self._memory_kills[number] = kernel_memory_kills()
        self.recorder.trial_runs(row, slot)
        self.view.started(self.board, row, again=again)
        try:
            task = self.task(row)
            self.plan.paths.trial(number).mkdir(parents=True, exist_ok=True)
            log_path = str(self.plan.paths.trial_log(number))
            self.executor.start(job_id(number), self.plan.job, task, slot, log_path)
            self.usage.started(job_id(number))
        except (OSError, EOFError) as error:
            details = "".join(traceback.format_exception(error))
            row.node = ""  # It failed here, on the way to its node.
            return Raised(job_id(number), type(error).__name__, str(error), details)
        return None

    def stood_still(self) -> None:
        """Does not count against trials what time this process was stopped; to be called whenever
        it has looked for events.

        Ctrl-Z stops the workers, too, and nodes of a cluster end the trials of a driver that is
        silent: what did not report meanwhile does not hang.
        """
        now, looked = self.board.clock(), self._looked
        self._looked = now
        if looked is not None and now - looked > STOOD_STILL_SECONDS:
            for number, at in self.last_report.items():
                self.last_report[number] = min(now, at + now - looked)

    def started_again(self, row: TrialRow) -> bool:
        """Whether a report is the first since the trial was started; once for each start."""
        first = row.number in self._unreported
        self._unreported.discard(row.number)
        return first

    def compiled(self, row: TrialRow) -> bool:
        """Whether a new report is the first since then, before which its steps were compiled."""
        first = row.number in self._uncompiled
        self._uncompiled.discard(row.number)
        return first

    def task(self, row: TrialRow) -> TrialTask:
        """What a worker needs to train the trial, or to continue it."""
        return TrialTask(
            number=row.number,
            space=row.space.key,
            params=row.params,
            data=self.plan.data,
            schedule=row.schedule,
            seed=row.seed,
            objective=self.board.objective,
            folder=str(self.plan.paths.trial(row.number)),
            training=self.plan.training,
            reported_step=row.step,
            predict_batch=SMALL_PREDICT_BATCH if row.ran_out_of_memory else PREDICT_BATCH,
            sources=row.space.sources,
            measures=tuple(limit.quantity for limit in self.plan.limits),
        )

    def stop(self, row: TrialRow) -> None:
        """Ends the trial's process at once."""
        self.executor.stop(job_id(row.number))

    def release(self, row: TrialRow) -> Slot | None:
        """Frees the slot of a trial that ran; None where it was freed before."""
        row.seconds += self.board.clock() - row.started
        slot = self.slots.pop(row.number, None)
        if slot is not None:  # None where telling an end failed, and the loop ends it once more.
            self.packer.slots.give_back(slot)
        return slot

    def memory_ran_out(self, row: TrialRow, event: Raised) -> bool:
        """Whether the kernel ended some process for want of memory since the trial started.

        A trial on another machine is told of that by the event.
        """
        if row.node:
            return event.memory_ran_out
        return kernel_memory_kills() > self._memory_kills[row.number]

    def end(self, row: TrialRow, state: TrialState, value: float | None = None) -> None:
        """Ends a trial in the study, once the spool has its end."""
        facts: dict[str, object] = {
            "best_epoch": row.best_epoch,
            "num_parameters": row.num_parameters,
            "seconds": round(row.seconds, 3),
            "duplicate_of": row.duplicate_of,
            RUN_PAGE: self.recorder.run_page(row.number),
        }
        broken = row.breaks_limit or broken_limit(self.plan.limits, row.measured)
        if broken:
            facts |= {"breaks_limit": broken, LEFT_OUT_VALUE: row.left_out_value}
        self.engine.tell(row.number, state, value, row.reason, facts)
        row.end_order = self.board.num_ended()
        row.state, row.value, row.waiting = state, value, False
        self.view.ended(self.board, row)

    def end_without_result(self, row: TrialRow, state: TrialState) -> None:
        """Ends a trial that reached nothing of its own, with its reason, everywhere."""
        self.recorder.trial_lost(row, state)
        self.end(row, state)


def job_id(number: int) -> str:
    """What the executor calls a trial's job."""
    return f"{_PREFIX}{number}"


def trial_number(identity: str) -> int:
    """The trial of a job that `job_id` named."""
    return int(identity.removeprefix(_PREFIX))
