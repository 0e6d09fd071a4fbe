"""What a first sweep asks of its user: statements to write, and seconds until an epoch is over.

Statements are those of the programs in `benchmarks/peers` that track, prune, can be resumed and
register the best model; the space and the model (`sweep_task.py`) are not counted, as every tool
needs them. Ours are its three commands. Seconds run from the command to the end of the first epoch
on the digits, and to the registered model.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peer_parts.whole_sweeps import OURS, PROGRAMS, SIDES, missing, swept, then_run

__all__ = ["SIDES", "missing"]
DEFAULT_TRIALS = 1
COMMANDS = (
    "keras-sweeps run --space cnn --dataset digits --no-baselines",
    "keras-sweeps finalize",
    "keras-sweeps promote",
)


def measured(side: str, num_trials: int) -> dict[str, Any]:
    """One side, in the present folder."""
    found = swept(side, "digits", trials=num_trials, epochs=1)
    seconds = found.seconds
    if side == OURS:
        program = str(Path(sys.executable).with_name("keras-sweeps"))
        seconds += sum(then_run(side, [program, c.split()[1]]) for c in COMMANDS[1:])
    return {
        "statements": num_statements(side), "first_epoch": found.curve[0][0], "all": seconds
    }  # fmt: skip


def num_statements(side: str) -> int:
    """Statements that the user of a side writes; ours are commands."""
    if side == OURS:
        return len(COMMANDS)
    return statements((PROGRAMS / SIDES[side].program).read_text(encoding="utf-8"))


def statements(source: str) -> int:
    """Statements of a program, however they are broken into lines; docstrings are none."""
    return sum(
        isinstance(node, ast.stmt)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in ast.walk(ast.parse(source))
    )


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table: statements, and seconds."""
    lines = [
        "| side | statements | s to the end of the first epoch | s to the registered model |",
        "| --- | --- | --- | --- |",
    ]
    for side, one in found.items():
        seconds = f"{one['first_epoch']:.1f} | {one['all']:.1f}"
        lines.append(f"| {side} | {one['statements']:.0f} | {seconds} |")
    return lines
