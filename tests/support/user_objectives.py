"""HyperModels that are judged by values of their authors' own; nothing here is of this project."""

import keras
import keras_tuner


def compiled(hp, input_shape, num_classes, metrics):
    model = keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(hp.Int("units", 4, 16, step=4), activation="relu"),
            keras.layers.Dense(num_classes, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
    return model


def top_two(hp, input_shape, num_classes):
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_two")
    return compiled(hp, input_shape, num_classes, ["accuracy", top])


class Plain(keras_tuner.HyperModel):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.input_shape, self.num_classes = input_shape, num_classes

    def build(self, hp):
        return compiled(hp, self.input_shape, self.num_classes, ["accuracy"])


class Number(Plain):
    """Returns one number, to be minimised, as in Keras Tuner's guide: 1, 0, 1, 2 ..."""

    def fit(self, hp, model, *args, **kwargs):
        model.fit(*args, **kwargs)
        return float(abs(kwargs["initial_epoch"] - 1))


class Dictionary(Plain):
    """Returns several by name, one of them a tensor: the smallest model is the best."""

    def fit(self, hp, model, x, y, validation_data, **kwargs):
        model.fit(x, y, **kwargs)
        x, y = validation_data
        error = keras.metrics.Mean()
        error.update_state(keras.ops.argmax(model(x), axis=1) != y)
        return {"val_error": error.result(), "thrift": 1 / hp.get("units"), "val_accuracy": 2.0}


class Nothing(Plain):
    def fit(self, hp, model, *args, **kwargs):
        model.fit(*args, **kwargs)


class NotFinite(Plain):
    def fit(self, hp, model, *args, **kwargs):
        model.fit(*args, **kwargs)
        return float("nan")
