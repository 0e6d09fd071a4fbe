"""A user's own function that returns data, called in a process of its own.

The process writes plain npy files; whatever the function imports (TensorFlow, say) never gets into
the driver. `main` is that process, which never outlives the one that started it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipelines.data.array_files import ArrayFile, NpyWriter, npy_arrays
from pipelines.data.custom.sources import CustomSource
from pipelines.runtime.surroundings import settle_surroundings
from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, read_json
from search_spaces.user_spaces.folder_first import folder_first, is_free_name

OUTCOME = "outcome.json"
TICK_SECONDS = 1.0
FORMS = (
    "(x, y), ((x_train, y_train), (x_test, y_test)), a dict with x_train, y_train ... or x, y, "
    "or a tf.data.Dataset of pairs, or several: (train, test)"
)
NAMES = frozenset({"class_names"}) | {
    f"{letter}{part}"
    for letter in "xy"
    for part in ("", "_train", "_val", "_validation", "_valid", "_test")
}
INFINITE = -1
"""What `cardinality()` of a Dataset says where it has no end (`tf.data.INFINITE_CARDINALITY`)."""
RESERVED_BYTES = 256 * 2**20
"""Left free on the disk: of many a Dataset nothing tells whether it ends."""
BETWEEN_LOOKS = 64
"""Batches from one look at the disk to the next."""
PARTS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


class WrongResultError(TypeError):
    """There is no such function, or it returned none of the forms; the message says which."""


def call_function(
    source: CustomSource, folder: Path, say: Callable[[int, None], None] = lambda *_: None
) -> dict[str, ArrayFile]:
    """Calls the function; its arrays as files in `folder`, which must be there.

    Args:
        say: called now and then with the bytes that it has given so far.

    Raises:
        InputError: It cannot be imported, raised, or returned something else.
    """
    target = source.text.rpartition(":")[0]
    code = "import sys; from pipelines.data.custom.function_source import main; main(*sys.argv[1:])"
    log = folder / "output.log"

    def tick() -> None:
        say(sum(path.stat().st_size for path in folder.glob("*.npy")), None)

    # -P: a file of the user's own must not shadow the modules that this process needs.
    command = [sys.executable, "-P", "-c", code, target, source.function, str(folder)]
    status = _run_bound(command, log, tick)
    try:
        outcome = read_json(folder / OUTCOME)
    except (FileNotFoundError, UnusableFileError):
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
    _end_with_starter()
    settle_surroundings()
    place = Path(folder)
    try:
        names = write_arrays(_function(target, function)(), place)
        outcome: dict[str, Any] = {"arrays": names}
    except (Exception, SystemExit) as error:  # The user's code raises whatever it likes.
        outcome = {"error": _told(error)}
    (place / OUTCOME).write_text(json.dumps(outcome), encoding="utf-8")


def write_arrays(result: object, folder: Path) -> list[str]:
    """Writes what a function returned; the names of the arrays.

    Raises:
        WrongResultError: It is none of the forms.
    """
    written: list[str] = []
    for name, value in _named(result):
        names = [name]
        if hasattr(value, "as_numpy_iterator"):
            names = [f"{letter}_{name}" if name else letter for letter in "xy"]
        for one in names:
            if one in written or one not in NAMES:
                why = "twice" if one in written else "which is none of the names that count"
                raise WrongResultError(
                    f"returned '{one}', {why}; these do: {', '.join(sorted(NAMES))}"
                )
        written += names
        if hasattr(value, "as_numpy_iterator"):
            x, y = names
            _stream(value, folder / f"{x}.npy", folder / f"{y}.npy")
        else:
            array = np.asarray(value)
            if array.dtype.hasobject:
                array = _plain(array, name)
            np.save(folder / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
    return written


def _named(result: object) -> Iterator[tuple[str, Any]]:
    """Arrays with their names; with a Dataset the name of its part, empty for one to be split."""
    if hasattr(result, "as_numpy_iterator"):
        yield "", result
    elif isinstance(result, Mapping):
        for key, value in result.items():
            if key in PARTS:
                yield from _part(PARTS[key], value)
            elif hasattr(value, "as_numpy_iterator"):
                raise WrongResultError(f"returned a Dataset as '{key}'; call it {', '.join(PARTS)}")
            else:
                yield str(key), value
    elif isinstance(result, (tuple, list)) and len(result) in (2, 3):
        if all(_is_part(part) for part in result):
            parts = ("train", "test") if len(result) == 2 else ("train", "val", "test")
            for part, value in zip(parts, result, strict=True):
                yield from _part(part, value)
        elif len(result) == 2 and not any(hasattr(part, "as_numpy_iterator") for part in result):
            yield from zip("xy", result, strict=True)
        else:
            kinds = ", ".join(type(part).__name__ for part in result)
            raise WrongResultError(f"returned ({kinds}), which is none of these")
    else:
        raise WrongResultError(f"returned {type(result).__name__}, which is none of these")


def _is_part(value: object) -> bool:
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair or hasattr(value, "as_numpy_iterator")


def _part(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What one part holds: a Dataset, or images and labels."""
    if hasattr(value, "as_numpy_iterator"):
        yield name, value
    elif _is_part(value):
        yield f"x_{name}", value[0]
        yield f"y_{name}", value[1]
    else:
        raise WrongResultError(
            f"returned {type(value).__name__} as '{name}', which must be a Dataset or a pair (x, y)"
        )


