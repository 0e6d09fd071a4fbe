"""A sweep as one parent run and one child run per trial, written with `MlflowClient` only.

The fluent functions keep a current run per thread and export settings to child processes; every
call here names its run.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import (
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_MODEL_VERSIONS,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_SOURCE_NAME,
)

from search_spaces.errors import InputError
from tracking.addresses import redacted, scrubbed
from tracking.client import open_client
from tracking.errors import schema_problem
from tracking.filters import tag_is
from tracking.metric_names import MetricNames
from tracking.models.model_folder import model_name, write_model_folder
from tracking.runs.doubles import models_of, only_run
from tracking.runs.experiments import open_experiment
from tracking.runs.notes import note_sweeps, tags_with_note
from tracking.spool.records import (
    EpochRecord,
    FilesRecord,
    MachineRecord,
    ModelDropRecord,
    ModelRecord,
    ProgressRecord,
    Record,
    SweepEnd,
    SweepRecord,
    SweepStateRecord,
    SweepTagsRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
    ViewRecord,
    run_status,
    sendable,
)
from tracking.spool.sender import RejectedError
from tracking.stores import WatchedFile
from tracking.tags import Tag

MAX_PARAM_CHARACTERS = 6_000
"""Longer values are refused or cut by MLflow."""
TABLE_FILE = "leaderboard.json"
VERSIONS_TAG: str = MLFLOW_MODEL_VERSIONS
"""MLflow's own tag of a logged model, by which its page links to the registered versions: JSON, a
list of their names and numbers."""
FINAL_CODES = (
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_STATE",
    "FEATURE_DISABLED",
    "ENDPOINT_NOT_FOUND",
)
"""MLflow's error codes for requests that are wrong in themselves."""
MAX_BAD_REQUESTS = 5


logging.getLogger("mlflow").setLevel(logging.WARNING)  # No tables being created, no hints.
logging.getLogger("alembic").setLevel(logging.WARNING)


