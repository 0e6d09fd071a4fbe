"""Spaces as users of Keras Tuner write them; nothing here is of this project."""

import keras
import keras_tuner


class Small(keras_tuner.HyperModel):
    """Dense layers, a batch size and an order that its own `fit` chooses."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.input_shape, self.classes = input_shape, classes

    def build(self, hp):
        model = keras.Sequential(
            [keras.Input(self.input_shape), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
        )
        for i in range(hp.Int("num_layers", 1, 3)):
            model.add(keras.layers.Dense(hp.Int(f"units_{i}", 8, 32, step=8), activation="relu"))
        model.add(keras.layers.Dropout(hp.Float("dropout", 0, 0.5, step=0.1)))
        model.add(keras.layers.Dense(self.classes, activation="softmax"))
        rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
        model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(
            *args,
            batch_size=hp.Choice("batch_size", [16, 32]),
            shuffle=hp.Boolean("shuffle", default=True),
            **kwargs,
        )


class Doubled(keras.layers.Layer):
    """A layer whose code no `.keras` file holds."""

    def call(self, x):
        return 2 * x


def dense(input_shape, num_classes, *first, activation="softmax"):
    model = keras.Sequential([keras.Input(input_shape), *first, keras.layers.Flatten()])
    model.add(keras.layers.Dense(num_classes, activation=activation))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def with_code(hp, input_shape, num_classes):
    hp.Choice("unused", [1, 2])
    return dense(input_shape, num_classes, keras.layers.Rescaling(1 / 255), Doubled())


def raw(hp, input_shape, num_classes):
    hp.Choice("unused", [1, 2])
    return dense(input_shape, num_classes)


def logits(hp, input_shape, num_classes):
    hp.Choice("unused", [1, 2])
    return dense(input_shape, num_classes, activation=None)


def two_classes(hp, input_shape):
    return dense(input_shape, 2)


def other_shape(hp):
    return dense((5, 5, 1), 3)


def not_compiled(hp, input_shape):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten()])


def no_model(hp):
    return hp.Int("n", 1, 3)


def raising(hp):
    raise ArithmeticError("no such\nmodel")


def nothing_to_ask(hp, input_shape, num_classes):
    return dense(input_shape, num_classes)


def sometimes_raising(hp, input_shape, num_classes):
    if hp.Boolean("wrong"):
        raise ArithmeticError("this one is wrong")
    hp.Int("n", 1, 3)
    return dense(input_shape, num_classes, keras.layers.Rescaling(1 / 255))


class Needing(keras_tuner.HyperModel):
    def __init__(self, secret):
        super().__init__()


INSTANCE = Small((8, 8, 1), 3)
NUMBER = 7
