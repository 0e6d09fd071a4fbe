"""Bytes and files that a further trial leaves on the disk, by each tool's defaults.

The same small sweep for all, of trials of three epochs on the digits, of which only the learning
rate varies, so that all models have one size. It runs twice, with half of the trials and with all:
the difference is what each further trial leaves, without what a sweep leaves once, such as
databases and the registered model.
"""

from __future__ import annotations

import contextlib
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
    left = []
    for num in (num_trials // 2, num_trials):
        folder = Path(f"trials-{num}").absolute()
        folder.mkdir()
        with contextlib.chdir(folder):
            found = swept(side, "digits", trials=num, epochs=EPOCHS, fixed=[*not_searched.values()])
            files = [path for path in Path().rglob("*") if path.is_file() and not _is_given(path)]
            sizes = sum(path.stat().st_size for path in files)
        left.append((found.num_trials, len(files), sizes))
    (few, *before), (many, *after) = left
    files_a_trial, bytes_a_trial = (
        (b - a) / (many - few) for a, b in zip(before, after, strict=True)
    )
    return {"trials": many, "files_a_trial": files_a_trial, "bytes_a_trial": bytes_a_trial}


def _is_given(path: Path) -> bool:
    """Whether it is the data, or what a program printed."""
    return path.name in {DATA, "output.txt"} or path.parts[:2] == (".sweeps", "data")


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table: per trial."""
    lines = ["| side | trials | files a trial | MB a trial |", "| --- | --- | --- | --- |"]
    for side, one in found.items():
        files, megabytes = one["files_a_trial"], one["bytes_a_trial"] / 1e6
        lines.append(f"| {side} | {one['trials']:.0f} | {files:.1f} | {megabytes:.2f} |")
    return lines
