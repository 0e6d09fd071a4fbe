"""How a point is told in a run's params: names that a tracking store takes, values as texts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping

from search_spaces.hyperparameters.parameter import Parameter, Value

INACTIVE = "inactive"
"""The value of a parameter that is not active: parallel coordinates show only complete runs."""
RUN_PARAMS = ("max_epochs", "train_on", "last_epoch")
"""Params of a run that its space does not know."""
_PREFIX = "hp/"
_NAME = re.compile(r"[\w.:-][\w.: -]*(/[\w.:-][\w.: -]*)*", re.ASCII)
_MAX_NAME = 200
"""MLflow takes letters, digits, `_-. :/`, a normalised path of at most 250 characters."""


def recorded_name(name: str) -> str:
    """The param under which a parameter is recorded: its own name wherever that is possible."""
    parts = name.split("/")
    is_plain = _NAME.fullmatch(name) and len(name) <= _MAX_NAME and not {".", ".."} & set(parts)
    if is_plain and name not in RUN_PARAMS and not name.startswith(_PREFIX):
        return name
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[: _MAX_NAME // 2]
    return f"{_PREFIX}{readable}-{zlib.crc32(name.encode()):08x}"


def recorded_value(value: Value) -> str:
    """The text of a value; a choice that is called like what is inactive gets quotes."""
    text = str(value)
    return f"'{text}'" if isinstance(value, str) and text.strip("'") == INACTIVE else text


def recorded_params(parameters: Iterable[Parameter], params: Mapping[str, Value]) -> dict[str, str]:
    """A point as a run's params, with every parameter of its space.

    Args:
        params: the point; it may hold parameters that nobody knew of before.
    """
    names = [*dict.fromkeys(parameter.name for parameter in parameters), *params]
    return {
        recorded_name(name): recorded_value(params[name]) if name in params else INACTIVE
        for name in names
    }
