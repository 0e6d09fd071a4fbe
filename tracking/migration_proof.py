"""Holds a copy against its original: everything is read again from both stores."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tracking.migration import Counts, Migration
from tracking.migration_content import ModelContent, RegisteredContent, RunContent


def proof(migration: Migration) -> tuple[Counts, Counts, list[str]]:
    """What the original holds, what of it the copy holds, and every difference in words."""
    here, there, differences = Counts(), Counts(), []
    source, target = migration.source, migration.target
    for experiment in source.experiments():
        here.experiments += 1
        copy = target.client.get_experiment_by_name(experiment.name)
        there.experiments += copy is not None
        if copy is None or copy.lifecycle_stage != experiment.lifecycle_stage:
            differences.append(f"experiment '{experiment.name}'")
    for experiment_name, run, copy_id in migration.pairs.runs:
        one = source.run_content(source.client.get_run(run.info.run_id), experiment_name)
        other = target.run_content(target.client.get_run(copy_id), experiment_name)
        _count_run(here, one)
        _count_run(there, other)
        differences += _differences(f"run {run.info.run_id}", one, other)
    for experiment_name, model, copy_id in migration.pairs.models:
        first = source.model_content(model, experiment_name)
        second = target.model_content(target.client.get_logged_model(copy_id), experiment_name)
        _count_model(here, first)
        _count_model(there, second)
        differences += _differences(f"logged model {model.model_id}", first, second)
    for registered in source.registered():
        original = source.registered_content(registered)
        found = target.registered_content(target.client.get_registered_model(registered.name))
        _count_registered(here, original)
        _count_registered(there, found)
        differences += _differences(f"registered model '{registered.name}'", original, found)
    return here, there, differences


def _differences(what: str, one: Any, other: Any) -> list[str]:
    names = [part.name for part in fields(one)
             if getattr(one, part.name) != getattr(other, part.name)]  # fmt: skip
    return [f"{what}: {', '.join(names)}"] if names else []


def _count_run(counts: Counts, run: RunContent) -> None:
    counts.runs += 1
    counts.metric_points += len(run.points)
    counts.artifacts += len(run.files)


def _count_model(counts: Counts, model: ModelContent) -> None:
    counts.logged_models += 1
    counts.artifacts += len(model.files)


def _count_registered(counts: Counts, model: RegisteredContent) -> None:
    counts.registered_models += 1
    counts.versions += len(model.versions)
    counts.aliases += len(model.aliases)
