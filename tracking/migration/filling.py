"""Fills the copies of runs and logged models: everything that they lack, and only that."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    DatasetInput,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tracking.migration.contents import (
    Counts,
    StoreReader,
    dataset_key,
    is_remark,
    point,
)
from tracking.runs.tracker import VERSIONS_TAG
from tracking.tags import Tag

_MOST_METRICS, _MOST_PARAMS = 500, 100
"""MLflow's limits per request are 1,000 and 100."""
MARK, BEGUN, WHOLE = f"{Tag.COPIED_PREFIX}state", "begun", "whole"
"""On experiments that were made here, and on runs: whether all of it was copied. What differs from
its original afterwards was changed on the server."""
_TERMINAL = ("FINISHED", "FAILED", "KILLED")


class Filler:
    """The part of a copy that the content of runs and logged models is.

    Args:
        ids: id of a run or model of the source -> that of its copy; filled meanwhile.
        added: counts what this adds.
        own: names and numbers of versions that are the server's own; filled meanwhile.

    Attributes:
        to_delete: copies that are whole now, and whose originals are deleted.
    """

    def __init__(
        self,
        source: StoreReader,
        target: StoreReader,
        ids: dict[str, str],
        added: Counts,
        own: Collection[tuple[str, int]],
    ) -> None:
        self.source, self.target, self.ids, self.added = source, target, ids, added
        self.to_delete: list[str] = []
        self._own = own
        self._deleted_runs: set[str] = set()
        self._to: MlflowClient = target.client

    def run(self, run: Run, copy: str) -> None:
        """Adds what the copy of a run lacks."""
        there = self._to.get_run(copy)
        if there.info.lifecycle_stage == "deleted":
            self._deleted_runs.add(copy)
            return  # As its original is, and complete; or somebody deleted it on the server.
        self._texts(run, there)
        self._metrics(run, there)
        self._links(run, there)
        self._files(str(run.info.artifact_uri), str(there.info.artifact_uri))
        status, ended = str(run.info.status), run.info.end_time
        if (str(there.info.status), there.info.end_time) != (status, ended):
            if status in _TERMINAL and ended is not None:
                self._to.set_terminated(copy, status, ended)
            else:
                self._to.update_run(copy, status=status)
        if there.data.tags.get(MARK) == WHOLE:
            return
        if run.info.lifecycle_stage == "deleted":
            self.to_delete.append(copy)  # At the end: a model's metrics are written through it.
        else:
            self._to.set_tag(copy, MARK, WHOLE)

    def _texts(self, run: Run, there: Run) -> None:
        copy = there.info.run_id
        params = [Param(*one) for one in run.data.params.items() if one[0] not in there.data.params]
        for start in range(0, len(params), _MOST_PARAMS):
            self._to.log_batch(copy, params=params[start : start + _MOST_PARAMS])
        wanted = {key: self.source.mapped(text) for key, text in run.data.tags.items()}
        wanted.pop(Tag.ORIGIN, None)  # A copy of a copy is known by the one it was made of.
        known = there.data.tags
        tags = [
            RunTag(key, text) for key, text in wanted.items()
            if known.get(key) != text and not (key in known and is_remark(key))
        ]  # fmt: skip
        for start in range(0, len(tags), _MOST_PARAMS):
            self._to.log_batch(copy, tags=tags[start : start + _MOST_PARAMS])

    def _metrics(self, run: Run, there: Run) -> None:
        known = {point(metric) for metric in self.target.metrics(there)}
        missing = [one for one in self.source.metrics(run) if point(one) not in known]
        self.added.metric_points += len(missing)
        entries = [Metric(one.key, one.value, one.timestamp, one.step) for one in missing]
        for start in range(0, len(entries), _MOST_METRICS):
            self._to.log_batch(there.info.run_id, metrics=entries[start : start + _MOST_METRICS])

    def _links(self, run: Run, there: Run) -> None:
        """Data sets that went in, models that came out."""
        copy = there.info.run_id
        known = {dataset_key(one) for one in there.inputs.dataset_inputs} if there.inputs else set()
        inputs: list[DatasetInput] = run.inputs.dataset_inputs if run.inputs else []
        missing = [one for one in inputs if dataset_key(one) not in known]
        if missing:
            self._to.log_inputs(copy, missing)
        has = {one.model_id for one in there.outputs.model_outputs} if there.outputs else set()
        outputs = [
            LoggedModelOutput(self.ids.get(one.model_id, one.model_id), one.step)
            for one in (run.outputs.model_outputs if run.outputs else [])
        ]
        new = [one for one in outputs if one.model_id not in has]
        if new:
            self._to.log_outputs(copy, new)

    def model(self, model: LoggedModel, copy: str) -> None:
        """Adds what the copy of a logged model lacks, but for its tags."""
        there = self._to.get_logged_model(copy)
        known = {point(one) for one in there.metrics or []}
        for one in model.metrics or []:
            run_id = self.ids.get(one.run_id or "")
            if point(one) not in known and run_id and run_id not in self._deleted_runs:
                entry = Metric(
                    one.key, one.value, one.timestamp, one.step, copy, one.dataset_name,
                    one.dataset_digest, run_id,
                )  # fmt: skip
                self._to.log_batch(run_id, metrics=[entry])
        self._files(model.artifact_location, there.artifact_location)
        if there.status != model.status and LoggedModelStatus.is_finalized(model.status):
            self._to.finalize_logged_model(copy, model.status)

    def model_tags(self, model: LoggedModel, copy: str) -> None:
        """Adds the tags that the copy of a logged model lacks, once versions are registered."""
        there = self._to.get_logged_model(copy)
        tags = {key: self.source.mapped(text) for key, text in model.tags.items()}
        tags.pop(Tag.ORIGIN, None)
        new = {
            key: text for key, text in tags.items()
            if key != VERSIONS_TAG
            and there.tags.get(key) != text
            and not (key in there.tags and is_remark(key))
        }  # fmt: skip
        listed = _versions_listed(tags.get(VERSIONS_TAG), there.tags.get(VERSIONS_TAG), self._own)
        if listed != there.tags.get(VERSIONS_TAG):
            new[VERSIONS_TAG] = listed or "[]"
        if new:
            self._to.set_logged_model_tags(there.model_id, new)

    def _files(self, here: str, there: str) -> None:
        """Copies the artifacts that are missing or differ, one at a time."""
        known = self.target.files(there)
        with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
            for path, checksum in self.source.files(here).items():
                if known.get(path) == checksum:
                    continue
                self.added.artifacts += 1
                file = self.source.fetch(here, path, Path(folder))
                parent = str(PurePosixPath(path).parent)
                target: Any = get_artifact_repository(there, tracking_uri=self.target.uri)
                target.log_artifact(str(file), None if parent == "." else parent)
                file.unlink()


def _versions_listed(
    here: str | None, there: str | None, own: Collection[tuple[str, int]]
) -> str | None:
    """A logged model's list of its versions: as it is here, with those of the server's own.

    None where neither has one; the server lists versions, too, that were made to fill a gap.
    """
    found = json.loads(here or "[]")
    more = [one for one in json.loads(there or "[]") if (one["name"], int(one["version"])) in own]
    if not more:
        return here if here is not None or there is None else "[]"
    return json.dumps(found + [one for one in more if one not in found])
