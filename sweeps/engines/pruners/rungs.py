"""The rungs of successive halving: after how much training trials are compared."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from pipelines.training.reports import EVERY_EPOCH, Reports
from search_spaces.errors import InputError, shown

MIN_RUNG_IMAGES = 10_000
"""A first rung below an epoch has at least so many training images: after half as many, schedules
with a warm-up are still in it, and the best points measured as the worst (docs/log.md)."""
MIN_GIVEN_IMAGES = 1_000
"""Fewer would be one or two gradient steps."""


@dataclass(frozen=True)
class Rungs:
    """The steps at which trials are compared.

    Attributes:
        steps: rising; the last is the full budget.
        reports: the unit of the steps, and when a trial reports.
        reduction_factor: eta: of so many trials of a rung one goes on.
    """

    steps: tuple[int, ...]
    reports: Reports = EVERY_EPOCH
    reduction_factor: int = 3

    @property
    def text(self) -> str:
        """`0.11, 0.33, 1, 3, 8 epochs`."""
        return f"{', '.join(map(self.reports.text, self.steps))} epochs"


ONE_EPOCH = Rungs((1,))


def make_rungs(min_epochs: Fraction, max_epochs: int, reduction_factor: int) -> Rungs:
    """The rungs from `min_epochs` to the full budget.

    Counted down from the full budget R as in Hyperband (Li et al., JMLR 18 (2018), algorithm 1): R,
    R/eta, R/eta^2, ... while at least `min_epochs`. From one epoch up they are rounded to whole
    epochs, below to the nearest of 1, 1/eta, 1/eta^2, ...

    >>> make_rungs(Fraction(1), 9, 3).steps
    (1, 3, 9)
    >>> make_rungs(Fraction(1, 9), 8, 3).text
    '0.11, 0.33, 1, 3, 8 epochs'
    """
    if min_epochs >= 1:
        return Rungs(
            rung_epochs(math.ceil(min_epochs), max_epochs, reduction_factor),
            reduction_factor=reduction_factor,
        )
    rung, found, halving = Fraction(max_epochs), set(), 0
    while rung >= min_epochs:
        found.add(rung)
        halving += 1
        rung = _rounded(max_epochs / reduction_factor**halving, reduction_factor)
    per_epoch = max(rung.denominator for rung in found)
    steps = tuple(sorted(int(rung * per_epoch) for rung in found))
    early = tuple(step for step in steps if step < per_epoch)
    return Rungs(steps, Reports(per_epoch, early), reduction_factor)


def _rounded(epochs: float, reduction_factor: int) -> Fraction:
    if epochs >= 1:
        return Fraction(round(epochs))
    return Fraction(1, reduction_factor ** round(-math.log(epochs, reduction_factor)))


def rung_epochs(min_epochs: int, max_epochs: int, reduction_factor: int) -> tuple[int, ...]:
    """Rungs of whole epochs, rising; the last is the full budget.

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


def parse_min_epochs(text: str) -> Fraction:
    """The first rung, as `2` or `1/9`.

    Raises:
        InputError: It is neither a whole number nor a fraction of one.
    """
    # So few digits that each library takes the number; Python would work on 1e999999 for minutes.
    is_short = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20}|/[0-9]{1,9})?", text.strip())
    try:
        found = Fraction(text) if is_short else Fraction(0)
    except ZeroDivisionError:
        found = Fraction(0)
    if found <= 0 or (found > 1 and found.denominator > 1):
        raise InputError(
            "--min-epochs must be a whole number of epochs, or a part of one as a fraction. "
            f"Received: {shown(text)}. Write 1, 2 or 1/9."
        )
    return found


def default_min_epochs(num_images: int, max_epochs: int, reduction_factor: int) -> Fraction:
    """The first rung with at least `MIN_RUNG_IMAGES` training images.

    It is one of 1, 1/eta, 1/eta^2, ..., or some epochs where an epoch has fewer images; then at
    most 1/eta of the budget, so that there is a rung.
    """
    if num_images < MIN_RUNG_IMAGES:
        epochs = math.ceil(MIN_RUNG_IMAGES / max(1, num_images))
        return Fraction(min(epochs, max(1, max_epochs // reduction_factor)))
    part = 1
    while num_images >= MIN_RUNG_IMAGES * part * reduction_factor:
        part *= reduction_factor
    return Fraction(1, part)


def check_min_epochs(min_epochs: Fraction, num_images: int) -> None:
    """Raises InputError for a first rung of hardly any training images."""
    images = int(min_epochs * num_images)
    if min_epochs < 1 and images < MIN_GIVEN_IMAGES:
        raise InputError(
            f"--min-epochs below 1 must cover {MIN_GIVEN_IMAGES:,} training images. Received: "
            f"{min_epochs}, which is {images:,} of {num_images:,}. Write 1, or a larger fraction."
        )
