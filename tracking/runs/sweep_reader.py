"""Reads a sweep's runs back from MLflow, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

from tracking.runs.tracker import VERSIONS_TAG
from tracking.tags import Tag


@dataclass(frozen=True)
class StoredRun:
    """A run as MLflow holds it.

    Attributes:
        reports: step -> value of the objective.
        num_points: points of the objective's history, repetitions included.
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


class RunReader:
    """Reads the runs of one sweep.

    Args:
        uid: the sweep's own, in the tag `sweeps.uid`.
    """

    def __init__(self, uri: str, uid: str, metric: str) -> None:
        self._client = MlflowClient(uri)
        self._uid = uid
        self._metric = metric
        self._experiments = [str(e.experiment_id) for e in self._client.search_experiments()]

    def sweep_runs(self) -> list[StoredRun]:
        """The parent runs; there must be one."""
        return [self._read(run) for run in self._search("sweep")]

    def trial_runs(self) -> dict[int, list[StoredRun]]:
        """The child runs by trial; there must be one each."""
        found: dict[int, list[StoredRun]] = {}
        for run in self._search("trial"):
            found.setdefault(int(run.data.tags[Tag.TRIAL]), []).append(self._read(run))
        return found

    def model_numbers(self) -> list[int]:
        """The trials of the models that are kept for the sweep, one entry per model.

        Registered ones are kept for somebody else.
        """
        return sorted(
            int(model.tags[Tag.TRIAL]) for model in self._models() if VERSIONS_TAG not in model.tags
        )

    def all_model_numbers(self) -> list[int]:
        """As `model_numbers`, registered ones included."""
        return sorted(int(model.tags[Tag.TRIAL]) for model in self._models())

    def _models(self) -> list[LoggedModel]:
        return list(
            self._client.search_logged_models(
                self._experiments, f"tags.`{Tag.RECORD}` LIKE '{self._uid}/%'", max_results=1000
            )
        )

    def finalist_runs(self) -> dict[int, list[str]]:
        """Trainings of a comparison -> the ids of their runs; there must be one each."""
        found: dict[int, list[str]] = {}
        for run in self._search("finalist") + self._search("retrained"):
            number = int(run.data.tags[Tag.TRIAL])
            found.setdefault(number, []).append(str(run.info.run_id))
        return found

    def num_winners(self) -> int:
        """Runs that are noted as a comparison's winner."""
        text = f"tags.`{Tag.UID}` = '{self._uid}' AND tags.`{Tag.WINNER}` = 'true'"
        return len(self._client.search_runs(self._experiments, text))

    def num_running(self) -> int:
        """Runs of any kind that are RUNNING."""
        text = f"tags.`{Tag.UID}` = '{self._uid}' AND attributes.status = 'RUNNING'"
        return len(self._client.search_runs(self._experiments, text, max_results=1000))

    def _search(self, kind: str) -> list[Run]:
        found: list[Run] = []
        token = None
        text = f"tags.`{Tag.UID}` = '{self._uid}' AND tags.`{Tag.KIND}` = '{kind}'"
        while True:
            page = self._client.search_runs(
                self._experiments, text, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def _read(self, run: Run) -> StoredRun:
        history = self._client.get_metric_history(run.info.run_id, self._metric)
        return StoredRun(
            run_id=str(run.info.run_id),
            status=str(run.info.status),
            state=run.data.tags.get(Tag.STATE, ""),
            params=dict(run.data.params),
            tags=dict(run.data.tags),
            metrics=dict(run.data.metrics),
            reports={point.step: point.value for point in history},
            num_points=len(history),
        )
