"""Data prepared once: split, stored as memory-mapped arrays, shared by every trial.

Folder `<root>/<name>-<first 12 digits of the fingerprint>/` holds `x_<part>.npy`, `y_<part>.npy`
for the parts train, validation and test, and `meta.json`, which is written last: a folder without
it is not there. Until then the data are in an unfinished folder beside it, which ends with its
process. A sweep opens train and validation only.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.data.arrays import ImageArrays, fingerprint
from pipelines.data.builtin import MNIST_CONTENT, Dataset, Progress, get_dataset, load
from pipelines.data.splits import SEED, VALIDATION_SHARE
from search_spaces.files import UnusableFileError, read_json
from search_spaces.space import Shape
from search_spaces.stored_values import as_kind

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
Background = Literal["dark", "light", "mixed"]
BACKGROUND_IMAGES, BACKGROUND_SHARE, DARK = 1_000, 0.9, 64
"""Of so many images this share must have a border whose median pixel is so dark, or so light."""
META_FILE = "meta.json"
"""The description, which makes a folder complete."""
SOURCE_FILE = "source.json"
"""Where the data came from; only a user's own have it (`pipelines.data.custom.prepare`)."""
_UNFINISHED_PREFIX = ".preparing-"
_LOCK_SECONDS = 24 * 3600
"""A lock without its folder is removed after so long: before, it may be about to be taken."""


