"""One of Keras Tuner's tuners; each of its trials logs to MLflow, and its folder can be resumed."""

import sys
from typing import Any

import keras
import keras_tuner
import mlflow
from sweep_task import Task

task = Task(*sys.argv[2:])
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("cnn")


class Tracked(keras_tuner.HyperModel):
    """The model, trained in a run of its own."""

    def build(self, hp: Any) -> keras.Model:
        """As Keras Tuner calls it."""
        return task.model(task.sample(hp))

    def fit(self, hp: Any, model: keras.Model, *args: Any, callbacks: Any, **options: Any) -> Any:
        """As Keras Tuner calls it."""
        with mlflow.start_run() as run:
            mlflow.log_params(hp.values)
            callbacks = [*callbacks, mlflow.keras.MlflowCallback(run)]
            batch_size = hp.get("batch_size")
            return model.fit(*args, batch_size=batch_size, callbacks=callbacks, **options)


size = (
    {"max_epochs": task.epochs, "hyperband_iterations": task.trials}
    if sys.argv[1] == "Hyperband"
    else {"max_trials": task.trials}
)
tuner = getattr(keras_tuner, sys.argv[1])(
    Tracked(), "val_accuracy", seed=task.seed, directory="tuner", project_name="cnn", **size
)
tuner.search(task.x, task.y, epochs=task.epochs, validation_data=task.validation, verbose=0)
with mlflow.start_run(run_name="best"):
    best = tuner.get_best_models()[0]
    mlflow.keras.log_model(best, name="model", registered_model_name="cnn")
