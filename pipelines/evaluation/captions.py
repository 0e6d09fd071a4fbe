"""Names of the user's own as Matplotlib shows them."""

from __future__ import annotations


def plain_text(text: str) -> str:
    """Matplotlib reads formulas between dollars, and no font has what cannot be printed."""
    plain = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return plain.replace("$", r"\$")
