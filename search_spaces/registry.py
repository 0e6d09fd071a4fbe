"""The spaces that can be named on a command line: ours, and those of users."""

from __future__ import annotations

from search_spaces import cnn, mlp
from search_spaces.errors import InputError, unknown_name
from search_spaces.space import Baseline, Space
from search_spaces.user_spaces.reference import find_reference, is_reference, reference_name
from search_spaces.user_spaces.space import user_space

SPACES: dict[str, Space] = {space.name: space for space in (cnn.SPACE, mlp.SPACE)}


def get_space(name: str) -> Space:
    """The space of that name, or one of the user's to build models with.

    Raises:
        InputError: There is none; the message has the valid names.
    """
    if is_reference(name):
        return user_space(find_reference(name))
    if name not in SPACES:
        raise InputError(
            f"{unknown_name('space', name, SPACES)} Or name one of your own: FILE.py:NAME."
        )
    return SPACES[name]


def is_space(name: str) -> bool:
    """Whether there is a space of that name."""
    try:
        get_space(name)
    except InputError:
        return False
    return True


def stored_name(name: str) -> str:
    """What finds the space again from any folder; the name itself where it is one of ours.

    Raises:
        InputError: As `get_space`.
    """
    return get_space(name).key


def short_name(name: str) -> str:
    """How folders, experiments and models call a space; its source need not be there."""
    return reference_name(name) if is_reference(name) else name


def all_baselines() -> tuple[Baseline, ...]:
    """The baselines of all spaces, in the order of the published table."""
    return tuple(baseline for space in SPACES.values() for baseline in space.baselines)
