"""How good the best trial is over wall time, and how soon it reaches a level.

Every side searches the same space on the same images with the same epochs, seed and minutes,
imports included. Ours is measured as it measures (all validation images after whole epochs, with
the statistics of batch normalisation fitted), the peers as `fit` reports `val_accuracy`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from peer_parts.whole_sweeps import SIDES, missing, swept

__all__ = ["SIDES", "missing"]
DEFAULT_TRIALS = 0
OPTIONS = ("dataset", "minutes", "seed")
LEVELS = {"mnist": (0.980, 0.990), "digits": (0.980, 0.990), "cifar10_small.npz": (0.55, 0.60)}
"""Validation accuracies to be reached."""
EPOCHS = {"mnist": 8}
"""Of a trial, as by our own defaults: 8 on large data, 30 on small."""
SMALL_EPOCHS = 30


def measured(
    side: str, num_trials: int, *, dataset: str, minutes: float, seed: int
) -> dict[str, Any]:
    """One side, in the present folder: seconds and value at each new best, and trials begun."""
    seconds = 60 * minutes
    found = swept(
        side, dataset, trials=num_trials or None, epochs=EPOCHS.get(dataset, SMALL_EPOCHS),
        seconds=seconds, seed=seed,
    )  # fmt: skip
    return {
        "curve": [
            [round(at, 2), round(value, 6)] for at, value in best_so_far(found.curve, seconds)
        ],
        "epochs": sum(at <= seconds for at, _ in found.curve),
        "trials": found.num_trials,
        "failed": found.num_failed,
    }


def best_so_far(
    points: Sequence[Sequence[float]], seconds: float = math.inf
) -> list[tuple[float, float]]:
    """Each new best of (seconds, value) in the order of the seconds, up to a time."""
    best: list[tuple[float, float]] = []
    for at, value in sorted((at, value) for at, value in points):
        if at <= seconds and (not best or value > best[-1][1]):
            best.append((at, value))
    return best


def seconds_to(curve: Sequence[Sequence[float]], level: float) -> float:
    """When a curve first is at a level; infinity where it never is."""
    return min((at for at, value in curve if value >= level), default=math.inf)


def combined(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of several seeds side by side."""
    combined = {key: [line[key] for line in lines] for key in ("curve", "epochs", "trials")}
    return {**combined, "failed": sum(line.get("failed", 0) for line in lines)}


def table(found: Mapping[str, Mapping[str, Any]], *, dataset: str, **_: Any) -> list[str]:
    """A Markdown table: the best value and the seconds to the level, median and all seeds."""
    levels = LEVELS.get(dataset, ())
    head = ["side", "first epoch after", *(f"{level:g} after" for level in levels), "best",
            "epochs", "trials"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for side, one in found.items():
        firsts = [curve[0][0] if curve else math.inf for curve in one["curve"]]
        reached = [
            _seconds([seconds_to(curve, level) for curve in one["curve"]]) for level in levels
        ]
        bests = [curve[-1][1] if curve else math.nan for curve in one["curve"]]
        numbers = [f"{statistics.median(one[name]):.0f}" for name in ("epochs", "trials")]
        numbers[-1] += f" ({one['failed']} failed)" if one["failed"] else ""
        cells = [side, _seconds(firsts), *reached, _values(bests), *numbers]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _seconds(values: Sequence[float]) -> str:
    return _with_range([f"{v:.0f} s" if math.isfinite(v) else "never" for v in sorted(values)])


def _values(values: Sequence[float]) -> str:
    return _with_range([f"{value:.4f}" for value in sorted(values)])


def _with_range(texts: Sequence[str]) -> str:
    middle = texts[(len(texts) - 1) // 2]
    return middle if len(texts) == 1 else f"{middle} ({texts[0]} to {texts[-1]})"