class DataLostError(OSError):
    """Prepared data are gone, or damaged, since they were opened."""

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(
            f"the prepared data in {folder} are gone or damaged ({why}). What opens them next "
            "prepares them again, or says what that needs."
        )


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set.

    Attributes:
        fingerprint: SHA-256 over the content of all arrays, 64 hexadecimal digits.
        origin: where the arrays came from, for people.
        split: how the validation part was chosen, for people.
        num_images: images per part.
        notes: what else people should know of a data set of their own, a phrase each.
        resize: how images came into their frame (`pipelines.images.options.Resize`).
        is_own: whether they are a user's own, prepared as they are, so that whoever predicts must
            take new images as they are, too.
    """

    name: str
    folder: str
    fingerprint: str
    origin: str
    split: str
    input_shape: Shape
    num_classes: int
    class_names: tuple[str, ...]
    num_images: dict[str, int]
    notes: tuple[str, ...] = ()
    resize: str = "fit"
    is_own: bool = False

    def arrays(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (n, height, width, channels) uint8, mapped from disk, and labels (n,) int64.

        Raises:
            DataLostError: They are not what was prepared: removed, or cut.
        """
        try:
            x = np.load(Path(self.folder) / f"x_{part}.npy", mmap_mode="r")
            y = np.load(Path(self.folder) / f"y_{part}.npy")
        except (OSError, ValueError, EOFError) as error:
            raise DataLostError(self.folder, str(error)) from error
        count = self.num_images[part]
        if x.shape != (count, *self.input_shape) or y.shape != (count,):
            raise DataLostError(self.folder, f"{len(x):,} of {count:,} images of {part} are left")
        return x, y

    def background(self) -> Background:
        """What surrounds the objects of the training images, judged by their borders.

        `mixed` where an image is to be taken as it is: backgrounds differ, or the data are a
        user's own.
        """
        if self.is_own:
            return "mixed"
        x, _ = self.arrays("train")
        # From all over: the images of a folder come class by class.
        some = x[:: max(1, len(x) // BACKGROUND_IMAGES)][:BACKGROUND_IMAGES]
        border = np.concatenate([
            some[:, 0], some[:, -1], some[:, 1:-1, 0], some[:, 1:-1, -1]
        ], axis=1)  # fmt: skip
        medians = np.median(border, axis=(1, 2))
        if (medians < DARK).mean() >= BACKGROUND_SHARE:
            return "dark"
        return "light" if (medians > 255 - DARK).mean() >= BACKGROUND_SHARE else "mixed"

    def sizes(self) -> str:
        """`50,000 train, 10,000 validation, 10,000 test`."""
        return ", ".join(f"{self.num_images[part]:,} {part}" for part in PARTS)


def prepare(name: str, root: Path, progress: Progress = lambda *_: None) -> PreparedData:
    """The prepared data set `name` under `root`, made on first use.

    Raises:
        InputError: As `pipelines.data.builtin.load`.
        OSError: `root` cannot be written.
    """
    dataset = get_dataset(name)
    if dataset.content == MNIST_CONTENT and (found := open_prepared(root, name, MNIST_CONTENT)):
        return found
    arrays, origin = load(name, progress)
    content = fingerprint(arrays.parts())
    return open_prepared(root, name, content) or store(root, dataset, arrays, content, origin)


def split_indices(dataset: Dataset, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Indices of the training and the validation images, and a phrase that says how."""
    count = len(labels)
    if dataset.num_validation is not None:
        first = count - dataset.num_validation
        phrase = f"the last {dataset.num_validation:,} training images validate"
        return np.arange(first), np.arange(first, count), phrase
    from sklearn.model_selection import train_test_split

    train, validation = train_test_split(
        np.arange(count), test_size=VALIDATION_SHARE, random_state=SEED, stratify=labels
    )
    phrase = f"a stratified {VALIDATION_SHARE:.0%} of the training images validate"
    return np.sort(train), np.sort(validation), phrase


def prepared_folder(root: Path, name: str, content: str) -> Path:
    """Where the data set of that name and content is, once it is prepared."""
    return root / f"{name}-{content[:12]}"


def open_prepared(root: Path, name: str, content: str) -> PreparedData | None:
    """The prepared data set of that content under `root`; None where it is not there or damaged."""
    folder = prepared_folder(root, name, content)
    data = _description(folder)
    return data if data is not None and _is_whole(data) else None


def _description(folder: Path) -> PreparedData | None:
    """What a folder of prepared data says of itself; None where it is not complete or damaged."""
    before = {"is_own": (folder / SOURCE_FILE).exists()}  # Of an earlier version.
    try:
        meta = read_json(folder / META_FILE)
        if not isinstance(meta, dict):
            return None
        return as_kind(PreparedData, {**before, **meta, "folder": str(folder)})
    except (FileNotFoundError, UnusableFileError):
        return None


def _is_whole(data: PreparedData) -> bool:
    """Whether the arrays have the shapes that the description names, and files as long as that.

    A full disk, or a copy that broke off, leaves others; a trial would end in a bus error.
    """
    try:
        for part in PARTS:
            data.arrays(part)
    except DataLostError:
        return False
    return True


def store(
    root: Path, dataset: Dataset, arrays: ImageArrays, content: str, origin: str
) -> PreparedData:
    """Splits the arrays and writes the folder, complete or not at all.

    Raises:
        OSError: `root` cannot be written.
    """
    train, validation, split = split_indices(dataset, arrays.y_train)
    parts = {
        "train": (arrays.x_train[train], arrays.y_train[train]),
        "validation": (arrays.x_train[validation], arrays.y_train[validation]),
        "test": (arrays.x_test, arrays.y_test),
    }
    folder = prepared_folder(root, dataset.name, content)
    data = PreparedData(
        name=dataset.name,
        folder=str(folder),
        fingerprint=content,
        origin=origin,
        split=split,
        input_shape=arrays.x_train.shape[1:],
        num_classes=len(dataset.class_names),
        class_names=dataset.class_names,
        num_images={part: len(y) for part, (_, y) in parts.items()},
    )
    with unfinished_folder(root) as partial:
        for part, (x, y) in parts.items():
            np.save(partial / f"x_{part}.npy", np.ascontiguousarray(x))
            np.save(partial / f"y_{part}.npy", y)
        return place(partial, root, data)


@contextmanager
def unfinished_folder(root: Path) -> Iterator[Path]:
    """A new folder under `root`, removed afterwards where it was not renamed.

    A process holds the lock of its folder from before that is there until it is gone; folders
    whose lock nobody holds were left behind by processes that were killed, and are removed first.

    Raises:
        OSError: `root` cannot be written.
    """
    from filelock import FileLock

    new = [path for path in (root, *root.parents) if not path.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        _remove_left_behind(root)
        folder = root / f"{_UNFINISHED_PREFIX}{uuid.uuid4().hex[:12]}"
        with FileLock(_lock_of(folder)):
            try:
                folder.mkdir(parents=True)
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                _lock_of(folder).unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # Of data that were refused nothing stays, also no empty folder.
            for path in new:
                path.rmdir()


def place(
    partial: Path, root: Path, data: PreparedData, refreshed: tuple[str, ...] = ()
) -> PreparedData:
    """Gives a folder of written arrays its name, and its description, which makes it complete.

    Args:
        refreshed: files that a folder of the same content, which is there already, takes over.
    """
    (partial / META_FILE).write_text(json.dumps(asdict(data), indent=1))
    partial.chmod(0o755)
    folder = prepared_folder(root, data.name, data.fingerprint)
    try:
        partial.rename(folder)
    except OSError:
        # The same content was prepared before, or by another process meanwhile.
        found = open_prepared(root, data.name, data.fingerprint)
        if found is None:
            if not folder.is_dir():
                raise
            _replace_damaged(partial, folder)
            return data
        for name in refreshed:
            (partial / name).replace(folder / name)
        return found
    return data


def _replace_damaged(partial: Path, folder: Path) -> None:
    """Puts whole arrays where damaged ones are; a process that has mapped those keeps them."""
    for path in sorted(partial.iterdir(), key=lambda path: path.name == META_FILE):
        path.replace(folder / path.name)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove_left_behind(root: Path) -> None:
    from filelock import FileLock, Timeout

    for path in root.glob(f"{_UNFINISHED_PREFIX}*"):
        if path.suffix == ".lock":
            if not path.with_suffix("").exists() and _age_seconds(path) > _LOCK_SECONDS:
                path.unlink(missing_ok=True)
            continue
        lock = FileLock(_lock_of(path))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        shutil.rmtree(path, ignore_errors=True)
        _lock_of(path).unlink(missing_ok=True)
        lock.release()


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
