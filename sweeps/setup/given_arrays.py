"""Arrays that a program gives as a data set: written once, and a custom .npz from there on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.array_files import npz_arrays
from pipelines.data.custom.content import array_content
from pipelines.data.prepared import PreparedData
from pipelines.images.options import ImageOptions
from pipelines.runtime.filesystem import check_writable, replaced_atomically
from search_spaces.errors import InputError

FOLDER = "arrays"
_RULE = (
    "dataset must be a name, a path, (x, y), or a mapping with the names of an .npz: x_train and "
    "y_train (and x_val, y_val, x_test, y_test), or x and y."
)


def stored_dataset(dataset: object, work_dir: Path) -> str | None:
    """The data set as an option names it; arrays are written under `work_dir` by their content.

    Args:
        dataset: a name, a path, None, (images, labels), or name -> array.

    Raises:
        InputError: It is something else, or its arrays are no images with labels.
        OSError: The arrays cannot be written.
    """
    if dataset is None or isinstance(dataset, str):
        return dataset
    if isinstance(dataset, Path):
        return str(dataset)
    if isinstance(dataset, PreparedData):
        raise InputError(
            f"dataset is what load_dataset returned for '{dataset.name}', which is for looking at. "
            "Give what load_dataset was given."
        )
    if isinstance(dataset, tuple) and len(dataset) == 2:
        dataset = dict(zip(("x", "y"), dataset, strict=True))
    if not isinstance(dataset, Mapping) or not all(isinstance(name, str) for name in dataset):
        raise InputError(f"{_RULE} Received: {_shown(dataset)}.")
    return str(_stored({name: _array(name, found) for name, found in dataset.items()}, work_dir))


def _array(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.hasobject:
        raise InputError(
            f"Arrays must hold numbers or texts. Received: {name}, which holds objects. Images of "
            "several sizes belong into a folder."
        )
    return array


def _stored(arrays: Mapping[str, np.ndarray], work_dir: Path) -> Path:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    folder = work_dir.absolute() / FOLDER
    path = folder / f"arrays-{digest.hexdigest()[:12]}.npz"
    if not path.exists():
        check_writable(folder, "--work-dir")
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            # Before the file has its place: what is no data set leaves none.
            found = npz_arrays(Path(file.name))
            named = {name: replace(array, name=name) for name, array in found.items()}
            array_content(named, ImageOptions(), "the arrays")
    return path


def _shown(value: object) -> str:
    length = f" of length {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{length}"
