"""Keras Tuner's oracles: their names, what each is asked, and what it returns. Pure values.

Keras Tuner cannot be imported without Keras and TensorFlow, so the driver asks in these terms and
another process answers (`worker.propose`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from search_spaces.errors import unknown_name
from search_spaces.hyperparameters.parameter import Parameter, Value

ORACLES = {
    "random": "independent uniform samples, never the same twice",
    "bayesian": "Gaussian process after three random trials per parameter (seconds per proposal)",
    "hyperband": "successive halving in brackets; a bracket is filled before trials are promoted",
    "grid": "every combination once, from the defaults; ten values of a continuous range",
}
DEFAULT_ORACLE = "hyperband"
OracleStatus = Literal["RUNNING", "COMPLETED", "FAILED"]
PAST_ID, EPOCHS = "tuner/trial_id", "tuner/epochs"
"""Values by which the Hyperband oracle says which trial goes on, and to which epoch."""


@dataclass(frozen=True)
class OracleTrial:
    """A trial as an oracle sees it; with Hyperband one for every rung that a trial was sent to.

    Attributes:
        values: what the oracle chose, its own `tuner/` values included; a point that it did not
            choose has its params.
        score: the objective, for one that is COMPLETED.
        is_own: whether the oracle proposed it.
    """

    id: str
    values: dict[str, Value]
    status: OracleStatus
    score: float | None = None
    is_own: bool = True


@dataclass(frozen=True)
class OracleQuestion:
    """All that an oracle's next proposal follows from.

    Attributes:
        direction: `max` or `min`.
        max_epochs, factor: full budget and reduction factor, for Hyperband.
        state: what `OracleAnswer.state` was after its last proposal; empty for the first one.
    """

    oracle: str
    objective: str
    direction: str
    seed: int
    max_epochs: int
    factor: int
    parameters: tuple[Parameter, ...]
    trials: tuple[OracleTrial, ...]
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OracleAnswer:
    """What an oracle proposes.

    Attributes:
        status: RUNNING with a proposal, IDLE while it waits for running trials, STOPPED when it
            has nothing left.
        state: JSON values; the next question has to hold them.
    """

    status: Literal["RUNNING", "IDLE", "STOPPED"]
    id: str
    values: dict[str, Value]
    state: dict[str, Any]


Propose = Callable[[OracleQuestion], OracleAnswer]


def check_oracle(name: str) -> None:
    """Raises InputError for a name that is not an oracle's."""
    if name not in ORACLES:
        raise unknown_name("oracle", name, ORACLES)


def oracle_brackets(max_epochs: int, factor: int) -> tuple[tuple[int, int], ...]:
    """Configurations and epochs of the first rung, for each bracket of Keras Tuner's Hyperband.

    As `HyperbandOracle._get_size` and `_get_epochs` (1.4.8), steepest bracket first.

    >>> oracle_brackets(10, 3)
    ((12, 2), (6, 4), (4, 10))
    """
    num_brackets = 0
    while max_epochs >= factor**num_brackets:
        num_brackets += 1
    top = math.ceil(1 + math.log(max_epochs, factor))
    return tuple(
        (math.ceil(top / (bracket + 1) * factor**bracket), math.ceil(max_epochs / factor**bracket))
        for bracket in reversed(range(num_brackets))
    )
