"""Values of a file, record or tag as the dataclass that they were: every field of its type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from search_spaces.errors import shortened
from search_spaces.files import UnusableFileError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def as_kind(kind: type[T], values: object, *, extra: bool = False) -> T:
    """The dataclass whose fields some JSON values are.

    A list becomes a tuple where the field is one, a whole number a float, and nothing else changes
    its meaning.

    Args:
        extra: whether there may be other values, which are left out.

    Raises:
        UnusableFileError: One is missing, of another type, or unknown.
    """
    if not isinstance(values, Mapping):
        raise UnusableFileError("it holds no named values")
    if not extra and (unknown := set(values) - _names(kind)):
        raise UnusableFileError(f"this version does not know its '{min(map(str, unknown))}'")
    from pydantic import ValidationError  # A tenth of a second, which help and errors do without.

    adapter: Callable[[object], T] = _adapter(kind).validate_python  # type: ignore[arg-type]
    try:
        found: T = adapter(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "content"
        why = shortened(" ".join(first["msg"].split()), 200)
        raise UnusableFileError(f"its '{place}' is wrong: {why[:1].lower()}{why[1:]}") from None
    return found


def _names(kind: type[Any]) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind))


@lru_cache(maxsize=64)
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
