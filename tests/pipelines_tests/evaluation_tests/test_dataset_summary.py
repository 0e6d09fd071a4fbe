"""What a data set is said to hold, in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.data.prepared import prepare
from pipelines.evaluation.dataset_summary import largest_and_smallest, summarize


def test_every_part_is_summarized_as_numpy_does(tmp_path):
    data = prepare("digits", tmp_path)
    parts = summarize(data)
    assert [part.name for part in parts] == ["train", "validation", "test"]
    for part in parts:
        x, y = data.arrays(part.name)
        assert (part.num_images, part.shape, part.dtype) == (len(x), x.shape[1:], "uint8")
        assert (part.lowest, part.highest) == (x.min(), x.max())
        assert part.mean == pytest.approx(x.mean()) and part.deviation == pytest.approx(x.std())
        assert part.class_counts == tuple(np.bincount(y, minlength=10))


def test_of_many_classes_the_largest_and_the_smallest_are_shown():
    assert largest_and_smallest([3, 1, 2], num_shown=4) == [0, 1, 2]
    assert largest_and_smallest([3, 9, 2, 9, 1, 5], num_shown=4) == [1, 3, 2, 4]
