"""What class probabilities say about a model: loss, accuracies, F1, AUC, the worst mistakes.

Everything comes from one prediction pass. The means over classes follow scikit-learn's definitions
(the tests hold them against it) without its cost: its import takes seconds in every worker, and
its AUC of 100 classes 0.7 s an epoch (docs/log.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.arrays import PixelRows
from search_spaces.outputs import class_probabilities

if TYPE_CHECKING:
    import keras

PREDICT_BATCH = 256
"""On two cores 10,000 MNIST images take 0.8 s with 256 and 1.3 s with 1,024 (docs/log.md)."""
EPSILON = 1e-7
"""Keras' own clipping of probabilities in cross-entropy (`keras.config.epsilon()`)."""
PREDICT_BYTES = 64 * 2**20
"""Pixels that are handed to Keras at once; it copies them."""
TOP = 5


def predict(
    model: keras.Model,
    pixels: PixelRows,
    batch_size: int = PREDICT_BATCH,
    *,
    logits: bool = False,
) -> np.ndarray:
    """Class probabilities (n, classes) float32 of pixels (n, height, width, channels).

    A model with a single output gives the probability of the second of two classes.
    Pixels that are mapped from disk are never read all at once.

    Args:
        logits: whether the model gives logits, of which they are made.
    """
    step = batch_size * max(1, PREDICT_BYTES // max(1, batch_size * pixels[0].nbytes))
    run = partial(model.predict, batch_size=batch_size, verbose=0)
    with array_alone():
        found = [
            np.asarray(run(pixels[first : first + step]), np.float32)
            for first in range(0, len(pixels), step)
        ]
    both = [class_probabilities(part, logits=logits) for part in found]
    return both[0] if len(both) == 1 else np.concatenate(both)


@contextmanager
def array_alone() -> Iterator[None]:
    """Lets a model be called with one array without Keras' warning.

    A model is stored with a list of its inputs, and would have a list of one array.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The structure of `inputs` doesn't match")
        yield


def validation_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Everything that an epoch reports of the validation split, by the names of the objectives.

    `val_top5_accuracy` is there for more than five classes only.
    """
    metrics = {
        "val_loss": cross_entropy(probabilities, labels),
        "val_accuracy": accuracy(probabilities, labels),
    }
    num_classes = probabilities.shape[1]
    matrix = confusion_matrix(probabilities, labels, num_classes)
    metrics["val_macro_f1"] = macro_f1(matrix)
    metrics["val_balanced_accuracy"] = balanced_accuracy(matrix)
    metrics["val_auc"] = macro_auc(probabilities, labels)
    if num_classes > TOP:
        metrics["val_top5_accuracy"] = top_accuracy(probabilities, labels, TOP)
    return metrics


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


def macro_f1(matrix: np.ndarray) -> float:
    """Mean F1 of the classes that occur as label or prediction, from a confusion matrix."""
    hits, asked, answered = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    occurs = asked + answered > 0
    return float((2 * hits[occurs] / (asked + answered)[occurs]).mean())


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Mean recall of the classes that occur as label, from a confusion matrix."""
    asked = matrix.sum(axis=1)
    occurs = asked > 0
    return float((matrix.diagonal()[occurs] / asked[occurs]).mean())


def macro_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean area under the ROC curve of each class against the rest; ties count half.

    From ranks (Hanley and McNeil 1982, Radiology 143:29-36). A class that no image or every image
    has is left out; NaN where that leaves none.
    """
    num, areas = len(labels), []
    by_class = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=probabilities.shape[1]))
    for column, end, count in zip(probabilities.T, ends, np.diff(ends, prepend=0), strict=True):
        if count in (0, num):
            continue
        ordered, own = np.sort(column), column[by_class[end - count : end]]
        # The mean rank of a value among all, from 1, where equal ones share theirs.
        ranks = (
            np.searchsorted(ordered, own) + np.searchsorted(ordered, own, "right") + 1
        ).sum() / 2
        areas.append((ranks - count * (count + 1) / 2) / (count * (num - count)))
    return float(np.mean(areas)) if areas else float("nan")


def top_accuracy(probabilities: np.ndarray, labels: np.ndarray, top: int) -> float:
    """Share of images whose label is among the `top` most probable classes, 0 to 1.

    It is where fewer than `top` others are as probable or more: outputs that are all the same, or
    so large that most of them end as 0, tell no class from another.
    """
    chosen = probabilities[np.arange(len(labels)), labels]
    others = (probabilities >= chosen[:, None]).sum(axis=1) - 1
    return float((others < top).mean())


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` misclassified images, the most confident mistake first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    confidence = probabilities[wrong, predicted[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count]
