"""The table of the README: one line for each question, from the file of results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peer_parts import contact, faults, overhead, scale, search
from peer_parts.results import by_side
from peer_parts.search import seconds_to

Line = Mapping[str, Any]
TOOLS = ("keras-sweeps", "Optuna", "Keras Tuner", "Ray Tune")
NOT_RUN = ""


def readme_lines(lines: Sequence[Line]) -> list[str]:
    """A Markdown table: what each tool reached; of two programs of a tool, the better one.

    A question that was not measured is left out.
    """
    rows = [
        _row(lines, search, {"dataset": dataset, "minutes": 5.0}, text, _reached(level))
        for dataset, level, text in (
            ("mnist", 0.99, "MNIST, 5 minutes: 0.990 after; best"),
            ("cifar10_small.npz", 0.6, "8,000 images of CIFAR-10, 5 minutes: 0.6 after; best"),
        )
    ]
    rows += [
        _row(lines, faults, {}, "fifteen SIGKILLs: trials lost; epochs trained for nothing", _lost),
        _row(lines, scale, {}, "the driver's share of a trial, after 1,000 trials", _at_1000),
        _row(lines, overhead, {"epochs": 3}, "what a short trial takes beside its training", _over),
        _row(lines, contact, {}, "what you write: tracking, pruning, resuming, registry", _written),
    ]
    head = ["question", *TOOLS, "n"]
    return [
        f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |", *filter(None, rows)
    ]  # fmt: skip


Found = Mapping[str, Sequence[Any]]
Cell = Callable[[Found, str], tuple[float, str]]
"""What is written of a side, after a number: of two sides of a tool the lower one counts."""


def _row(
    lines: Sequence[Line], part: Any, options: Mapping[str, Any], text: str, cell: Cell
) -> str:
    name = part.__name__.rpartition(".")[2]
    found = by_side(part, [
        line for line in lines if line["part"] == name and line.get("options", {}) == options
    ])  # fmt: skip
    cells, counts = [], []
    for tool in TOOLS:
        start = "ours" if tool == TOOLS[0] else tool
        sides = [side for side in found if side.startswith(start)]
        cells.append(min((cell(found, side) for side in sides), default=(0.0, NOT_RUN))[1])
        counts += [len(found[side]) for side in sides]
    if not counts:
        return ""
    few, most = min(counts, default=0), max(counts, default=0)
    return f"| {text} | {' | '.join(cells)} | {few if few == most else f'{few} to {most}'} |"


def _reached(level: float) -> Cell:
    def cell(found: Found, side: str) -> tuple[float, str]:
        seconds = statistics.median_low([seconds_to(one["curve"], level) for one in found[side]])
        best = statistics.median_low([one["curve"][-1][1] for one in found[side]])
        after = f"{seconds:.0f} s" if math.isfinite(seconds) else "never"
        return -best, f"{after}; {best:.4f}"

    return cell


def _lost(found: Found, side: str) -> tuple[float, str]:
    lost, again = (
        statistics.median_low([one[name] for one in found[side]])
        for name in ("trials_lost", "epochs_again")
    )
    return lost, f"{lost}; {again}"


def _at_1000(found: Found, side: str) -> tuple[float, str]:
    walls = [one["milliseconds"]["1000"][0] for one in found[side] if "1000" in one["milliseconds"]]
    return (min(walls), f"{statistics.mean(walls):.0f} ms") if walls else (math.inf, NOT_RUN)


def _over(found: Found, side: str) -> tuple[float, str]:
    pairs = zip(found[side], found.get(overhead.BARE, ()), strict=True)
    walls = [one["a_trial"][0] - bare["a_trial"][0] for one, bare in pairs]
    return statistics.mean(walls), f"{statistics.mean(walls):.1f} s"


def _written(found: Found, side: str) -> tuple[float, str]:
    number = found[side][0]["statements"]
    return number, f"{number} {'commands' if side == 'ours' else 'statements'}"
