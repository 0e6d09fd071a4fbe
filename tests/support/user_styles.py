"""HyperModels in the styles that people publish, most without rescaling; nothing here is of this
project."""

import keras
import keras_tuner
import tensorflow as tf
from keras import layers, ops

# As Keras Tuner's guide and TensorFlow's tutorials teach


def guide(hp, num_classes):
    model = keras.Sequential()
    model.add(layers.Flatten())
    for i in range(hp.Int("num_layers", 1, 3)):
        units = hp.Int(f"units_{i}", min_value=8, max_value=32, step=8)
        model.add(layers.Dense(units, activation=hp.Choice("activation", ["relu", "tanh"])))
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(rate=0.25))
    model.add(layers.Dense(num_classes, activation="softmax"))
    rate = hp.Float("lr", min_value=1e-4, max_value=1e-2, sampling="log", default=1e-2)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


class GuideFit(keras_tuner.HyperModel):
    def build(self, hp):
        model = keras.Sequential([layers.Flatten(), layers.Dense(hp.Int("units", 8, 16))])
        model.add(layers.Dense(3, activation="softmax"))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, shuffle=hp.Boolean("shuffle"), **kwargs)


def tutorial_logits(hp, input_shape, num_classes):
    model = keras.Sequential(
        [keras.Input(input_shape), layers.Flatten(),
         layers.Dense(hp.Int("units", 16, 64, step=16), activation="relu"),
         layers.Dense(num_classes)]
    )  # fmt: skip
    model.compile(
        optimizer=keras.optimizers.Adam(hp.Choice("learning_rate", [1e-2, 1e-3])),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def tutorial_for_mnist(hp):
    model = keras.Sequential(
        [layers.Flatten(input_shape=(28, 28)), layers.Dense(hp.Int("u", 8, 9))]
    )
    model.add(layers.Dense(10))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def function_logits(hp, input_shape, num_classes):
    def loss(labels, logits):
        return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    inputs = keras.Input(input_shape)
    x = layers.Dense(hp.Int("units", 8, 16), activation="relu")(layers.Flatten()(inputs))
    model = keras.Model(inputs, layers.Dense(num_classes)(x))
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def binary_logits(hp, input_shape):
    model = keras.Sequential([keras.Input(input_shape), layers.Flatten(), layers.Dense(1)])
    model.compile(
        keras.optimizers.Adam(hp.Float("lr", 0.05, 0.2)),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


def softmax_and_logits(hp, input_shape, num_classes):
    """A frequent mistake, which Keras trains all the same."""
    model = small(input_shape, num_classes, hp.Int("units", 8, 16))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


# The other ways to write a model


def small(input_shape, num_classes, units, *first):
    return keras.Sequential(
        [keras.Input(input_shape), *first, layers.Flatten(),
         layers.Dense(units, activation="relu"), layers.Dense(num_classes, activation="softmax")]
    )  # fmt: skip


def compiled(model, optimizer="adam", loss="sparse_categorical_crossentropy", **more):
    model.compile(optimizer, loss, **{"metrics": ["accuracy"], **more})
    return model


def convolutions_without_input(hp, num_classes):
    model = keras.Sequential([layers.Conv2D(hp.Int("filters", 4, 8), 3, activation="relu")])
    pool = hp.Choice("pool", ["max", "average", "none"])
    with hp.conditional_scope("pool", ["max", "average"]):
        if pool != "none":
            kind = layers.MaxPooling2D if pool == "max" else layers.AveragePooling2D
            model.add(kind(hp.Int("size", 2, 3)))
    model.add(layers.Flatten())
    model.add(layers.Dense(num_classes, activation="softmax"))
    return compiled(model)


def residual(hp, input_shape, num_classes):
    inputs = x = keras.Input(input_shape)
    for _ in range(hp.Int("depth", 1, 2)):
        y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        x = layers.Add()([layers.Conv2D(4, 1)(x), layers.BatchNormalization()(y)])
    x = layers.GlobalAveragePooling2D()(x)
    return compiled(keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x)))


class Net(keras.Model):
    def __init__(self, num_classes, units):
        super().__init__()
        self.flatten = layers.Flatten()
        self.hidden = layers.Dense(units, activation="relu")
        self.out = layers.Dense(num_classes, activation="softmax")

    def call(self, x):
        return self.out(self.hidden(self.flatten(x)))


class ScalingNet(Net):
    def __init__(self, *args):
        super().__init__(*args)
        self.temperature = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return super().call(self.temperature * tf.cast(x, tf.float32) / 255.0)


class UncastNet(Net):
    def call(self, x):
        return super().call(x / 255.0)


def subclassed(hp, num_classes):
    return compiled(Net(num_classes, hp.Int("units", 8, 16)))


def subclassed_scaling(hp, num_classes):
    return compiled(ScalingNet(num_classes, hp.Int("units", 8, 16)))


def subclassed_uncast(hp, num_classes):
    return compiled(UncastNet(num_classes, hp.Int("units", 8, 16)))


