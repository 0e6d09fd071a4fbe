"""Several commands in one process, which imports TensorFlow and MLflow once; results as JSON.

`python replay_driver.py COMMANDS.json` runs a list of argument lists in the working folder and
writes `results.json`: status, standard output and standard error of each, and whether TensorFlow
was deterministic in workers that were asked to be so, and not to (not with a second argument
`--commands-only`). An argument `run:NAME` stands for the id of the run of that name.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.options import TrainingOptions
from pipelines.training.trial import Schedule, TrialTask
from sweeps.cli.main import main
from sweeps.executors.base import Slot
from sweeps.executors.processes import ProcessExecutor
from sweeps.interrupts import Interrupts
from sweeps.workers.start import run_job

NO_DATA = PreparedData("none", "none", "", "", "", (1, 1, 1), 1, (), {})


def deterministic_job(task: TrialTask, report: Any, slot: Slot) -> bool:
    """Whether TensorFlow is deterministic where `train_job` begins to train."""
    from tensorflow.python.framework import config

    import pipelines.training.trial
    from sweeps.workers.jobs import train_job

    pipelines.training.trial.run_trial = lambda *_, **__: config.is_op_determinism_enabled()
    return bool(train_job(task, report, slot))


def in_a_worker(*, deterministic: bool) -> bool:
    task = TrialTask(
        0,
        "mlp",
        {},
        NO_DATA,
        Schedule(1),
        0,
        get_objective("val_accuracy"),
        "",
        TrainingOptions(deterministic=deterministic),
    )
    executor = ProcessExecutor("sweeps.workers.preload", Path("server.log"))
    try:
        return run_job(
            executor, deterministic_job, task, Slot(0, 1), "job.log", lambda _: None, Interrupts()
        )
    finally:
        executor.close()


def with_ids(arguments: list[str]) -> list[str]:
    """The arguments with ids for names of runs."""
    if not any(argument.startswith("run:") for argument in arguments):
        return arguments
    from mlflow import MlflowClient

    client = MlflowClient("sqlite:///mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    ids = {f"run:{run.info.run_name}": run.info.run_id for run in client.search_runs(experiments)}
    return [ids.get(argument, argument) for argument in arguments]


def run(arguments: list[str]) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(with_ids(arguments))
        except Exception:
            status = -1
            traceback.print_exc()
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text())
    found: dict[str, Any] = {"commands": [run(command) for command in commands]}
    if "--commands-only" not in sys.argv[2:]:
        found["deterministic"] = [in_a_worker(deterministic=asked) for asked in (True, False)]
    found["imported"] = sorted({"keras", "tensorflow", "keras_tuner"} & set(sys.modules))
    Path("results.json").write_text(json.dumps(found))
