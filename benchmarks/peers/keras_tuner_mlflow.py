"""Keras Tuner, which goes on where its folder is there already; its trials log to MLflow."""

import sys
from typing import Any

import keras
import keras_tuner
import mlflow
from small_cnn import BATCH_SIZE, VALIDATION_BATCH_SIZE, build, load

data, trials, epochs, tracking = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
x, y, x_val, y_val = load(data)
mlflow.set_tracking_uri(tracking)
mlflow.set_experiment("cnn")


class Tracked(keras_tuner.HyperModel):
    """The model, trained in a run of its own."""

    def build(self, hp: Any) -> keras.Model:
        """As Keras Tuner calls it."""
        keras.utils.set_random_seed(0)
        return build(hp)

    def fit(self, hp: Any, model: keras.Model, *args: Any, callbacks: Any, **options: Any) -> Any:
        """As Keras Tuner calls it."""
        with mlflow.start_run() as run:
            mlflow.log_params(hp.values)
            own = mlflow.keras.MlflowCallback(run)
            return model.fit(*args, callbacks=[*callbacks, own], **options)


tuner = keras_tuner.RandomSearch(
    Tracked(), "val_accuracy", max_trials=trials, seed=0, directory="tuner", project_name="cnn",
    max_retries_per_trial=2,
)  # fmt: skip
tuner.search(
    x, y, batch_size=BATCH_SIZE, epochs=epochs, validation_data=(x_val, y_val),
    validation_batch_size=VALIDATION_BATCH_SIZE, verbose=2,
)  # fmt: skip