class Squeeze(layers.Layer):
    def build(self, shape):
        self.gate = layers.Dense(shape[-1], activation="sigmoid")
        self.gate.build((None, shape[-1]))

    def call(self, x):
        return x * self.gate(ops.mean(x, axis=(1, 2)))[:, None, None]


def custom_layer(hp, input_shape, num_classes):
    conv = layers.Conv2D(hp.Int("filters", 4, 8), 3, activation="relu")
    return compiled(small(input_shape, num_classes, 8, conv, Squeeze()))


class OwnStep(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


class WeighedStep(OwnStep):
    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        return super().train_step((x, y))


def own_step(hp, input_shape, num_classes, cls=OwnStep):
    graph = small(input_shape, num_classes, hp.Int("units", 8, 16))
    return compiled(cls(graph.inputs, graph.outputs), keras.optimizers.Adam(0.01))


def weighed_step(hp, input_shape, num_classes):
    return own_step(hp, input_shape, num_classes, WeighedStep)


class OwnStepOwnFit(keras_tuner.HyperModel):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.shape = input_shape, num_classes

    def build(self, hp):
        return own_step(hp, *self.shape)

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, batch_size=hp.Choice("batch_size", [16, 32]), **kwargs)


def transfer(hp, input_shape, num_classes):
    """A frozen base, with what `preprocess_input` of the MobileNets does to pixels."""
    base = keras.Sequential(
        [keras.Input(input_shape), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()]
    )
    base.trainable = False
    inputs = keras.Input(input_shape)
    x = layers.GlobalAveragePooling2D()(base(inputs / 127.5 - 1.0, training=False))
    x = layers.Dropout(hp.Float("dropout", 0, 0.5))(x)
    model = keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x))
    return compiled(model)


def transfer_means(hp, input_shape, num_classes):
    """What `preprocess_input` of ResNet50 and VGG does: means off, and nothing is divided."""
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(hp.Int("filters", 4, 8), 3)(inputs[..., ::-1] - 113.9)
    x = layers.GlobalAveragePooling2D()(x)
    return compiled(keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x)))


def rows_of_pixels(hp, input_shape, num_classes):
    model = keras.Sequential([keras.Input(input_shape), layers.Reshape(input_shape[:2])])
    model.add(layers.LSTM(hp.Int("units", 4, 8)))
    model.add(layers.Dense(num_classes, activation="softmax"))
    return compiled(model)


class Positions(layers.Layer):
    """Adds positions first: they do not depend on the image."""

    def __init__(self, num, dim, **kwargs):
        super().__init__(**kwargs)
        self.num, self.position, self.patch = num, layers.Embedding(num, dim), layers.Dense(dim)

    def call(self, patches):
        positions = self.position(ops.arange(self.num))
        return self.patch(patches) + positions


def transformer(hp, input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = Positions(input_shape[0], 8)(layers.Reshape(input_shape[:2])(inputs))
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(hp.Int("heads", 1, 2), 4)(y, y)
    x = layers.GlobalAveragePooling1D()(x)
    return compiled(keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x)))


# What may stand before the first layer with weights


def rescaling_at_some_points(hp, input_shape, num_classes):
    first = [layers.Rescaling(1 / 255)] if hp.Boolean("rescale") else []
    return compiled(small(input_shape, num_classes, 8, *first), keras.optimizers.Adam(0.01))


def lambda_first(hp, input_shape, num_classes):
    first = layers.Lambda(lambda x: x / 255.0)
    return compiled(small(input_shape, num_classes, hp.Int("units", 8, 16), first))


def normalized(hp, input_shape, num_classes):
    first = layers.Normalization(mean=33.3, variance=78.6**2)
    return compiled(small(input_shape, num_classes, hp.Int("units", 8, 16), first))


def normalized_for_unit(hp, input_shape, num_classes):
    """Its statistics are those of images that were divided by 255."""
    first = layers.Normalization(mean=0.13, variance=0.31**2)
    return compiled(small(input_shape, num_classes, hp.Int("units", 8, 16), first))


def batch_norm_first(hp, input_shape, num_classes):
    first = layers.BatchNormalization()
    return compiled(small(input_shape, num_classes, hp.Int("units", 8, 16), first))


def embedded_pixels(hp, input_shape, num_classes):
    """Pixels as places in a table."""
    return compiled(
        keras.Sequential(
            [keras.Input(input_shape), layers.Flatten(), layers.Embedding(256, 4),
             layers.Flatten(), layers.Dense(num_classes, activation="softmax")]
        )
    )  # fmt: skip


def integer_input(hp, input_shape, num_classes):
    inputs = keras.Input(input_shape, dtype="uint8")
    outputs = small(input_shape, num_classes, hp.Int("units", 8, 16))(ops.cast(inputs, "float32"))
    return compiled(keras.Model(inputs, outputs))


def padded(hp, input_shape, num_classes):
    first = layers.ZeroPadding2D(12)
    return compiled(small(input_shape, num_classes, hp.Int("units", 8, 16), first))


