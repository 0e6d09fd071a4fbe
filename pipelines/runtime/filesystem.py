"""Files: whether what an option names can be written, and how one is replaced as a whole."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from search_spaces.errors import InputError


def check_writable(folder: Path, option: str) -> None:
    """Tries a nameless file in the folder, or in its nearest existing parent.

    Permissions alone do not tell: the file system may be read-only, full, or no real one.

    Raises:
        InputError: It cannot be written, is no folder, or has a path that no record can hold.
    """
    nearest = folder.absolute()
    check_path_is_text(nearest, option)
    try:
        while not nearest.exists():
            nearest = nearest.parent
        with tempfile.TemporaryFile(dir=nearest):
            return
    except OSError as error:
        raise InputError(
            f"{option} must be a folder that can be written. Received: {folder} "
            f"({error.strerror or error}). Change into a folder that you can write to, or name "
            f"another with {option}."
        ) from error


def check_path_is_text(path: Path, option: str) -> None:
    """Raises InputError for a path that is not UTF-8: databases and JSON hold nothing else."""
    raw = os.fsencode(path)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{option} must have a path that is UTF-8 from its beginning, or MLflow cannot record "
            f"it. Received: {raw.decode('utf-8', 'backslashreplace')}. Rename the folder, or use "
            "another one."
        ) from error


def check_output(path: Path, option: str = "--output", *, overwrite: bool = False) -> None:
    """Raises InputError unless a file can be written there, or replaced where that is asked for."""
    if path.exists() and not overwrite:
        raise InputError(f"{option} {path} exists. Name another file, or add --overwrite.")
    if path.exists() and not path.is_file():
        raise InputError(f"{option} must be a plain file. Received: {path}, which is none.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{option} must be in an existing folder. Received: {path}.")
    check_writable(path.absolute().parent, f"{option}'s folder")


def new_picture(given: str, option: str = "--picture") -> Path:
    """The file that an option names for a drawing.

    Raises:
        InputError: It is there already, is no .png, or its folder is missing or not writable.
    """
    path = Path(given)
    if path.exists():
        raise InputError(f"{option} must name a new file. Received: {path}, which exists.")
    if path.suffix.lower() != ".png":
        raise InputError(f"{option} must end in .png. Received: {path}.")
    if not path.parent.is_dir():
        raise InputError(f"{option} must be in an existing folder. Received: {path}.")
    check_writable(path.parent, option)
    return path


@contextlib.contextmanager
def replaced_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once it is complete and on the disk.

    A loss of power leaves the old content or the new one, nothing between.

    Raises:
        OSError: There is no room; the old file stays.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_json_atomically(path: Path, body: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes a JSON file as `replaced_atomically` does.

    Raises:
        OSError: As there.
    """
    with replaced_atomically(path) as file:
        file.write(json.dumps(body, indent=1).encode())


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder, in bytes; what vanishes meanwhile counts as nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += 0 if path.is_symlink() or path.is_dir() else path.stat().st_size
    return total
