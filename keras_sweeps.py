"""The public name of keras-sweeps; importing it takes milliseconds, because it imports nothing.

`import keras_sweeps as ks`, then `ks.run("cnn")`; docs/python.md shows the rest.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from search_spaces.errors import InputError
    from search_spaces.registry import as_hypermodel, get_space
    from sweeps.api.data import load_dataset
    from sweeps.api.models import promote, replay
    from sweeps.api.sweep import Sweep, SweepError, load_sweep, run
    from sweeps.driver.board.trial import Trial
    from sweeps.finalists.session import ComparisonResult
    from sweeps.prediction.model import Model, load_model
    from sweeps.promotion.promotion import PromotionResult
    from sweeps.replaying.replay import ReplayResult

    __version__: str

_PLACES = {
    "ComparisonResult": "sweeps.finalists.session",
    "InputError": "search_spaces.errors",
    "Model": "sweeps.prediction.model",
    "PromotionResult": "sweeps.promotion.promotion",
    "ReplayResult": "sweeps.replaying.replay",
    "Sweep": "sweeps.api.sweep",
    "SweepError": "sweeps.api.sweep",
    "Trial": "sweeps.driver.board.trial",
    "as_hypermodel": "search_spaces.registry",
    "get_space": "search_spaces.registry",
    "load_dataset": "sweeps.api.data",
    "load_model": "sweeps.prediction.model",
    "load_sweep": "sweeps.api.sweep",
    "promote": "sweeps.api.models",
    "replay": "sweeps.api.models",
    "run": "sweeps.api.sweep",
}
"""Public name -> the module that has it."""

__all__ = [
    "ComparisonResult",
    "InputError",
    "Model",
    "PromotionResult",
    "ReplayResult",
    "Sweep",
    "SweepError",
    "Trial",
    "__version__",
    "as_hypermodel",
    "get_space",
    "load_dataset",
    "load_model",
    "load_sweep",
    "promote",
    "replay",
    "run",
]


def __getattr__(name: str) -> object:
    """Looks a public name up when it is first asked for.

    Raises:
        AttributeError: There is no such name.
    """
    if name == "__version__":
        from sweeps.formatting import own_version

        return own_version()
    if name in _PLACES:
        from importlib import import_module

        _check_not_hidden()
        found = globals()[name] = getattr(import_module(_PLACES[name]), name)
        return found
    raise AttributeError(f"module 'keras_sweeps' has no attribute '{name}'")


def _check_not_hidden() -> None:
    """Raises ImportError where a file of the program is called like one of our packages.

    Python looks beside a program first, so that file would be executed instead.
    """
    from importlib.util import find_spec
    from pathlib import Path

    found = find_spec("sweeps")
    if found is not None and not Path(found.origin or "").match("sweeps/__init__.py"):
        raise ImportError(
            f"keras_sweeps needs its own package 'sweeps', and {found.origin or 'a folder'} is "
            "found first. Rename that file."
        )


def __dir__() -> list[str]:
    return sorted(__all__)
