"""Models are measured with statistics that fit their weights, and training goes on untouched."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from pipelines.objectives import OBJECTIVES
from pipelines.training.checkpoints import MODEL_FILE
from pipelines.training.epoch import Stretch, Training, train_stretch
from pipelines.training.measured_weights import AVERAGING_SPANS, MeasuredWeights
from pipelines.training.options import TRAINED, TrainingOptions, from_stored
from pipelines.training.trial import Decision, Schedule, TrialTask, run_trial
from search_spaces.registry import get_space
from search_spaces.space import Assembled

SIDE, CLASSES = 8, 3


def pictures(num: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brightness says their class, sorted by class."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, CLASSES, num))
    x = rng.integers(0, 60, (num, SIDE, SIDE, 1)) + 80 * labels[:, None, None, None]
    return x.astype(np.uint8), labels


def network(optimizer: keras.optimizers.Optimizer, **options) -> keras.Model:
    keras.utils.set_random_seed(3)
    norm = layers.BatchNormalization(**options)
    model = keras.Sequential([
        keras.Input((SIDE, SIDE, 1)), layers.Rescaling(1 / 255), layers.Conv2D(6, 3), norm,
        layers.ReLU(), layers.Dropout(0.3), layers.Flatten(), layers.Dense(12),
        layers.BatchNormalization(), layers.ReLU(), layers.Dense(CLASSES, activation="softmax"),
    ])  # fmt: skip
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def arrays(model: keras.Model) -> list[np.ndarray]:
    return [np.array(v.numpy()) for v in [*model.variables, *model.optimizer.variables]]


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    return float((model.predict(x, verbose=0).argmax(1) == y).mean())


def test_a_network_that_has_learned_measures_so_although_its_moving_statistics_have_not_arrived():
    x, y = pictures()
    model = network(keras.optimizers.Adam(0.01))
    weights = MeasuredWeights(model, x, model.optimizer)
    model.fit(x, y, batch_size=32, epochs=3, verbose=0)
    before, moving = arrays(model), accuracy(model, x, y)
    with weights.in_place():
        fitted = accuracy(model, x, y)
    assert fitted > 0.95 > 0.8 > moving
    for one, other in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert accuracy(model, x, y) == moving


def test_the_statistics_are_the_mean_of_those_of_the_batches_without_dropout():
    x, y = pictures(320)
    model = network(keras.optimizers.Adam(0.01))
    weights = MeasuredWeights(model, x, model.optimizer)
    model.fit(x, y, batch_size=32, epochs=1, verbose=0)
    first = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    convolved = keras.Model(model.inputs, model.layers[1].output)
    with weights.in_place():
        found = first.moving_mean.numpy(), first.moving_variance.numpy()
    batches = [convolved.predict(batch, verbose=0) for batch in weights._images()]
    assert sum(map(len, batches)) == 320, "all images, where there are few"
    means = np.mean([b.mean((0, 1, 2)) for b in batches], 0)
    variances = np.mean([b.var((0, 1, 2)) for b in batches], 0)
    np.testing.assert_allclose(found[0], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], variances, rtol=1e-3)


def test_every_batch_holds_every_class_of_sorted_images():
    x, _ = pictures(4000)
    batches = MeasuredWeights(network(keras.optimizers.Adam()), x)._images()
    assert [len(batch) for batch in batches] == [256] * 4
    for batch in batches:
        assert len(np.unique(batch.mean((1, 2, 3)).round() // 80)) == CLASSES


def test_frozen_layers_keep_the_statistics_that_they_came_with():
    x, y = pictures(64)
    model = network(keras.optimizers.Adam(), name="frozen")
    frozen = model.get_layer("frozen")
    frozen.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    weights = MeasuredWeights(model, x, model.optimizer)
    model.fit(x, y, verbose=0)
    with weights.in_place():
        np.testing.assert_array_equal(frozen.moving_mean.numpy(), np.zeros(6))
        other = model.layers[-3].moving_mean.numpy()
    assert np.abs(other).max() > 0


class Tuned(keras.Model):
    """Calls its normalization as in prediction, as pretrained networks are tuned."""

    def __init__(self):
        super().__init__()
        self.scale, self.norm = layers.Rescaling(1 / 255), layers.BatchNormalization()
        self.flat, self.head = layers.Flatten(), layers.Dense(CLASSES, activation="softmax")

    def call(self, x):
        return self.head(self.flat(self.norm(self.scale(x), training=False)))


def test_layers_that_a_model_calls_as_in_prediction_keep_their_statistics():
    x, y = pictures(64)
    model = Tuned()
    model.compile("sgd", "sparse_categorical_crossentropy")
    weights = MeasuredWeights(model, x, model.optimizer)
    model.fit(x, y, verbose=0)
    with weights.in_place():
        np.testing.assert_array_equal(model.norm.moving_mean.numpy(), np.zeros(1))


class Own(layers.BatchNormalization):
    """A layer of a user's, whose `call` takes no mask."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=training)


