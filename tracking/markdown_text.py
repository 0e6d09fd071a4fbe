"""Markdown of notes on MLflow's pages."""

from __future__ import annotations

import re

_SIGNS = re.compile(r"(`[^`\n]*`)|([\\|*_<>\[\]`~])")


def literal(text: str) -> str:
    """A text without what Markdown would take for its own; code in backticks stays code."""
    return _SIGNS.sub(lambda found: found[1] or f"\\{found[2]}", text)
