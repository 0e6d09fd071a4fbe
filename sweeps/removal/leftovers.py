"""What lies in a work folder beside the sweeps, how large it is, and whether a sweep uses it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.prepared import META_FILE
from pipelines.runtime.filesystem import folder_bytes
from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, read_json
from sweeps.state.lock import is_driven
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import SweepFile, read_sweep_file


@dataclass(frozen=True)
class Leftover:
    """A folder or file of a work folder.

    Attributes:
        used_by: the sweeps that need it; empty where it can go.
        cost: what removing it costs, in words; empty for nothing.
    """

    path: Path
    what: str
    num_bytes: int
    used_by: tuple[str, ...] = ()
    cost: str = ""


def find_leftovers(work_dir: Path) -> list[Leftover]:
    """All prepared data, given arrays, compiled programs, and folders in which nothing began.

    Raises:
        InputError: A sweep's description cannot be read, so that nobody knows what it uses; or a
            sweep runs.
    """
    files: dict[str, SweepFile] = {}
    for folder in sorted((work_dir / "sweeps").glob("*")):
        paths = SweepPaths(work_dir.absolute(), folder.name)
        if is_driven(paths):
            raise InputError(
                f"Sweep '{folder.name}' is running and may use anything in {work_dir}. Clean up "
                "when it has ended."
            )
        if paths.state.exists():
            files[folder.name] = read_sweep_file(paths.state)
    return [
        *_prepared_data(work_dir, files),
        *_given_arrays(work_dir, files),
        *_compiled(work_dir),
        *_empty_sweeps(work_dir),
    ]


def remove_leftovers(leftovers: list[Leftover]) -> int:
    """Removes those that no sweep uses; returns the bytes that were freed."""
    freed = 0
    for leftover in leftovers:
        if leftover.used_by:
            continue
        if leftover.path.is_dir():
            shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink()
        freed += leftover.num_bytes
    return freed


def _prepared_data(work_dir: Path, files: dict[str, SweepFile]) -> Iterator[Leftover]:
    for folder in sorted((work_dir / "data").glob("*")):
        if not folder.is_dir() or folder.name.startswith("."):
            continue  # Who prepares data removes what others left unfinished.
        try:
            meta = read_json(folder / META_FILE)
            fingerprint, data_name = str(meta["fingerprint"]), str(meta["name"])
        except (FileNotFoundError, UnusableFileError, LookupError, TypeError):
            yield Leftover(folder, "unfinished data", folder_bytes(folder))
            continue
        names = tuple(name for name, file in files.items() if file.data_fingerprint == fingerprint)
        what = f"prepared data {data_name}"
        yield Leftover(folder, what, folder_bytes(folder), names, "prepared again when needed")


def _given_arrays(work_dir: Path, files: dict[str, SweepFile]) -> Iterator[Leftover]:
    for path in sorted((work_dir / "arrays").glob("*.npz")):
        names = tuple(
            name for name, file in files.items()
            if file.settings.dataset and Path(file.settings.dataset).name == path.name
        )  # fmt: skip
        what = "arrays that a program gave"
        yield Leftover(path, what, path.stat().st_size, names, "the program gives them again")


def _compiled(work_dir: Path) -> Iterator[Leftover]:
    folder = work_dir / "compiled"
    if folder.is_dir():
        what = "compiled programs"
        yield Leftover(folder, what, folder_bytes(folder), cost="compiled again when needed")


def _empty_sweeps(work_dir: Path) -> Iterator[Leftover]:
    for folder in sorted((work_dir / "sweeps").glob("*")):
        if folder.is_dir() and not (folder / "sweep.json").exists():
            yield Leftover(folder, "a sweep that never began", folder_bytes(folder))
