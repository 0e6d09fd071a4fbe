"""The public name of keras-sweeps; importing it takes milliseconds, because it imports nothing."""

from __future__ import annotations

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> object:
    """Looks a public name up when it is first asked for.

    Raises:
        AttributeError: There is no such name.
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("keras-sweeps")
    raise AttributeError(f"module 'keras_sweeps' has no attribute '{name}'")