def test_a_layer_of_the_users_own_is_measured_too():
    x, y = pictures(64)
    model = keras.Sequential([
        keras.Input((SIDE, SIDE, 1)), layers.Flatten(), Own(),
        layers.Dense(CLASSES, activation="softmax"),
    ])  # fmt: skip
    model.compile("sgd", "sparse_categorical_crossentropy")
    weights = MeasuredWeights(model, x, model.optimizer)
    model.fit(x, y, verbose=0)
    with weights.in_place():
        found = model.layers[1].moving_mean.numpy()
    np.testing.assert_allclose(found, x.reshape(64, -1).mean(0), rtol=1e-4)


def test_averaged_weights_are_measured_as_averages_once_they_are_some():
    x, y = pictures()
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)
    model = network(optimizer)
    weights, kernel = MeasuredWeights(model, x, optimizer), model.layers[1].kernel
    steps = round(AVERAGING_SPANS / (1 - 0.9))
    averages = kernel.numpy()
    for k in range(steps + 5):
        model.train_on_batch(x[k * 8 : k * 8 + 8], y[k * 8 : k * 8 + 8])
        own = kernel.numpy()
        averages = own if k == 0 else 0.9 * averages + 0.1 * own
        with weights.in_place():
            measured = kernel.numpy()
        expected = averages if k + 1 >= steps else own
        np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(kernel.numpy(), own)


def test_fit_leaves_averaged_weights_to_be_trained_on():
    """`fit` is called once per epoch; at its end Keras would train on from the averages."""
    x, y = pictures(96)
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)
    model = network(optimizer)
    reference = network(keras.optimizers.SGD(0.05))
    for epoch in (1, 2):
        for each in (model, reference):
            keras.utils.set_random_seed(epoch)
            training = Training(x, y, CLASSES, 5)
            train_stretch(Assembled(each, 32), None, training, Stretch(epoch, 0, 1, 1))
    np.testing.assert_array_equal(
        model.layers[1].kernel.numpy(), reference.layers[1].kernel.numpy()
    )


def make_task(data, folder: Path, **options) -> TrialTask:
    folder.mkdir()
    params = get_space("cnn_blocks").complete({
        "num_blocks": 1, "batch_size": 32, "batch_norm_0": True, "optimizer": "adam",
        "learning_rate": 0.01, "dropout_0": 0.2,
    })  # fmt: skip
    objective = OBJECTIVES["val_accuracy"]
    return TrialTask(
        0, "cnn_blocks", params, data, Schedule(3), 11, objective, str(folder),
        training=TrainingOptions(**options),
    )  # fmt: skip


def trained(task: TrialTask) -> tuple:
    keras.utils.set_random_seed(task.seed)
    reports = []

    def report(message):
        reports.append(message.metrics)
        return Decision.GO_ON

    return run_trial(task, report), reports


def test_the_model_that_is_kept_has_the_statistics_with_which_it_was_measured(tiny_data, tmp_path):
    task = make_task(tiny_data, tmp_path / "trial")
    result, _ = trained(task)
    model = keras.models.load_model(Path(task.folder) / MODEL_FILE, safe_mode=True)
    x, y = tiny_data.arrays("validation")
    assert accuracy(model, x, y) == result.value


def test_measuring_changes_nothing_in_training(tiny_data, tmp_path):
    _, fitted = trained(make_task(tiny_data, tmp_path / "fitted"))
    _, as_before = trained(make_task(tiny_data, tmp_path / "before", measured_weights=TRAINED))
    assert [m["loss"] for m in fitted] == [m["loss"] for m in as_before]
    assert [m["val_loss"] for m in fitted] != [m["val_loss"] for m in as_before]


def test_what_was_recorded_before_is_measured_as_before():
    assert from_stored({}).measured_weights == TRAINED
    assert TrainingOptions(measured_weights=TRAINED, pixels="raw").identity == []
    assert TrainingOptions(pixels="raw").identity == [{"measured_weights": "fitted"}]
    assert from_stored(TrainingOptions().stored()) == TrainingOptions()
    with pytest.raises(Exception, match="measured weights"):
        TrainingOptions(measured_weights="moving").check()
