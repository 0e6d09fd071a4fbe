"""A sampler that knows what is usual: uniform points, points around defaults, and mutations.

After PriorBand (Mallik, Bergman, Hvarfner, Stoll, Janowski, Lindauer, Nardi and Hutter, NeurIPS
2023, arXiv 2306.12370): the share of uniform points falls as more is learned, and the rest is
divided between the prior and the best trials by how well each explains the best results. It works
with any pruner, or none, and with conditional parameters, in plain Optuna too:

    sampler = PriorSampler({"lr": 3e-3, "layers": 2}, seed=0)
    optuna.create_study(sampler=sampler).optimize(objective, n_trials=25)
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from sweeps.engines.optuna_study.elite import Curves, Elite, find_elite
from sweeps.engines.optuna_study.unit_cube import (
    Spread,
    draw_around,
    draw_uniform,
    has_value,
    log_ratio,
)

PROPOSED_BY = "proposed_by"
"""User attribute of a trial: the kind of its proposal, and what it was drawn around."""
AROUND_PRIOR = Spread(sd=0.25, moved=1.0, redrawn=0.25)
"""The sd is PriorBand's, for defaults that are guesses."""
AROUND_BEST = Spread(sd=0.15, moved=0.6, redrawn=0.2)
"""Nearer than a guess, and some values stay, so that a mutation keeps most of what was good."""
SHARE_OF_DEFAULTS = 2 / 3
"""Of the points around known ones; the rest is divided among the known points beside them."""
NUM_PARENTS = 3
"""Mutations are of one of so many best trials, as likely as its rank: 3 to 2 to 1."""
MIN_RESULTS_PER_ELITE = 2
"""Mutations begin with so many times `reduction_factor` results: until then a best is luck."""
MAX_EXPLAINED = 12
"""Prior and mutations are judged by so many of the best: each is compared with all the others."""
LEAST_SHARE = 0.1
"""What prior and mutations each keep of their common share, however little they explain."""
Kind = Literal["default", "uniform", "prior", "mutation", "added"]
"""`added` is a point that a person gave while the sweep ran."""


@dataclass(frozen=True)
class Origin:
    """What a proposal was drawn from.

    Attributes:
        of: of a prior, the place of its known point (0 for the defaults); of a mutation, the
            number of its trial.
    """

    kind: Kind
    of: int = 0

    @property
    def text(self) -> str:
        """For people: `uniform`, `prior`, `prior (known point 2)`, `mutation of trial 7`."""
        if self.kind == "mutation":
            return f"mutation of trial {self.of}"
        return f"prior (known point {self.of})" if self.kind == "prior" and self.of else self.kind

    def stored(self) -> dict[str, Any]:
        """As the trial's user attribute."""
        return {"kind": self.kind, "of": self.of}


def origin_of(attributes: Mapping[str, Any]) -> Origin | None:
    """The origin that user attributes of a trial hold, if any."""
    stored = attributes.get(PROPOSED_BY)
    return Origin(stored["kind"], stored["of"]) if stored else None


