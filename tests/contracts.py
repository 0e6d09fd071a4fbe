"""What every executor and every engine must do, whatever is behind it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import fakes
import pytest

from pipelines.training.trial import Decision
from search_spaces.registry import get_space
from sweeps.engines.base import Engine, Proposal, TrialState
from sweeps.executors.base import Event, Executor, Raised, Reported, Returned, Slot
from sweeps.resources.gpus import GpuInventory
from sweeps.resources.nvml import GpuMeter, MeterError

SLOT = Slot(3, 2)


class ExecutorContract:
    """Subclasses provide the fixture `executor`."""

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
        executor.start("a", fakes.echo_job, {"x": 1}, SLOT, str(tmp_path / "log"))
        assert self.wait(executor) == Reported("a", {"x": 1})
        assert executor.events(0.2) == []
        executor.answer("a", answer)
        assert self.wait(executor) == Returned("a", ({"x": 1}, answer, SLOT))

    def test_an_exception_is_told_with_its_reason(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("a", fakes.failing_eof_job, None, SLOT, str(tmp_path / "log"))
        event = self.wait(executor)
        assert isinstance(event, Raised)
        assert (event.kind, event.reason) == ("EOFError", "ran out of input")
        assert "Traceback" in event.details

    def test_a_stopped_job_says_nothing_more(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("a", fakes.sleeping_job, 30.0, SLOT, str(tmp_path / "log"))
        executor.stop("a")
        assert executor.events(0.3) == []

    def test_an_id_is_free_again_after_a_stop(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("a", fakes.sleeping_job, 30.0, SLOT, str(tmp_path / "log"))
        executor.stop("a")
        executor.start("a", fakes.sleeping_job, 0.0, SLOT, str(tmp_path / "log"))
        assert self.wait(executor) == Returned("a", "slept")

    def test_an_id_is_refused_while_it_runs(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("a", fakes.sleeping_job, 30.0, SLOT, str(tmp_path / "log"))
        with pytest.raises(ValueError, match="must be unique"):
            executor.start("a", fakes.sleeping_job, 0.0, SLOT, str(tmp_path / "log"))

    def test_a_running_job_has_a_process_of_its_own(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        assert executor.process_id("a") is None
        for job_id in ("a", "b"):
            executor.start(job_id, fakes.sleeping_job, 30.0, SLOT, str(tmp_path / job_id))
        found = {executor.process_id("a"), executor.process_id("b")}
        assert len(found) == 2 and all(isinstance(number, int) for number in found)
        executor.stop("a")
        assert executor.process_id("a") is None

    def test_jobs_run_beside_each_other(self, executor: Executor, tmp_path: Path) -> None:
        executor.start("long", fakes.sleeping_job, 5.0, SLOT, str(tmp_path / "long"))
        executor.start("short", fakes.sleeping_job, 0.0, SLOT, str(tmp_path / "short"))
        assert self.wait(executor) == Returned("short", "slept")


class EngineContract:
    """Subclasses provide `make_engine(**options)`; a grid from the defaults follows no seed."""

    follows_seed = True

    def make_engine(self, **options: Any) -> Engine:
        raise NotImplementedError

    def test_proposals_lie_in_the_space(self) -> None:
        engine, space = self.make_engine(), get_space("cnn")
        for _ in range(15):
            proposal = engine.ask()
            assert isinstance(proposal, Proposal)
            assert space.complete(proposal.params) == proposal.params
            engine.tell(proposal.number, TrialState.COMPLETE, 0.5)

    def test_one_seed_gives_the_same_proposals(self) -> None:
        def proposals(seed: int) -> list[dict[str, Any]]:
            engine = self.make_engine(seed=seed)
            points = []
            for number in range(14):
                proposal = engine.ask()
                assert isinstance(proposal, Proposal) and proposal.number == number
                points.append(proposal.params)
                value = float(proposal.params["num_dense_layers"]) + 0.01 * number
                assert engine.report(number, 1, value) is Decision.GO_ON
                engine.tell(number, TrialState.COMPLETE, value)
            return points

        assert proposals(1) == proposals(1)
        assert (proposals(1) != proposals(2)) is self.follows_seed

    def test_baselines_come_first_under_their_names(self) -> None:
        baselines = get_space("cnn").distinct_baselines()
        engine = self.make_engine(baselines=baselines)
        for names, params in baselines:
            proposal = engine.ask()
            assert isinstance(proposal, Proposal)
            assert proposal.params == params
            assert proposal.baseline == ", ".join(names)
        proposal = engine.ask()
        assert isinstance(proposal, Proposal) and proposal.baseline is None

    def test_it_goes_on_after_trials_that_were_lost(self) -> None:
        engine = self.make_engine()
        for state in (TrialState.FAILED, TrialState.KILLED, TrialState.PRUNED):
            proposal = engine.ask()
            assert isinstance(proposal, Proposal)
            engine.report(proposal.number, 1, 0.3)
            engine.tell(proposal.number, state, None, "a reason")
        assert engine.ask() is not None


class GpuInventoryContract:
    """Subclasses provide `inventory`, of a machine with at least one GPU."""

    def test_gpus_are_listed_once_in_the_order_of_their_numbers(
        self, inventory: GpuInventory
    ) -> None:
        found = inventory.gpus()
        assert isinstance(found, tuple) and found
        indices = [int(gpu.index) for gpu in found]
        assert indices == sorted(set(indices))

    def test_each_has_a_name_and_plausible_memory(self, inventory: GpuInventory) -> None:
        for gpu in inventory.gpus():
            assert gpu.name and gpu.name == gpu.name.strip()
            assert gpu.memory_bytes is None or 2**28 <= gpu.memory_bytes < 2**44
            assert gpu.uuid == "" or gpu.uuid.startswith("GPU-")

    def test_looking_again_finds_the_same(self, inventory: GpuInventory) -> None:
        assert inventory.gpus() == inventory.gpus()

    def test_the_environment_hides_gpus_by_number_and_by_id(
        self, inventory: GpuInventory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        last = inventory.gpus()[-1]
        for name in filter(None, (last.index, last.uuid)):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
            assert inventory.gpus() == (last,)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        assert inventory.gpus() == ()


class GpuMeterContract:
    """Subclasses provide `meter`, of a machine whose GPU 0 is there."""

    def test_a_gpu_tells_its_memory_and_how_busy_it_is(self, meter: GpuMeter) -> None:
        figures = meter.read("0")
        assert 0 <= figures.memory_bytes <= figures.memory_total_bytes
        assert figures.memory_total_bytes >= 2**28
        assert figures.utilization_percent is None or 0 <= figures.utilization_percent <= 100
        assert figures.power_watts is None or 0 <= figures.power_watts < 5000

    def test_processes_are_told_by_their_ids(self, meter: GpuMeter) -> None:
        for _ in range(3):
            figures = meter.read("0")
            for process_id, part in figures.processes.items():
                assert process_id > 0
                assert part.memory_bytes is None or (
                    0 <= part.memory_bytes <= figures.memory_total_bytes
                )
                assert part.utilization_percent is None or 0 <= part.utilization_percent <= 100

    def test_a_gpu_that_is_not_there_is_an_error_of_the_meter(self, meter: GpuMeter) -> None:
        with pytest.raises(MeterError, match="999"):
            meter.read("999")

    def test_closing_twice_is_no_error(self, meter: GpuMeter) -> None:
        meter.close()
        meter.close()
