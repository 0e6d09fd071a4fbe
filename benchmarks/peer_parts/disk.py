"""Bytes and files that a trial leaves on the disk, by each tool's defaults.

The same small sweep for all: eight trials of three epochs on the digits, of which only the learning
rate varies, so that all models have one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peer_parts.whole_sweeps import DATA, NOT_SEARCHED, SIDES, missing, swept
from search_spaces.registry import get_space

__all__ = ["SIDES", "missing"]
DEFAULT_TRIALS = 8
EPOCHS = 3
SEARCHED = "learning_rate"


def measured(side: str, num_trials: int) -> dict[str, Any]:
    """One side, in the present folder: what is there after the sweep."""
    defaults = get_space("cnn").complete({})
    rules = [f"{name}={str(value).lower()}" for name, value in defaults.items()]
    not_searched = {rule.partition("=")[0]: rule for rule in (*rules, *NOT_SEARCHED)}
    del not_searched[SEARCHED]
    found = swept(side, "digits", trials=num_trials, epochs=EPOCHS, fixed=[*not_searched.values()])
    files = [path for path in Path().rglob("*") if path.is_file() and not _is_given(path)]
    return {
        "trials": found.num_trials, "files": len(files),
        "bytes": sum(path.stat().st_size for path in files), "seconds": found.seconds,
    }  # fmt: skip


def _is_given(path: Path) -> bool:
    """Whether it is the data, or what a program printed."""
    return path.name in {DATA, "output.txt"} or path.parts[:2] == (".sweeps", "data")


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table: per trial."""
    lines = ["| side | trials | files a trial | MB a trial |", "| --- | --- | --- | --- |"]
    for side, one in found.items():
        files, megabytes = one["files"] / one["trials"], one["bytes"] / one["trials"] / 1e6
        lines.append(f"| {side} | {one['trials']:.0f} | {files:.1f} | {megabytes:.2f} |")
    return lines
