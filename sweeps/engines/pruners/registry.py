"""The pruners by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipelines.objectives import Objective
from search_spaces.errors import unknown_name
from sweeps.engines.pruners.base import NoPruner, Pruner, TrialCurve
from sweeps.engines.pruners.halving import HalvingPruner
from sweeps.engines.pruners.optuna_pruners import OptunaPruner

PRUNERS = {
    "asha": "asynchronous successive halving: the best 1/eta of a rung go on, the others wait",
    "hyperband": "successive halving from several first rungs, for curves that cross",
    "median": "stop what is worse than the median of earlier trials at the same epoch",
    "percentile": "stop what is not in the best quarter of earlier trials at the same epoch",
    "patient": "as median, but only after two epochs without improvement",
    "none": "train every trial in full",
}


def make_pruner(
    name: str,
    curves: Mapping[int, TrialCurve],
    objective: Objective,
    rungs: tuple[int, ...],
    reduction_factor: int,
    should_prune: Callable[[int], bool],
) -> Pruner:
    """The pruner of that name."""
    if name == "none":
        return NoPruner()
    if name in ("asha", "hyperband"):
        return HalvingPruner(
            curves, objective, rungs, reduction_factor, hyperband=name == "hyperband"
        )
    return OptunaPruner(should_prune)


def check_pruner(name: str) -> None:
    """Raises InputError for a name that is not a pruner's."""
    if name not in PRUNERS:
        raise unknown_name("pruner", name, PRUNERS)


def schedule_text(name: str, rungs: Iterable[int], reduction_factor: int) -> str:
    """`asha: rungs at 1, 3, 9 epochs, the best 1/3 of each go on`."""
    if name in ("asha", "hyperband"):
        epochs = ", ".join(map(str, rungs))
        return f"{name}: rungs at {epochs} epochs, the best 1/{reduction_factor} of each go on"
    return f"{name}: {PRUNERS[name]}"
