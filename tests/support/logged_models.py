"""Small models with random weights, logged and registered as a sweep's are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
from keras import layers as kl
from made_arrays import make_arrays
from mlflow import MlflowClient

from pipelines.data.builtin import Dataset
from pipelines.data.prepared import PreparedData, store
from sweeps.driver.records.recorder import data_record, model_tags
from tracking.runs.tracker import MlflowTracker
from tracking.spool.records import ModelRecord, SweepRecord, TrialRecord

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Logged:
    """A model in the store at `uri`, and the same one in memory."""

    model: keras.Model
    uri: str
    run_id: str
    model_id: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    @property
    def file(self) -> Path:
        folder = self.client.get_logged_model(self.model_id).artifact_location
        return Path(folder.removeprefix("file://")) / "data" / "model.keras"

    def register(self, name: str, alias: str = "champion") -> int:
        """Makes the model a version of a registered one, and that alias mean it."""
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        version = new_version(self.uri, name, self.model_id, self.run_id)
        self.client.set_registered_model_alias(name, alias, str(version))
        return version


def new_version(uri: str, name: str, model_id: str, run_id: str) -> int:
    """Registers a logged model. MLflow looks `models:/ID` up in its global store only."""
    mlflow.set_tracking_uri(uri)
    try:
        source = f"models:/{model_id}"
        return int(MlflowClient(uri).create_model_version(name, source, run_id).version)
    finally:
        mlflow.set_tracking_uri(None)


def random_model(seed: int = 0, shape=(28, 28, 1), num_classes: int = 10) -> keras.Model:
    """A classifier whose probabilities differ clearly from picture to picture."""
    inputs = keras.Input(shape, dtype="uint8")
    x = kl.Flatten()(kl.Rescaling(1 / 255)(inputs))
    weights = keras.initializers.RandomNormal(stddev=0.2, seed=seed)
    outputs = kl.Dense(num_classes, activation="softmax", kernel_initializer=weights)(x)
    return keras.Model(inputs, outputs)


def digits_like(folder: Path, light: bool = False) -> PreparedData:
    """Pictures of 28x28 in ten classes on black, or on white."""
    arrays = make_arrays(60, 28, 10)
    if light:
        arrays.x_train[:] = 255 - arrays.x_train
    name = "light-digits" if light else "digits-like"
    content = ("1" if light else "0") * 64
    return store(folder, Dataset(name, DIGITS, None), arrays, content, "made")


def log_model(folder: Path, number: int, data: PreparedData, model: keras.Model) -> Logged:
    """Logs a model into the store in a folder, through the tracker."""
    uri, name = f"sqlite:///{folder / 'mlflow.db'}", f"sweep-{number}"
    client = MlflowClient(uri)
    client.create_experiment(name, artifact_location=str(folder / "artifacts" / name))
    tracker = MlflowTracker(uri, name, lambda key: folder / key.replace("/", "_"))
    tracker.apply(SweepRecord(name, {}, {}, data_record(data), uid=name))
    tracker.apply(TrialRecord(number, f"trial {number}", {"a": 1}, {}))
    path = folder / f"trial-{number}_model" / "model.keras"
    path.parent.mkdir()
    model.save(path)
    tags = {"sweeps.sweep": name, **model_tags(data, path)}
    tracker.apply(ModelRecord(number, path.name, data.input_shape, data.num_classes, {}, 1, tags))
    return Logged(model, uri, str(tracker.run_id(number)), str(tracker.model_id(number)))
