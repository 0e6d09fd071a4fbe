"""Measures stored models on the test split, each in a worker with the backend of its training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.models.scoring import Score, ScoreTask
from search_spaces.errors import InputError
from sweeps.interrupts import Interrupts
from sweeps.resources.machine import allot, detect_machine
from sweeps.state.recorded_options import tagged_compute
from sweeps.workers.jobs import score_job
from sweeps.workers.start import JobFailedError, run_job, start_workers

if TYPE_CHECKING:
    from sweeps.executors.base import Executor
    from tracking.models.model_store import ModelStore, StoredModel


@dataclass(frozen=True)
class Scored:
    """A model with what it reached; `right` (n,) bool says on which test images it is right."""

    model: StoredModel
    score: Score
    probabilities: np.ndarray
    right: np.ndarray


class Scorer:
    """Scores models of a store on one data set.

    Args:
        scratch: a folder for what is fetched and printed.
    """

    def __init__(
        self, store: ModelStore, data: PreparedData, scratch: Path, interrupts: Interrupts
    ) -> None:
        self._store, self._data, self._interrupts = store, data, interrupts
        self._scratch = scratch
        # On the cores: two processes there predict the same bits, whoever uses the GPUs meanwhile.
        self._slot = allot(replace(detect_machine(), gpus=()), 1, None).slots[0]
        self._executors: dict[str, Executor] = {}

    def score(self, model: StoredModel, folder: str) -> Scored | None:
        """Fetches a model into a folder of that name and measures it; None after an interrupt.

        Raises:
            InputError: It cannot be loaded or does not fit the data.
        """
        place = self._scratch / folder
        place.mkdir()
        path = self._store.fetch(model, place)
        output = place / "predictions.npz"
        task = ScoreTask(str(path), model.label, self._data, str(output))
        try:
            score = run_job(
                self._executor(model), score_job, task, self._slot, str(place / "output.log"),
                lambda message: message, self._interrupts,
            )  # fmt: skip
        except JobFailedError as error:
            if error.kind == InputError.__name__:
                raise InputError(error.reason) from error
            raise InputError(
                f"{model.label} could not be evaluated on the test split ({error.kind}: "
                f"{error.reason})."
            ) from error
        if score is None:
            return None
        probabilities = np.load(output, allow_pickle=False)["probabilities"]
        labels = self._data.arrays("test")[1]
        return Scored(model, score, probabilities, probabilities.argmax(axis=1) == labels)

    def _executor(self, model: StoredModel) -> Executor:
        """Processes with the backend that the model was trained on: it predicts the same there."""
        backend = tagged_compute(model.tags).backend
        if backend not in self._executors:
            log = self._scratch / f"server-{backend}.log"
            self._executors[backend] = start_workers(log, backend)
        return self._executors[backend]

    def close(self) -> None:
        """Ends the workers."""
        for executor in self._executors.values():
            executor.close()
