"""The file of results: its lines, and the table of some of them."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def lines_of(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file of results; none where there is no file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # A kill may have cut off the last one.
    return [json.loads(line) for line in whole.splitlines()]


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a line, in place of one that a kill has cut off."""
    text = path.read_bytes() if path.exists() else b""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(text.rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write(json.dumps(line).encode() + b"\n")


def by_side(part: Any, lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What was found for each side, in the part's order of sides and the order of repetitions.

    Where a part is `PAIRED`, repetitions that not all sides have are left out.
    """
    found = {side: {line["repeat"]: line["found"] for line in lines if line["side"] == side}
             for side in part.SIDES}  # fmt: skip
    found = {side: repeats for side, repeats in found.items() if repeats}
    if getattr(part, "PAIRED", False) and found:
        shared = set.intersection(*(set(repeats) for repeats in found.values()))
        found = {side: {r: repeats[r] for r in shared} for side, repeats in found.items()}
    return {
        side: [repeats[r] for r in sorted(repeats)] for side, repeats in found.items() if repeats
    }


def table_of(
    part: Any, found: Mapping[str, Sequence[Any]], options: Mapping[str, Any]
) -> list[str]:
    """The part's table of the repetitions of its sides."""
    combined = getattr(part, "combined", median)
    lines: list[str] = part.table(
        {side: combined(results) for side, results in found.items()}, **options
    )
    return lines


def median(lines: Sequence[Any]) -> Any:
    """The median of each number of some results of one form."""
    first = lines[0]
    if isinstance(first, Mapping):
        return {key: median([line[key] for line in lines]) for key in first}
    if isinstance(first, list):
        return [median(values) for values in zip(*lines, strict=True)]
    return statistics.median(lines)
