"""What `--dataset` may name beside the known sets: a folder, an npz, a CSV file, a function."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.data.builtin import DATASETS
from pipelines.images.options import ImageOptions
from search_spaces.errors import InputError, shown, unknown_name
from search_spaces.files import UnusableFileError, check_regular, named_path

Kind = Literal["folder", "npz", "csv", "function"]
FORMS = "a folder of class folders, an .npz, a .csv with paths and labels, or file.py:function"
MAX_NAME = 60


@dataclass(frozen=True)
class CustomSource:
    """A data set of the user's own.

    Attributes:
        text: as it was given; a path in it is absolute.
        path: the folder or file; None for a function of an installed module.
        function: its name, where the source is one.
    """

    text: str
    kind: Kind
    path: Path | None
    function: str = ""

    @property
    def name(self) -> str:
        """The name that prepared folder, experiment and registered model get.

        Letters, digits, dots, dashes and underscores, and never the name of a known set.
        """
        if self.path is None:
            stem = self.text.partition(":")[0].rpartition(".")[2]
        else:
            stem = self.path.name if self.kind == "folder" else self.path.stem
        text = f"{stem}-{self.function}" if self.function else stem
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:MAX_NAME]
        if not plain:  # A name of other letters than these.
            plain = f"data-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return f"own-{plain}" if plain in DATASETS else plain

    def check(self) -> None:
        """Raises InputError where there is nothing of that kind."""
        rule = f"--dataset must be {', '.join(DATASETS)}, {FORMS}."
        if self.path is None or (self.kind == "folder" and self.path.is_dir()):
            return
        if not self.path.exists():
            raise InputError(f"{rule} Received: {self.text}, which does not exist. Check its name.")
        try:
            check_regular(self.path)
        except UnusableFileError as error:
            raise InputError(
                f"{rule} Received: {self.text}, but {error}. Name the folder or file itself."
            ) from None


def is_custom(dataset: str | None) -> bool:
    """Whether a data set is the user's own, not one of the known ones."""
    return dataset is not None and dataset not in DATASETS


def custom_source(dataset: str) -> CustomSource:
    """What a data set that is not a known one means.

    Raises:
        InputError: Nothing: its kind cannot be told.
    """
    left, colon, function = dataset.rpartition(":")
    # A folder may be called photos:v2.
    if colon and function.isidentifier() and not _path(dataset).exists():
        if left.endswith(".py"):
            path = _path(left).absolute()
            return CustomSource(f"{path}:{function}", "function", path, function)
        if all(part.isidentifier() for part in left.split(".")):
            return CustomSource(dataset, "function", None, function)
    path = _path(dataset).absolute()
    kinds: dict[str, Kind] = {".npz": "npz", ".csv": "csv"}
    if path.suffix.lower() in kinds and not path.is_dir():
        return CustomSource(str(path), kinds[path.suffix.lower()], path)
    if path.is_dir():
        return CustomSource(str(path), "folder", path)
    if path.exists() or path.suffix.lower() == ".py":
        more = " A function is named after a colon: file.py:load." if path.suffix == ".py" else ""
        raise InputError(
            f"--dataset must be {', '.join(DATASETS)}, {FORMS}. Received: {dataset}, a file of "
            f"another kind.{more or ' Convert it to one of these.'}"
        )
    if "/" in dataset or "\\" in dataset or path.suffix:
        return CustomSource(str(path), "folder", path)
    raise InputError(f"{unknown_name('data set', dataset, DATASETS)} Or name {FORMS}.")


def _path(text: str) -> Path:
    """The path that a data set may be; raises InputError where nothing can be there."""
    try:
        return named_path(text)
    except UnusableFileError as error:
        raise InputError(
            f"--dataset must be {', '.join(DATASETS)}, {FORMS}. Received: {shown(text)}, but "
            f"{error}. Check its name."
        ) from None


def absolute_dataset(dataset: str | None) -> str | None:
    """The data set's name with an absolute path in it, so that it means the same everywhere.

    What means nothing stays as it is: whoever checks it says why.
    """
    if dataset is None or dataset in DATASETS:
        return dataset
    try:
        return custom_source(dataset).text
    except InputError:
        return dataset


def check_dataset(dataset: str | None, options: ImageOptions, *, exists: bool = True) -> None:
    """Everything that can be known of a data set before it is read.

    Args:
        exists: whether a source of the user's own must be where it says.

    Raises:
        InputError: It is no data set, or the options are not for it.
    """
    options.check()
    if dataset is None or dataset in DATASETS:
        if options.given():
            raise InputError(
                "Image options are for your own data; the known sets have their sizes. Received: "
                f"{', '.join(options.given())} with {dataset or 'no --dataset'}. Leave them out."
            )
        return
    source = custom_source(dataset)
    if exists:
        source.check()
