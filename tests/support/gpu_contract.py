"""What every list and every meter of GPUs must do."""

from __future__ import annotations

import pytest

from sweeps.resources.gpus import GpuInventory
from sweeps.resources.nvml import GpuMeter, MeterError


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
