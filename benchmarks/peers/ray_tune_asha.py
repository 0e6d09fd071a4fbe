"""Ray Tune with ASHA and Optuna's TPE, its MLflow callback, and a folder that can be resumed."""

import sys
from pathlib import Path
from typing import Any

import keras
import mlflow
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.integration.keras import TuneReportCheckpointCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from sweep_task import Task

task, folder = Task(*sys.argv[1:]), str(Path("tuner").resolve())


def train(config: dict[str, Any]) -> None:
    """One trial, in a process of its own; it reports and keeps the model after every epoch."""
    task.model(config).fit(
        task.x, task.y, config["batch_size"], task.epochs, validation_data=task.validation,
        callbacks=[TuneReportCheckpointCallback()], verbose=0,
    )  # fmt: skip


if tune.Tuner.can_restore(f"{folder}/cnn"):
    tuner = tune.Tuner.restore(f"{folder}/cnn", train)
else:
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            metric="val_accuracy", mode="max", num_samples=task.trials, time_budget_s=task.seconds,
            scheduler=ASHAScheduler(max_t=task.epochs),
            search_alg=OptunaSearch(
                task.suggest, "val_accuracy", "max", [task.defaults], seed=task.seed
            ),
        ),
        run_config=tune.RunConfig(
            name="cnn", storage_path=folder,
            callbacks=[MLflowLoggerCallback("sqlite:///mlflow.db", experiment_name="cnn")],
            checkpoint_config=tune.CheckpointConfig(1, "val_accuracy"),
        ),
    )  # fmt: skip
result = tuner.fit().get_best_result(scope="all")
with result.get_best_checkpoint("val_accuracy", "max").as_directory() as kept:
    best = keras.saving.load_model(f"{kept}/model.keras")
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("cnn")
with mlflow.start_run(run_name="best"):
    mlflow.keras.log_model(best, name="model", registered_model_name="cnn")
