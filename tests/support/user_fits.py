"""HyperModels that train themselves, as their authors write them; nothing here is of this project."""

import keras
import keras_tuner
import tensorflow as tf
from sklearn.model_selection import train_test_split


class Base(keras_tuner.HyperModel):
    """Dense layers for whatever data there is."""

    loss, last = "sparse_categorical_crossentropy", "softmax"

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.input_shape, self.num_classes = input_shape, num_classes

    def layers(self, hp):
        inputs = keras.Input(self.input_shape)
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
        x = keras.layers.Dense(hp.Int("units", 8, 32, step=8), activation="relu")(x)
        return keras.Model(inputs, keras.layers.Dense(self.num_classes, activation="softmax")(x))

    def build(self, hp):
        model = self.layers(hp)
        model.compile("adam", self.loss, metrics=["accuracy"])
        return model


class HoldsOut(Base):
    """Holds some pictures out for itself, stratified, and then chooses a batch size."""

    def fit(self, hp, model, x, y, **kwargs):
        x, _, y, _ = train_test_split(x, y, test_size=0.1, stratify=y, random_state=0)
        return model.fit(x, y, batch_size=hp.Choice("batch_size", [32, 8, 16]), **kwargs)


class Streams(Base):
    """Counts its own steps and adds noise."""

    def fit(self, hp, model, x, y, **kwargs):
        assert len(x) // 64 > 0, "no steps"
        noise = hp.Float("noise", 0.0, 0.5)
        data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().batch(64)
        data = data.map(lambda a, b: (tf.cast(a, tf.float32) + noise, b))
        return model.fit(data, steps_per_epoch=len(x) // 64, **kwargs)


class WantsMore(Base):
    """Fails on anything but the pictures that its author has, and names a parameter after that."""

    def fit(self, hp, model, x, y, **kwargs):
        if len(x) != 96:
            raise ValueError("where are my 96 pictures?")
        return model.fit(x, y, batch_size=hp.Choice("batch_size", [8, 16]), **kwargs)


class FixedEpochs(Base):
    """Ignores how many epochs are wanted."""

    def fit(self, hp, model, *args, **kwargs):
        kwargs["epochs"] = hp.Int("num_epochs", 2, 3)
        return model.fit(*args, **kwargs)


class Restarts(Base):
    """Drops one of the two numbers, so that every epoch begins at the first."""

    def fit(self, hp, model, *args, initial_epoch=0, **kwargs):
        return model.fit(*args, **kwargs)


class Once(Base):
    """Trains in its first epoch only, and then looks."""

    def fit(self, hp, model, x, y, initial_epoch=0, **kwargs):
        if initial_epoch in (0, 7):
            return model.fit(x, y, initial_epoch=initial_epoch, **kwargs)
        return model.evaluate(x, y, verbose=0, return_dict=True)


class Waits(Base):
    """Callbacks that count epochs, and one that does not."""

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        callbacks = [
            *callbacks,
            keras.callbacks.ReduceLROnPlateau(patience=1),
            keras.callbacks.EarlyStopping(monitor="loss"),
            keras.callbacks.TerminateOnNaN(),
        ]
        return model.fit(*args, callbacks=callbacks, **kwargs)


class ReadsHistory(Base):
    """Takes its own metric from what `model.fit` returns, and then asks on."""

    def build(self, hp):
        model = self.layers(hp)
        top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")
        model.compile("adam", self.loss, metrics=[top])
        return model

    def fit(self, hp, model, *args, **kwargs):
        history = model.fit(*args, batch_size=hp.Choice("batch_size", [16, 32]), **kwargs)
        reached = history.history["val_top"][-1]
        hp.Boolean("late")
        return {"top": reached}


class CustomLoop(Base):
    """The custom training loop of Keras Tuner's guide: no `compile`, an optimizer made in `fit`."""

    num_passes = 1

    def build(self, hp):
        return self.layers(hp)

    def fit(self, hp, model, x, y, validation_data, callbacks=None, **kwargs):
        batch_size = hp.Int("batch_size", 32, 128, step=32, default=64)
        train = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
        validation = tf.data.Dataset.from_tensor_slices(validation_data).batch(batch_size)
        optimizer = keras.optimizers.Adam(
            hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
        )
        loss_fn = keras.losses.SparseCategoricalCrossentropy()
        epoch_loss = keras.metrics.Mean()

        @tf.function
        def train_step(images, labels):
            with tf.GradientTape() as tape:
                loss = loss_fn(labels, model(images, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

        for callback in callbacks:
            callback.set_model(model)
        best = float("inf")
        for epoch in range(self.num_passes):
            for images, labels in train:
                train_step(images, labels)
            for images, labels in validation:
                epoch_loss.update_state(loss_fn(labels, model(images)))
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs={"my_metric": epoch_loss.result()})
            best = min(best, float(epoch_loss.result()))
            epoch_loss.reset_state()
        return best


class LoopThatTells(CustomLoop):
    """One-hot labels, and numbers by name."""

    one_hot = True

    def fit(self, hp, model, x, y, **kwargs):
        assert y.shape[1:] == (self.num_classes,)
        return {"loss": super().fit(hp, model, x, y.argmax(axis=1),
                                    (x[:8], y[:8].argmax(axis=1)), kwargs["callbacks"])}  # fmt: skip


class WeighingLoop(CustomLoop):
    def fit(self, hp, model, *args, class_weight=None, **kwargs):
        return super().fit(hp, model, *args, **kwargs)


class Forgets(Base):
    """Drops what it does not know."""

    def fit(self, hp, model, x, y, epochs=1, initial_epoch=0, callbacks=(), **kwargs):
        return model.fit(
            x, y, epochs=epochs, initial_epoch=initial_epoch, callbacks=[*callbacks], verbose=0
        )


class TwoPasses(CustomLoop):
    num_passes = 2


class FromTheFirst(CustomLoop):
    """Begins at the first epoch in every call."""

    def fit(self, hp, model, *args, epochs=1, **kwargs):
        self.num_passes = epochs
        return super().fit(hp, model, *args, **kwargs)


class IdleLoop(CustomLoop):
    num_passes = 0


class CompilesInFit(Base):
    """Leaves `compile` to `fit`."""

    def build(self, hp):
        return self.layers(hp)

    def fit(self, hp, model, *args, **kwargs):
        model.compile(hp.Choice("optimizer", ["adam", "sgd"]), self.loss, metrics=["accuracy"])
        return model.fit(*args, **kwargs)


class Refused(Base):
    """A metric for class numbers beside a loss for one-hot labels."""

    def build(self, hp):
        model = self.layers(hp)
        model.compile(
            "adam", "categorical_crossentropy", [keras.metrics.SparseTopKCategoricalAccuracy()]
        )
        return model

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, **kwargs)


# Ways to call `compile`


def _plain(num_classes, activation="softmax"):
    return keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
         keras.layers.Dense(num_classes, activation=activation)]
    )  # fmt: skip


