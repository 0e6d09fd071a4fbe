"""What class probabilities say about a model: loss, accuracy, confusion, the worst mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

PREDICT_BATCH = 256
"""On two cores 10,000 MNIST images take 0.8 s with 256 and 1.3 s with 1,024 (docs/log.md)."""
EPSILON = 1e-7
"""Keras' own clipping of probabilities in cross-entropy (`keras.config.epsilon()`)."""


def predict(model: keras.Model, pixels: np.ndarray, batch_size: int = PREDICT_BATCH) -> np.ndarray:
    """Class probabilities (n, classes) float32 of raw pixels (n, height, width, channels)."""
    return np.asarray(model.predict(pixels, batch_size=batch_size, verbose=0), np.float32)


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean categorical cross-entropy in nats, clipped as Keras does."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, EPSILON, 1.0 - EPSILON), dtype=np.float64).mean())


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose most probable class is the label, 0 to 1."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (classes, classes): rows are labels, columns predictions."""
    cells = labels * num_classes + probabilities.argmax(axis=1)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` misclassified images, the most confident mistake first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    confidence = probabilities[wrong, predicted[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count]
