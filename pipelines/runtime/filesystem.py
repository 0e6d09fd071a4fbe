"""Whether what an option names can be written, found out before anything depends on it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from search_spaces.errors import InputError


def check_writable(folder: Path, option: str) -> None:
    """Tries a nameless file in the folder, or in its nearest existing parent.

    Permissions alone do not tell: the file system may be read-only, full, or no real one.

    Raises:
        InputError: It cannot be written, or is no folder.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return
    except OSError as error:
        raise InputError(
            f"{option} must be a folder that can be written. Received: {folder} "
            f"({error.strerror or error}). Change into a folder that you can write to, or name "
            f"another with {option}."
        ) from error


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
