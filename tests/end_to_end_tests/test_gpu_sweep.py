"""A whole sweep on a GPU that is not there: packed, out of memory, killed, resumed, and accounted for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chaos
import optuna
import pytest
from fake_gpu import environment_with_a_gpu
from mlflow import MlflowClient

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
SWEEP = Path(".sweeps/sweeps/s")
OPTIONS = [
    "--space", "mlp", "--dataset", "digits", "--trials", "8", "--epochs", "4", "--timeout", "none",
    "--name", "s", "--sampler", "random", "--pruner", "none",
]  # fmt: skip


@pytest.fixture
def command(tmp_path):
    """Starts the command in this test's folder, on a machine with one GPU."""
    environment = environment_with_a_gpu(tmp_path)
    running = []

    def start(*options: str) -> subprocess.Popen[str]:
        log = (tmp_path / "out.txt").open("a")
        running.append(
            subprocess.Popen(
                [sys.executable, str(chaos.HERE / "gpu_driver.py"), *options],
                cwd=tmp_path,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )  # fmt: skip
        )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()


def output() -> str:
    return Path("out.txt").read_text()


def wait_until(condition, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, output()[-3000:]
        time.sleep(0.02)


def workers_of(driver: subprocess.Popen[str]) -> list[int]:
    return [driver.pid, *chaos.descendants(driver.pid)]


def all_gone(pids: list[int]) -> bool:
    """Zombies of another parent's do not run any more."""
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            return False
    return True


def trials() -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{Path('optuna.db').absolute()}"
    return optuna.load_study(study_name="s", storage=url).trials


def runs() -> tuple[MlflowClient, list]:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client, client.search_runs(ids, max_results=100)


@pytest.mark.long
def test_a_packed_sweep_is_measured_halved_and_accounted_for(command):
    assert command("run", *OPTIONS).wait(180) == 0, output()
    said = output()
    assert "1, 2 or 4 trials at once on each" in said and "measuring 4 trials at once" in said
    assert "packing   1 per GPU:" in said and "GiB each; 4 from now on" in said
    assert "memory ran out with 4 trials per GPU, 2 from now on" in said
    assert [t.state.name for t in trials()] == ["COMPLETE"] * 8
    assert all(set(t.intermediate_values) == {1, 2, 3, 4} for t in trials())
    assert command("doctor", "s").wait(120) == 0, output()
    client, found = runs()
    (parent,) = (run for run in found if run.data.tags["sweeps.kind"] == "sweep")
    assert parent.data.tags["sweeps.trials_per_gpu"] == "2"
    assert "memory ran out with 4" in parent.data.tags["sweeps.packing"]
    assert "system/gpu_0_power_usage_watts" in parent.data.metrics
    assert "system/gpu_utilization_percentage" not in parent.data.metrics
    children = [run for run in found if run.data.tags["sweeps.kind"] == "trial"]
    assert len(children) == 8
    retried = [run for run in children if "sweeps.retry_reason" in run.data.tags]
    assert retried and all("MemoryError" in r.data.tags["sweeps.retry_reason"] for r in retried)
    for run in children:
        # By process: its own GiB, whatever its neighbours take.
        assert run.data.metrics["system/gpu_memory_usage_megabytes"] == 2**30 / 1e6
        assert run.data.metrics["system/gpu_utilization_percentage"] == 25.0
        assert not [name for name in run.data.metrics if "gpu_0" in name]
        assert run.data.tags["sweeps.gpu_share"] in ("1/4", "1/2")
        history = client.get_metric_history(run.info.run_id, "epoch/val_accuracy")
        assert sorted(m.step for m in history) == [1, 2, 3, 4]


@pytest.mark.slow
def test_proposals_do_not_follow_from_the_packing_and_a_killed_sweep_remembers_it(command):
    driver = command("run", *OPTIONS)
    wait_until(lambda: "2 from now on" in output() and SWEEP.joinpath("packing.json").exists())
    family = workers_of(driver)
    assert len(family) >= 3  # The driver, trials and a spare.
    driver.kill()
    driver.wait()
    wait_until(lambda: all_gone(family))
    before = len(output())
    assert command("run", "--resume", "--name", "s").wait(180) == 0, output()
    assert "measuring" not in output()[before:]
    assert "packing   memory ran out with 4 trials per GPU" in output()[before:]
    assert command("doctor", "s").wait(120) == 0, output()
    packed = [trial.params for trial in trials()]
    assert [t.state.name for t in trials()] == ["COMPLETE"] * 8
    for path in ("optuna.db", "mlflow.db"):
        Path(path).rename(f"packed-{path}")
    SWEEP.rename("packed")
    assert command("run", *OPTIONS, "--gpus", "none", "--workers", "1").wait(180) == 0, output()
    assert [trial.params for trial in trials()] == packed


@pytest.mark.long
def test_ctrl_c_leaves_no_process(command):
    driver = command("run", *OPTIONS, "--trials-per-gpu", "2")
    wait_until(lambda: "trial 0" in output())
    family = workers_of(driver)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(60) == 130, output()
    wait_until(lambda: all_gone(family))
    assert command("doctor", "s").wait(120) == 0, output()
