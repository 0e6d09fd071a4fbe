"""A model's class names as tags: a tag holds 8,000 characters, and a thousand names are longer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tracking.tags import Tag

MAX_CHARACTERS = 4_000


def class_name_tags(names: Sequence[str]) -> dict[str, str]:
    """The names as JSON, cut into as many tags as it takes: `TAG`, `TAG.1`, `TAG.2` ..."""
    text = json.dumps(names)
    pieces = [text[k : k + MAX_CHARACTERS] for k in range(0, len(text), MAX_CHARACTERS)]
    return {
        Tag.CLASS_NAMES if k == 0 else f"{Tag.CLASS_NAMES}.{k}": piece
        for k, piece in enumerate(pieces)
    }


def class_names_of(tags: Mapping[str, str]) -> tuple[str, ...]:
    """The names again; empty where they are not known, or somebody edited the tags."""
    pieces, key = [], Tag.CLASS_NAMES
    while key in tags:
        pieces.append(tags[key])
        key = f"{Tag.CLASS_NAMES}.{len(pieces)}"
    try:
        return tuple(str(name) for name in json.loads("".join(pieces)))
    except (ValueError, TypeError):
        return ()
