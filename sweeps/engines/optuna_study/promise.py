"""How promising a drawn point is: likelier among the best trials than among the others.

The ratio of the tree-structured Parzen estimator (Bergstra, Bardenet, Bengio and Kegl, "Algorithms
for Hyper-Parameter Optimization", NeurIPS 2011, section 4), over whole points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from sweeps.engines.optuna_study.elite import Elite
from sweeps.engines.optuna_study.prior_sampler import log_density
from sweeps.engines.optuna_study.unit_cube import Spread

KERNEL = Spread(sd=0.2, moved=1.0, redrawn=0.3)
"""Between the spreads of priors and of mutations, as it has to tell points of both apart."""
MAX_COMPARED = 150
"""A drawn point is compared with so many of the best, and of the others, taken evenly from all:
else a proposal would take longer with every trial. What it costs is in docs/log.md."""
MIN_RESULTS, MIN_BEST = 9, 3
"""Before so many results, and so many best among them, the ratio says where luck was."""


class Promise:
    """Judges points by what a study has shown so far.

    Attributes:
        is_known: whether there are results enough to judge by.
    """

    def __init__(self, best: Elite, trials: Sequence[FrozenTrial]) -> None:
        numbers = {trial.number for trial in best.trials}
        self._best = best.trials[:MAX_COMPARED]
        others = [
            trial
            for trial in trials
            if trial.number not in numbers and trial.state is not TrialState.FAIL
        ]
        self._others = others[:: max(1, -(-len(others) // MAX_COMPARED))]
        self.is_known = best.num_results >= MIN_RESULTS and len(self._best) >= MIN_BEST

    def of(self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> float:
        """The logarithm of the ratio; 0 for a point of which nothing is known."""
        return _density(params, distributions, self._best) - _density(
            params, distributions, self._others
        )


def _density(
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    trials: Sequence[FrozenTrial],
) -> float:
    """The logarithm of the mean over a kernel around each trial and a uniform one."""
    known: dict[tuple[str, type, Any], float] = {}
    logs = [0.0]
    for trial in trials:
        # Most values are those of other trials, too: each is compared once.
        others, parts = trial.params, []
        for name, distribution in distributions.items():
            if name not in others:
                continue
            value = others[name]
            key = name, type(value), value
            if key not in known:
                known[key] = log_density(params, {name: distribution}, {name: value}, KERNEL)
            parts.append(known[key])
        logs.append(math.fsum(parts))
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs))
