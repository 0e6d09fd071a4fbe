"""What every executor must do, whatever is behind it."""

from __future__ import annotations

import time
from pathlib import Path

import fake_jobs
import pytest

from sweeps.executors.base import Event, Executor, Raised, Reported, Returned, Slot

SLOT = Slot(3, 2)


class ExecutorContract:
    """Subclasses provide the fixture `executor`.

    Attributes:
        is_local: whether its jobs are processes of this machine.
    """

    is_local = True

    @staticmethod
    def wait(executor: Executor, seconds: float = 30.0) -> Event:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            events = executor.events(0.2)
            if events:
                assert len(events) == 1
                return events[0]
        raise AssertionError(f"no event within {seconds} seconds")

    @pytest.mark.parametrize("answer", [True, False])
    def test_a_report_waits_for_its_answer(
        self, executor: Executor, tmp_path: Path, answer: bool
    ) -> None:
        executor.start("a", fake_jobs.echo_job, {"x": 1}, SLOT, str(tmp_path / "log"))
        assert self.wait(executor) == Reported("a", {"x": 1})
        assert executor.events(0.2) == []
        executor.answer("a", answer)
        assert self.wait(executor) == Returned("a", ({"x": 1}, answer, SLOT))

    def test_an_exception_is_told_with_its_reason(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("a", fake_jobs.failing_eof_job, None, SLOT, str(tmp_path / "log"))
        event = self.wait(executor)
        assert isinstance(event, Raised)
        assert (event.kind, event.reason) == ("EOFError", "ran out of input")
        assert "Traceback" in event.details

    def test_a_stopped_job_says_nothing_more(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("a", fake_jobs.sleeping_job, 30.0, SLOT, str(tmp_path / "log"))
        executor.stop("a")
        assert executor.events(0.3) == []

    def test_an_id_is_free_again_after_a_stop(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("a", fake_jobs.sleeping_job, 30.0, SLOT, str(tmp_path / "log"))
        executor.stop("a")
        executor.start("a", fake_jobs.sleeping_job, 0.0, SLOT, str(tmp_path / "log"))
        assert self.wait(executor) == Returned("a", "slept")

    def test_an_id_is_refused_while_it_runs(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("a", fake_jobs.sleeping_job, 30.0, SLOT, str(tmp_path / "log"))
        with pytest.raises(ValueError, match="must be unique"):
            executor.start("a", fake_jobs.sleeping_job, 0.0, SLOT, str(tmp_path / "log"))

    def test_a_running_job_has_a_process_of_its_own(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        assert executor.process_id("a") is None
        for job_id in ("a", "b"):
            executor.start(job_id, fake_jobs.sleeping_job, 30.0, SLOT, str(tmp_path / job_id))
        found = {executor.process_id("a"), executor.process_id("b")}
        if not self.is_local:
            assert found == {None}
            return
        assert len(found) == 2 and all(isinstance(number, int) for number in found)
        executor.stop("a")
        assert executor.process_id("a") is None

    def test_jobs_run_beside_each_other(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("long", fake_jobs.sleeping_job, 5.0, SLOT, str(tmp_path / "long"))
        executor.start("short", fake_jobs.sleeping_job, 0.0, SLOT, str(tmp_path / "short"))
        assert self.wait(executor) == Returned("short", "slept")
