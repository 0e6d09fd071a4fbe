"""Image arrays with labels: their shape rules, fingerprint and file formats."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import pickle
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from search_spaces.errors import InputError

CHUNK_BYTES = 16 * 2**20
"""What is held of an array that is read, converted or hashed piece by piece."""
DAMAGE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    RuntimeError,  # Encrypted, of an unknown compression, or nested too deeply.
    SyntaxError, tokenize.TokenError, TypeError, KeyError, OverflowError,  # A head that is no head.
    MemoryError,  # What Python's parser raises for brackets in brackets.
)  # fmt: skip
"""What reading a file that is truncated, corrupt, hostile or another kind raises."""


class PixelRows(Protocol):
    """Pixels (n, height, width, channels) whose rows can be read some at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them."""

    @property
    def dtype(self) -> np.dtype:
        """Of what is read."""

    @property
    def nbytes(self) -> int:
        """Size of all rows as they are read."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of these numbers, of a slice, or one row."""


@dataclass(frozen=True)
class ImageArrays:
    """A labelled image set in its published split.

    Attributes:
        x_train, x_test: uint8 pixels 0 to 255, shape (images, height, width, channels).
        y_train, y_test: integer labels from 0, shape (images,).
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def parts(self) -> tuple[np.ndarray, ...]:
        """The four arrays in the order in which they are fingerprinted."""
        return self.x_train, self.y_train, self.x_test, self.y_test


def fingerprint(arrays: Iterable[np.ndarray], preface: bytes = b"") -> str:
    """SHA-256 over shapes and content, in order; labels count as int64, pixels as uint8.

    It identifies the content whatever file it came from: a repacked npz has the same one. Arrays
    that are mapped from disk are read piece by piece.

    Args:
        preface: what counts beside the arrays.
    """
    digest = hashlib.sha256(preface)
    for array in arrays:
        digest.update(repr(array.shape).encode())
        for piece in row_pieces(array):
            kind = np.uint8 if array.ndim > 1 else np.int64
            digest.update(np.ascontiguousarray(piece, dtype=kind).data)
    return digest.hexdigest()


def row_pieces(array: np.ndarray, num_bytes: int = CHUNK_BYTES) -> Iterator[np.ndarray]:
    """The array in slices of some rows, each of about `num_bytes`."""
    if len(array):
        step = max(1, num_bytes // max(1, array[:1].nbytes))
        for first in range(0, len(array), step):
            yield array[first : first + step]


def normal_form(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    *,
    origin: str,
) -> ImageArrays:
    """Adds the channel axis, flattens labels, and checks that the arrays are images with labels.

    Raises:
        InputError: Lengths do not match, pixels are not uint8, or labels are not whole numbers.
    """
    arrays = []
    for pixels, labels, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        x = pixels[..., None] if pixels.ndim == 3 else pixels
        y = labels.reshape(-1)
        if x.ndim != 4 or x.dtype != np.uint8 or not np.issubdtype(y.dtype, np.integer):
            raise InputError(
                f"Images must be uint8 arrays of 3 or 4 dimensions with integer labels. "
                f"Received: {x.dtype} {x.shape} and {y.dtype} ({part}) in {origin}."
            )
        if len(x) != len(y) or len(x) == 0:
            raise InputError(
                f"There must be one label per image. Received: {len(x)} images and {len(y)} "
                f"labels ({part}) in {origin}."
            )
        arrays += [x, y.astype(np.int64)]
    return ImageArrays(*arrays)


def read_idx_gz(folder: Path) -> ImageArrays:
    """Reads the four gzipped IDX files of MNIST's layout (http://yann.lecun.com/exdb/mnist/)."""
    try:
        parts = []
        for stem in ("train", "t10k"):
            images = gzip.decompress((folder / f"{stem}-images-idx3-ubyte.gz").read_bytes())
            labels = gzip.decompress((folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes())
            parts.append(np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28))
            parts.append(np.frombuffer(labels, np.uint8, offset=8))
    except DAMAGE as error:
        raise InputError(
            f"The IDX files in {folder} are corrupt ({error}). Remove them."
        ) from error
    return normal_form(*parts, origin=str(folder))


def read_cifar_tar(path: Path) -> ImageArrays:
    """Reads CIFAR's python archive. Its batches are pickles: call this after the checksum only."""
    with tarfile.open(path) as archive:
        batches = {}
        for member in archive.getmembers():
            name = Path(member.name).name
            if name.startswith(("data_batch_", "test_batch")):
                file = archive.extractfile(member)
                assert file is not None
                batches[name] = pickle.load(io.BytesIO(file.read()), encoding="bytes")  # noqa: S301
    train = [batches[f"data_batch_{i}"] for i in range(1, 6)]

    def pixels(data: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))

    return normal_form(
        pixels(np.concatenate([batch[b"data"] for batch in train])),
        np.concatenate([np.asarray(batch[b"labels"]) for batch in train]),
        pixels(batches["test_batch"][b"data"]),
        np.asarray(batches["test_batch"][b"labels"]),
        origin=str(path),
    )
