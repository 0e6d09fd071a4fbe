"""One session of a loop: sends what is recorded, runs the loop, and closes everything.

A search, a comparison of finalists and the published baselines each are such a session, with an
engine, a recorder and an end of their own.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeps.driver.board.board import Board
from sweeps.driver.board.views import LogView, View, Views
from sweeps.driver.loop import SweepLoop
from sweeps.driver.plan import LoopPlan, StopReason
from sweeps.driver.records.recorder import Recorder
from sweeps.engines.base import Engine
from sweeps.executors.base import Executor
from sweeps.formatting import count, error_text, in_work_dir
from sweeps.interrupts import Interrupts
from sweeps.resources.gpu_monitor import GpuWatch, closed, watch_over
from sweeps.state.log import sweep_log
from tracking.addresses import scrubbed

if TYPE_CHECKING:
    from tracking.runs.tracker import MlflowTracker
    from tracking.spool.sender import Sender
    from tracking.spool.spool import Spool

DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Recording:
    """Where a session's records go.

    Attributes:
        sync_name: the sweep that `sync` knows.
        uri: the tracking store.
        connect: opens it, again where it was away; None where nothing is to be sent now.
        secrets: addresses whose passwords no message may show.
        run_page: the address of a trial's run in MLflow's pages; empty while it has none.
    """

    spool: Spool
    sync_name: str
    uri: str
    connect: Callable[[], MlflowTracker] | None
    secrets: tuple[str, ...] = ()
    run_page: Callable[[int], str] = lambda number: ""


@dataclass(frozen=True)
class LoopEnd:
    """How a session's loop came to its end.

    Attributes:
        stop: why it ended; None where it broke off.
        received: whether somebody interrupted it, whatever it ended by.
        error: what broke it off, one line.
        problems: what else people should know, a line each.
        cause: what broke it off, where it was raised here.
    """

    stop: StopReason | None
    received: bool = False
    error: str = ""
    problems: tuple[str, ...] = ()
    cause: Exception | None = None

    @property
    def interrupted(self) -> bool:
        """Whether something from outside ended it, or it broke off after that; it can go on."""
        breaks = (StopReason.INTERRUPTED, StopReason.PREEMPTED, StopReason.NO_NODE)
        ended = self.stop in breaks
        return ended or (self.stop is None and self.received)

    @property
    def suspended(self) -> bool:
        """Whether trials wait to be resumed."""
        return self.stop is None or self.stop.is_break

    @property
    def reason(self) -> str:
        """In words."""
        return self.stop.value if self.stop else "the sweep ended with an error; it can be resumed"


@dataclass
class Session:
    """Sends, runs the loop, and closes. The sweep's lock must be held."""

    plan: LoopPlan
    board: Board
    recorder: Recorder
    recording: Recording
    executor: Executor
    view: View
    interrupts: Interrupts
    _sender: Sender | None = field(default=None, init=False)

    def begin(self, record: Callable[[], None]) -> None:
        """Records that the session runs, and starts to send; closes everything where it cannot."""
        try:
            record()
            self._start_sending()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends every process, and frees the terminal; may be called again."""
        try:
            self.executor.close()
        finally:
            self.view.close()

    def _start_sending(self) -> None:
        """Starts the thread that sends, unless nothing is to be sent now."""
        connect = self.recording.connect
        if connect is None:
            return
        from tracking.spool.sender import Sender

        self._sender = Sender(self.recording.spool, connect)

    def run_loop(
        self,
        make_engine: Callable[[], Engine],
        prepared: Callable[[LoopPlan, GpuWatch | None], LoopPlan] = lambda plan, watch: plan,
        meanwhile: Callable[[StopReason], None] = lambda stop: None,
    ) -> LoopEnd:
        """Runs trials until a stop rule holds; leaves none running, and closes view and executor.

        Args:
            make_engine: makes or gives what proposes the trials.
            prepared: settles the plan where something has to be measured first.
            meanwhile: called after the last trial with the reason, while its figures are drawn.
        """
        stop: StopReason | None = None
        error, cause = "", None
        watch, problems = watch_over(self.plan.layout)
        try:
            self.plan = prepared(self.plan, watch)
            loop = SweepLoop(
                self.plan, self.board, make_engine(), self.executor, self.recorder,
                Views((LogView(), self.view)), self.interrupts, watch,
            )  # fmt: skip
            stop = loop.run(meanwhile)
            error = loop.error
        except Exception as problem:  # A full disk, a lost database: say it, keep what there is.
            error, cause = self.broke_off(problem), problem
        finally:
            self.close()
            problems += closed(watch)
        end = LoopEnd(stop, bool(self.interrupts.received), error, tuple(problems), cause)
        if end.error:
            sweep_log.error("%s: %s", end.reason, end.error)
        else:
            sweep_log.info("the last trial ended: %s", end.reason)
        _log_problems(end.problems)
        return end

    def broke_off(self, problem: Exception) -> str:
        """One line for people; the traceback goes to the sweep's folder, where there is room."""
        path = self.plan.paths.sweep / "driver.log"
        text = self._scrubbed(error_text(problem)[:500])
        try:
            whole = self._scrubbed("".join(traceback.format_exception(problem)))
            path.write_text(whole, encoding="utf-8")
        except OSError:
            return text
        return f"{text} (traceback in {path})"

    def _scrubbed(self, text: str) -> str:
        """Without the passwords of the sweep's addresses."""
        for address in (self.recording.uri, *self.recording.secrets):
            text = scrubbed(text, address)
        return text

    def send_rest(self) -> list[str]:
        """Waits for what is being sent; one line per problem. Nothing is lost: the spool has it."""
        problems, spool = [], self.recording.spool
        where = in_work_dir(self.plan.paths.work_dir)
        sync = f"`keras-sweeps sync {self.recording.sync_name}{where}`"
        if self._sender is not None:
            sent = self._sender.drain(DRAIN_SECONDS, lambda: self.interrupts.urgent)
            self._sender.close()
            if not sent:
                why = self._scrubbed(self._sender.problem) or "too slow"
                problems.append(
                    f"{count(spool.num_waiting, 'record')} not sent to MLflow yet ({why}); nothing "
                    f"is lost, {sync} sends them."
                )
        aside = [self._scrubbed(line) for line in spool.aside_lines()]
        problems += [f"not recorded in MLflow: {line}" for line in aside]
        if aside:
            problems.append(
                f"{count(len(aside), 'record')} set aside, and kept: once the cause is mended, "
                f"{sync} sends them."
            )
        _log_problems(problems)
        return problems


def _log_problems(lines: Iterable[str]) -> None:
    for line in lines:
        sweep_log.warning("%s", line)
