"""Which pixels stay on the device beside those that train."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.training import device_prediction
from pipelines.training.device_prediction import DevicePixels, room_beside


@pytest.mark.parametrize(
    ("trained", "room", "left"),
    [
        (300, 1000, 700),
        (1000, 1000, 0),
        (0, 1000, 1000),
        (1001, 1000, 1000),  # They stream: all the room is free.
    ],
)
def test_room_is_what_pixels_that_train_leave_if_they_are_there(trained, room, left):
    assert room_beside(trained, room) == left


@pytest.mark.parametrize(("room", "stays"), [(48, True), (47, False)])
def test_pixels_stay_on_the_device_where_there_is_room_for_all(room, stays, monkeypatch):
    monkeypatch.setattr(device_prediction, "_taker", lambda x: lambda rows: "on the device")
    monkeypatch.setattr(device_prediction, "on_device", lambda arrays: ["carried over"])
    pixels = DevicePixels(np.zeros((3, 4, 4, 1), np.uint8), room)
    assert len(pixels) == 3
    assert pixels[np.array([0, 2])] == ("on the device" if stays else "carried over")
