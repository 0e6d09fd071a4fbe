"""Files on a node: prepared data by fingerprint, sources of spaces, folders of jobs.

CACHE/data/<name>-<fingerprint>/     prepared data, kept for the next sweep
CACHE/sources/<digest>/              copies of a space's sources
CACHE/jobs/.preparing-*/             what jobs write; ends with the process that runs them
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.data.prepared import PreparedData, place, prepared_folder, unfinished_folder
from pipelines.training.cost import MeasureTask
from pipelines.training.trial import TrialTask
from search_spaces.registry import earlier_name
from search_spaces.user_spaces.reference import GivenSpace, Sources
from sweeps.cluster.protocol import Places

CHUNK_BYTES = 8 * 2**20
"""Of a file in one call: larger and smaller ones were slower."""
LOG_FILE = "output.log"
UNFINISHED = ".new"


def array_digests(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of its content, of the arrays of prepared data; empty where there are none.

    Not of their description, which names the folder.
    """
    found = {}
    for path in sorted(folder.glob("*.npy")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def same_arrays(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether a folder has the very arrays."""
    try:
        return folder.is_dir() and array_digests(folder) == digests
    except OSError:
        return False


class DataCache:
    """The prepared data of a node; one transfer at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._transfer = contextlib.ExitStack()
        self._partial: Path | None = None

    def find(self, data: PreparedData, digests: Mapping[str, str], *, ours: bool) -> str:
        """The folder in which the very data are; empty where they have to be sent.

        Args:
            ours: whether to look for the driver's own folder, too: file systems may be shared.
        """
        cached = prepared_folder(self._root, data.name, data.fingerprint)
        for folder in ([Path(data.folder)] if ours else []) + [cached]:
            if same_arrays(folder, digests):
                return str(folder)
        return ""

    def begin(self) -> None:
        """Begins a transfer, in place of one that broke off."""
        self._transfer.close()
        self._partial = self._transfer.enter_context(unfinished_folder(self._root))

    def put(self, name: str, offset: int, content: bytes) -> None:
        """A chunk of a file; may come twice."""
        assert self._partial is not None
        path = self._partial / name
        path.touch()
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def end(self, data: PreparedData, digests: Mapping[str, str]) -> str:
        """Ends a transfer; returns the folder.

        Raises:
            OSError: A file did not arrive whole.
        """
        folder = prepared_folder(self._root, data.name, data.fingerprint)
        if self._partial is None:  # The same call once more.
            return str(folder)
        partial, self._partial = self._partial, None
        try:
            found = array_digests(partial)
            damaged = sorted(name for name in digests if found.get(name) != digests[name])
            if damaged:
                raise OSError(f"{', '.join(damaged)} did not arrive whole")
            if folder.exists() and not same_arrays(folder, digests):
                shutil.rmtree(folder)  # Damaged since.
            place(partial, self._root, replace(data, folder=str(folder)))
        finally:
            self._transfer.close()
        return str(folder)

    def close(self) -> None:
        """Gives up a transfer."""
        self._transfer.close()


def store_sources(root: Path, digest: str, files: Mapping[str, bytes]) -> str:
    """Copies of sources, by their digest; returns their folder."""
    folder = root / digest
    for name, content in files.items():
        path = folder / name
        if path.is_file() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + UNFINISHED)
        new.write_bytes(content)
        new.replace(path)
    return str(folder)


def changed_files(folder: Path, known: dict[str, tuple[int, int]]) -> dict[str, bytes]:
    """Name -> content of the files that are not as they were when they were last asked for.

    Args:
        known: name -> time and size then; brought up to now.
    """
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_file() or path.name == LOG_FILE or path.suffix == UNFINISHED:
            continue
        stat = path.stat()
        if known.get(path.name) != (stat.st_mtime_ns, stat.st_size):
            known[path.name] = (stat.st_mtime_ns, stat.st_size)
            found[path.name] = path.read_bytes()
    return found


def located(argument: Any, folder: str, places: Places) -> Any:
    """A job's argument with its files where this node has them; what it is stays the same.

    A checkpoint belongs to the space as the driver names it.
    """
    changes: dict[str, Any] = {}
    data = getattr(argument, "data", None)
    if places.data and isinstance(data, PreparedData):
        changes["data"] = replace(data, folder=places.data)
    if isinstance(argument, TrialTask):
        changes["folder"] = folder
        changes["recorded_space"] = argument.recorded_space or earlier_name(argument.space)
    if isinstance(argument, TrialTask | MeasureTask) and places.sources:
        changes["space"] = _located_space(argument.space, argument.sources, places)
        changes["sources"] = _moved(argument.sources, places)
    return replace(argument, **changes) if changes else argument


def _moved(sources: Sources, places: Places) -> Sources:
    return tuple((_move(path, places), digest) for path, digest in sources)


def _move(path: str, places: Places) -> str:
    return str(Path(places.sources) / Path(path).relative_to(places.base))


def _located_space(space: str, sources: Sources, places: Places) -> str:
    """The space's name on this node: of the copy of its file or module."""
    if isinstance(space, GivenSpace):
        given = GivenSpace(space)
        given.payload = space.payload
        given.path = tuple(_inside(folder, places) for folder in space.path)
        given.bases = tuple(_inside(folder, places) for folder in space.bases)
        return given
    where, _, name = space.rpartition(":")
    file = source_file(where, sources)
    return f"{_move(file, places)}:{name}" if file else space


def source_file(where: str, sources: Sources) -> str:
    """Which of the sources a reference names, by its path or as a module; empty for none."""
    inside = where.replace(".", "/")
    ends = () if where.endswith(".py") else (f"/{inside}.py", f"/{inside}/__init__.py")
    return next((path for path, _ in sources if path == where or path.endswith(ends)), "")


def sources_base(space: str, sources: Sources) -> str:
    """The folder that copies of sources lie below as their originals do.

    It holds whole packages, and for an object of a program the folders that it imports from.
    """
    folders = [Path(path).parent for path, _ in sources]
    if isinstance(space, GivenSpace):
        paths = [path for path, _ in sources]
        folders += [
            Path(base) for base in space.bases if any(Path(p).is_relative_to(base) for p in paths)
        ]
    base = Path(os.path.commonpath(folders))
    while (base / "__init__.py").exists():
        base = base.parent
    return str(base)


def _inside(folder: str, places: Places) -> str:
    """A folder, or its copy where it lies in what was copied."""
    path = Path(folder)
    return _move(folder, places) if path.is_relative_to(places.base) else folder


def without_rays_modules() -> None:
    """Takes the libraries that Ray brings along out of the path, where they hide our own."""
    sys.path[:] = [path for path in sys.path if "thirdparty_files" not in path]
