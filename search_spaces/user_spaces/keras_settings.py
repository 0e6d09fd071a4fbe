"""Keras' settings that trained numbers follow from: the sweep decides them, not a user's code.

What a sweep decides is recorded. A setting that a module changes would be trained with, and the
record would say something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from search_spaces.errors import InputError


@contextmanager
def settings_kept(label: str) -> Iterator[None]:
    """Lets a user's code run, which must leave the settings as they are.

    Args:
        label: how messages call the space that the code belongs to.

    Raises:
        InputError: It changed one to something else than the sweep has.
    """
    before = _settings()
    yield
    for name, value in _settings().items():
        if value != before[name]:
            raise InputError(
                f"'{label}' sets Keras' {name} to {value}, and the sweep has {before[name]}: it "
                f"decides this for all trials, and records it. {_way_out(name, value)}"
            )


def check_layers(model: Any, label: str) -> None:
    """Looks at what each layer computes with: its dtype may be set while the settings stay.

    float32 is allowed in a sweep of mixed precision, where Keras' guide has the last layer in it.

    Args:
        label: how messages call the space.

    Raises:
        InputError: A layer computes with other floating-point numbers than the sweep.
    """
    import keras

    sweep = keras.config.dtype_policy()
    for layer in sorted(model._flatten_layers(), key=lambda layer: not layer._trainable_variables):
        found = str(layer.compute_dtype)
        if found in ("float16", "bfloat16", "float64") and found != sweep.compute_dtype:
            raise InputError(
                f"Layer '{layer.name}' of '{label}' computes in {found}, and the sweep in "
                f"{sweep.compute_dtype}: it decides this for all trials, and records it. Leave the "
                "layer's dtype out; --precision is how a sweep changes it."
            )


def _settings() -> dict[str, str]:
    import keras

    return {
        "dtype policy": keras.config.dtype_policy().name,
        "floatx": keras.config.floatx(),
        "epsilon": str(keras.config.epsilon()),
        "image data format": keras.config.image_data_format(),
    }


def _way_out(name: str, value: str) -> str:
    if name == "epsilon":
        return "Take that line out, and give the layers an epsilon of their own."
    if name == "image data format":
        return "Take that line out: the images of a sweep are (height, width, channels)."
    if value.startswith("mixed_"):
        return f"Take that line out, and give --precision {value}."
    return "Take that line out; --precision is how a sweep changes it."
