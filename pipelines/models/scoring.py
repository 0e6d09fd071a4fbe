"""Measures a saved model on the test split: what it predicts, how fast, how large it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.evaluation.metrics import accuracy, confusion_matrix, cross_entropy, predict

NUM_TIMED, NUM_WARM = 50, 5


@dataclass(frozen=True)
class ScoreTask:
    """A model file to measure.

    Attributes:
        label: how messages call the model.
        output: file that takes the class probabilities, an array `probabilities` (n, classes).
    """

    path: str
    label: str
    data: PreparedData
    output: str
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """What a model reached on the test split.

    Attributes:
        recalls: share of each class's images that it names rightly.
        latency_ms: median time of one image, alone, on this machine, once warm.
        num_bytes: size of the file.
    """

    accuracy: float
    loss: float
    recalls: tuple[float, ...]
    latency_ms: float
    num_parameters: int
    num_bytes: int
    device: str


def score_model(task: ScoreTask, device: str) -> Score:
    """Loads, predicts the test images once, and times single images.

    Raises:
        InputError: The file is no model of ours, or does not fit the data.
    """
    from pipelines.models.keras_files import load_saved_model, model_shapes
    from search_spaces.errors import InputError

    path = Path(task.path)
    model = load_saved_model(path, task.label)
    shapes = model_shapes(model, task.label)
    data = task.data
    if (shapes.input_shape, shapes.num_classes) != (data.input_shape, data.num_classes):
        raise InputError(
            f"Models are compared on one data set. Received: {task.label}, which takes "
            f"{shapes.input_shape} and names {shapes.num_classes} classes; {data.name} has "
            f"{data.input_shape} and {data.num_classes}. Choose another --model name for it."
        )
    pixels, labels = data.arrays("test")
    probabilities = predict(model, pixels)
    np.savez(task.output, probabilities=probabilities)
    matrix = confusion_matrix(probabilities, labels, data.num_classes)
    recalls = matrix.diagonal() / np.maximum(1, matrix.sum(axis=1))
    seconds = []
    for k in range(NUM_WARM + NUM_TIMED):
        one = np.asarray(pixels[k % len(pixels)])[None]
        started = time.perf_counter()
        model.predict_on_batch(one)
        seconds.append(time.perf_counter() - started)
    return Score(
        accuracy=accuracy(probabilities, labels),
        loss=cross_entropy(probabilities, labels),
        recalls=tuple(float(recall) for recall in recalls),
        latency_ms=1000 * float(np.median(seconds[NUM_WARM:])),
        num_parameters=model.count_params(),
        num_bytes=path.stat().st_size,
        device=device,
    )
