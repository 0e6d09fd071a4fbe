"""The trials of a recorded sweep as rows of a table: one for each trial, or for each report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from tracking.spool.records import now_ms
from tracking.tags import Tag

Row = dict[str, Any]


def trial_row(sweep: RecordedSweep, trial: RecordedTrial) -> Row:
    """A trial as a row: facts, `params_NAME` for its parameters, and its final metrics."""
    return {
        "sweep": sweep.name,
        "trial": trial.number,
        "state": trial.state.value,
        sweep.objective.metric: trial.value(sweep.objective),
        f"last_{sweep.objective.metric}": trial.last_value(sweep.objective),
        "epochs": trial.epochs,
        "max_epochs": trial.num_epochs,
        "seconds": round(trial.seconds(now_ms()), 3),
        "baseline": trial.baseline,
        "duplicate_of": int(trial.tags[Tag.DUPLICATE_OF]) if trial.is_duplicate else None,
        "reason": trial.reason,
        "begun_ms": trial.begun_ms,
        "run_id": trial.run_id,
        **{f"params_{name}": value for name, value in trial.params.items()},
        **trial.metrics,
    }


def trial_rows(sweep: RecordedSweep) -> list[Row]:
    """A row for each trial, by number; all have the same columns, None where one has no value."""
    return _even(trial_row(sweep, trial) for _, trial in sorted(sweep.trials.items()))


def report_rows(sweep: RecordedSweep) -> list[Row]:
    """A row for each report: the trial, the epochs trained until then, when, and its metrics."""
    return _even(
        {"sweep": sweep.name, "trial": trial.number, "epochs": report.epochs}
        | {"at_ms": report.at_ms}
        | {name: value for name, value in report.metrics.items() if name != "epoch"}
        for _, trial in sorted(sweep.trials.items())
        for report in trial.reports
    )


def _even(rows: Iterable[Row]) -> list[Row]:
    rows = list(rows)
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]
