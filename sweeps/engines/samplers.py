"""The samplers that can be named, each made from the sweep's seed."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError, unknown_name

if TYPE_CHECKING:
    import optuna

SAMPLERS = {
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
            "`pip install -c constraints.txt -e '.[gp]'`, or choose another: --sampler tpe."
        )


def make_sampler(name: str, seed: int, num_parallel: int) -> optuna.samplers.BaseSampler:
    """The sampler; `num_parallel` trials run at once."""
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "tpe":
            # With one trial at a time there is nothing that a constant liar could stand in for.
            return samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=num_parallel > 1,
            )  # fmt: skip
        if name == "cmaes":
            return samplers.CmaEsSampler(seed=seed)
        if name == "qmc":
            return samplers.QMCSampler(
                seed=seed, scramble=True, warn_asynchronous_seeding=False,
            )  # fmt: skip
        if name == "grid":
            return _grid_sampler(seed)
        if name == "gp":
            return samplers.GPSampler(seed=seed)
        return samplers.RandomSampler(seed=seed)


def _grid_sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Every point once. Unlike Optuna's GridSampler, BruteForceSampler follows conditions and
    never writes the whole product down."""
    from optuna import samplers

    class ConditionalGridSampler(samplers.BruteForceSampler):
        exhausted = False

        def after_trial(self, *args: Any, **kwargs: Any) -> None:
            try:
                super().after_trial(*args, **kwargs)
            except RuntimeError as error:
                # At the last point it calls Study.stop, which refuses outside of `optimize`.
                if "Study.stop" not in str(error):
                    raise
                self.exhausted = True

    return ConditionalGridSampler(seed=seed)
