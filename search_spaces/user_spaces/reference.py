"""Names of a user's own spaces: `path/to/file.py:NAME` or `module:NAME`, found without importing.

The driver only ever looks for the file; importing it is for the processes that have Keras.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import InputError, SourceChangedError, shown
from search_spaces.files import UnusableFileError, named_path

RULE = "A space of your own is named as FILE.py:NAME or MODULE:NAME."
MAX_NAME = 60
GIVEN = "given:"
"""How names of spaces begin that a program gave as an object."""
Sources = tuple[tuple[str, str], ...]
"""Absolute paths of source files, each with the digest of its text."""


class GivenSpace(str):
    """The name of a space that a program gave as an object, `given:NAME@DIGEST`, with the object.

    It is stored as its text. A text that is read back has lost the object, which is nowhere else.

    Attributes:
        payload: the object, pickled by value.
        path: folders in which modules are found that it imports.
        bases: those of them that are neither Python's nor of installed packages.
    """

    payload: bytes
    path: tuple[str, ...]
    bases: tuple[str, ...]

    @property
    def name(self) -> str:
        """How the program called it."""
        return reference_name(self)


@dataclass(frozen=True)
class Reference:
    """Where a space is defined.

    Attributes:
        file: the absolute path of its source; empty for an object.
        module: the name that it is imported by.
        root: the folder that has to be on `sys.path` for that; empty where Python finds it anyway.
        attribute: the name of the HyperModel or of the function.
        given: the object, where a program gave one.
    """

    file: str
    module: str
    root: str
    attribute: str
    given: GivenSpace | None = None

    @property
    def text(self) -> str:
        """What finds the same again, from any folder."""
        if self.given is not None:
            return self.given
        return f"{self.file if self.root else self.module}:{self.attribute}"

    @property
    def label(self) -> str:
        """How messages call it."""
        return label_of(self.text)

    @property
    def name(self) -> str:
        """How people and folders call the space: `my_space-build`."""
        return reference_name(self.text)

    @property
    def bases(self) -> tuple[Path, ...]:
        """The folders of the space's own sources: of its project, or of its package."""
        if self.given is not None:
            return tuple(map(Path, self.given.bases))
        if self.root:
            return (Path(self.root),)
        depth = len(self.module.split(".")) - (Path(self.file).name != "__init__.py")
        return (Path(self.file).parents[max(0, depth - 1)],)

    @property
    def sources(self) -> Sources:
        """The file alone; what it imports is known only when it has been imported."""
        return ((self.file, file_digest(self.file)),) if self.file else ()


def file_digest(path: str) -> str:
    """Of a file's content, 64 hexadecimal digits; of nothing where there is no such file."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def sources_digest(sources: Sources) -> str:
    """One digest of files and of how they lie to each other; empty for none."""
    if len(sources) <= 1:
        return "".join(digest for _, digest in sources)
    base = os.path.commonpath([str(Path(path).parent) for path, _ in sources])
    lines = [f"{os.path.relpath(path, base)} {digest}" for path, digest in sources]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def check_sources(sources: Sources) -> None:
    """Raises SourceChangedError, which names the files, where their text is not what it was."""
    changed = [path for path, digest in sources if file_digest(path) != digest]
    if changed:
        raise SourceChangedError(
            f"the source of the space has changed since the sweep began ({', '.join(changed)}); "
            "restore it and continue with --resume, or start a new sweep"
        )


def is_reference(text: str) -> bool:
    """Whether a text names a space of the user's own rather than one of ours."""
    return ":" in text or text.endswith(".py")


def is_given(text: str) -> bool:
    """Whether a text names an object that a program gave, which may have been lost."""
    return text.startswith(GIVEN)


def other_object(text: str) -> InputError:
    """Says that the object that is given is not the one which this name stands for."""
    return InputError(
        f"The space '{reference_name(text)}' that is given is not the one that the sweep began "
        "with: its code, or something that it refers to, has changed. Give that one, or start a "
        "new sweep."
    )


def label_of(text: str) -> str:
    """How messages call a space: as it was named, an object by its own name."""
    return reference_name(text) if is_given(text) else text


def reference_name(text: str) -> str:
    """The short name of a reference, which need not lead anywhere any more."""
    if is_given(text):
        return text.removeprefix(GIVEN).partition("@")[0]
    where, _, attribute = text.rpartition(":")
    stem = Path(where).stem if where.endswith(".py") else where.rpartition(".")[2]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{stem}-{attribute}").lstrip("-._")[:MAX_NAME]


def find_reference(text: str, folder: Path | None = None) -> Reference:
    """The space that a text means.

    Args:
        folder: where relative paths, and modules that are not installed, are looked for; None for
            the working folder.

    Raises:
        InputError: There is no such file or module, or it is an object that has been lost.
    """
    if isinstance(text, GivenSpace):
        return Reference("", "", "", text.name, text)
    if is_given(text):
        name = reference_name(text)
        raise InputError(
            f"The space '{name}' is an object of the program that began the sweep, and is stored "
            "nowhere. Give it again: ks.load_sweep(NAME).resume(space=...), .finalize(space=...), "
            "or ks.replay(RUN, space=...)."
        )
    where, _, attribute = text.rpartition(":")
    if not where or not attribute.isidentifier():
        raise InputError(
            f"{RULE} Received: '{text}'. Say which HyperModel or function of it is meant, such as "
            f"{text.rstrip(':') or 'file.py'}:build."
        )
    folder = (folder or Path.cwd()).absolute()
    if where.endswith(".py"):
        return _of_file(folder / _named(where, text), attribute, text)
    if not all(part.isidentifier() for part in where.split(".")):
        raise InputError(f"{RULE} Received: '{text}', and '{where}' is neither.")
    found = _find_module(where, [str(folder)])
    if found is not None:
        return _of_file(Path(found), attribute, text)
    found = _find_module(where, sys.path)
    if found is None:
        raise InputError(
            f"{RULE} Received: '{text}'; Python finds no module '{where}' from {folder}. Check its "
            "name, install it, or give the path of its file."
        )
    return Reference(found, where, "", attribute)


def _named(where: str, text: str) -> Path:
    try:
        return named_path(where)
    except UnusableFileError as error:
        raise InputError(f"{RULE} Received: {shown(text)}, but {error}. Check its path.") from None


def _of_file(path: Path, attribute: str, text: str) -> Reference:
    """A file by its place: one that lies in packages is imported as their module."""
    path = path.resolve()
    if not path.is_file():
        kind = "which is no file" if path.exists() else "which does not exist"
        raise InputError(f"{RULE} Received: '{text}', that is {path}, {kind}. Check its path.")
    root, parts = path.parent, [path.stem] if path.stem != "__init__" else []
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    return Reference(str(path), ".".join(parts), str(root), attribute)


def _find_module(name: str, path: list[str]) -> str | None:
    """The source of a module, found as Python does but without running its parent packages."""
    found = None
    locations = path
    parts = name.split(".")
    for place in range(len(parts)):
        full = ".".join(parts[: place + 1])
        found = importlib.machinery.PathFinder.find_spec(full, locations)
        if found is None:
            return None
        locations = list(found.submodule_search_locations or [])
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return None
    return found.origin
