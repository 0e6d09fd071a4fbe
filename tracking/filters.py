"""Conditions in MLflow's search language, whose values may be anybody's text."""

from __future__ import annotations

from search_spaces.errors import InputError, shown


def quoted(text: str) -> str:
    """A text as a value of MLflow's search language, which knows no escapes.

    Raises:
        InputError: It holds both kinds of quotes, or ends with a backslash.
    """
    for quote in ("'", '"'):
        if quote not in text and not text.endswith("\\"):
            return f"{quote}{text}{quote}"
    raise InputError(
        "MLflow cannot search for a text with both kinds of quotes, or with a backslash at its "
        f"end. Received: {shown(text)}. Rename it."
    )


def tag_is(tag: str, value: object) -> str:
    """The condition that a tag has that value; raises as `quoted`."""
    return f"tags.`{tag}` = {quoted(str(value))}"
