"""Tasks of trials with some of their schedule, options and fields changed, by one name each."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from pipelines.training.options import TrainingOptions
from pipelines.training.trial import Schedule, TrialTask


def changed(task: TrialTask, **changes: Any) -> TrialTask:
    def of(kind: type) -> dict[str, Any]:
        return {f.name: changes.pop(f.name) for f in fields(kind) if f.name in changes}

    schedule = replace(task.schedule, **of(Schedule))
    training = replace(task.training, **of(TrainingOptions))
    return replace(task, schedule=schedule, training=training, **changes)