class MlflowTracker:
    """Writes one sweep to an MLflow store, record by record. Not thread-safe: one thread calls it.

    Opening creates the store's schema where it is missing and the experiment where it is new.
    Every record may be applied again: a run or model that an earlier attempt created is found by
    its tag `sweeps.record`, and everything else is the same however often it is written.

    Args:
        files: where the adopted files of a record are, by its key.
        answers: what earlier sessions were answered: ids of runs and models by record.

    Raises:
        InputError: The store cannot be used.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        files: Callable[[str], Path] = Path,
        answers: Iterable[Mapping[str, str]] = (),
    ) -> None:
        try:
            self._client = open_client(uri)
            self.experiment_id = open_experiment(self._client, experiment)
        except InputError:
            raise
        except Exception as error:  # Each kind of store raises its own.
            raise unusable_store(uri, error) from error
        self._uri, self._files = uri, files
        self._watched = WatchedFile(uri)
        self._sweep: SweepRecord | None = None
        self._tags_of_parent: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._doubtful: set[str] = set()
        self._bad_requests: dict[str, int] = {}
        self._is_anew = False
        for answer in answers:
            if "id" in answer:
                self._ids[answer["key"]] = answer["id"]
        self._handlers: dict[type, Callable[[Any, bool], str | None]] = {
            SweepRecord: self._start_sweep,
            SweepStateRecord: self._sweep_state,
            SweepTagsRecord: self._sweep_tags,
            ViewRecord: self._save_view,
            TrialRecord: self._start_trial,
            EpochRecord: self._epoch,
            TrialStateRecord: self._trial_state,
            FilesRecord: self._upload,
            TagsRecord: self._tags,
            TrialEnd: self._end_trial,
            ModelRecord: self._keep_model,
            ModelDropRecord: self._drop_model,
            ProgressRecord: self._progress,
            MachineRecord: self._progress,
            SweepEnd: self._end_sweep,
        }

    def knows(self, sweep: SweepRecord) -> None:
        """Tells the sweep's own record, where it was sent in an earlier session."""
        self._sweep = sweep

    def belongs_to(self, run_id: str) -> None:
        """Tells the run that this one's is a child of: a comparison of finalists has a sweep."""
        self._tags_of_parent = {MLFLOW_PARENT_RUN_ID: run_id}

    @property
    def parent_run_id(self) -> str:
        """The sweep's run; empty before it was created."""
        return self._ids.get("sweep", "")

    @property
    def uid(self) -> str:
        """What names the sweep among all sweeps; empty before it was told."""
        return self._sweep.uid if self._sweep else ""

    @property
    def _names(self) -> MetricNames:
        assert self._sweep is not None
        return MetricNames.of(self._sweep.tags)

    def run_id(self, number: int) -> str | None:
        """The run of a trial; None while it has not arrived in the store."""
        return self._ids.get(f"trial-{number}")

    def model_id(self, number: int) -> str | None:
        """The logged model of a trial, while it is kept."""
        return self._ids.get(f"trial-{number}/model") or None

    def apply(self, record: Record, *, again: bool = False) -> Mapping[str, str]:
        """Writes a record; the answer holds the id of the run or model that it created.

        Raises:
            RejectedError: The store will never take it.
            OSError: The file of the store was removed or replaced.
        """
        self._watched.check()
        record = sendable(record)
        try:
            found = self._handlers[type(record)](record, again)
        except MlflowException as error:
            if self._is_final(record.key, error):
                # The reason is kept on disk.
                raise RejectedError(scrubbed(_first_line(error), self._uri)) from error
            raise
        except (FileNotFoundError, KeyError) as error:
            raise RejectedError(f"{type(error).__name__}: {_first_line(error)}") from error
        if found is None:
            return {}
        self._ids[record.key] = found
        return {"id": found}

    def _is_final(self, key: str, error: MlflowException) -> bool:
        """Whether a store will never take the record.

        MLflow calls a database's passing errors (a pool that timed out, two retries that
        overlapped) bad requests, too, so those are repeated some times first.
        """
        if error.error_code in FINAL_CODES:
            return True
        if error.error_code != "BAD_REQUEST":
            return False
        self._bad_requests[key] = self._bad_requests.get(key, 0) + 1
        return self._bad_requests[key] >= MAX_BAD_REQUESTS

    def _start_sweep(self, record: SweepRecord, again: bool) -> str:
        self._sweep = record
        tags = {
            Tag.KIND: "sweep", **self._identity(), **record.tags, **self._tags_of_parent
        }  # fmt: skip
        # Who lost the spool has it begun anew: the run that there is goes on, and its trials' too.
        was_known = record.key in self._ids
        self._is_anew = (
            not was_known and self._only_run(self._record_tag(record.key), None) is not None
        )
        again = again or self._is_anew
        found = self._create(record.key, record.name, tags, record.params, record.at_ms, again)
        note_sweeps(self._client, self.experiment_id)
        return found

    def _sweep_state(self, record: SweepStateRecord, again: bool) -> None:
        del again
        self._finish(self.parent_run_id, record.tags, {}, {}, record.at_ms)
        self._client.update_run(self.parent_run_id, status=record.status)

    def _sweep_tags(self, record: SweepTagsRecord, again: bool) -> None:
        del again
        self._finish(self.parent_run_id, record.tags, {}, record.texts, record.at_ms)

    def _save_view(self, record: ViewRecord, again: bool) -> None:
        del again
        for name, value in record.tags.items():
            self._client.set_experiment_tag(self.experiment_id, name, value)

    def _start_trial(self, record: TrialRecord, again: bool) -> str:
        assert self._sweep is not None
        tags = {
            **self._identity(),
            **self._sweep.tags,
            Tag.KIND: "trial",
            Tag.TRIAL: str(record.number),
            Tag.STATE: "RUNNING",
            MLFLOW_PARENT_RUN_ID: self.parent_run_id,
            **record.tags,
        }
        again = again or self._is_anew
        return self._create(record.key, record.name, tags, record.params, record.at_ms, again)

    def _identity(self) -> dict[str, str]:
        assert self._sweep is not None
        return {Tag.SWEEP: self._sweep.name, Tag.UID: self._sweep.uid}

    def _epoch(self, record: EpochRecord, again: bool) -> None:
        del again
        metrics = self._names.report(record.metrics, record.epoch)
        self._log(self._run(record.number), metrics, record.epoch, record.at_ms)

    def _trial_state(self, record: TrialStateRecord, again: bool) -> None:
        del again
        run_id = self._run(record.number)
        self._finish(run_id, {Tag.STATE: record.state, **record.tags}, {}, {}, record.at_ms)
        self._client.update_run(run_id, status=run_status(record.state))

    def _upload(self, record: FilesRecord, again: bool) -> None:
        run_id, folder = self._run(record.number), self._files(record.key)
        if not folder.is_dir():
            if again:
                return  # An earlier attempt uploaded them, and they were removed.
            raise FileNotFoundError(f"the files of {record.key} are gone")
        for path in sorted(folder.iterdir()):
            if path.stat().st_size:
                self._client.log_artifact(run_id, str(path))
        shutil.rmtree(folder, ignore_errors=True)

    def _tags(self, record: TagsRecord, again: bool) -> None:
        del again
        self._finish(self._run(record.number), record.tags, {}, {}, record.at_ms)

    def _end_trial(self, record: TrialEnd, again: bool) -> None:
        del again
        run_id, created = self._run(record.number), self._record_tag(f"trial-{record.number}")
        if created in self._doubtful:
            self._only_run(created, run_id)  # By now a late double has arrived, and goes.
        tags = {Tag.STATE: record.state, **record.tags}
        metrics = self._names.end(record.metrics)
        self._finish(run_id, tags, metrics, record.texts, record.at_ms)
        self._client.set_terminated(run_id, run_status(record.state), record.at_ms)

    def _progress(self, record: ProgressRecord | MachineRecord, again: bool) -> None:
        del again
        metrics = self._names.end(record.metrics)
        self._log(self.parent_run_id, metrics, record.step, record.at_ms)

    def _keep_model(self, record: ModelRecord, again: bool) -> str:
        """Logs a trial's model and removes its local file."""
        run_id, tag = self._run(record.number), self._record_tag(record.key)
        path = self._files(record.key) / Path(record.path).name
        model_id = self._find_model(tag) if again else None
        if not path.exists():
            if model_id is not None:
                return model_id
            raise FileNotFoundError(f"the model file of {record.key} is gone")
        if model_id is None:
            model_id = self._client.create_logged_model(
                self.experiment_id,
                name=model_name(record.tags),
                source_run_id=run_id,
                tags={**record.tags, Tag.RECORD: tag},
                model_type="keras",
            ).model_id
        with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as scratch:
            folder = Path(scratch) / "model"
            write_model_folder(
                folder, path, record.input_shape, record.num_classes, run_id=run_id,
                model_id=model_id, backend=record.tags.get(Tag.BACKEND, "tensorflow"),
            )  # fmt: skip
            self._client.log_model_artifacts(model_id, str(folder))
        self._client.finalize_logged_model(model_id, "READY")
        if model_id not in models_of(self._client.get_run(run_id)):
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, record.step)])
        self._client.log_batch(
            run_id,
            metrics=[
                Metric(key, value, record.at_ms, 0, model_id=model_id, run_id=run_id)
                for key, value in self._names.end(record.metrics).items()
            ],
        )
        shutil.rmtree(path.parent, ignore_errors=True)
        return str(model_id)

    def _drop_model(self, record: ModelDropRecord, again: bool) -> None:
        """Removes a kept model with its files: `mlflow gc` would leave them behind."""
        del again
        key = f"trial-{record.number}/model"
        model_id = self._ids.get(key)
        if not model_id:
            return
        try:
            model = self._client.get_logged_model(model_id)
            if VERSIONS_TAG in model.tags:
                return  # It was registered: a version that somebody may serve needs its files.
            location = model.artifact_location
            # Artifacts that a server hands on are reached through it, so it has to be named.
            files = get_artifact_repository(location, tracking_uri=self._uri)
            files.delete_artifacts()  # type: ignore[no-untyped-call]
            self._client.delete_logged_model(model_id)
        except MlflowException as error:
            if error.get_http_status_code() != HTTPStatus.NOT_FOUND:  # type: ignore[no-untyped-call]
                raise
        self._ids[key] = ""

    def _end_sweep(self, record: SweepEnd, again: bool) -> None:
        """Logs leaderboard, pages and totals, and ends the parent run."""
        del again
        run_id = self.parent_run_id
        if record.leaderboard:
            self._log_table(run_id, record.leaderboard)
        metrics = self._names.end(record.metrics)
        self._finish(run_id, record.tags, metrics, record.texts, record.at_ms)
        self._client.set_terminated(run_id, record.status, record.at_ms)
        note_sweeps(self._client, self.experiment_id)

    def _log_table(self, run_id: str, columns: Mapping[str, list[object]]) -> None:
        """As MLflow's `log_table`, which would append to the table of an earlier session."""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_dict(run_id, {"columns": list(columns), "data": rows}, TABLE_FILE)
        kind = json.dumps([{"path": TABLE_FILE, "type": "table"}])
        self._client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, kind)

    def _create(
        self,
        key: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        at_ms: int,
        again: bool,
    ) -> str:
        tag = self._record_tag(key)
        run_id = self._only_run(tag, self._ids.get(key)) if again else None
        kept: Collection[str] = ()
        if again:
            self._doubtful.add(tag)
        if run_id is None:
            run = self._client.create_run(
                self.experiment_id,
                start_time=at_ms,
                tags={
                    MLFLOW_RUN_NAME: name, MLFLOW_SOURCE_NAME: "keras-sweeps", Tag.RECORD: tag,
                    **tags,
                },
            )  # fmt: skip
            run_id = str(run.info.run_id)
        else:
            # MLflow refuses another value: of a sweep that goes on with more trials and no spool.
            kept = self._client.get_run(run_id).data.params
            if parent := tags.get(MLFLOW_PARENT_RUN_ID):  # Of two this may be the other one.
                self._client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, parent)
        entries = [Param(key, str(value)[:MAX_PARAM_CHARACTERS])
                   for key, value in params.items() if key not in kept]  # fmt: skip
        for start in range(0, len(entries), 100):  # MLflow's limit per request.
            self._client.log_batch(run_id, params=entries[start : start + 100])
        assert self._sweep is not None
        data = self._sweep.data
        dataset = Dataset(
            name=data.name,
            digest=data.fingerprint[:36],  # MLflow's column holds 36 characters.
            source_type="local",
            source=json.dumps({"origin": data.origin, "sha256": data.fingerprint}),
            schema=json.dumps(data.schema),
            profile=json.dumps(data.profile),
        )
        context = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(run_id, [DatasetInput(dataset, context)])
        return run_id

    def _record_tag(self, key: str) -> str:
        assert self._sweep is not None
        return f"{self._sweep.uid or self._sweep.name}/{key}"

    def _only_run(self, tag: str, known: str | None) -> str | None:
        return only_run(self._client, self.experiment_id, tag_is(Tag.RECORD, tag), known)

    def remove_doubles(self) -> None:
        """Looks again at every record that was applied again: what a double lacked has arrived."""
        for tag in sorted(self._doubtful):
            self._only_run(tag, self._ids.get(tag.partition("/")[2]))

    def _find_model(self, tag: str) -> str | None:
        models = self._client.search_logged_models([self.experiment_id], tag_is(Tag.RECORD, tag))
        return str(models[0].model_id) if models else None

    def _run(self, number: int) -> str:
        try:
            return self._ids[f"trial-{number}"]
        except KeyError:
            raise RejectedError(f"MLflow has no run of trial {number}") from None

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int, timestamp_ms: int) -> None:
        entries = [Metric(key, value, timestamp_ms, step) for key, value in metrics.items()]
        self._client.log_batch(run_id, metrics=entries)

    def _finish(
        self,
        run_id: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        texts: Mapping[str, str],
        at_ms: int,
    ) -> None:
        if Tag.RUN_NOTE in tags:
            known = self._client.get_run(run_id).data.tags
            tags = tags_with_note(tags, known, self.experiment_id, run_id)
        self._client.log_batch(
            run_id,
            metrics=[Metric(key, value, at_ms, 0) for key, value in metrics.items()],
            tags=[RunTag(key, value[:MAX_PARAM_CHARACTERS]) for key, value in tags.items()],
        )
        for name, text in texts.items():
            self._client.log_text(run_id, text, name)


def sweep_exists(uri: str, name: str) -> bool:
    """Whether any experiment of a store has a sweep of that name; writes nothing but its schema.

    Raises:
        InputError: The store cannot be used.
    """
    try:
        client = open_client(uri)
        experiments = [str(e.experiment_id) for e in client.search_experiments()]
        text = f"{tag_is(Tag.SWEEP, name)} AND tags.`{Tag.KIND}` = 'sweep'"
        return bool(client.search_runs(experiments, text, max_results=1))
    except Exception as error:  # Each kind of store raises its own.
        raise unusable_store(uri, error) from error


def unusable_store(uri: str, error: Exception) -> InputError:
    """The error for a store that raised something when it was opened or read."""
    first_line = (scrubbed(str(error), uri).strip().splitlines() or ["no reason given"])[0]
    reason = schema_problem(error, uri) or f"{type(error).__name__}: {first_line[:200]}"
    return InputError(
        f"--tracking-uri must be a usable MLflow store. Received: {redacted(uri)} ({reason})."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