def augmented(hp, input_shape, num_classes):
    first = [layers.RandomFlip("horizontal"), layers.RandomRotation(hp.Float("turn", 0.0, 0.1))]
    first += [layers.RandomZoom(0.1), layers.RandomContrast(0.1)]
    return compiled(small(input_shape, num_classes, 8, *first))


def augmented_bytes(hp, input_shape, num_classes):
    """It brightens by up to 25 of 255."""
    first = layers.RandomBrightness(hp.Float("bright", 0.0, 0.1))
    return compiled(small(input_shape, num_classes, 8, first))


# Ways to compile


def regularized(hp, input_shape, num_classes):
    model = keras.Sequential([keras.Input(input_shape), layers.Flatten()])
    l2 = keras.regularizers.L2(hp.Float("l2", 1e-5, 1e-2, sampling="log"))
    model.add(layers.Dense(16, activation="relu", kernel_regularizer=l2))
    model.add(layers.Dense(num_classes, activation="softmax"))
    return compiled(model, hp.Choice("optimizer", ["adam", "sgd", "rmsprop"]))


def scheduled(hp, input_shape, num_classes):
    rate = hp.Float("rate", 1e-3, 1e-1, sampling="log")
    if hp.Choice("schedule", ["cosine", "exponential"]) == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(rate, 100)
    else:
        schedule = keras.optimizers.schedules.ExponentialDecay(rate, 50, hp.Float("decay", 0.5, 1))
    sgd = keras.optimizers.SGD(schedule, momentum=0.9, clipnorm=1.0)
    return compiled(small(input_shape, num_classes, 8), sgd)


def smoothed(hp, input_shape, num_classes):
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=hp.Float("smoothing", 0.0, 0.2))
    return compiled(small(input_shape, num_classes, 8), loss=loss)


def no_metrics(hp, input_shape, num_classes):
    return compiled(small(input_shape, num_classes, hp.Int("units", 8, 16)), metrics=None)


class Sure(keras.metrics.Metric):
    """The mean probability of the most probable class."""

    def __init__(self, name="sure?", **kwargs):
        super().__init__(name=name, **kwargs)
        self.total = self.add_weight(initializer="zeros", name="total")
        self.count = self.add_weight(initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(ops.sum(ops.max(y_pred, axis=-1)))
        self.count.assign_add(ops.cast(ops.shape(y_pred)[0], "float32"))

    def result(self):
        return self.total / self.count


def own_metrics(hp, input_shape, num_classes):
    top = keras.metrics.SparseTopKCategoricalAccuracy
    metrics = [
        "accuracy", top(2, name="top@2"), top(2, name="top#2"), top(1, name="acc (top, 1)"),
        Sure(), keras.metrics.SparseCategoricalAccuracy(name="epoch"),
    ]  # fmt: skip
    return compiled(small(input_shape, num_classes, hp.Int("units", 8, 16)), metrics=metrics)


class LogitsLoop(keras_tuner.HyperModel):
    """A loop of its own over a model without a last activation."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.input_shape, self.num_classes = input_shape, num_classes

    def build(self, hp):
        return keras.Sequential(
            [keras.Input(self.input_shape), layers.Flatten(), layers.Dense(self.num_classes)]
        )

    def fit(self, hp, model, x, y, **kwargs):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(hp.Float("rate", 0.05, 0.5))
        for images, labels in tf.data.Dataset.from_tensor_slices((x, y)).batch(16):
            with tf.GradientTape() as tape:
                value = loss(labels, model(images, training=True))
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
        return {"loss": float(value)}


# What cannot be trained here


def linear_without_logits(hp, input_shape, num_classes):
    model = keras.Sequential([keras.Input(input_shape), layers.Flatten()])
    model.add(layers.Dense(num_classes))
    return compiled(model, loss=hp.Choice("loss", ["sparse_categorical_crossentropy"]))


def many_labels(hp, input_shape, num_classes):
    model = keras.Sequential([keras.Input(input_shape), layers.Flatten()])
    model.add(layers.Dense(num_classes, activation="sigmoid"))
    return compiled(model, loss=hp.Choice("loss", ["binary_crossentropy"]))


def autoencoder(hp, input_shape):
    inputs = keras.Input(input_shape)
    code = layers.Conv2D(hp.Int("filters", 2, 4), 3, padding="same")(inputs)
    return compiled(keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(code)), loss="mse")


def thousand_classes(hp, input_shape):
    return compiled(small(input_shape, 1000, hp.Int("units", 8, 16)))


def too_deep(hp, input_shape, num_classes):
    pools = [layers.MaxPooling2D() for _ in range(hp.Int("pools", 5, 6))]
    return compiled(small(input_shape, num_classes, 8, *pools))


def keras_2(hp, input_shape, num_classes):
    class Old(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compiled_loss(y, self(x, training=True))
            self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
            return {}

    graph = small(input_shape, num_classes, hp.Int("units", 8, 16))
    return compiled(Old(graph.inputs, graph.outputs))
