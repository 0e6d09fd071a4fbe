"""What a first sweep asks of its user: lines to write, and seconds until the first epoch is over.

Lines are those of the programs in `benchmarks/peers` that track, prune, can be resumed and register
the best model; the space and the model (`sweep_task.py`) are not counted, as every tool needs them.
Ours are its three commands. Seconds run from the command to the end of the first epoch on the
digits.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from typing import Any

from peer_parts.whole_sweeps import OURS, PROGRAMS, SIDES, missing, swept

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
    return {"lines": num_lines(side), "first_epoch": found.curve[0][0], "all": found.seconds}


def num_lines(side: str) -> int:
    """Lines that the user of a side writes."""
    if side == OURS:
        return len(COMMANDS)
    return code_lines((PROGRAMS / SIDES[side].program).read_text(encoding="utf-8"))


def code_lines(source: str) -> int:
    """Lines of a program that hold more than a comment, a docstring or nothing."""
    skipped = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENCODING, tokenize.ENDMARKER,
    }  # fmt: skip
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table: lines, and seconds."""
    lines = [
        "| side | lines | s to the end of the first epoch | s of the whole command |",
        "| --- | --- | --- | --- |",
    ]
    for side, one in found.items():
        seconds = f"{one['first_epoch']:.1f} | {one['all']:.1f}"
        lines.append(f"| {side} | {one['lines']:.0f} | {seconds} |")
    return lines
