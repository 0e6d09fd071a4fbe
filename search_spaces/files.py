"""Files and paths that somebody names: looked at before they are used, and read with a limit.

What a name leads to may be a pipe that nobody writes into, a device without an end, gigabytes, or
JSON that is nested deeper than Python reads. Nothing of that is waited for or brought into memory.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 2**20
"""Of a file that is read at once: a hundred times what the largest of ours takes."""
MAX_PART_BYTES = 255
"""Of one part of a path, on every common file system."""
_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)


class UnusableFileError(ValueError):
    """A path or file that cannot be used; the message is why, as a phrase without a full stop."""


def named_path(text: str | os.PathLike[str]) -> Path:
    """The path that a text names, with `~` as the home folder; it need not exist.

    In a path that is one already `~` is a name, as in that of the text `./~`.

    Raises:
        UnusableFileError: Nothing can be there: no such user, a name that is too long, a circle of
            links, a file where a folder has to be, or a folder that may not be looked into.
    """
    path = Path(text)
    if "\0" in str(path):
        raise UnusableFileError("it holds a NUL character")
    if isinstance(text, str) and text.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:
            raise UnusableFileError(f"there is no user '{path.parts[0][1:]}'") from None
    if any(len(os.fsencode(part)) > MAX_PART_BYTES for part in path.parts):
        raise UnusableFileError(f"a name in it is longer than {MAX_PART_BYTES} bytes")
    try:
        path.stat()
    except FileNotFoundError:
        pass  # It may be made.
    except (OSError, ValueError) as error:
        raise UnusableFileError(_reason(error)) from None
    return path


def check_regular(path: Path) -> None:
    """Raises what `read_file` does for a path that leads to no plain file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UnusableFileError(_reason(error)) from None
    if not stat.S_ISREG(mode):
        raise UnusableFileError(
            next((what for is_kind, what in _KINDS if is_kind(mode)), "no file")
        )


def read_file(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The whole content of a plain file.

    Raises:
        FileNotFoundError: There is none.
        UnusableFileError: It is a pipe, device or folder, is larger than that, or may not be read.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise UnusableFileError(_reason(error)) from None
    if len(content) > most_bytes:
        raise UnusableFileError(f"it is larger than {most_bytes:,} bytes")
    return content


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The text of a plain file; raises as `read_file`, also where it is not UTF-8 or holds NUL."""
    try:
        text = read_file(path, most_bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise UnusableFileError("it is not UTF-8 text") from None
    if "\0" in text:
        raise UnusableFileError("it holds NUL bytes")
    return text


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """What a plain file holds as JSON; raises as `read_text`, also for anything else than JSON."""
    return parsed_json(read_text(path, most_bytes))


def parsed_json(text: str | bytes) -> Any:
    """What a text says as JSON; raises UnusableFileError where it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UnusableFileError("it is nested too deeply") from None
    except ValueError:
        raise UnusableFileError("it is not JSON") from None


def _reason(error: OSError | ValueError) -> str:
    """What the system says, as it begins within a sentence."""
    text = getattr(error, "strerror", None) or str(error)
    return f"{text[:1].lower()}{text[1:]}"