class PriorSampler(optuna.samplers.BaseSampler):
    """Uniform points, points around defaults, and mutations of the best trials so far.

    A proposal follows from the seed, the trial's number and the study's history alone, and what it
    is drawn around is stored (as user attribute `proposed_by`) before its first value is. The
    study needs one objective.

    Args:
        defaults: usual values by parameter; one without is drawn uniformly.
        known_points: further points that are known to be good, complete or not.
        seed: of everything random; None for a different one each time.
        reduction_factor: the best 1/factor of the trials at a step are what is learned from.
        whole_from: values at steps below it are compared at the same step only.
        counts: which trials are learned from; None for all.
    """

    def __init__(
        self,
        defaults: Mapping[str, Any] | None = None,
        *,
        known_points: Sequence[Mapping[str, Any]] = (),
        seed: int | None = None,
        reduction_factor: int = 3,
        whole_from: int = 0,
        counts: Callable[[FrozenTrial], bool] | None = None,
    ) -> None:
        self._whole_from, self._counts = whole_from, counts
        self._reached: dict[StudyDirection, Curves] = {}
        self._known = [dict(defaults or {}), *map(dict, known_points)]
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._factor = reduction_factor
        self._scored: tuple[object, tuple[float, float]] = None, (0.0, 0.0)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: parameters are drawn one by one, around one point."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value of the trial's proposal, whose origin is decided with its first parameter."""
        trials = study.get_trials(deepcopy=False)
        stored = next(t.user_attrs for t in trials if t.number == trial.number)
        origin = origin_of(stored)
        if origin is None:
            history = [t for t in trials if t.number != trial.number]
            origin = self.mixture(study, history).origin(trial.number)
            attribute = origin.stored()
            study._storage.set_trial_user_attr(trial._trial_id, PROPOSED_BY, attribute)
        center = self.center(origin, trials)
        return self.value(origin, center, trial.number, param_name, param_distribution)

    def mixture(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Mixture:
        """What a proposal may be drawn from, after these trials.

        Raises:
            ValueError: The study has several objectives.
        """
        if len(study.directions) != 1:
            raise ValueError(
                "PriorSampler needs a study with one objective. Received: "
                f"{len(study.directions)}. Choose another, such as optuna.samplers.NSGAIISampler."
            )
        reached = self._reached.setdefault(
            study.direction, Curves(study.direction, self._whole_from, self._counts)
        )
        best = find_elite(trials, self._factor, reached)
        is_first = not any(origin_of(t.user_attrs) or self._is_default(t) for t in trials)
        weights = _weights(best, self._factor, self._scores)
        is_first = is_first and bool(self._known[0])
        return Mixture(self._seed, is_first, weights, best, len(self._known))

    def _scores(self, best: Sequence[FrozenTrial]) -> tuple[float, float]:
        """As `_scores`, worked out anew where others are the best than for the last proposal."""
        of = [(trial.number, trial.params) for trial in best]
        if self._scored[0] != of:
            self._scored = of, _scores(best, self._known)
        return self._scored[1]

    def center(self, origin: Origin, trials: Sequence[FrozenTrial]) -> Mapping[str, Any]:
        """The values that a proposal is drawn around."""
        if origin.kind == "mutation":
            place = origin.of
            if place >= len(trials) or trials[place].number != place:  # Some are not there.
                place = next(k for k, t in enumerate(trials) if t.number == origin.of)
            return trials[place].params
        return self._known[origin.of] if origin.of < len(self._known) else {}

    def value(
        self,
        origin: Origin,
        center: Mapping[str, Any],
        number: int,
        name: str,
        distribution: BaseDistribution,
        attempt: int = 0,
    ) -> Any:
        """One value of a proposal.

        Args:
            center: what `center` returns for the origin.
            number: of the trial.
            attempt: how many points were drawn for the trial before and not taken.
        """
        rng = _generator(self._seed, number, attempt, zlib.crc32(name.encode()))
        value, default = center.get(name), self._known[0].get(name)
        if origin.kind == "uniform":
            return draw_uniform(distribution, rng)
        if origin.kind == "default":
            known = has_value(distribution, default)
            return default if known else draw_uniform(distribution, rng)
        if has_value(distribution, value):
            spread = AROUND_BEST if origin.kind == "mutation" else AROUND_PRIOR
            return draw_around(distribution, value, spread, rng)
        # The point did not have it, as it was under other conditions: what is usual for it.
        if has_value(distribution, default):
            return draw_around(distribution, default, AROUND_PRIOR, rng)
        return draw_uniform(distribution, rng)

    def _is_default(self, trial: FrozenTrial) -> bool:
        """Whether a trial is the point of all defaults, as one that was enqueued may be."""
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        return bool(params) and all(self._known[0].get(n) == v for n, v in params.items())


@dataclass(frozen=True)
class Mixture:
    """The kinds of the next proposal with their weights.

    Attributes:
        is_first: nothing was proposed yet, so the defaults themselves come first.
        weights: kind -> weight; they sum to 1.
        best: the best trials, with what was learned.
        num_known: known points, the defaults included.
    """

    seed: int
    is_first: bool
    weights: Mapping[Kind, float]
    best: Elite
    num_known: int

    def origin(self, number: int, attempt: int = 0) -> Origin:
        """What the trial of this number is drawn from."""
        if self.is_first and attempt == 0:
            return Origin("default")
        rng = _generator(self.seed, number, attempt)
        kinds = list(self.weights)
        kind = kinds[int(rng.choice(len(kinds), p=list(self.weights.values())))]
        place = rng.random()
        if kind == "mutation":
            parents = self.best.trials[:NUM_PARENTS]
            ranks = np.cumsum(np.arange(len(parents), 0, -1))
            return Origin(kind, parents[int(np.searchsorted(ranks / ranks[-1], place))].number)
        if kind == "prior" and self.num_known > 1 and place >= SHARE_OF_DEFAULTS:
            share = (place - SHARE_OF_DEFAULTS) / (1 - SHARE_OF_DEFAULTS)
            return Origin(kind, 1 + min(int(share * (self.num_known - 1)), self.num_known - 2))
        return Origin(kind)


def _weights(
    best: Elite,
    reduction_factor: int,
    scores: Callable[[Sequence[FrozenTrial]], tuple[float, float]],
) -> dict[Kind, float]:
    """The weights of the kinds (PriorBand, algorithm 2 and section 5).

    The share of uniform points is 1 / (1 + eta^r) at rung r; eta^r is here what the step of the
    rung is to the lowest one, or the number of results stands for it where trials have no rungs.
    """
    if best.num_results < MIN_RESULTS_PER_ELITE * reduction_factor or len(best.trials) < 2:
        return {"uniform": 0.5, "prior": 0.5}
    by_prior, by_best = scores(best.trials[:MAX_EXPLAINED])
    prior = min(max(by_prior / (by_prior + by_best), LEAST_SHARE), 1 - LEAST_SHARE)
    uniform = 1 / (1 + max(1.0, best.evidence))
    rest = 1 - uniform
    return {"uniform": uniform, "prior": rest * prior, "mutation": rest * (1 - prior)}


def _scores(best: Sequence[FrozenTrial], known: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """How well the prior, and the other best trials, explain the best trials, by their rank.

    PriorBand sums densities. With twenty parameters those differ by many orders of magnitude, and
    the best trial always explains itself; so here the densities are relative to uniform draws, to
    the power of 1 over the root of the number of parameters, and of the others only.
    """
    others = (1 - SHARE_OF_DEFAULTS) / max(1, len(known) - 1)
    shares = [1.0] if len(known) == 1 else [SHARE_OF_DEFAULTS] + [others] * (len(known) - 1)
    by_prior = by_best = 0.0
    for rank, trial in enumerate(best):
        rest = [other.params for other in best if other.number != trial.number]
        weight = len(best) - rank
        by_prior += weight * _explained(trial, known, shares, AROUND_PRIOR)
        by_best += weight * _explained(trial, rest, [1 / len(rest)] * len(rest), AROUND_BEST)
    return by_prior, by_best


def _explained(
    trial: FrozenTrial,
    centers: Sequence[Mapping[str, Any]],
    shares: Sequence[float],
    spread: Spread,
) -> float:
    logs = [log_density(trial.params, trial.distributions, c, spread) for c in centers]
    top = max(logs)
    density = sum(s * math.exp(log - top) for s, log in zip(shares, logs, strict=True))
    return math.exp((top + math.log(density)) / math.sqrt(max(1, len(trial.params))))


def log_density(
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    center: Mapping[str, Any],
    spread: Spread,
) -> float:
    """The logarithm of how much likelier a point is around another than under uniform draws."""
    return sum(
        log_ratio(distribution, center[name], params[name], spread)
        for name, distribution in distributions.items()
        if name in center and not distribution.single() and has_value(distribution, center[name])
    )


def _generator(*parts: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([len(parts), *parts]))
