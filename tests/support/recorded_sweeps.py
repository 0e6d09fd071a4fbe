"""Sweeps that another version of the program recorded: one archive each, which a test unpacks.

`python recorded_sweeps.py FOLDER ARCHIVE` packs the folder in which a sweep ran. The stores in it
hold absolute paths, which are written over with a path that no machine has.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

RECORDED = "/recorded/folder"
"""What stands in an archive for the folder in which the sweep ran."""
BINARY = {".keras", ".npy", ".npz", ".png"}
LEFT_OUT = ("*.png", "__pycache__")
"""Figures are most of a sweep's bytes, and no command reads them again."""
REPORT = "study.html"
SHORT_REPORT = "<!doctype html><title>left out: 5 MB of a library for figures</title>"


def pack(folder: Path, archive: Path) -> None:
    """Packs a folder; the same content gives the same bytes."""
    with tempfile.TemporaryDirectory() as copied:
        copy = Path(copied) / "copy"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for path in copy.rglob(REPORT):
            path.write_text(SHORT_REPORT)
        for path in copy.rglob("records.jsonl"):
            path.write_text("".join(map(_shortened, path.read_text().splitlines(keepends=True))))
        move(copy, str(folder.resolve()), RECORDED)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(copy.rglob("*")):
                tar.add(path, str(path.relative_to(copy)), recursive=False, filter=_plain)
    archive.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))


def _shortened(line: str) -> str:
    """A line of the spool; the one that holds the report holds a short one."""
    if REPORT not in line:
        return line
    record = json.loads(line)
    record["body"]["texts"][REPORT] = SHORT_REPORT
    return json.dumps(record) + "\n"


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive, as if its sweep had run in this empty folder."""
    # Python before 3.11.4 has no filters; the archive is this repository's own.
    how = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **how)
    move(folder, RECORDED, str(folder.resolve()))


def move(folder: Path, old: str, new: str) -> None:
    """Writes the path of the folder over, wherever a file of it holds it."""
    for path in folder.rglob("*.db"):
        _move_in_database(path, old, new)  # Opened, it has rolled its journal back.
    for path in [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".db"]:
        if path.name == "checkpoint.npz":
            _move_in_checkpoint(path, old.encode(), new.encode())
        elif path.suffix not in BINARY and old in (text := path.read_text()):
            path.write_text(text.replace(old, new))


def _move_in_database(path: Path, old: str, new: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        for table, column in _columns(database):
            database.execute(
                f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) '
                f'WHERE typeof("{column}") = \'text\' AND instr("{column}", ?)',
                (old, new, old),
            )
        database.commit()
        database.execute("VACUUM")


def _move_in_checkpoint(path: Path, old: bytes, new: bytes) -> None:
    """A trial's checkpoint says in JSON, as bytes, of what space and data it is."""
    with np.load(path) as file:
        arrays = dict(file)
    text = arrays["head"].tobytes()
    if old in text:
        arrays["head"] = np.frombuffer(text.replace(old, new), np.uint8)
        np.savez(path, **arrays)


def _columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    for (table,) in database.execute(tables).fetchall():
        for column in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            yield table, column[1]


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
