"""The named data sets: where they are looked for, how they are downloaded and verified.

MNIST is known by the fingerprint of its arrays, so any packing of the same images is accepted and
nothing else. Fashion-MNIST and CIFAR-10 are verified by their publishers' file checksums when
they are downloaded; of an npz of theirs only shapes and class counts can be checked, because no
checksum of the arrays is published.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from pipelines.data.array_files import read_npz
from pipelines.data.arrays import (
    ImageArrays,
    fingerprint,
    normal_form,
    read_cifar_tar,
    read_idx_gz,
)
from search_spaces.errors import InputError, unknown_name

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, bytes so far and bytes in all (None when not announced)."""
KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"


class DownloadError(OSError):
    """The file could not be had: no network, a refusal, a time-out, or other content."""


def download(
    url: str,
    target: Path,
    progress: Progress,
    checksum: tuple[str, str] | None = None,
    check: Callable[[Path], object] = lambda path: None,
) -> Path:
    """Fetches `url` into `target` and returns it. An existing `target` is never touched.

    Args:
        checksum: algorithm and hexadecimal digest of the file, where one is published.
        check: raises ValueError where the content is wrong (a login page, say); called before the
            file gets its name, so that a cache is never poisoned.

    Raises:
        DownloadError: No connection within five seconds, an HTTP error, or a wrong checksum.
    """
    import requests

    if target.exists():
        return target
    _resolve(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.new(checksum[0]) if checksum else None
    try:
        with requests.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
            response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0)) or None
            done = 0
            with partial.open("wb") as file:
                for chunk in response.iter_content(1 << 18):
                    file.write(chunk)
                    done += len(chunk)
                    if digest:
                        digest.update(chunk)
                    progress(target.name, done, total)
        if digest and checksum and digest.hexdigest() != checksum[1]:
            raise DownloadError(f"{url} has other content than published ({checksum[0]} differs)")
        if total and done != total:
            raise DownloadError(f"{url} broke off after {done:,} of {total:,} bytes")
        check(partial)
        partial.replace(target)
    except ValueError as error:
        raise DownloadError(f"{url} has other content than expected: {error}") from error
    except requests.RequestException as error:
        raise DownloadError(f"{urlsplit(url).hostname}: {_reason(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def print_progress(name: str, done: int, total: int | None) -> None:
    """Prints how a download stands: in place on a terminal, else a line when it is complete."""
    text = f"downloading {name}: {done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else "")
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done == total:
        print(text, file=sys.stderr, flush=True)


def _resolve(url: str) -> None:
    """Fails within the time-out where the name cannot be resolved (a connection's own does not)."""
    parts = urlsplit(url)
    found: list[object] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(parts.hostname, parts.port or 443))
        except OSError as error:
            found.append(error)

    if os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY"):
        return  # The proxy resolves.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not found:
        raise DownloadError(f"{parts.hostname}: no answer within {CONNECT_SECONDS:g} seconds")
    if isinstance(found[0], OSError):
        raise DownloadError(f"{parts.hostname}: {found[0].strerror or found[0]}")


def _reason(error: Exception) -> str:
    text = type(error).__name__
    return f"{text} ({error})" if len(str(error)) < 80 else text


class UnavailableError(InputError):
    """The data set is nowhere on this machine and could not be downloaded."""


@dataclass(frozen=True)
class Dataset:
    """A named data set.

    Attributes:
        fetch: downloads into a folder and reads; None for a data set that needs no download.
        content: fingerprint of the arrays where the content is known.
        expected: images, height, width, channels, classes of the training part.
        balanced: whether every class has the same number of training images.
        num_validation: the last images of the training part that validate; None takes a
            stratified fifth.
    """

    name: str
    class_names: tuple[str, ...]
    fetch: Callable[[Path, Progress], ImageArrays] | None
    content: str | None = None
    expected: tuple[int, int, int, int, int] | None = None
    num_validation: int | None = None
    balanced: bool = False


def load(name: str, progress: Progress = lambda *_: None) -> tuple[ImageArrays, str]:
    """The arrays of a named data set, verified, and a phrase that says where they came from.

    Looks in `SWEEPS_DATA_DIR`, then in Keras' cache, then downloads into that cache.

    Raises:
        InputError: Unknown name, or a file that is corrupt or holds something else.
        UnavailableError: Not found and not downloadable; the message names the ways out.
    """
    dataset = get_dataset(name)
    if dataset.fetch is None:
        return _digits(), "bundled with scikit-learn"
    for path in _local_files(name):
        if path.is_file():
            return verified(dataset, read_npz(path), str(path)), str(path)
    cache = keras_cache()
    try:
        arrays = dataset.fetch(cache, progress)
    except (DownloadError, OSError) as error:
        raise UnavailableError(
            f"Data set '{name}' was not found and could not be downloaded ({error}). Put "
            f"{name}.npz into a folder and set SWEEPS_DATA_DIR to it, or connect to the network, "
            f"or take the bundled digits with --dataset digits."
        ) from error
    return verified(dataset, arrays, str(cache)), f"downloaded into {cache}"


