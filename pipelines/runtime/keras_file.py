"""The user's `keras.json`, which Keras reads when it is imported: whether it can be."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError

FLOATS = ("float16", "float32", "float64")
IMAGE_FORMATS = ("channels_last", "channels_first")


def keras_file(environment: Mapping[str, str]) -> Path:
    """Where Keras looks for it (`keras/src/backend/config.py`)."""
    home = environment.get("KERAS_HOME")
    if home is not None:
        return Path(home).expanduser() / "keras.json"
    base = Path.home() if os.access(Path.home(), os.W_OK) else Path("/tmp")  # noqa: S108 (Keras')
    return base / ".keras" / "keras.json"


def check_keras_file(environment: Mapping[str, str] = os.environ) -> None:
    """Says what Keras would fail with in every process of a sweep.

    What it accepts has no effect on a sweep (`pipelines.runtime.process.settle_keras`).

    Raises:
        InputError: Keras cannot be imported with it.
    """
    path = keras_file(environment)
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return  # Keras takes it for an empty one.
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    if why := _trouble(found):
        raise _unusable(path, why)


def _trouble(found: Any) -> str:
    """What of it ends the import of Keras; empty for nothing."""
    if not isinstance(found, dict):
        return "it holds no object"
    names = {"floatx": FLOATS, "image_data_format": IMAGE_FORMATS}
    for name, known in names.items():
        if name in found and found[name] not in known:
            return f"its {name} is {found[name]!r}, not one of {', '.join(known)}"
    if not isinstance(found.get("epsilon", 1e-7), float):
        return f"its epsilon is {found['epsilon']!r}, not a number with a point"
    return ""


def _unusable(path: Path, why: str) -> InputError:
    return InputError(
        f"Keras cannot be imported with {path}: {why}. Mend the file or remove it (KERAS_HOME "
        "names another folder)."
    )
