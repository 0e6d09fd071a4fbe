"""Sweeps as an MLflow server tells them, where they ran on another machine.

A run there has the latest value of each metric; a trial has one report then, its latest. MLflow
takes 3 ms for each run that it puts into an answer, so that of many trials only some are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from pipelines.objectives import get_objective
from search_spaces.errors import InputError, unknown_name
from sweeps.engines.base import TrialState
from sweeps.history.listing import Summary
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial, Report, point_of
from sweeps.settings import SweepSettings
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import FINISHED, INTERRUPTED, RUNNING, SweepFile
from tracking.addresses import redacted
from tracking.filters import tag_is
from tracking.metric_names import MetricNames
from tracking.rest import MAX_RESULTS, RestRun, search_runs
from tracking.spool.records import now_ms
from tracking.tags import Tag

_SWEEPS = f"tags.`{Tag.KIND}` = 'sweep'"
_STATES = {"RUNNING": RUNNING, "SCHEDULED": INTERRUPTED}
"""MLflow's status of a sweep's run -> its state; any other status is an end."""
MOST_READ = 100
"""Trials up to which all are read."""
_NEWEST_FIRST = "attributes.start_time DESC"
_NUM_NEWEST, _MOST_BASELINES = 10, 50


def listed_on_server(uri: str) -> list[Summary]:
    """The sweeps of a server, newest first; raises InputError where it does not answer."""
    return [_summary(run) for run in search_runs(uri, _SWEEPS)]


def sweep_on_server(uri: str, name: str | None) -> RecordedSweep:
    """A sweep with its trials; None for the one that began last.

    Raises:
        InputError: The server does not answer, or has no such sweep.
    """
    parent = _parent(uri, name)
    return _with(_sweep(parent), _trials(uri, parent))


def part_on_server(
    uri: str,
    name: str | None,
    tell: Callable[[str], None],
    *,
    best: int | None = None,
    trial: int | None = None,
) -> RecordedSweep:
    """A sweep with those of its trials that are to be shown, and its baselines.

    It has all trials where they are few, and where the best cannot be told without: until enough
    trials are complete, MLflow cannot order them.

    Args:
        tell: takes a line that says why it takes long.
        best: how many of the best trials it has at least; None for all.
        trial: the one that it has at least, if there is such a trial, in place of the best.

    Raises:
        InputError: As `sweep_on_server`.
    """
    parent = _parent(uri, name)
    sweep = _sweep(parent)
    newest = list(islice(_trials(uri, parent, limit=_NUM_NEWEST), _NUM_NEWEST))
    if len(newest) < _NUM_NEWEST:
        return _with(sweep, newest)
    # Trials begin in the order of their numbers, one after the other from 0 on.
    num_trials = 1 + max(found.number for found in newest)
    if num_trials <= MOST_READ:
        return _with(sweep, _trials(uri, parent))
    why = ""
    if trial is not None:
        found = list(islice(_trials(uri, parent, tag_is(Tag.TRIAL, trial), limit=1), 1))
    elif best is not None:
        found = _best(uri, parent, sweep, newest, best)
        if len(found) < best:
            why = f"Fewer than {best} trials are complete, so all {num_trials:,} are read"
    else:
        why = f"All {num_trials:,} trials are read"
    if why:
        tell(f"{why}; the server may take some milliseconds for each.")
        return _with(sweep, _trials(uri, parent))
    limit = _MOST_BASELINES
    baselines = _trials(uri, parent, f"tags.`{Tag.BASELINE}` LIKE '%'", limit=limit)
    _with(sweep, [*newest, *found, *islice(baselines, limit)])
    sweep.num_left_out = num_trials - len(sweep.trials)
    return sweep


def _parent(uri: str, name: str | None) -> RestRun:
    chosen = None if name is None else name.replace("'", "")
    text = _SWEEPS if chosen is None else f"{_SWEEPS} AND {tag_is(Tag.SWEEP, chosen)}"
    parent = next(search_runs(uri, text, limit=1), None)
    if parent is None:
        known = sorted({run.tags.get(Tag.SWEEP, "") for run in search_runs(uri, _SWEEPS)})
        if not known or name is None:
            raise InputError(f"There is no sweep on {redacted(uri)}.")
        raise unknown_name(f"sweep on {redacted(uri)}", name, known)
    return parent


def _trials(
    uri: str,
    parent: RestRun,
    *conditions: str,
    limit: int = MAX_RESULTS,
    order_by: tuple[str, ...] = (_NEWEST_FIRST,),
) -> Iterator[RecordedTrial]:
    """The trials of a sweep that meet further conditions."""
    of_sweep = tag_is(Tag.UID, parent.tags.get(Tag.UID, ""))
    text = " AND ".join((of_sweep, f"tags.`{Tag.KIND}` = 'trial'", *conditions))
    return map(
        _trial,
        search_runs(uri, text, experiment_id=parent.experiment_id, limit=limit, order_by=order_by),
    )


def _best(
    uri: str, parent: RestRun, sweep: RecordedSweep, newest: list[RecordedTrial], limit: int
) -> list[RecordedTrial]:
    """The best complete trials; of equals the earlier ones.

    MLflow's order by a metric takes SQLite time with the square of the runs. So it has to order
    only what is as good as the best of the newest ones, or as the worst, if these are enough.
    """
    objective = sweep.objective
    metric = f"metrics.`{MetricNames.of(parent.tags).of_end(f'best_{objective.metric}')}`"
    direction, as_good = ("DESC", ">=") if objective.direction == "maximize" else ("ASC", "<=")
    order = (f"{metric} {direction}", "attributes.start_time ASC")
    of_newest = [trial.value(objective) for trial in newest]
    values = [value for value in of_newest if value is not None and math.isfinite(value)]
    values.sort(key=objective.sort_key)
    bounds = dict.fromkeys((values[0], values[-1]) if values else ())
    for more in [*((f"{metric} {as_good} {bound!r}",) for bound in bounds), ()]:
        is_complete = tag_is(Tag.STATE, TrialState.COMPLETE.value)
        some = _trials(uri, parent, is_complete, *more, limit=limit, order_by=order)
        # What an earlier trial had before has no value.
        found = [one for one in islice(some, limit) if one.value(objective) is not None]
        if len(found) == limit:
            break
    return found


def _with(sweep: RecordedSweep, trials: Iterable[RecordedTrial]) -> RecordedSweep:
    """The same sweep with these trials, in the order of their numbers."""
    sweep.trials = dict(sorted({trial.number: trial for trial in trials}.items()))
    return sweep


def _summary(run: RestRun) -> Summary:
    sweep, metrics = _sweep(run), run.metrics
    ended = [int(metrics.get(f"num_{end}", 0)) for end in ("complete", "pruned", "failed")]
    best = run.tags.get(Tag.BEST_TRIAL, "")
    return Summary(
        name=sweep.name,
        state=sweep.state,
        task=sweep.task,
        objective=sweep.objective.metric,
        best_trial=int(best) if best.isdigit() else None,
        best_value=metrics.get(f"best_{sweep.objective.metric}"),
        best_is_complete=True,
        num_trials=sum(ended),
        num_complete=ended[0],
        num_pruned=ended[1],
        num_failed=ended[2],
        seconds=metrics.get("wall_seconds", sweep.seconds_so_far(now_ms())),
        begun_ms=sweep.begun_ms,
        run_id=sweep.run_id,
        note=sweep.note,
    )


def _sweep(run: RestRun) -> RecordedSweep:
    tags, params = run.tags, run.params
    state = _STATES.get(run.status, FINISHED)
    settings = SweepSettings(
        space=tags.get(Tag.SPACE, ""),
        objective=params.get("objective", "val_accuracy"),
        seed=int(params.get("seed", 0)),
        name=tags.get(Tag.SWEEP, run.run_id),
    )
    file = SweepFile(
        uid=tags.get(Tag.UID, ""),
        status=state,
        settings=settings,
        data_name=tags.get(Tag.DATA, ""),
        data_fingerprint=tags.get(Tag.DATA_FINGERPRINT, ""),
        space_fingerprint=tags.get(Tag.SPACE_FINGERPRINT, ""),
    )
    assert settings.name is not None
    stopped_by = tags.get(Tag.STOPPED_BY, "")
    return RecordedSweep(
        SweepPaths(Path(".sweeps").absolute(), settings.name), file, state,
        get_objective(settings.objective),
        params=params, tags=dict(tags),
        stopped_by="" if stopped_by == "not yet" else stopped_by,
        sessions=[(run.begun_ms, run.ended_ms or run.begun_ms)],
        run_id=run.run_id,
    )  # fmt: skip


def _trial(run: RestRun) -> RecordedTrial:
    number = int(run.tags[Tag.TRIAL])
    end = run.ended_ms or None
    latest = {name: value for name, value in run.metrics.items() if not name.startswith("best_")}
    # Where reports are whole epochs, a report's step is all that says its epoch.
    epochs = run.metrics.get("epoch", run.metrics.get("num_epochs", run.last_step))
    return RecordedTrial(
        number=number,
        name=run.tags.get("mlflow.runName", f"trial {number}"),
        params=point_of(run.params),
        num_epochs=int(run.params.get("max_epochs", 0)),
        begun_ms=run.begun_ms,
        state=TrialState(run.tags.get(Tag.STATE, "RUNNING")),
        reports=[Report(epochs, end or run.begun_ms, latest)] if latest else [],
        metrics=run.metrics,
        tags=dict(run.tags),
        stretches=[(run.begun_ms, end)],
        run_id=run.run_id,
    )
