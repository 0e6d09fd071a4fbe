"""Search spaces: what may be tried, and what model a point of a space means."""

from search_spaces.hyperparameters import HyperParameters
from search_spaces.registry import as_hypermodel, get_space
from search_spaces.space import Space

__all__ = ["HyperParameters", "Space", "as_hypermodel", "get_space"]
