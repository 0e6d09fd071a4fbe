"""Holds a copy against its original: everything is read again from both stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tracking.migration.contents import (
    Counts,
    ModelContent,
    RegisteredContent,
    RunContent,
    VersionContent,
    is_remark,
)
from tracking.migration.migration import Migration
from tracking.runs.tracker import VERSIONS_TAG


@dataclass
class Proof:
    """What both stores hold, and every difference in words.

    Attributes:
        here, there: what the original holds, and what of it the copy holds.
        differences: what should not be.
        kept: what somebody changed on the server since, which stays.
    """

    here: Counts = field(default_factory=Counts)
    there: Counts = field(default_factory=Counts)
    differences: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def compare(self, what: str, one: Any, other: Any, kept: Mapping[str, Allowed]) -> None:
        """Notes the parts in which two contents differ.

        Args:
            kept: parts that may differ on the server, and how far.
        """
        for part in fields(one):
            here, there = getattr(one, part.name), getattr(other, part.name)
            if here == there:
                continue
            allowed = part.name in kept and kept[part.name](here, there)
            (self.kept if allowed else self.differences).append(f"{what}: {part.name}")


Allowed = Callable[[Any, Any], bool]
"""Whether a part may be so on the server, given what it is here."""


def _any(here: object, there: object) -> bool:
    del here, there
    return True


def _remarks(here: Mapping[str, str], there: Mapping[str, str]) -> bool:
    """Tags were added, and people's own ones changed."""
    return all(
        key in there and (there[key] == text or is_remark(key) or key == VERSIONS_TAG)
        for key, text in here.items()
    )


def _none_missing(here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    return here.keys() <= there.keys()


def _same_versions(here: Mapping[str, VersionContent], there: Mapping[str, VersionContent]) -> bool:
    """The same models under the same numbers; there may be more, and their status may change."""
    return all(
        number in there
        and (one.model, one.run) == (there[number].model, there[number].run)
        and one.tags.keys() <= there[number].tags.keys()
        for number, one in here.items()
    )


_OF_RUNS: Mapping[str, Allowed] = {"name": _any, "tags": _remarks, "stage": _any}
_OF_MODELS: Mapping[str, Allowed] = {"tags": _remarks}
_OF_REGISTERED: Mapping[str, Allowed] = {
    "description": _any, "tags": _none_missing, "aliases": _none_missing,
    "versions": _same_versions,
}  # fmt: skip


def proof(migration: Migration) -> Proof:
    """Reads both stores once more, and compares everything."""
    found = Proof(kept=list(migration.kept))
    source, target = migration.source, migration.target
    for experiment in source.experiments():
        found.here.experiments += 1
        copy = target.client.get_experiment_by_name(experiment.name)
        found.there.experiments += copy is not None
        if experiment.name in migration.gone_experiments:
            continue
        if copy is None:
            found.differences.append(f"experiment '{experiment.name}'")
        elif copy.lifecycle_stage != experiment.lifecycle_stage:
            found.kept.append(f"experiment '{experiment.name}': {copy.lifecycle_stage}")
        else:
            what, tags = f"experiment '{experiment.name}': tags", dict(copy.tags)
            if not _remarks(experiment.tags, tags):
                found.differences.append(what)
            elif any(tags[key] != text for key, text in experiment.tags.items()):
                found.kept.append(what)
    for experiment_name, run, copy_id in migration.pairs.runs:
        one = source.run_content(source.client.get_run(run.info.run_id), experiment_name)
        other = target.run_content(target.client.get_run(copy_id), experiment_name)
        _count_run(found.here, one)
        _count_run(found.there, other)
        found.compare(f"run {run.info.run_id}", one, other, _OF_RUNS)
    for experiment_name, model, copy_id in migration.pairs.models:
        first = source.model_content(model, experiment_name)
        second = target.model_content(target.client.get_logged_model(copy_id), experiment_name)
        _count_model(found.here, first)
        _count_model(found.there, second)
        found.compare(f"logged model {model.model_id}", first, second, _OF_MODELS)
    for registered in source.registered():
        original = source.registered_content(registered)
        deleted = migration.gone.get(registered.name)
        if deleted is not None and not deleted:
            continue  # All of it.
        if deleted:
            original = replace(
                original,
                aliases={k: v for k, v in original.aliases.items() if not {k, v} & {*deleted}},
                versions={k: v for k, v in original.versions.items() if k not in deleted},
            )
        theirs = target.registered_content(target.client.get_registered_model(registered.name))
        _count_registered(found.here, original)
        _count_registered(found.there, theirs)
        found.compare(f"registered model '{registered.name}'", original, theirs, _OF_REGISTERED)
    return found


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
