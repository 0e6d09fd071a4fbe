"""The arithmetic of successive halving and Hyperband: pure functions of numbers and values.

Sources: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based
Approach to Hyperparameter Optimization", JMLR 18 (2018), algorithm 1 (budgets and brackets); Li,
Jamieson, Rostamizadeh, Gonina, Hardt, Recht and Talwalkar, "A System for Massively Parallel
Hyperparameter Tuning", MLSys 2020, algorithm 2 (asynchronous promotion).
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def rung_epochs(min_epochs: int, max_epochs: int, reduction_factor: int) -> tuple[int, ...]:
    """The epochs at which trials are compared, rising; the last is the full budget.

    Counted down from the full budget R as in Hyperband: R, R/eta, R/eta^2, ... while at least
    `min_epochs`, each rounded to a whole epoch.

    >>> rung_epochs(1, 9, 3)
    (1, 3, 9)
    >>> rung_epochs(1, 10, 3)
    (1, 3, 10)
    """
    num_halvings = 0
    while max_epochs >= min_epochs * reduction_factor ** (num_halvings + 1):
        num_halvings += 1
    epochs = {round(max_epochs / reduction_factor**halving) for halving in range(num_halvings + 1)}
    return tuple(sorted(epochs))


def promotable(keys: Mapping[int, float], reduction_factor: int) -> tuple[int, ...]:
    """The trials of a rung that deserve the next one: its best 1/eta, best first.

    Args:
        keys: trial number -> sort key (lower is better) of all that reached the rung.
    """
    return _ranked(keys)[: len(keys) // reduction_factor]


def hopeless(keys: Mapping[int, float], reduction_factor: int, num_trials: int) -> tuple[int, ...]:
    """The trials of a rung that can never be among its best 1/eta, worst last.

    A rung sees at most `num_trials` trials, so it promotes at most num_trials/eta of them, and a
    rank only falls as others arrive. One always has hope: the last rung is to be reached.
    """
    return _ranked(keys)[max(1, num_trials // reduction_factor) :]


def bracket_sizes(num_rungs: int, reduction_factor: int) -> tuple[float, ...]:
    """Relative numbers of trials in Hyperband's brackets.

    Bracket b starts at rung b: bracket 0 is plain successive halving over all rungs, the last one
    trains every trial in full. With s_max = num_rungs - 1 and s = s_max - b, the bracket has
    n_s = ceil((s_max + 1) / (s + 1) * eta^s) trials (algorithm 1, line 2).
    """
    top = num_rungs - 1
    return tuple(
        math.ceil((top + 1) / (top - bracket + 1) * reduction_factor ** (top - bracket))
        for bracket in range(num_rungs)
    )


def bracket_of(index: int, sizes: tuple[float, ...]) -> int:
    """The bracket of the trial with this index (from 0): always the one most behind its share.

    So every prefix of the trials is split as evenly as whole trials allow, and nothing has to be
    remembered for it.
    """
    counts = [0] * len(sizes)
    chosen = 0
    for position in range(index + 1):
        total = position + 1
        shortfalls = [size / sum(sizes) * total - n for size, n in zip(sizes, counts, strict=True)]
        chosen = shortfalls.index(max(shortfalls))
        counts[chosen] += 1
    return chosen


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


def _ranked(keys: Mapping[int, float]) -> tuple[int, ...]:
    return tuple(sorted(keys, key=lambda number: (keys[number], number)))
