"""A sweep as one parent run and one child run per trial, written with `MlflowClient` only.

The fluent functions keep a current run per thread and export settings to child processes; every
call here names its run.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
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
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_SOURCE_NAME

from search_spaces.errors import InputError, redacted, scrubbed
from tracking.model_files import write_model_folder
from tracking.records import (
    DataRecord,
    ModelRecord,
    SweepEnd,
    SweepRecord,
    TrialEnd,
    TrialRecord,
    run_status,
)

MAX_PARAM_CHARACTERS = 6_000
"""Longer values are refused or cut by MLflow."""
MODEL_NAME = "model"


logging.getLogger("mlflow").setLevel(logging.WARNING)  # No tables being created, no hints.
logging.getLogger("alembic").setLevel(logging.WARNING)


class MlflowTracker:
    """Writes one sweep to an MLflow store. Not thread-safe: one thread calls it.

    Opening creates the store's schema where it is missing and the experiment where it is new.

    Raises:
        InputError: The store cannot be used.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        try:
            self._client = MlflowClient(uri)
            self.experiment_id = self._experiment(experiment)
        except InputError:
            raise
        except Exception as error:  # Each kind of store raises its own.
            raise _unusable(uri, error) from error
        self._uri = uri
        self._parent = ""
        self._runs: dict[int, str] = {}
        self._models: dict[int, str] = {}

    @property
    def parent_run_id(self) -> str:
        """The sweep's run; empty before `start_sweep`."""
        return self._parent

    def run_id(self, number: int) -> str | None:
        """The run of a trial; None while it has not arrived in the store."""
        return self._runs.get(number)

    def model_id(self, number: int) -> str | None:
        """The logged model of a trial, while it is kept."""
        return self._models.get(number)

    def start_sweep(self, record: SweepRecord) -> None:
        """Creates the parent run; raises InputError where the store refuses."""
        tags = {"sweeps.kind": "sweep", "sweeps.sweep": record.name, **record.tags}
        try:
            self._parent = self._create(record.name, tags, record.params, record.data)
        except Exception as error:  # Each kind of store raises its own.
            raise _unusable(self._uri, error) from error
        self._common = {"sweeps.sweep": record.name, **record.tags}
        self._data = record.data

    def start_trial(self, record: TrialRecord) -> None:
        """Creates a child run."""
        tags = {
            **self._common,
            "sweeps.kind": "trial",
            "sweeps.trial": str(record.number),
            "sweeps.state": "RUNNING",
            MLFLOW_PARENT_RUN_ID: self._parent,
            **record.tags,
        }
        self._runs[record.number] = self._create(record.name, tags, record.params, self._data)

    def log_epoch(
        self, number: int, epoch: int, metrics: Mapping[str, float], timestamp_ms: int
    ) -> None:
        """Logs one epoch's metrics at step `epoch`."""
        self._log(self._runs[number], metrics, epoch, timestamp_ms)

    def log_files(self, number: int, paths: list[str]) -> None:
        """Uploads a trial's files; those that are missing or empty are left out."""
        for path in paths:
            if Path(path).is_file() and Path(path).stat().st_size:
                self._client.log_artifact(self._runs[number], path)

    def end_trial(self, end: TrialEnd) -> None:
        """Logs what is final and ends the run truthfully."""
        run_id = self._runs[end.number]
        self._finish(run_id, {"sweeps.state": end.state, **end.tags}, end.metrics, end.texts)
        self._client.set_terminated(run_id, run_status(end.state))

    def set_tags(self, number: int, tags: Mapping[str, str]) -> None:
        """Adds tags to a trial's run."""
        self._finish(self._runs[number], tags, {}, {})

    def log_progress(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs how the sweep stands on the parent run."""
        self._log(self._parent, metrics, step, _now_ms())

    def keep_model(self, record: ModelRecord, replaced: int | None = None) -> None:
        """Logs a trial's model, removes its local file, and then the model that it replaces."""
        run_id = self._runs[record.number]
        model = self._client.create_logged_model(
            self.experiment_id,
            name=MODEL_NAME,
            source_run_id=run_id,
            tags={key: str(value) for key, value in record.tags.items()},
            model_type="keras",
        )
        with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as scratch:
            folder = Path(scratch) / MODEL_NAME
            write_model_folder(
                folder,
                Path(record.path),
                record.input_shape,
                record.num_classes,
                run_id=run_id,
                model_id=model.model_id,
            )
            self._client.log_model_artifacts(model.model_id, str(folder))
        self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, record.step)])
        now = _now_ms()
        self._client.log_batch(
            run_id,
            metrics=[
                Metric(key, value, now, record.step, model_id=model.model_id, run_id=run_id)
                for key, value in record.metrics.items()
            ],
        )
        self._models[record.number] = model.model_id
        Path(record.path).unlink(missing_ok=True)
        if replaced in self._models:
            self.drop_model(replaced)

    def drop_model(self, number: int) -> None:
        """Removes a kept model with its files: `mlflow gc` would leave them behind."""
        model_id = self._models.pop(number)
        location = self._client.get_logged_model(model_id).artifact_location
        get_artifact_repository(location).delete_artifacts()  # type: ignore[no-untyped-call]
        self._client.delete_logged_model(model_id)

    def end_sweep(self, end: SweepEnd) -> None:
        """Logs leaderboard, pages and totals, and ends the parent run."""
        if end.leaderboard:
            self._client.log_table(self._parent, dict(end.leaderboard), "leaderboard.json")
        self._finish(self._parent, end.tags, end.metrics, end.texts)
        self._client.set_terminated(self._parent, end.status)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise InputError(f"Experiment '{name}' is deleted; restore it or name another.")
            return str(found.experiment_id)
        try:
            # The UI opens such an experiment as model training, not as a chat application's.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(self._client.create_experiment(name, tags=tags))
        except MlflowException:
            # Another sweep may have created it since.
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _create(
        self, name: str, tags: Mapping[str, str], params: Mapping[str, object], data: DataRecord
    ) -> str:
        run = self._client.create_run(
            self.experiment_id,
            tags={MLFLOW_RUN_NAME: name, MLFLOW_SOURCE_NAME: "keras-sweeps", **tags},
        )
        run_id = str(run.info.run_id)
        entries = [Param(key, str(value)[:MAX_PARAM_CHARACTERS]) for key, value in params.items()]
        for start in range(0, len(entries), 100):  # MLflow's limit per request.
            self._client.log_batch(run_id, params=entries[start : start + 100])
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

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int, timestamp_ms: int) -> None:
        entries = [Metric(key, value, timestamp_ms, step) for key, value in metrics.items()]
        self._client.log_batch(run_id, metrics=entries)

    def _finish(
        self,
        run_id: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        texts: Mapping[str, str],
    ) -> None:
        now = _now_ms()
        self._client.log_batch(
            run_id,
            metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
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
        client = MlflowClient(uri)
        experiments = [str(e.experiment_id) for e in client.search_experiments()]
        text = f"tags.`sweeps.sweep` = '{name}' AND tags.`sweeps.kind` = 'sweep'"
        return bool(client.search_runs(experiments, text, max_results=1))
    except Exception as error:  # Each kind of store raises its own.
        raise _unusable(uri, error) from error


def _unusable(uri: str, error: Exception) -> InputError:
    first_line = (scrubbed(str(error), uri).strip().splitlines() or ["no reason given"])[0]
    return InputError(
        f"--tracking-uri must be a usable MLflow store. Received: {redacted(uri)} "
        f"({type(error).__name__}: {first_line[:200]})."
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
