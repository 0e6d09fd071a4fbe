"""Keeps a user's module from training or searching while it is imported.

The script of a tutorial searches in its own body. Imported as a space it would do so in the process
that is asked for points, and again in every trial.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

WAY_OUT = "Put that, and what follows it, below `if __name__ == '__main__':`"


_prevented = ContextVar("training_prevented", default=False)


class ImportStoppedError(BaseException):
    """A module was about to train or to search in its body; the text says by what.

    No `Exception`, so that the module's own `except` does not go on.
    """


@contextlib.contextmanager
def training_prevented() -> Iterator[None]:
    """Within it, `Model.fit`, making a tuner and `check_may_train` raise ImportStoppedError."""
    import keras
    import keras_tuner

    def stop_fit(model: Any, *args: Any, **kwargs: Any) -> None:
        raise ImportStoppedError("trains a model with fit")

    def stop_tuner(tuner: Any, *args: Any, **kwargs: Any) -> None:
        raise ImportStoppedError(f"makes a {type(tuner).__name__} tuner")

    with (
        _replaced(keras.Model, "fit", stop_fit),
        _replaced(keras_tuner.Tuner, "__init__", stop_tuner),
    ):
        token = _prevented.set(True)
        try:
            yield
        finally:
            _prevented.reset(token)


def check_may_train(what: str) -> None:
    """Raises ImportStoppedError while a module is imported that must not train.

    Args:
        what: what is about to begin, as `runs a sweep`.
    """
    if _prevented.get():
        raise ImportStoppedError(what)


@contextlib.contextmanager
def _replaced(owner: type, name: str, function: Callable[..., None]) -> Iterator[None]:
    own = vars(owner).get(name)  # None where it is inherited.
    setattr(owner, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
