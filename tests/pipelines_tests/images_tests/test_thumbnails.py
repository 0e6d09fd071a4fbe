"""Pictures made small for pages."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.images.thumbnails import MAX_SIDE, thumbnail


@pytest.mark.parametrize(
    ("shape", "mode"), [((8, 6, 1), "L"), ((8, 6, 3), "RGB"), ((8, 6, 4), "L")]
)
def test_a_small_picture_is_kept_as_it_is(shape, mode):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    image = Image.open(io.BytesIO(thumbnail(pixels)))
    assert (image.format, image.mode, image.size) == ("PNG", mode, (6, 8))
    shown = pixels if mode == "RGB" else pixels[..., 0]
    assert np.array_equal(np.asarray(image), shown)


def test_a_large_picture_is_made_smaller_in_its_proportions():
    image = Image.open(io.BytesIO(thumbnail(np.zeros((100, 400, 3), np.uint8))))
    assert image.size == (MAX_SIDE, MAX_SIDE // 4)
