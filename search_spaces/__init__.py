"""Search spaces: what may be tried, and what model a point of a space means."""

from search_spaces.hypermodels import as_hypermodel

__all__ = ["as_hypermodel"]
