"""A user's own function that returns data, called in a process of its own.

The process writes plain npy files; whatever the function imports (TensorFlow, say) never gets into
the driver. `main` is that process.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.array_files import ArrayFile, npy_arrays
from pipelines.npy_writer import NpyWriter
from pipelines.own_sources import OwnSource
from search_spaces.errors import InputError

OUTCOME = "outcome.json"
FORMS = (
    "(x, y), ((x_train, y_train), (x_test, y_test)), a dict with x_train, y_train ... or x, y, "
    "or a tf.data.Dataset of pairs"
)
PARTS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def call_function(source: OwnSource, folder: Path) -> dict[str, ArrayFile]:
    """Calls the function; its arrays as files in `folder`, which must be there.

    Raises:
        InputError: It cannot be imported, raised, or returned something else.
    """
    target = source.text.rpartition(":")[0]
    code = "import sys; from pipelines.calling import main; main(*sys.argv[1:])"
    log = folder / "output.log"
    with log.open("wb") as out:
        # -P: a file of the user's own must not shadow the modules that this process needs.
        status = subprocess.run(
            [sys.executable, "-P", "-c", code, target, source.function, str(folder)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False,
        ).returncode  # fmt: skip
    try:
        outcome = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        outcome = {"error": f"ended with status {status} and said: {said[0]}"}
    if "error" in outcome:
        raise InputError(
            f"--dataset FILE:FUNCTION must name a function that returns {FORMS}. Received: "
            f"{source.text}, which {outcome['error']}."
        )
    return npy_arrays({name: folder / f"{name}.npy" for name in outcome["arrays"]})


def main(target: str, function: str, folder: str) -> None:
    """The process: imports, calls, writes the arrays and what came of it."""
    place = Path(folder)
    try:
        names = write_arrays(_function(target, function)(), place)
        outcome: dict[str, Any] = {"arrays": names}
    except Exception as error:  # The user's code raises whatever it likes.
        outcome = {"error": _told(error)}
    (place / OUTCOME).write_text(json.dumps(outcome), encoding="utf-8")


def write_arrays(result: object, folder: Path) -> list[str]:
    """Writes what a function returned; the names of the arrays.

    Raises:
        TypeError: It is none of the forms.
    """
    written: list[str] = []
    for name, value in _named(result).items():
        if hasattr(value, "as_numpy_iterator"):
            x, y = (f"{letter}_{name}" if name else letter for letter in "xy")
            _stream(value, folder / f"{x}.npy", folder / f"{y}.npy")
            written += [x, y]
        else:
            array = np.asarray(value)
            if array.dtype.hasobject:
                array = _plain(array, name)
            np.save(folder / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
            written.append(name)
    return written


def _named(result: object) -> dict[str, Any]:
    """Arrays by name; of a Dataset the name of its part, empty for one to be split."""
    if hasattr(result, "as_numpy_iterator"):
        return {"": result}
    if isinstance(result, Mapping):
        found: dict[str, Any] = {}
        for key, value in result.items():
            if key in PARTS and hasattr(value, "as_numpy_iterator"):
                found[PARTS[key]] = value
            elif key in PARTS and isinstance(value, (tuple, list)) and len(value) == 2:
                found |= {f"x_{PARTS[key]}": value[0], f"y_{PARTS[key]}": value[1]}
            else:
                found[str(key)] = value
        return found
    if isinstance(result, (tuple, list)) and len(result) in (2, 3):
        if all(isinstance(part, (tuple, list)) and len(part) == 2 for part in result):
            parts = ("train", "test") if len(result) == 2 else ("train", "val", "test")
            return {
                f"{letter}_{part}": value
                for part, pair in zip(parts, result, strict=True)
                for letter, value in zip("xy", pair, strict=True)
            }
        if len(result) == 2:
            return {"x": result[0], "y": result[1]}
    raise TypeError(f"returned {type(result).__name__}, which is none of these")


def _stream(dataset: Any, x_path: Path, y_path: Path) -> None:
    with ExitStack() as stack:
        writers: list[NpyWriter] = []
        for pixels, labels in _batches(dataset):
            if not writers:
                for path, rows in ((x_path, pixels), (y_path, labels)):
                    writers.append(stack.enter_context(NpyWriter(path, rows.shape[1:], rows.dtype)))
            for writer, rows in zip(writers, (pixels, labels), strict=True):
                writer.append(rows)
        if not writers:
            raise TypeError("returned a Dataset without elements")


def _batches(dataset: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The elements as batches, whether or not the Dataset is batched."""
    for element in dataset.as_numpy_iterator():
        if not isinstance(element, tuple) or len(element) != 2:
            raise TypeError("returned a Dataset whose elements are not pairs of picture and label")
        x, y = np.asarray(element[0]), np.asarray(element[1])
        if y.dtype.hasobject:
            y = np.array(y.tolist(), dtype=bytes) if y.ndim else np.array(y.item(), dtype=bytes)
        if y.dtype.kind == "S":
            y = y.astype("S200")  # One length for all: a name's own would be the first element's.
        single = y.ndim == 0 or x.ndim == 2 or (x.ndim == 3 and x.shape[-1] in (1, 3))
        yield (x[None], y[None]) if single else (x, y)


def _plain(array: np.ndarray, name: str) -> np.ndarray:
    """Text in an array of objects (pandas has such) as plain text."""
    if all(isinstance(value, str) for value in array.reshape(-1)):
        return array.astype(str)
    raise TypeError(f"returned '{name}' as an array of Python objects, not of numbers of one shape")


def _function(target: str, name: str) -> Callable[[], object]:
    if target.endswith(".py"):
        path = Path(target)
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, str(Path.cwd()))
        module = importlib.import_module(target)
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise TypeError(f"has no function '{name}'; it has: {', '.join(names[:10]) or 'none'}")
    return found  # type: ignore[no-any-return]


def _told(error: Exception) -> str:
    """The error in one phrase, with the line of the user's code that it came from."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, TypeError) and text.startswith(("returned", "has no")):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "pipelines" not in f.filename), None)
    where = f" ({Path(last.filename).name}, line {last.lineno})" if last is not None else ""
    return f"raised {type(error).__name__}: {text}{where}"
