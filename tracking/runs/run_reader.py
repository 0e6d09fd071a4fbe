"""Reads runs back from MLflow, as plain values: all of a sweep, or one to train it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.entities import LoggedModel, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from search_spaces.errors import InputError
from tracking.artifact_places import gone, moved_experiment
from tracking.client import open_client
from tracking.errors import MISSING, unless
from tracking.filters import quoted, tag_is
from tracking.metric_names import MetricNames
from tracking.runs.tracker import VERSIONS_TAG, unusable_store
from tracking.tags import Tag, trial_number

MAX_RELATED = 3
ID_CHARACTERS = 32


@dataclass(frozen=True)
class StoredRun:
    """A run as MLflow holds it.

    Attributes:
        reports: step -> value of the objective.
        num_points: points of the objective's history, repetitions included.
        metrics: by their plain names (`tracking.metric_names`).
        status: MLflow's own status.
        state: the tag `sweeps.state`.
    """

    run_id: str
    status: str
    state: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    reports: Mapping[int, float]
    num_points: int


@dataclass(frozen=True)
class RecordedRun:
    """A run as it was recorded.

    Attributes:
        epochs: epoch -> metric -> value; epochs count from 1, and final metrics are not among them.
            Metrics have their plain names (`tracking.metric_names`).
        parent_params: of the run that it is a child of; None where that one is gone.
        related: the first of a sweep's trials, or the trial whose point this one repeats, as
            `id (name)`.
    """

    run_id: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    epochs: Mapping[int, Mapping[str, float]]
    parent_params: Mapping[str, str] | None = None
    related: tuple[str, ...] = ()


def read_run(uri: str, reference: str) -> RecordedRun:
    """The run of that id, or of the only id that begins so; writes nothing.

    Raises:
        InputError: There is none, several begin so, or the store cannot be used.
    """
    try:
        reader = _OneRunReader(uri)
        return reader.read(reader.find(reference))
    except InputError:
        raise
    except Exception as error:  # Each kind of store raises its own.
        raise unusable_store(uri, error) from error


class RunReader:
    """Reads the runs of one sweep.

    Args:
        uid: the sweep's own, in the tag `sweeps.uid`.

    Raises:
        InputError: The store cannot be used.
    """

    def __init__(self, uri: str, uid: str, metric: str) -> None:
        self._uid, self._uri = uid, uri
        self._metric = metric
        try:
            self._client = open_client(uri)
            self._experiments = [str(e.experiment_id) for e in self._client.search_experiments()]
        except Exception as error:  # Each kind of store raises its own.
            raise unusable_store(uri, error) from error

    def sweep_runs(self) -> list[StoredRun]:
        """The parent runs; there must be one."""
        return [self._read(run) for run in self._search("sweep")]

    def trial_runs(self) -> dict[int, list[StoredRun]]:
        """The child runs by trial; there must be one each."""
        found: dict[int, list[StoredRun]] = {}
        for run in self._search("trial"):
            number = trial_number(run.data.tags, f"Run {run.info.run_id}")
            found.setdefault(number, []).append(self._read(run))
        return found

    def damage(self) -> list[str]:
        """One line for each run and model whose tag names no trial."""
        kinds = ("trial", "finalist", "retrained")
        tagged = [(f"Run {run.info.run_id}", run.data.tags)
                  for kind in kinds for run in self._search(kind)]  # fmt: skip
        tagged += [(f"Model {model.model_id}", model.tags) for model in self._models()]
        found = []
        for what, tags in tagged:
            try:
                trial_number(tags, what)
            except InputError as error:
                found.append(str(error))
        return found

    def model_numbers(self) -> list[int]:
        """The trials of the models that are kept for the sweep, one entry per model.

        Registered ones are kept for somebody else.
        """
        return sorted(
            trial_number(model.tags, f"Model {model.model_id}")
            for model in self._models()
            if VERSIONS_TAG not in model.tags
        )

    def all_model_numbers(self) -> list[int]:
        """As `model_numbers`, registered ones included."""
        return sorted(
            trial_number(model.tags, f"Model {model.model_id}") for model in self._models()
        )

    def files_problem(self) -> str:
        """What happened to the folders of the sweep's files; empty where they are there."""
        for model in self._models():
            if problem := gone(self._uri, str(model.artifact_location)):
                return problem
        for run in self._search("sweep"):
            experiment = self._client.get_experiment(run.info.experiment_id)
            if problem := moved_experiment(self._uri, str(experiment.artifact_location)):
                return problem
        return ""

    def _models(self) -> list[LoggedModel]:
        return list(
            self._client.search_logged_models(
                self._experiments,
                f"tags.`{Tag.RECORD}` LIKE {quoted(f'{self._uid}/%')}",
                max_results=1000,
            )
        )

    def finalist_runs(self) -> dict[int, list[str]]:
        """Trainings of a comparison -> the ids of their runs; there must be one each."""
        found: dict[int, list[str]] = {}
        for run in self._search("finalist") + self._search("retrained"):
            number = trial_number(run.data.tags, f"Run {run.info.run_id}")
            found.setdefault(number, []).append(str(run.info.run_id))
        return found

    def num_winners(self) -> int:
        """Runs that are noted as a comparison's winner."""
        text = f"{tag_is(Tag.UID, self._uid)} AND tags.`{Tag.WINNER}` = 'true'"
        return len(self._client.search_runs(self._experiments, text))

    def num_running(self) -> int:
        """Runs of any kind that are RUNNING."""
        text = f"{tag_is(Tag.UID, self._uid)} AND attributes.status = 'RUNNING'"
        return len(self._client.search_runs(self._experiments, text, max_results=1000))

    def _search(self, kind: str) -> list[Run]:
        found: list[Run] = []
        token = None
        text = f"{tag_is(Tag.UID, self._uid)} AND {tag_is(Tag.KIND, kind)}"
        while True:
            page = self._client.search_runs(
                self._experiments, text, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def _read(self, run: Run) -> StoredRun:
        names = MetricNames.of(run.data.tags)
        name = names.of_report(self._metric)
        history = self._client.get_metric_history(run.info.run_id, name)
        return StoredRun(
            run_id=str(run.info.run_id),
            status=str(run.info.status),
            state=run.data.tags.get(Tag.STATE, ""),
            params=dict(run.data.params),
            tags=dict(run.data.tags),
            metrics=names.plain(run.data.metrics),
            reports={point.step: point.value for point in history},
            num_points=len(history),
        )


class _OneRunReader:
    def __init__(self, uri: str) -> None:
        self._client = open_client(uri)
        self._experiments = [str(e.experiment_id) for e in self._client.search_experiments()]

    def find(self, reference: str) -> Run:
        found = self._search(f"attributes.run_id = '{reference}'") if reference.isalnum() else []
        if not found and re.fullmatch(rf"[0-9a-f]{{6,{ID_CHARACTERS - 1}}}", reference):
            found = self._search(f"attributes.run_id LIKE '{reference}%'")
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(_label(run) for run in found)
            raise InputError(
                f"The ids of several runs begin with '{reference}': {names}. Give more digits."
            )
        raise InputError(
            f"There is no run '{reference}' in this MLflow store. Give its id, or at least the "
            "first six digits of it; `mlflow ui` shows them."
        )

    def read(self, run: Run) -> RecordedRun:
        return RecordedRun(
            run_id=str(run.info.run_id),
            name=str(run.info.run_name),
            params=dict(run.data.params),
            tags=dict(run.data.tags),
            epochs=self._epochs(run),
            parent_params=self._parent_params(run),
            related=self._related(run),
        )

    def _epochs(self, run: Run) -> dict[int, dict[str, float]]:
        epochs: dict[int, dict[str, float]] = {}
        names = MetricNames.of(run.data.tags)
        for recorded in run.data.metrics:
            name = names.plain_name(recorded)
            points = self._client.get_metric_history(run.info.run_id, recorded)
            for point in sorted(points, key=lambda point: int(point.timestamp)):
                if point.step >= 1:  # Final metrics are those of step 0.
                    epochs.setdefault(int(point.step), {})[name] = float(point.value)
        return dict(sorted(epochs.items()))

    def _parent_params(self, run: Run) -> dict[str, str] | None:
        parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
        with unless(MISSING):
            return dict(self._client.get_run(parent).data.params) if parent else None
        return None

    def _related(self, run: Run) -> tuple[str, ...]:
        tags = run.data.tags
        text = tag_is(MLFLOW_PARENT_RUN_ID, run.info.run_id)
        if Tag.DUPLICATE_OF in tags:
            text = (
                f"{tag_is(Tag.UID, tags.get(Tag.UID))} AND tags.`{Tag.KIND}` = 'trial' "
                f"AND {tag_is(Tag.TRIAL, tags[Tag.DUPLICATE_OF])}"
            )
        return tuple(_label(found) for found in self._search(text))

    def _search(self, text: str) -> list[Run]:
        return list(
            self._client.search_runs(
                self._experiments, text, max_results=MAX_RELATED,
                order_by=["attributes.start_time ASC"],
            )
        )  # fmt: skip


def _label(run: Run) -> str:
    return f"{run.info.run_id} ({run.info.run_name})"
