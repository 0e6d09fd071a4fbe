"""HyperModels that fail on purpose, or whose `fit` cannot be called; nothing here is of ours."""

import keras
import keras_tuner
from keras_tuner.errors import FailedTrialError, FatalValueError


def network(input_shape, num_classes):
    model = keras.Sequential(
        [
            keras.Input((None, None, input_shape[-1])),  # Images of any size.
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(2, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(num_classes, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def too_large(hp, input_shape, num_classes):
    """As Keras Tuner's documentation shows it."""
    if hp.Int("units", 1, 4) > 2:
        raise FailedTrialError("Model is too large.")
    return network(input_shape, num_classes)


def fatal(hp, input_shape, num_classes):
    if hp.Boolean("broken"):
        raise FatalValueError("the licence has ended")
    return network(input_shape, num_classes)


class Base(keras_tuner.HyperModel):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.input_shape, self.num_classes = input_shape, num_classes

    def build(self, hp):
        hp.Choice("unused", [1, 2])
        return network(self.input_shape, self.num_classes)


class SetsEpochs(Base):
    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, epochs=3, **kwargs)


class TakesNoMore(Base):
    def fit(self, hp, model, x, y):
        return model.fit(x, y)


class FitsTwice(Base):
    """First the head, then all."""

    def fit(self, hp, model, *args, **kwargs):
        model.layers[1].trainable = False
        model.fit(*args, **kwargs)
        model.layers[1].trainable = True
        return model.fit(*args, **kwargs)


class Divides(Base):
    def fit(self, hp, model, x, y, validation_data, **kwargs):
        return model.fit(x / 255, y, validation_data=validation_data, **kwargs)


class Crops(Base):
    def fit(self, hp, model, x, y, validation_data, **kwargs):
        x_validation, y_validation = validation_data
        inner = x_validation[:, 1:-1, 1:-1], y_validation
        return model.fit(x[:, 1:-1, 1:-1], y, validation_data=inner, **kwargs)
