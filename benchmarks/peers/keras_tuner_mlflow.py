"""Keras Tuner, whose trials log to MLflow by its own callback for Keras."""

import sys
from typing import Any

import keras
import keras_tuner
import mlflow
from small_cnn import BATCH_SIZE, build, load

data, trials, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
x, y, x_val, y_val = load(data)
mlflow.set_tracking_uri("sqlite:///mlflow.db")
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
            tracking = mlflow.keras.MlflowCallback(run)
            return model.fit(*args, callbacks=[*callbacks, tracking], **options)


tuner = keras_tuner.RandomSearch(
    Tracked(), "val_accuracy", max_trials=trials, seed=0, directory="tuner", project_name="cnn"
)
tuner.search(x, y, batch_size=BATCH_SIZE, epochs=epochs, validation_data=(x_val, y_val), verbose=0)
