"""What the spool holds of trials with a fixed plan: it is their study."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.objectives import Objective
from sweeps.engines.base import PastTrial, Proposal, TrialState
from tracking.spool.history import TrialHistory
from tracking.spool.records import EpochRecord, TrialEnd
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.spool.spool import Spool


@dataclass(frozen=True)
class SpooledTrials:
    """What earlier sessions recorded.

    Attributes:
        metrics: trial -> epoch -> the metrics that were reported.
        ends: the last end of each trial that the spool tells to be complete.
    """

    metrics: Mapping[int, Mapping[int, Mapping[str, float]]]
    ends: Mapping[int, TrialEnd]


def read_trials(spool: Spool) -> SpooledTrials:
    """Reads the spool once."""
    history = TrialHistory(spool)
    metrics: dict[int, dict[int, Mapping[str, float]]] = {}
    ends: dict[int, TrialEnd] = {}
    for record in spool.replay():
        if isinstance(record, EpochRecord):
            metrics.setdefault(record.number, {})[record.epoch] = record.metrics
        elif isinstance(record, TrialEnd):
            ends[record.number] = record
    complete = TrialState.COMPLETE.value
    return SpooledTrials(
        metrics, {n: end for n, end in ends.items() if history.last_state(n) == complete}
    )


def with_curve(proposal: Proposal, found: SpooledTrials, objective: Objective) -> Proposal:
    """The proposal with what an earlier session recorded of it, so that it goes on after that."""
    reported = found.metrics.get(proposal.number, {})
    return replace(
        proposal,
        curve={epoch: _value(proposal, m, objective) for epoch, m in reported.items()},
    )


def past_trials(
    plan: Iterable[Proposal],
    found: SpooledTrials,
    objective: Objective,
    is_lost: Callable[[int], bool] = lambda number: False,
) -> tuple[list[PastTrial], list[Proposal]]:
    """The trials that are complete, and those that are to be trained still, or go on.

    One that was killed, or that failed in an earlier session, is wanted still.

    Args:
        is_lost: whether a complete trial of this number left nothing to work with, because a kill
            came between its end and that.
    """
    past, wanted = [], []
    for proposal in (with_curve(proposal, found, objective) for proposal in plan):
        end = found.ends.get(proposal.number)
        if end is None or is_lost(proposal.number):
            wanted.append(proposal)
        else:
            past.append(_past(proposal, end, objective))
    return past, wanted


def _past(proposal: Proposal, end: TrialEnd, objective: Objective) -> PastTrial:
    metrics = end.metrics
    return PastTrial(
        number=proposal.number,
        params=proposal.params,
        state=TrialState.COMPLETE,
        value=metrics.get(f"best_{objective.metric}"),
        curve=proposal.curve,
        baseline=proposal.baseline,
        reason=end.tags.get(Tag.REASON, ""),
        facts={
            "best_epoch": int(metrics.get("best_epoch", 0)) or None,
            "num_parameters": int(metrics.get("num_parameters", 0)) or None,
            "seconds": metrics.get("training_seconds", 0.0),
        },
        ended_at=end.at_ms / 1000,
        name=proposal.name,
        plan=proposal.plan,
    )


def _value(proposal: Proposal, metrics: Mapping[str, float], objective: Objective) -> float:
    if proposal.plan is None or proposal.plan.schedule.validates:
        return objective.value(metrics)
    return metrics.get("accuracy", math.nan)
