"""How figures look: as ours, whatever a user's `matplotlibrc` says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_own_style(draw: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function that draws with Matplotlib's defaults, and leaves the settings as they were.

    Matplotlib reads `matplotlibrc` in the working folder, and fails with some that are there for
    other figures: `text.usetex` needs LaTeX.
    """

    @wraps(draw)
    def drawn(*positional: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        _import_styles()
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            return draw(*positional, **named)

    return drawn


def _import_styles() -> None:
    """Imports Matplotlib's styles without a word.

    While it reads their files, what another thread warns of is taken for a fault of one of them.
    """
    log = logging.getLogger("matplotlib.style")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        import matplotlib.style  # noqa: F401
    finally:
        log.setLevel(level)
