"""The samplers that can be named, each made from the sweep's seed."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from sweeps.engines.optuna_study.prior_sampler import PriorSampler

SAMPLERS = {
    "prior": "uniform points, points around defaults and baselines, mutations of the best trials",
    "tpe": "tree-structured Parzen estimator, multivariate, one group per set of active parameters",
    "random": "independent uniform draws",
    "cmaes": "covariance matrix adaptation on the numeric parameters, the others at random",
    "qmc": "scrambled Sobol sequence on what is always active, the rest at random",
    "grid": "every point of the discretised space once, in seeded order",
    "gp": "Gaussian process (needs PyTorch)",
}


def check_sampler(name: str) -> None:
    """Raises InputError for an unknown sampler or one whose package is not installed."""
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)
    if name == "gp" and importlib.util.find_spec("torch") is None:
        raise InputError(
            "Sampler 'gp' needs PyTorch, which is not installed. Install it with "
            "`pip install -c constraints.txt torch`, or choose another: --sampler tpe."
        )


def make_sampler(  # noqa: PLR0911
    name: str,
    seed: int,
    num_parallel: int,
    trial_seed: int,
    known_points: Sequence[Mapping[str, Any]] = (),
) -> optuna.samplers.BaseSampler:
    """A sampler for one proposal.

    Args:
        seed: of the sweep, for what must stay the same over all trials.
        num_parallel: trials that run at once.
        trial_seed: of this proposal.
        known_points: the defaults, then further good points, as they are stored.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "prior":
            return prior_sampler(seed, known_points)
        if name == "tpe":
            # With one trial at a time there is nothing that a constant liar could stand in for.
            return samplers.TPESampler(
                seed=trial_seed, multivariate=True, group=True, constant_liar=num_parallel > 1,
            )  # fmt: skip
        if name == "cmaes":
            return samplers.CmaEsSampler(seed=trial_seed)
        if name == "qmc":
            return samplers.QMCSampler(
                seed=seed, scramble=True, warn_asynchronous_seeding=False,
                independent_sampler=samplers.RandomSampler(seed=trial_seed),
            )  # fmt: skip
        if name == "grid":
            # Unlike Optuna's GridSampler it follows conditions and never writes the product down.
            return samplers.BruteForceSampler(seed=trial_seed)
        if name == "gp":
            return samplers.GPSampler(seed=trial_seed)
        return samplers.RandomSampler(seed=trial_seed)


def prior_sampler(
    seed: int,
    known_points: Sequence[Mapping[str, Any]],
    whole_from: int = 0,
    counts: Callable[[FrozenTrial], bool] | None = None,
) -> PriorSampler:
    """The sampler `prior`; the seed is the sweep's, as what it proposes follows from the history.

    Args:
        known_points: the defaults, then further good points, as they are stored.
        whole_from: the first step at which all validation images are measured.
        counts: which trials are learned from; None for all.
    """
    from sweeps.engines.optuna_study.prior_sampler import PriorSampler

    defaults, *others = known_points or [{}]
    return PriorSampler(
        defaults, known_points=others, seed=seed, whole_from=whole_from, counts=counts
    )
