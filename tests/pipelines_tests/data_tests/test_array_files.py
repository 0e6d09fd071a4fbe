"""Arrays in files: read, written and fingerprinted piece by piece, and never unpickled."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.data import arrays
from pipelines.data.array_files import NpyWriter, npz_arrays
from pipelines.data.arrays import fingerprint
from search_spaces.errors import InputError


def test_rows_are_appended_to_a_file_that_numpy_reads(tmp_path):
    rows = np.arange(1000 * 6, dtype=np.int16).reshape(1000, 2, 3)
    with NpyWriter(tmp_path / "a.npy", (2, 3), rows.dtype) as writer:
        for first in range(0, 1000, 7):
            writer.append(rows[first : first + 7])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)
    with (
        pytest.raises(ValueError, match="beside rows of"),
        NpyWriter(tmp_path / "b.npy", (2,), rows.dtype) as writer,
    ):
        writer.append(rows)


def test_a_pickle_in_an_npz_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], dtype=object), y=np.array([1]))
    with pytest.raises(InputError, match="pickled"):
        npz_arrays(tmp_path / "a.npz")
    assert not (tmp_path / "exploded").exists()


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)),
    st.integers(1, 300),
)
def test_a_fingerprint_in_pieces_is_that_of_the_whole(array, num_bytes):
    whole = hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
    original, arrays.row_pieces.__defaults__ = arrays.row_pieces.__defaults__, (num_bytes,)
    try:
        assert fingerprint([array]) == whole
    finally:
        arrays.row_pieces.__defaults__ = original
