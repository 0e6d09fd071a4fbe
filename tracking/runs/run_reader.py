"""Reads one run back from MLflow with everything that it takes to train it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from search_spaces.errors import InputError
from tracking.runs.tracker import unusable_store
from tracking.tags import Tag

MAX_RELATED = 3
ID_CHARACTERS = 32


@dataclass(frozen=True)
class RecordedRun:
    """A run as it was recorded.

    Attributes:
        epochs: epoch -> metric -> value; epochs count from 1, and final metrics are not among them.
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
        reader = _Reader(uri)
        return reader.read(reader.find(reference))
    except InputError:
        raise
    except Exception as error:  # Each kind of store raises its own.
        raise unusable_store(uri, error) from error


class _Reader:
    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(uri)
        self._experiments = [str(e.experiment_id) for e in self._client.search_experiments()]

    def find(self, reference: str) -> Run:
        found = self._search(f"attributes.run_id = '{reference}'") if reference.isalnum() else []
        if not found and re.fullmatch(rf"[0-9a-f]{{6,{ID_CHARACTERS - 1}}}", reference):
            found = self._search(f"attributes.run_id LIKE '{reference}%'")
        if len(found) == 1:
            return found[0]
        rule = "A run's id must be one of this store's, or at least six digits that begin one."
        if found:
            names = ", ".join(_label(run) for run in found)
            raise InputError(f"{rule} Received: '{reference}', which begins several: {names}.")
        raise InputError(
            f"{rule} Received: '{reference}', which it does not have. `mlflow ui` shows them."
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
        for name in run.data.metrics:
            points = self._client.get_metric_history(run.info.run_id, name)
            for point in sorted(points, key=lambda point: int(point.timestamp)):
                if point.step >= 1:  # Final metrics are those of step 0.
                    epochs.setdefault(int(point.step), {})[name] = float(point.value)
        return dict(sorted(epochs.items()))

    def _parent_params(self, run: Run) -> dict[str, str] | None:
        parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
        try:
            return dict(self._client.get_run(parent).data.params) if parent else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _related(self, run: Run) -> tuple[str, ...]:
        tags = run.data.tags
        text = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'"
        if Tag.DUPLICATE_OF in tags:
            text = (
                f"tags.`{Tag.UID}` = '{tags.get(Tag.UID)}' AND tags.`{Tag.KIND}` = 'trial' "
                f"AND tags.`{Tag.TRIAL}` = '{tags[Tag.DUPLICATE_OF]}'"
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
