"""Arrays in files, read and written row by row and never pickled: npy files, members of an npz."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from pipelines.data.arrays import CHUNK_BYTES, DAMAGE, ImageArrays, normal_form
from search_spaces.errors import InputError, shortened, shown

MOST_WHOLE_BYTES = 2**30
"""Of labels, and of the built-in sets' images: the largest of those takes 180 MB."""
MOST_AXES = 32
"""What every NumPy takes."""


@dataclass(frozen=True)
class ArrayFile:
    """One array in a file.

    Attributes:
        name: how messages call it: `x_train in photos.npz`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    reader: Callable[[], AbstractContextManager[IO[bytes]]]

    @property
    def num_bytes(self) -> int:
        """What its head declares."""
        return self.dtype.itemsize * math.prod(self.shape)

    def rows(self) -> Iterator[np.ndarray]:
        """The array in slices of some rows.

        Raises:
            InputError: The file ends too early or is damaged.
        """
        row_shape = self.shape[1:]
        row_bytes = self.dtype.itemsize * math.prod(row_shape)
        step = max(1, CHUNK_BYTES // max(1, row_bytes))
        try:
            with self.reader() as file:
                _head(file)
                for first in range(0, self.shape[0], step):
                    count = min(step, self.shape[0] - first)
                    data = file.read(count * row_bytes)
                    if len(data) < count * row_bytes:  # Neither kind of file gives less before.
                        raise EOFError("it ends too early")
                    yield np.frombuffer(data, self.dtype).reshape(count, *row_shape)
                if file.read(1):  # Reading to the end is what checks a zip member's checksum.
                    raise ValueError("there is more than its shape says")
        except InputError:
            raise
        except DAMAGE as error:
            raise damaged(self.name, error) from error

    def whole(self) -> np.ndarray:
        """All of it, for labels and names.

        Raises:
            InputError: As `rows`, or it is larger than labels are.
        """
        if self.num_bytes > MOST_WHOLE_BYTES:
            raise InputError(
                f"An array that is read at once must have at most {MOST_WHOLE_BYTES:,} bytes. "
                f"Received: {self.name} of shape {self.shape} and {self.num_bytes:,} bytes. Save "
                "labels as whole numbers, one for each image."
            )
        pieces = list(self.rows())
        return np.concatenate(pieces) if pieces else np.empty(self.shape, self.dtype)


def npz_arrays(path: Path) -> dict[str, ArrayFile]:
    """The arrays of an npz by name.

    Raises:
        InputError: It is damaged, or holds an array that only unpickling could read.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    except DAMAGE as error:
        raise damaged(str(path), error) from error
    for member in members:
        name, reader = member.filename.removesuffix(".npy"), partial(_member, path, member.filename)
        found[name] = _described(f"{name} in {path}", reader, member.file_size)
    return found


def read_npz(path: Path) -> ImageArrays:
    """Reads `x_train`, `y_train`, `x_test`, `y_test` from an npz; never unpickles.

    Raises:
        InputError: The file is truncated, corrupt, or lacks an array.
    """
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        found = npz_arrays(path)
        missing = [name for name in names if name not in found]
        if missing:
            raise InputError(f"{path} must hold {', '.join(names)}; missing: {missing}.")
        arrays = [found[name].whole() for name in names]
    except InputError as error:
        if not error.reason:
            raise
        raise InputError(
            f"{path} is corrupt or truncated ({error.reason}). Remove or replace it and start "
            "again."
        ) from error
    return normal_form(*arrays, origin=str(path))


def npy_arrays(paths: Mapping[str, Path]) -> dict[str, ArrayFile]:
    """The arrays of npy files by the names given.

    Raises:
        InputError: As `npz_arrays`.
    """
    return {
        name: _described(name, partial(_opened, path), path.stat().st_size)
        for name, path in paths.items()
    }


def damaged(name: str, error: BaseException) -> InputError:
    """The error for a file that cannot be read to its end."""
    why = shortened(" ".join(str(error).split()), 200) or type(error).__name__
    return InputError(
        f"An array file must be readable to its end. Received: {name}, which is corrupt, truncated "
        f"or another kind of file ({why}). Save it again with numpy.savez.",
        reason=why,
    )


class NpyWriter:
    """Appends rows to a new npy file; a context manager that completes its head.

    Args:
        row_shape: shape of one row.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._row_shape, self._dtype, self.num_rows = row_shape, np.dtype(dtype), 0
        self._file = path.open("wb")
        self._write_head()
        self._start = self._file.tell()

    def append(self, rows: np.ndarray) -> None:
        """Adds rows (k, *row_shape).

        Raises:
            ValueError: They are of another shape.
            OSError: There is no room.
        """
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of shape {rows.shape[1:]} beside rows of {self._row_shape}")
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self.num_rows += len(rows)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._write_head()
                # NumPy leaves room for the first axis to grow (numpy/numpy#20720).
                assert self._file.tell() == self._start or not math.prod(self._row_shape)

    def _write_head(self) -> None:
        head = {
            "descr": npy.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.num_rows, *self._row_shape),
        }
        npy.write_array_header_1_0(self._file, head)


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


@contextmanager
def _member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        yield file


def _described(
    name: str, reader: Callable[[], AbstractContextManager[IO[bytes]]], num_bytes: int
) -> ArrayFile:
    """What an array says of itself.

    Args:
        num_bytes: of the file, or of the member of an archive, head included.
    """
    try:
        with reader() as file:
            shape, by_columns, dtype = _head(file)
            _check_head(shape, dtype, num_bytes - file.tell())
    except DAMAGE as error:
        raise damaged(name, error) from error
    if dtype.hasobject:
        raise InputError(
            "Arrays must hold numbers, or text as labels, all of one shape. Received: "
            f"{name}, whose elements are Python objects (pickled). Save it with one shape and type."
        )
    if by_columns and len(shape) > 1:
        raise InputError(
            f"Arrays must be stored row by row. Received: {name} in Fortran's order. Save "
            "numpy.ascontiguousarray of it."
        )
    return ArrayFile(name, shape, dtype, reader)


def _check_head(shape: tuple[int, ...], dtype: np.dtype, num_bytes: int) -> None:
    """Raises ValueError for a head that no array has, before anything of its size is made.

    Args:
        num_bytes: what follows the head.
    """
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"its shape is {shown(shape)}")
    if len(shape) > MOST_AXES:
        raise ValueError(f"its shape has {len(shape)} axes")
    if dtype.itemsize == 0:
        raise ValueError(f"its elements, {dtype.str}, take no bytes")
    declared = dtype.itemsize * math.prod(shape)
    if declared > num_bytes and not dtype.hasobject:
        raise ValueError(f"its shape {shown(shape)} takes more bytes than it has")


def _head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    read: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version} of npy")
    return read(file)  # type: ignore[no-any-return]
