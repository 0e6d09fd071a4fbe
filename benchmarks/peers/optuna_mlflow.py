"""Optuna with a study that can be resumed, and MLflow's own callback for Keras."""

import sys

import keras
import mlflow
import optuna
from small_cnn import BATCH_SIZE, HIGHEST, LOWEST, VALIDATION_BATCH_SIZE, load, make_model

data, trials, epochs, tracking = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
x, y, x_val, y_val = load(data)
mlflow.set_tracking_uri(tracking)
mlflow.set_experiment("cnn")


def objective(trial: optuna.Trial) -> float:
    """One trial, one nested run."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    learning_rate = trial.suggest_float("learning_rate", LOWEST, HIGHEST, log=True)
    with mlflow.start_run(nested=True, run_name=f"trial {trial.number}") as run:
        mlflow.log_params(trial.params)
        model = make_model(learning_rate)
        history = model.fit(
            x, y, BATCH_SIZE, epochs, validation_data=(x_val, y_val),
            validation_batch_size=VALIDATION_BATCH_SIZE, verbose=0,
            callbacks=[mlflow.keras.MlflowCallback(run)],
        )  # fmt: skip
        best = max(history.history["val_accuracy"])
        mlflow.log_metric("best_val_accuracy", best)
        model.save("model.keras")
        mlflow.log_artifact("model.keras")
    return float(best)


with mlflow.start_run(run_name="study"):
    study = optuna.create_study(
        storage="sqlite:///optuna.db", study_name="cnn", direction="maximize", load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.NopPruner(),
    )  # fmt: skip
    study.optimize(objective, n_trials=trials)
    mlflow.log_metric("best_val_accuracy", study.best_value)
