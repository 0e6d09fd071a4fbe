"""Text in the Markdown of notes and model cards."""

from __future__ import annotations

import re

from search_spaces.errors import escaped

_CODE_OR_SIGN = re.compile(
    r"((?<!`)`[^`|]+`(?!`))"  # Code in backticks; a bar would end a table's cell in there, too.
    r"|[\\`*{}\[\]<>|~#!]|&(?=#?\w+;)"
    r"|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])"
)


def literal(text: str) -> str:
    """A text that Markdown shows as it is, in one line; only `code` in backticks stays code.

    Names come from folders and users: none becomes a line, a cell, a link or a tag of the page.
    """
    line = escaped(" ".join(text.split()))
    line = _CODE_OR_SIGN.sub(lambda found: found[1] or f"\\{found[0]}", line)
    return line.replace("://", ":\\//")  # Else a link, in MLflow's dialect.
