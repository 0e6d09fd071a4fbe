"""Optuna's TPE with a pruner, Keras' pruning callback, MLflow, and a study that can be resumed."""

import sys

import keras
import mlflow
import optuna
from optuna_integration import KerasPruningCallback
from sweep_task import Task

task = Task(*sys.argv[2:])
pruner = (
    optuna.pruners.HyperbandPruner(max_resource=task.epochs)
    if sys.argv[1] == "hyperband"
    else optuna.pruners.MedianPruner()
)
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("cnn")


def objective(trial: optuna.Trial) -> float:
    """One trial, one run; the model of its best epoch is kept."""
    keras.backend.clear_session()
    params = task.suggest(trial)
    model = task.model(params)
    with mlflow.start_run(run_name=f"trial {trial.number}") as run:
        mlflow.log_params(params)
        history = model.fit(
            task.x, task.y, params["batch_size"], task.epochs, validation_data=task.validation,
            callbacks=[
                keras.callbacks.ModelCheckpoint(
                    f"{trial.number}.keras", "val_accuracy", save_best_only=True, mode="max"
                ),
                mlflow.keras.MlflowCallback(run),
                KerasPruningCallback(trial, "val_accuracy"),
            ],
            verbose=0,
        )  # fmt: skip
    return float(max(history.history["val_accuracy"]))


study = optuna.create_study(
    storage="sqlite:///optuna.db", study_name="cnn", load_if_exists=True, direction="maximize",
    sampler=optuna.samplers.TPESampler(multivariate=True, group=True, seed=task.seed),
    pruner=pruner,
)  # fmt: skip
study.enqueue_trial(task.defaults, skip_if_exists=True)
study.optimize(
    objective, timeout=task.seconds,
    callbacks=[optuna.study.MaxTrialsCallback(task.trials, states=None)],
)  # fmt: skip
best = keras.saving.load_model(f"{study.best_trial.number}.keras")
with mlflow.start_run(run_name="best"):
    mlflow.log_metric("best_val_accuracy", study.best_value)
    mlflow.keras.log_model(best, name="model", registered_model_name="cnn")
