"""Classes from labels, and parts in which every class has its share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.splits import TEST, TRAIN, VALIDATION, classes_of, divide
from search_spaces.errors import InputError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=8), st.booleans(), st.booleans())
def test_every_class_is_in_every_part_in_its_share(counts, with_validation, with_test):
    labels = np.repeat(np.arange(len(counts)), counts)
    given_parts = np.zeros(len(labels), np.int8)
    extra = [part for part, there in ((VALIDATION, with_validation), (TEST, with_test)) if there]
    for part in extra:
        labels = np.concatenate([labels, np.arange(len(counts))])
        given_parts = np.concatenate([given_parts, np.full(len(counts), part, np.int8)])
    names = [str(k) for k in range(len(counts))]
    parts = divide(labels, given_parts, names, "here").parts
    for part in extra:
        assert (parts[given_parts == part] == part).all()
    for label, count in enumerate(counts):
        found = np.bincount(parts[(labels == label) & (given_parts == TRAIN)], minlength=3)
        assert found.sum() == count and found[TRAIN] >= 1
        if not with_test:
            assert found[TEST] == max(1, int(0.2 * count + 0.5))
        assert (found[VALIDATION] == 0) == with_validation


def test_a_thousand_classes_are_classes_and_more_are_not():
    labels, names = classes_of(np.array([f"class {k:04d}" for k in range(1000)]), "here")
    assert len(names) == 1000 and list(labels) == list(range(1000))
    with pytest.raises(InputError, match="Received: 1,001"):
        classes_of(np.arange(1001), "here")
