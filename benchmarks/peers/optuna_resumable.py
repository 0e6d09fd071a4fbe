"""Optuna as its example of checkpoints has it: heartbeats, retried trials, a backup of each."""

import sys

import keras
import mlflow
import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from small_cnn import BATCH_SIZE, HIGHEST, LOWEST, VALIDATION_BATCH_SIZE, load, make_model

data, trials, epochs, tracking = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
x, y, x_val, y_val = load(data)
mlflow.set_tracking_uri(tracking)
mlflow.set_experiment("cnn")


def objective(trial: optuna.Trial) -> float:
    """One trial, one run; a trial that is retried goes on from the backup of the first try."""
    frozen = trial.study.trials[trial.number]  # Only there are the attributes that it is in.
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(frozen)
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    learning_rate = trial.suggest_float("learning_rate", LOWEST, HIGHEST, log=True)
    model = make_model(learning_rate)
    model.build(x.shape)  # Else there is nothing to restore into.
    backup = keras.callbacks.BackupAndRestore(f"backup/{trial.number if first is None else first}")
    with mlflow.start_run(run_name=f"trial {trial.number}") as run:
        mlflow.log_params(trial.params)
        history = model.fit(
            x, y, BATCH_SIZE, epochs, validation_data=(x_val, y_val),
            validation_batch_size=VALIDATION_BATCH_SIZE, verbose=2,
            callbacks=[backup, mlflow.keras.MlflowCallback(run)],
        )  # fmt: skip
    return float(max(history.history["val_accuracy"]))


storage = optuna.storages.RDBStorage(
    "sqlite:///optuna.db", heartbeat_interval=1, grace_period=3,
    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
)  # fmt: skip
study = optuna.create_study(
    storage=storage, study_name="cnn", direction="maximize", load_if_exists=True
)
complete = (optuna.trial.TrialState.COMPLETE,)
study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, complete)])
