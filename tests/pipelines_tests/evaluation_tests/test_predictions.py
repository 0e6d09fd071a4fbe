"""What is kept of a model's predictions."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.latency import latency_or_none
from pipelines.evaluation.predictions import read_predictions, write_predictions


@pytest.mark.parametrize("num_classes", [2, 10, 70_000])
def test_class_and_confidence_of_each_image_come_back(tmp_path, num_classes):
    probabilities = np.full((3, num_classes), 0.0, np.float32)
    best = [0, 1, num_classes - 1]
    probabilities[range(3), best] = (0.5, 0.75, 1.0)
    write_predictions(tmp_path / "answers.npz", probabilities)
    found = read_predictions(tmp_path / "answers.npz", 3)
    assert found is not None and found.classes.tolist() == best
    assert found.confidence.tolist() == [0.5, 0.75, 1.0]


def test_what_is_not_there_or_damaged_or_of_other_images_is_none(tmp_path):
    path = tmp_path / "answers.npz"
    assert read_predictions(path, 3) is None
    write_predictions(path, np.eye(3, dtype=np.float32))
    assert read_predictions(path, 4) is None
    path.write_bytes(path.read_bytes()[:-20])
    assert read_predictions(path, 3) is None


def test_a_model_that_cannot_be_timed_has_no_latency():
    class Refusing:
        predict_function = "own"

        def predict_on_batch(self, image):
            raise ValueError("one image alone")

    model = Refusing()
    assert latency_or_none(model, np.zeros((1, 8, 8, 1))) is None
    assert model.predict_function == "own"
