"""The spaces that can be named on a command line."""

from __future__ import annotations

from search_spaces import cnn, mlp
from search_spaces.errors import unknown_name
from search_spaces.space import Baseline, Space

SPACES: dict[str, Space] = {space.name: space for space in (cnn.SPACE, mlp.SPACE)}


def get_space(name: str) -> Space:
    """The space of that name; raises InputError with the valid names otherwise."""
    if name not in SPACES:
        raise unknown_name("space", name, SPACES)
    return SPACES[name]


def all_baselines() -> tuple[Baseline, ...]:
    """The baselines of all spaces, in the order of the published table."""
    return tuple(baseline for space in SPACES.values() for baseline in space.baselines)
