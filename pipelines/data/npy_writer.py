"""An npy file written row by row, its number of rows known at the end."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib import format as npy


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
