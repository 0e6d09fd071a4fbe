"""A HyperModel as people write one after Keras Tuner's guide: parameters where they are needed."""

from __future__ import annotations

import keras
import keras_tuner
from keras import layers


class Convolutions(keras_tuner.HyperModel):
    """Two to four convolutions with batch normalisation, for pixels from 0 to 255."""

    def build(self, hp):
        """The compiled model."""
        model = keras.Sequential([layers.Rescaling(1 / 255)])
        for i in range(hp.Int("num_layers", 2, 4)):
            model.add(layers.Conv2D(hp.Int(f"filters_{i}", 16, 64, step=16), 3, padding="same"))
            if hp.Boolean("batch_norm"):
                model.add(layers.BatchNormalization())
            model.add(layers.Activation(hp.Choice("activation", ["relu", "elu"])))
            model.add(layers.MaxPooling2D(padding="same"))
        model.add(layers.Flatten())
        if hp.Boolean("dropout"):
            model.add(layers.Dropout(0.25))
        model.add(layers.Dense(10, activation="softmax"))
        model.compile(
            optimizer=keras.optimizers.Adam(hp.Float("lr", 1e-4, 1e-2, sampling="log")),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model