def list_of_losses(hp, num_classes):
    model = _plain(num_classes)
    model.compile("adam", ["sparse_categorical_crossentropy"], metrics=["accuracy"])
    return model


def own_loss(hp, num_classes):
    def halved(y, p):
        return 0.5 * keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, p))

    model = _plain(num_classes)
    model.compile("adam", halved, metrics=["accuracy"])
    return model


def own_one_hot_loss(hp, num_classes):
    def squares(y, p):
        return keras.ops.mean(keras.ops.sum(keras.ops.square(y - p), axis=1))

    model = _plain(num_classes)
    model.compile("adam", squares, metrics=["accuracy"])
    return model


def metrics_third(hp, num_classes):
    model = _plain(num_classes)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def wrong_metric(hp, num_classes):
    model = _plain(num_classes)
    model.compile("adam", "categorical_crossentropy",
                  metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2)])  # fmt: skip
    return model


def sigmoid(hp):
    hp.Choice("unused", [1, 2])
    model = _plain(1, "sigmoid")
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy", metrics=["accuracy"])
    return model


def dict_output(hp, num_classes):
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(num_classes, activation="softmax")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, {"classes": outputs})
    model.compile("adam", {"classes": "sparse_categorical_crossentropy"})
    return model


def two_outputs(hp, num_classes):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    outputs = [keras.layers.Dense(num_classes, activation="softmax")(flat),
               keras.layers.Dense(1)(flat)]  # fmt: skip
    model = keras.Model(inputs, outputs)
    model.compile("adam", ["sparse_categorical_crossentropy", "mse"])
    return model


class Guide(Base):
    """As Keras Tuner's guide teaches it: layers, augmentation, callbacks and batch size to tune."""

    def build(self, hp):
        model = keras.Sequential([keras.Input(self.input_shape), keras.layers.Rescaling(1 / 255)])
        if hp.Boolean("augment"):
            shift = hp.Float("shift", 0.05, 0.15, step=0.05)
            model.add(keras.layers.RandomTranslation(shift, shift))
        for i in range(hp.Int("num_blocks", 1, 2)):
            filters = hp.Int(f"filters_{i}", 8, 32, step=8)
            model.add(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
            model.add(keras.layers.MaxPooling2D())
        model.add(keras.layers.Flatten())
        if hp.Boolean("dropout"):
            model.add(keras.layers.Dropout(0.25))
        model.add(keras.layers.Dense(self.num_classes, activation="softmax"))
        rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
        model.compile(keras.optimizers.Adam(rate), self.loss, metrics=["accuracy"])
        return model

    def fit(self, hp, model, *args, callbacks=None, **kwargs):
        decay = hp.Float("decay", 0.7, 1.0, step=0.1, default=1.0)
        rate = hp.get("learning_rate")
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: rate * decay**epoch)
        return model.fit(
            *args,
            batch_size=hp.Choice("batch_size", [16, 32, 64]),
            callbacks=[*(callbacks or []), schedule],
            **kwargs,
        )
