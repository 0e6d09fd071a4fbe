"""Writes a trained model as a `.keras` file, where it needs no code but Keras' own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.models.keras_files import check_archive
from search_spaces.errors import InputError
from search_spaces.labels import num_outputs
from search_spaces.space import Assembled

if TYPE_CHECKING:
    import keras


def store_model(assembled: Assembled, path: Path) -> tuple[int, str]:
    """Size of the file in bytes, and why there is none (then the size is 0).

    A model of ours can be stored; one of a user's may have layers of its own, whose code no
    `.keras` file holds. What is stored gives a probability for each class, also where the model
    has one output for two classes.
    """
    if assembled.is_ours:
        assembled.model.save(path)
        return path.stat().st_size, ""
    try:
        _with_all_classes(assembled.model).save(path)
        check_archive(path, "the model")
    except OSError:
        raise  # A full disk is no property of the model.
    except InputError as error:
        path.unlink(missing_ok=True)
        return 0, str(error).partition("Received: ")[2] or str(error)
    except Exception as error:  # Whatever a layer without `get_config` makes Keras raise.
        path.unlink(missing_ok=True)
        return 0, f"it cannot be saved ({type(error).__name__})"
    return path.stat().st_size, ""


def _with_all_classes(model: keras.Model) -> keras.Model:
    """The model itself, or, where it gives that of the second class alone, both probabilities."""
    import keras

    if num_outputs(model) != 1:
        return model
    (second,) = model.outputs
    first = keras.layers.Rescaling(-1.0, offset=1.0)(second)
    return keras.Model(model.inputs, keras.layers.Concatenate()([first, second]))
