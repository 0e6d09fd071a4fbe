"""Whole points, drawn before a trial is made of one: within limits, new, and worth their cost.

Optuna asks for parameters one by one, so what a point costs is known only when it is complete.
Here points are drawn from the sampler first; the chosen one is then enqueued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params, Value
from search_spaces.space import Space
from sweeps.engines.limits import Limit, broken_limit, excess
from sweeps.engines.optuna_study.forecasts import Forecasts
from sweeps.engines.optuna_study.hyperparameters import OptunaHyperParameters, StoredNames
from sweeps.engines.optuna_study.prior_sampler import Mixture, Origin, PriorSampler
from sweeps.engines.optuna_study.promise import Promise
from sweeps.engines.optuna_study.unit_cube import Spread, draw_around, single_value

MAX_TRIES = 100
"""Points drawn for one proposal at most; the second half are drawn near the cheapest so far."""
MAX_BUILT = 20
"""The same where each point that is drawn is a model that is built: it takes 0.13 s, in which the
sweep does nothing else (docs/log.md)."""
MAX_REFUSED = 3
"""So many proposals in a row that break a limit, each the best of `MAX_TRIES` or `MAX_BUILT`, mean
that hardly any point keeps it. One alone is chance."""
NUM_CHOICES = 4
"""Points to choose the most promising of. Eight were no better than four on a made-up surface; and
with more the choice would be the model's alone, or that of the cost."""
COST_POWER = -0.5
"""A point's promise counts times this power of its cost.

Promise per cost would be -1, and finds the cheapest corner of a space (Lee, Perrone, Archambeau and
Seeger, "Cost-aware Bayesian optimization", 2020, section 3, who therefore let the power fall from
-1 to 0 as the budget is spent); the middle of their path needs no budget to be known.
"""
NEARBY = Spread(sd=0.2, moved=0.5, redrawn=0.3)
FORECAST_MARGIN = 1.25
"""A predicted time breaks a limit from so many times its bound on. Predictions are off by as much
(docs/log.md), and a point that is tried wrongly costs its first report only."""
_UNIFORM = Origin("uniform")


@dataclass(frozen=True)
class Economy:
    """What points may and do cost.

    Attributes:
        limits: what every proposal keeps, as far as its quantities are known.
        quantities: those of a point that are known before it trains, by name.
        cost: the multiply-adds of a point; None where they are unknown.
        longest_epoch: seconds of an epoch beyond which nothing is proposed; None where that does
            not matter.
        is_timed: whether the sweep has a time limit: then what trials took predicts what points
            will take, and proposals follow from it.
    """

    limits: tuple[Limit, ...] = ()
    quantities: Callable[[Params], Mapping[str, float]] | None = None
    cost: Callable[[Params], float | None] | None = None
    is_timed: bool = False
    longest_epoch: float | None = None

    def known(self, params: Params) -> dict[str, float]:
        """The quantities of a point that limits are compared with."""
        return dict(self.quantities(params)) if self.limits and self.quantities else {}

    def multiply_adds(self, params: Params) -> float | None:
        """The multiply-adds of a point; None where they are unknown."""
        return self.cost(params) if self.cost else None

    def broken(self, params: Params) -> str:
        """The limit that a point breaks, as `parameters 312k > 200k`; empty for none."""
        return broken_limit(self.limits, self.known(params))


@dataclass(frozen=True)
class Draft:
    """A point that was drawn: in the space's terms, as Optuna stores it, and from what.

    `origin` is None where the sampler knows one way to draw only.
    """

    params: Params
    stored: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    origin: Origin | None = None