def get_dataset(name: str) -> Dataset:
    """The data set of that name; raises InputError with the valid names otherwise."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def keras_cache() -> Path:
    """The folder in which Keras itself keeps downloaded data sets."""
    home = os.environ.get("KERAS_HOME") or str(Path.home() / ".keras")
    return Path(home) / "datasets"


def verified(dataset: Dataset, arrays: ImageArrays, origin: str) -> ImageArrays:
    """The arrays, when their content is the published one.

    Raises:
        InputError: It is not; the message says in what it differs.
    """
    if dataset.expected is not None:
        *shape, num_classes = dataset.expected
        labels, counts = np.unique(arrays.y_train, return_counts=True)
        if list(arrays.x_train.shape) != shape or list(labels) != list(range(num_classes)):
            raise InputError(
                f"Data set '{dataset.name}' must hold training images of shape {tuple(shape)} with "
                f"labels 0 to {num_classes - 1}. Received: {arrays.x_train.shape} with "
                f"{len(labels)} labels from {origin}."
            )
        if dataset.balanced and len(set(counts)) > 1:
            raise InputError(
                f"Data set '{dataset.name}' has {shape[0] // num_classes:,} training images of "
                f"each class. Received: {counts.min():,} to {counts.max():,} from {origin}."
            )
    if dataset.content is not None and fingerprint(arrays.parts()) != dataset.content:
        raise InputError(
            f"The content of {origin} is not that of '{dataset.name}' (checksum of the arrays "
            "differs): it is corrupt or another data set. Remove or replace it and start again."
        )
    return arrays


def _local_files(name: str) -> list[Path]:
    folder = os.environ.get("SWEEPS_DATA_DIR")
    files = [Path(folder) / f"{name}.npz"] if folder else []
    return [*files, keras_cache() / f"{name}.npz"]


def _fetch_mnist(cache: Path, progress: Progress) -> ImageArrays:
    def check(path: Path) -> None:
        verified(get_dataset("mnist"), read_npz(path), "the download")

    path = download(KERAS_URL + "mnist.npz", cache / "mnist.npz", progress, check=check)
    return read_npz(path)


# MD5 sums published by the authors in the README of zalandoresearch/fashion-mnist.
_FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def _fetch_fashion(cache: Path, progress: Progress) -> ImageArrays:
    folder = cache / "fashion-mnist"
    for name, md5 in _FASHION_MD5.items():
        _require(download(KERAS_URL + name, folder / name, progress, ("md5", md5)), "md5", md5)
    return read_idx_gz(folder)


# MD5 sum published at https://www.cs.toronto.edu/~kriz/cifar.html.
_CIFAR_MD5 = "c58f30108f718f92721af3b95e74349a"


def _fetch_cifar10(cache: Path, progress: Progress) -> ImageArrays:
    name = "cifar-10-python.tar.gz"
    path = download(CIFAR_URL + name, cache / name, progress, ("md5", _CIFAR_MD5))
    _require(path, "md5", _CIFAR_MD5)
    return read_cifar_tar(path)


def _require(path: Path, algorithm: str, digest: str) -> None:
    """Refuses a file that was there before and is not the published one (it may hold a pickle)."""
    import hashlib

    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != digest:
        raise InputError(
            f"{path} is corrupt or another file ({algorithm} differs from the published one). "
            "Remove it and start again."
        )


def _digits() -> ImageArrays:
    """scikit-learn's 1,797 handwritten digits (8x8, 0 to 16) as 28x28 pixels 0 to 255.

    A stratified fifth, drawn with a fixed seed, is the test split.
    """
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    large = np.stack([
        np.asarray(Image.fromarray(p).resize((28, 28), Image.Resampling.BICUBIC)) for p in pixels
    ])  # fmt: skip
    x_train, x_test, y_train, y_test = train_test_split(
        large, bunch.target, test_size=0.2, random_state=0, stratify=bunch.target
    )
    return normal_form(x_train, y_train, x_test, y_test, origin="scikit-learn's digits")


_TEN = tuple("0123456789")
_CLOTHES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_OBJECTS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MNIST_CONTENT = "81b5b7068b487449d7b931d1a017285f103d3a0a4db56f3de6ac0bd9b268bdb3"

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset("mnist", _TEN, _fetch_mnist, MNIST_CONTENT, (60_000, 28, 28, 1, 10), 10_000),
        Dataset(
            "fashion_mnist", _CLOTHES, _fetch_fashion, None, (60_000, 28, 28, 1, 10), 10_000, True
        ),
        Dataset("cifar10", _OBJECTS, _fetch_cifar10, None, (50_000, 32, 32, 3, 10), 10_000, True),
        Dataset("digits", _TEN, None),
    )
}
