"""Sweeps as an MLflow server tells them, where they ran on another machine.

A run there has the latest value of each metric; a trial has one report then, its latest.
"""

from __future__ import annotations

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
from tracking.rest import RestRun, search_runs
from tracking.spool.records import now_ms
from tracking.tags import Tag

_SWEEPS = f"tags.`{Tag.KIND}` = 'sweep'"
_STATES = {"RUNNING": RUNNING, "SCHEDULED": INTERRUPTED}
"""MLflow's status of a sweep's run -> its state; any other status is an end."""


def listed_on_server(uri: str) -> list[Summary]:
    """The sweeps of a server, newest first; raises InputError where it does not answer."""
    return [_summary(run) for run in search_runs(uri, _SWEEPS)]


def sweep_on_server(uri: str, name: str | None) -> RecordedSweep:
    """A sweep with its trials; None for the one that began last.

    Raises:
        InputError: The server does not answer, or has no such sweep.
    """
    chosen = None if name is None else name.replace("'", "")
    text = _SWEEPS if chosen is None else f"{_SWEEPS} AND {tag_is(Tag.SWEEP, chosen)}"
    parent = next(search_runs(uri, text, limit=1), None)
    if parent is None:
        known = sorted({run.tags.get(Tag.SWEEP, "") for run in search_runs(uri, _SWEEPS)})
        if not known or name is None:
            raise InputError(f"There is no sweep on {redacted(uri)}.")
        raise unknown_name(f"sweep on {redacted(uri)}", name, known)
    sweep = _sweep(parent)
    uid = parent.tags.get(Tag.UID, "")
    of_trials = f"{tag_is(Tag.UID, uid)} AND tags.`{Tag.KIND}` = 'trial'"
    for run in search_runs(uri, of_trials, experiment_id=parent.experiment_id):
        trial = _trial(run)
        sweep.trials[trial.number] = trial
    sweep.trials = dict(sorted(sweep.trials.items()))
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