class Drafts:
    """Draws the points of one study.

    Args:
        uniform: whether points are drawn uniformly, whatever the sampler has learned.
    """

    def __init__(
        self,
        sampler: PriorSampler,
        space: Space,
        names: StoredNames,
        economy: Economy,
        seed: int,
        *,
        uniform: bool = False,
    ) -> None:
        self._sampler, self._space, self._names = sampler, space, names
        self._economy, self._seed, self._uniform = economy, seed, uniform
        self._limits = economy.limits
        if economy.longest_epoch is not None:
            self._limits += (Limit("epoch_seconds", economy.longest_epoch),)
        self._max_tries = MAX_BUILT if space.reference else MAX_TRIES
        self._num_refused = 0

    def next(self, study: optuna.Study, is_taken: Callable[[Params], bool]) -> Draft | None:
        """The point of the study's next trial; None where no new one was found.

        That an epoch is to take at most `Economy.longest_epoch` is a wish: where every point is
        slower, it is one of the quickest that were drawn. Where no point keeps the limits, it is
        the one nearest to them, to be refused and told; but none after `MAX_REFUSED` in a row.

        Args:
            is_taken: whether a point was proposed before.

        Raises:
            InputError: The study is empty, and no point that was drawn keeps the limits.
        """
        trials = study.get_trials(deepcopy=False)
        mixture = None if self._uniform else self._sampler.mixture(study, trials)
        promise = Promise(mixture.best, trials) if mixture else None
        is_judged = promise is not None and (promise.is_known or self._economy.cost is not None)
        wanted = NUM_CHOICES if is_judged else 1
        forecasts = Forecasts(trials if self._economy.is_timed else ())
        found: list[Draft] = []
        slow: list[tuple[float, Draft]] = []
        least: Draft | None = None
        least_excess = 0.0
        repeats = 0
        for attempt in range(self._max_tries):
            near = least if attempt >= self._max_tries // 2 and not found else None
            draft = self._draw(trials, mixture, attempt, near)
            known = self._known(draft.params, forecasts)
            if broken_limit(self._limits, known):
                share = excess(self._limits, known)
                if least is None or share < least_excess:
                    least, least_excess = draft, share
                if not broken_limit(self._economy.limits, known) and not is_taken(draft.params):
                    slow.append((known["epoch_seconds"], draft))
                continue
            if is_taken(draft.params) or any(draft.params == other.params for other in found):
                repeats += 1
                if repeats >= self._max_tries // 2:
                    break  # A small space, nearly known: what was found is enough.
                continue
            found.append(draft)
            # The defaults are to be tried first, not one of several.
            is_default = draft.origin is not None and draft.origin.kind == "default"
            if len(found) == wanted or is_default:
                break
        if not found:
            found = [draft for _, draft in sorted(slow, key=itemgetter(0))[:wanted]]
        if not found and not trials and least is not None:
            raise InputError(
                f"No configuration of space '{self._space.name}' was found that keeps --limit "
                f"{self._limits_text()} ({self._max_tries} tried); the nearest has "
                f"{self._economy.broken(least.params)}. Raise the limit."
            )
        if not found:
            return self._refused(least, repeats)
        self._num_refused = 0
        if len(found) == 1:
            return found[0]
        return self._chosen(found, promise, forecasts, len(trials))

    def _refused(self, nearest: Draft | None, repeats: int) -> Draft | None:
        """One that breaks a limit; None where too many did, or where nothing else is new."""
        self._num_refused += 1
        is_known = repeats >= self._max_tries // 2
        return None if is_known or self._num_refused > MAX_REFUSED else nearest

    def _known(self, params: Params, forecasts: Forecasts) -> dict[str, float]:
        """What limits are compared with: what layers tell, and predictions less their error."""
        known = self._economy.known(params)
        for limit in self._limits:
            value = forecasts.of(limit.quantity, params, self._economy.multiply_adds(params))
            if value is not None:
                known[limit.quantity] = value / FORECAST_MARGIN
        return known

    def _limits_text(self) -> str:
        return " ".join(str(limit) for limit in self._economy.limits)

    def _chosen(
        self,
        found: Sequence[Draft],
        promise: Promise | None,
        forecasts: Forecasts,
        number: int,
    ) -> Draft:
        """The point of the most promise per cost; before promise is known, by lot.

        The cost is the predicted time of an epoch, or else the multiply-adds.
        """
        costs = [self._economy.multiply_adds(draft.params) for draft in found]
        if forecasts.knows("epoch_seconds"):
            costs = [
                forecasts.of("epoch_seconds", draft.params, cost)
                for draft, cost in zip(found, costs, strict=True)
            ]
        known = [value for value in costs if value]
        typical = float(np.median(known)) if known else 1.0
        weights = np.array([value or typical for value in costs]) ** COST_POWER
        if promise is not None and promise.is_known:
            logs = [promise.of(draft.stored, draft.distributions) for draft in found]
            return found[int(np.argmax(np.array(logs) + np.log(weights)))]
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, number]))
        return found[int(rng.choice(len(found), p=weights / weights.sum()))]

    def _draw(
        self,
        trials: Sequence[FrozenTrial],
        mixture: Mixture | None,
        attempt: int,
        near: Draft | None,
    ) -> Draft:
        """One point; near another one, where that is given, to come below its cost."""
        number = len(trials)
        origin = mixture.origin(number, attempt) if mixture else _UNIFORM
        center = self._sampler.center(origin, trials)
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, number, attempt]))

        def value(name: str, distribution: BaseDistribution) -> Any:
            if distribution.single():
                return single_value(distribution)
            if near is not None and name in near.stored:
                return draw_around(distribution, near.stored[name], NEARBY, rng)
            return self._sampler.value(origin, center, number, name, distribution, attempt)

        return drawn(self._space, self._names, value, near.origin if near else origin)


def drawn(
    space: Space,
    names: StoredNames,
    value: Callable[[str, BaseDistribution], Any],
    origin: Origin | None = None,
) -> Draft:
    """A whole point.

    Args:
        value: draws one parameter.
    """
    trial = _DraftTrial(value)
    params = space.sample(OptunaHyperParameters(trial, None, names))  # type: ignore[arg-type]
    return Draft(params, trial.params, trial.distributions, origin)


class _DraftTrial:
    """Stands for an Optuna trial, and returns the values that are drawn."""

    def __init__(self, value: Callable[[str, BaseDistribution], Any]) -> None:
        self._value = value
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        value: Value = self._of(name, CategoricalDistribution(choices))
        return value

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return int(self._of(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._of(name, FloatDistribution(low, high, log=log, step=step)))

    def _of(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            self.params[name] = self._value(name, distribution)
            self.distributions[name] = distribution
        return self.params[name]
