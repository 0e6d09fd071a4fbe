"""The file of results: its lines, and the table of some of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def lines_of(path: Path) -> list[dict[str, Any]]:
    """All lines of a file of results; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