def _stream(dataset: Any, x_path: Path, y_path: Path) -> None:
    if hasattr(dataset, "cardinality") and int(dataset.cardinality()) == INFINITE:
        raise WrongResultError("returned a Dataset without an end; leave its .repeat() out")
    with ExitStack() as stack:
        writers: list[NpyWriter] = []
        for number, (pixels, labels) in enumerate(_batches(dataset)):
            if (
                number % BETWEEN_LOOKS == 0
                and shutil.disk_usage(x_path.parent).free < RESERVED_BYTES
            ):
                raise OSError(
                    f"less than {RESERVED_BYTES >> 20} MiB would be left on the disk after "
                    f"{writers[0].num_rows if writers else 0:,} images; does it ever end?"
                )
            if not writers:
                for path, rows in ((x_path, pixels), (y_path, labels)):
                    writers.append(stack.enter_context(NpyWriter(path, rows.shape[1:], rows.dtype)))
            for writer, rows in zip(writers, (pixels, labels), strict=True):
                writer.append(rows)
        if not writers:
            raise WrongResultError("returned a Dataset without elements")


def _batches(dataset: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The elements as batches, whether or not the Dataset is batched."""
    for element in dataset.as_numpy_iterator():
        if not isinstance(element, tuple) or len(element) != 2:
            raise WrongResultError(
                "returned a Dataset whose elements are not pairs of image and label"
            )
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
    raise WrongResultError(
        f"returned '{name}' as an array of Python objects, not of numbers of one shape"
    )


def _function(target: str, name: str) -> Callable[[], object]:
    if target.endswith(".py"):
        module = _file_module(Path(target))
    else:
        with folder_first(str(Path.cwd())):
            module = importlib.import_module(target)
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise WrongResultError(
            f"has no function '{name}'; it has: {', '.join(names[:10]) or 'none'}"
        )
    return found  # type: ignore[no-any-return]


def _file_module(path: Path) -> ModuleType:
    """A file as a module; one that lies in a package as a part of it, for its relative imports."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    if len(parts) > 1:
        with folder_first(str(path.parent)), folder_first(str(root)):
            return importlib.import_module(".".join(parts))
    # A file may have the name of another module.
    name = path.stem if is_free_name(path.stem, str(root)) else f"own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with folder_first(str(root)):
        spec.loader.exec_module(module)
    return module


def _told(error: BaseException) -> str:
    """The error in one phrase, with the line of the user's code that it came from."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, WrongResultError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "pipelines" not in f.filename), None)
    where = f" ({Path(last.filename).name}, line {last.lineno})" if last is not None else ""
    return f"raised {type(error).__name__}: {text}{where}"


def _run_bound(arguments: Sequence[str], log: Path, tick: Callable[[], None]) -> int:
    """Runs a command to its end and returns its status; its output goes into a file.

    The command must call `_end_with_starter` first. It leads a group of its own, so that whatever
    it starts ends with it, too.

    Args:
        tick: called every second while it runs.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    # Its standard input stays open as long as this process lives, however that ends.
    try:
        while True:
            try:
                return process.wait(TICK_SECONDS)
            except subprocess.TimeoutExpired:
                tick()
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _end_with_starter() -> None:
    """Ends this process and its group as soon as the one that started it with `_run_bound` ends."""
    watched = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # The code that runs here may want to read.

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(watched, 1):
                pass
        _kill_group(0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-starter").start()


def _kill_group(group: int) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(group, signal.SIGKILL)
        elif group:
            os.kill(group, signal.SIGTERM)
