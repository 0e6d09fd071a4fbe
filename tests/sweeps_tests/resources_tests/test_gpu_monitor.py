"""Figures of GPUs: read by NVML or a stand-in for it, summed up, and logged where they belong."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import fake_gpus
import fake_jobs
import gpu_contract
import pytest
from loop_scene import Scene

import sweeps.resources.nvml as gpu_meter
from sweeps.resources import gpu_monitor
from sweeps.resources.gpu_monitor import (
    GpuWatch,
    Mean,
    ResourceUsage,
    Tally,
    closed,
    watch_over,
)
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Machine, allot
from sweeps.resources.nvml import GpuFigures, MeterError, NvmlMeter, ProcessFigures

GIB = 2**30


class TestFakeMeter(gpu_contract.GpuMeterContract):
    @pytest.fixture
    def meter(self):
        return fake_gpus.FakeMeter()


class TestNvmlMeterOnAStandIn(gpu_contract.GpuMeterContract):
    """The real meter on functions that answer as `pynvml` does."""

    @pytest.fixture
    def meter(self):
        return NvmlMeter(fake_gpus.FakeNvml())


class TestNvmlMeter(gpu_contract.GpuMeterContract):
    @pytest.fixture
    def meter(self):
        try:
            return NvmlMeter()
        except MeterError as error:
            pytest.skip(f"this machine has no NVML ({error})")


def test_without_the_driver_of_a_gpu_the_meter_says_so():
    with pytest.raises(MeterError, match="NVML does not start: NVML Shared Library Not Found"):
        NvmlMeter(fake_gpus.FakeNvml(silent=("nvmlInit",)))


def test_what_a_gpu_does_not_tell_is_unknown():
    silent = ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage",
              "nvmlDeviceGetProcessUtilization")  # fmt: skip
    figures = NvmlMeter(fake_gpus.FakeNvml({7: None}, silent=silent)).read("0")
    assert (figures.utilization_percent, figures.power_watts) == (None, None)
    assert figures.processes == {7: ProcessFigures(None, None)}


def test_a_gpu_that_fell_off_the_bus_is_an_error_of_the_meter():
    meter = NvmlMeter(fake_gpus.FakeNvml(silent=("nvmlDeviceGetMemoryInfo",)))
    with pytest.raises(MeterError, match="GPU 0 does not answer"):
        meter.read("0")


def shares(meter: NvmlMeter) -> dict[int, float | None]:
    return {pid: p.utilization_percent for pid, p in meter.read("0").processes.items()}


def test_each_process_has_its_own_share_of_the_time_since_the_last_reading(monkeypatch):
    clock = [10**9]
    monkeypatch.setattr(gpu_meter.time, "time_ns", lambda: clock[0] * 1000)
    nvml = fake_gpus.FakeNvml({7: GIB, 8: GIB, 9: GIB})
    meter = NvmlMeter(nvml)
    assert shares(meter) == {7: None, 8: None, 9: None}, "no sample yet"
    now, absurd = clock[0] + 10**6, 4_294_967_295
    nvml.samples = ((7, now, 20), (7, now + 1, 40), (8, now, 100), (9, now, absurd), (8, 5, 1))
    clock[0] = now + 1
    assert shares(meter) == {7: 30.0, 8: 100.0, 9: None}
    # The same samples are not counted again; until the next one may come, nothing is known.
    clock[0] += 10**6
    assert shares(meter) == {7: None, 8: None, 9: 0.0}
    clock[0] += 10**6
    assert shares(meter) == {7: 0.0, 8: 0.0, 9: 0.0}


def test_a_process_that_is_always_busy_has_its_mean_however_rarely_nvml_samples(monkeypatch):
    """Two readings a second, a sample a second: every other reading has none."""
    clock = [10**9]
    monkeypatch.setattr(gpu_meter.time, "time_ns", lambda: clock[0] * 1000)
    nvml = fake_gpus.FakeNvml({7: GIB})
    meter, mean = NvmlMeter(nvml), Mean()
    for reading in range(20):
        clock[0] += 500_000
        if reading % 2:
            nvml.samples = (*nvml.samples, (7, clock[0], 80))
        mean.add(shares(meter)[7])
    assert mean.value == 80.0


def test_a_tally_has_the_most_memory_and_the_mean_of_the_rest():
    tally = Tally()
    assert tally.usage().memory_bytes is None and tally.usage().utilization_percent is None
    tally.add(GpuFigures(3, 10, 50.0, 100.0))
    tally.add(GpuFigures(2, 10, None, 300.0))
    usage = tally.usage()
    assert (usage.memory_bytes, usage.utilization_percent, usage.power_watts) == (3, 50.0, 200.0)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def readings_after(meter: fake_gpus.FakeMeter) -> None:
    """Waits until the watch has read twice more: then what was set is summed up."""
    now = meter.num_readings
    wait_for(lambda: meter.num_readings >= now + 2)


def test_a_watch_tells_what_a_process_did_since_the_last_time():
    meter = fake_gpus.FakeMeter(gpu0={7: ProcessFigures(2 * GIB, 40.0)})
    watch = GpuWatch(meter, ["0"], 0.001)
    readings_after(meter)
    usage = watch.take(7)
    assert usage is not None and (usage.memory_bytes, usage.utilization_percent) == (2 * GIB, 40.0)
    assert watch.take(8) is None
    machine = watch.take_machine()
    assert set(machine) == {"0"} and machine["0"].power_watts == 200.0
    assert watch.total_bytes("0") == 141 * GIB and watch.total_bytes("1") is None
    assert closed(watch) == [] and meter.closed
    watch.take(7)
    assert watch.take(7) is None


def test_a_gpu_that_stops_answering_ends_the_watch_and_is_said():
    watch = GpuWatch(fake_gpus.FakeMeter(), ["0", "3"], 0.001)
    wait_for(lambda: watch.problem)
    assert closed(watch) == ["no more GPU metrics: GPU 3 does not answer NVML: lost"]


def test_without_nvml_a_sweep_goes_on_and_says_why_there_are_no_figures(monkeypatch):
    layout = allot(Machine(2, 24 * GIB, (Gpu("0", "x", GIB),)), None, None).layout
    monkeypatch.setattr(
        "sweeps.resources.gpu_monitor.NvmlMeter",
        lambda: NvmlMeter(fake_gpus.FakeNvml(silent=("nvmlInit",))),
    )
    watch, problems = watch_over(layout)
    assert watch is None and closed(watch) == []
    assert problems == ["no GPU metrics: NVML does not start: NVML Shared Library Not Found"]
    assert watch_over(None) == (None, [])


@pytest.fixture
def scene(tiny_data, tmp_path):
    return lambda **options: Scene(tiny_data, tmp_path, **options)


def test_a_trials_own_figures_are_in_its_run_and_the_machines_in_the_sweeps(scene, monkeypatch):
    monkeypatch.setattr(gpu_monitor, "MACHINE_SECONDS", 0.0)
    meter = fake_gpus.FakeMeter(gpu0={})
    watch = GpuWatch(meter, ["0"], 0.001)
    gpus = allot(Machine(16, 64 * GIB, (Gpu("0", "NVIDIA H200", 141 * GIB),)), None, None, 2)

    def job(task, report, slot):
        # A thread stands for a process: one trial takes one GiB, the other two.
        part = {threading_id(): ProcessFigures((1 + task.number) * 10**9, 10.0 + task.number)}
        figures = meter.gpus["0"]
        meter.gpus["0"] = GpuFigures(
            3 * 10**9, 141 * GIB, 60.0, 300.0, {**figures.processes, **part}
        )

        def seen(message):
            readings_after(meter)
            return report(message)

        return fake_jobs.recorded_job(task, seen, slot)

    s = scene(
        job=job, slots=gpus.slots, layout=gpus.layout, level=2, trials_per_gpu=2, num_trials=2,
        num_points=2, watch=watch,
    )  # fmt: skip
    s.run()
    assert closed(watch) == []
    assert len(s.tracker.metrics) == 6
    for (number, _), metrics in s.tracker.metrics.items():
        assert metrics["system/gpu_memory_usage_megabytes"] == 1000.0 * (1 + number)
        assert metrics["system/gpu_utilization_percentage"] == 10.0 + number
        assert "val_accuracy" in metrics and "system/gpu_0_power_usage_watts" not in metrics
    assert s.tracker.machine
    last = s.tracker.machine[max(s.tracker.machine)]
    assert last["system/gpu_0_power_usage_watts"] > 0
    assert last["system/gpu_0_memory_usage_percentage"] == pytest.approx(
        100 * last["system/gpu_0_memory_usage_megabytes"] * 1e6 / (141 * GIB)
    )


def test_without_a_gpu_there_are_cores_and_memory(scene, monkeypatch):
    monkeypatch.setattr(gpu_monitor, "MACHINE_SECONDS", 0.0)
    s = scene(num_trials=1, num_points=1)
    s.run()
    last = s.tracker.machine[max(s.tracker.machine)]
    assert "system/cpu_utilization_percentage" in last
    assert 0 < last["system/system_memory_usage_percentage"] <= 100
    usage = ResourceUsage(SimpleNamespace(process_id=lambda job_id: os.getpid()), None)  # type: ignore[arg-type]
    usage.started("trial-0")
    assert set(usage.taken("trial-0")) == {
        "system/cpu_utilization_percentage", "system/memory_usage_megabytes",
    }  # fmt: skip


def threading_id() -> int:
    import threading

    return threading.get_native_id()


def test_what_a_process_did_before_its_job_is_not_the_jobs():
    meter = fake_gpus.FakeMeter(gpu0={os.getpid(): ProcessFigures(5, 90.0)})
    watch = GpuWatch(meter, ["0"], 0.001)
    usage = ResourceUsage(SimpleNamespace(process_id=lambda job_id: os.getpid()), watch)  # type: ignore[arg-type]
    readings_after(meter)
    meter.gpus["0"] = GpuFigures(1, 2, 0.0, 0.0, {os.getpid(): ProcessFigures(3, 10.0)})
    readings_after(meter)
    usage.started("trial-0")
    readings_after(meter)
    taken = usage.taken("trial-0")
    assert {name: value for name, value in taken.items() if "gpu" in name} == {
        "system/gpu_memory_usage_megabytes": 3e-6, "system/gpu_utilization_percentage": 10.0,
    }  # fmt: skip
    watch.close()
    unseen = ResourceUsage(SimpleNamespace(process_id=lambda job_id: None), watch)  # type: ignore[arg-type]
    assert unseen.taken("x") == {} and ResourceUsage(None, None).machine() == {}  # type: ignore[arg-type]
