"""Turns what happens in a sweep into records for the tracker, sent in the background."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.prepared import PreparedData
from pipelines.trial import EpochReport, TrialResult
from pipelines.trial_files import FIGURE_FILES, MODEL_FILE
from search_spaces.space import Space
from sweeps.board import Board, TrialRow
from sweeps.engines.base import TrialState
from sweeps.executors.base import Slot
from sweeps.keeping import BestModels
from sweeps.settings import SweepPaths
from tracking.records import (
    INACTIVE,
    DataRecord,
    ModelRecord,
    SweepEnd,
    SweepRecord,
    TrialEnd,
    TrialRecord,
)

if TYPE_CHECKING:
    from tracking.background import BackgroundCalls
    from tracking.mlflow_tracker import MlflowTracker


class Recorder:
    """Records one sweep. Every method returns at once; `finish` waits, with a limit."""

    def __init__(
        self,
        tracker: MlflowTracker,
        calls: BackgroundCalls,
        space: Space,
        data: PreparedData,
        paths: SweepPaths,
        models: BestModels,
    ) -> None:
        self._tracker = tracker
        self._calls = calls
        self._space = space
        self._data = data
        self._paths = paths
        self._models = models

    def sweep_started(
        self, name: str, params: Mapping[str, object], tags: Mapping[str, str]
    ) -> None:
        """Creates the parent run, at once: without it nothing else can be recorded.

        Raises:
            InputError: The store refuses.
        """
        common = {
            "sweeps.space": self._space.name,
            "sweeps.space_fingerprint": self._space.fingerprint,
            "sweeps.data": self._data.name,
            "sweeps.data_fingerprint": self._data.fingerprint,
            **tags,
        }
        record = SweepRecord(name, params, common, data_record(self._data))
        self._tracker.start_sweep(record)

    def trial_started(self, row: TrialRow, num_epochs: int, slot: Slot) -> None:
        """Creates a child run with every parameter of the space."""
        params: dict[str, object] = {
            p.name: row.params.get(p.name, INACTIVE) for p in self._space.parameters
        }
        params["max_epochs"] = num_epochs
        place = f"gpu {slot.gpu}" if slot.gpu is not None else "cpu"
        # Refined by the worker once it knows; a trial that never gets so far has this.
        tags = {"sweeps.seed": str(row.seed), "sweeps.device": place}
        if row.baseline:
            tags["sweeps.baseline"] = row.baseline
        self._calls.put(self._tracker.start_trial, TrialRecord(row.number, row.name, params, tags))

    def epoch_reported(self, report: EpochReport) -> None:
        """Logs an epoch's metrics."""
        now = time.time_ns() // 1_000_000
        self._calls.put(self._tracker.log_epoch, report.number, report.epoch, report.metrics, now)

    def trial_completed(self, row: TrialRow, result: TrialResult, state: TrialState) -> None:
        """Ends a run with what it reached, and keeps its model if it is among the best."""
        metrics = {f"best_{name}": value for name, value in result.metrics.items()
                   if name in ("loss", "accuracy", "val_loss", "val_accuracy")}  # fmt: skip
        metrics |= {
            "best_epoch": result.best_epoch,
            "num_epochs": result.num_epochs,
            "num_parameters": result.num_parameters,
            "model_bytes": result.model_bytes,
            "training_seconds": result.training_seconds,
        }
        tags = {"sweeps.device": result.device, "sweeps.stopped_by": result.stopped_by}
        if row.reason:
            tags["sweeps.reason"] = row.reason
        if result.adaptations:
            tags["sweeps.adaptations"] = "; ".join(result.adaptations)
        self._calls.put(self._tracker.end_trial, TrialEnd(row.number, state.value, metrics, tags))
        if state is TrialState.COMPLETE:
            self._keep_model(row, result)
        else:
            (self._paths.trial(row.number) / MODEL_FILE).unlink(missing_ok=True)

    def trial_lost(self, row: TrialRow) -> None:
        """Ends a run that failed or was killed, with the reason and the traceback."""
        tags = {"sweeps.reason": row.reason} if row.reason else {}
        texts = {"traceback.txt": row.details} if row.details else {}
        self._calls.put(
            self._tracker.end_trial, TrialEnd(row.number, row.state.value, {}, tags, texts)
        )
        self._calls.put(self._upload, row.number)

    def figures_drawn(self, number: int, failure: str) -> None:
        """Uploads a trial's files and removes its folder; a failure to draw becomes a tag."""
        if failure:
            self._calls.put(self._tracker.set_tags, number, {"sweeps.figures": failure})
        self._calls.put(self._upload, number)

    def progress(self, board: Board) -> None:
        """Logs the best so far; the step is the number of trials that ended."""
        best = board.best()
        if best is not None and best.value is not None:
            metrics = {f"best_{board.objective.metric}": best.value}
            self._calls.put(self._tracker.log_progress, metrics, len(board.ended()))

    def finish(
        self, end: SweepEnd, timeout_seconds: float, give_up: Callable[[], bool]
    ) -> list[str]:
        """Ends the parent run and waits; answers one line per record that could not be sent."""
        self._calls.put(self._tracker.end_sweep, end)
        problems = []
        if not self._calls.drain(timeout_seconds, give_up):
            problems.append(f"{self._calls.num_waiting} records were still waiting")
        return [*self._calls.failures, *problems]

    def _keep_model(self, row: TrialRow, result: TrialResult) -> None:
        keep, replaced = self._models.offer(row.number, result.value)
        path = self._paths.trial(row.number) / MODEL_FILE
        if not keep:
            path.unlink(missing_ok=True)
            return
        record = ModelRecord(
            number=row.number,
            path=str(path),
            input_shape=self._data.input_shape,
            num_classes=self._data.num_classes,
            metrics={name: result.metrics[name] for name in ("val_loss", "val_accuracy")},
            step=result.best_epoch,
            tags={"sweeps.sweep": self._paths.name, "sweeps.trial": str(row.number)},
        )
        self._calls.put(self._tracker.keep_model, record, replaced)

    def _upload(self, number: int) -> None:
        folder = self._paths.trial(number)
        names = [*FIGURE_FILES, self._paths.trial_log(number).name]
        self._tracker.log_files(number, [str(folder / name) for name in names])
        # Only what has arrived is removed: had the upload raised, the files would stay, and so
        # does a model that could not be logged.
        if not (folder / MODEL_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)


def data_record(data: PreparedData) -> DataRecord:
    """The prepared data as MLflow's dataset input describes it."""
    return DataRecord(
        name=data.name,
        fingerprint=data.fingerprint,
        origin=Path(data.origin).name,
        schema={"mlflow_tensorspec": {"features": [
            {"name": "pixels", "type": "tensor",
             "tensor-spec": {"dtype": "uint8", "shape": [-1, *data.input_shape]}}
        ]}},
        profile={"num_images": data.num_images, "num_classes": data.num_classes,
                 "split": data.split},
    )  # fmt: skip
