"""Limits on what a point may cost, kept while points are proposed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from search_spaces.errors import InputError, shown

QUANTITIES = {
    "parameters": "weights of the model",
    "multiply_adds": "multiplications with an addition, for one image",
    "model_bytes": "size of the stored model",
    "epoch_seconds": "training time of one epoch",
    "latency_ms": "time of a prediction for one image",
}
KNOWN_BEFORE = frozenset({"parameters", "multiply_adds", "model_bytes"})
"""Those that a point's layers tell; the others are times, which are measured while it trains."""
_SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_TEXT = re.compile(r"\s*(\w+)\s*<=\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([kMG]?)\s*")


@dataclass(frozen=True)
class Limit:
    """A quantity of a point and the most that it may be; the text is `parameters<=200k`."""

    quantity: str
    bound: float

    def __str__(self) -> str:
        return f"{self.quantity}<={short(self.bound)}"


def parse_limit(text: str) -> Limit:
    """The limit that a text such as `multiply_adds<=12M` states.

    Raises:
        InputError: Another form, an unknown quantity, or a bound that is not positive.
    """
    found = _TEXT.fullmatch(text)
    if found and found[1] in QUANTITIES:
        bound = float(found[2]) * _SUFFIXES[found[3]]
        if 0 < bound < math.inf:
            return Limit(found[1], bound)
    raise InputError(
        "--limit must be QUANTITY<=NUMBER with a positive number, such as parameters<=200k "
        f"(k, M and G are thousands, millions and billions). Received: {shown(text)}. Choose the "
        f"quantity from: {', '.join(QUANTITIES)}."
    )


def parse_limits(texts: Iterable[str]) -> tuple[Limit, ...]:
    """The limits that some texts state; of two on one quantity the lower holds.

    Raises:
        InputError: The first text that states none.
    """
    bounds: dict[str, float] = {}
    for limit in map(parse_limit, texts):
        bounds[limit.quantity] = min(limit.bound, bounds.get(limit.quantity, math.inf))
    return tuple(Limit(quantity, bound) for quantity, bound in bounds.items())


def broken_limit(limits: Sequence[Limit], known: Mapping[str, float]) -> str:
    """The first limit that a point breaks, as `parameters 312k > 200k`; empty for none.

    Args:
        known: what is known of the point; a limit on anything else is not judged.
    """
    for limit in limits:
        value = known.get(limit.quantity)
        if value is not None and value > limit.bound:
            return f"{limit.quantity} {short(value)} > {short(limit.bound)}"
    return ""


def measured(metrics: Mapping[str, float], epochs: float) -> dict[str, float]:
    """The quantities in a trial's first report.

    Args:
        metrics: of the report; what is compiled for the first step is no part of an epoch's time.
        epochs: how much of an epoch was trained for it.
    """
    found = {name: metrics[name] for name in QUANTITIES if name in metrics}
    if "epoch_seconds" in found:
        found["epoch_seconds"] -= metrics.get("compile_seconds", 0.0) / epochs
    return found


def judged(limits: Sequence[Limit], *, is_timed: bool) -> tuple[Limit, ...]:
    """The limits that decide how a sweep goes on; the others are judged once a trial has ended.

    Times decide nothing where a sweep has no time limit: then the seed decides everything.
    """
    return tuple(limit for limit in limits if is_timed or limit.quantity in KNOWN_BEFORE)


def excess(limits: Sequence[Limit], known: Mapping[str, float]) -> float:
    """How many times its bound the worst known quantity is; 0 where none is known."""
    shares = [known[limit.quantity] / limit.bound for limit in limits if limit.quantity in known]
    return max(shares, default=0.0)


def short(value: float) -> str:
    """A number with three digits or more and a suffix: 312k, 1.25M, 1234.5k as 1.23M, 30."""
    for suffix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}"
