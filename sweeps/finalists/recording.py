"""What is recorded of finalists' trainings, and of the winner at the end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.objectives import Objective
from pipelines.training.checkpoints import MODEL_FILE
from pipelines.training.options import TrainingOptions
from pipelines.training.trial import TrialResult
from search_spaces.space import Space
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.records.recorder import BestModels, Recorder, model_tags
from sweeps.engines.base import TrialState
from sweeps.finalists.estimates import RankedFinalist
from sweeps.finalists.report import Compared, finalists_columns, finalists_note, render_report
from sweeps.finalists.selection import (
    Finalist,
    FinalistResult,
    FinalistsFile,
    models_folder,
    write_finalists,
)
from sweeps.formatting import params_text
from sweeps.state.paths import SweepPaths
from tracking.metric_names import MetricNames
from tracking.spool.records import ModelRecord, SweepEnd, TagsRecord, TrialEnd
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.spool.spool import Spool


class FinalistRecorder(Recorder):
    """Records trainings of finalists; keeps every model, in `models`, until the winner is known."""

    def __init__(
        self,
        file: FinalistsFile,
        objective: Objective,
        models: Path,
        spool: Spool,
        space: Space,
        data: PreparedData,
        paths: SweepPaths,
        training: TrainingOptions,
        names: MetricNames | None,
    ) -> None:
        super().__init__(spool, space, data, paths, BestModels(objective, 0), training, names)
        self._file, self._models_folder = file, models

    def models_known(self, board: Board) -> None:
        """Nothing is kept by rank."""

    def progress(self, board: Board) -> None:
        """The best single value is what a comparison does not go by."""

    def _tags_of(self, row: TrialRow) -> dict[str, str]:
        retrained = row.number == self._file.retrained_number
        finalist = self._file.finalist_of(row.params)
        return {
            **super()._tags_of(row),
            Tag.KIND: "retrained" if retrained else "finalist",
            Tag.FINALIST_OF: str(finalist.trial),
        }

    def _origin_of(self, row: TrialRow) -> str:
        on = " and on all data" if row.number == self._file.retrained_number else ""
        finalist = self._file.finalist_of(row.params)
        again = f"trained again with the fresh seed {row.seed}{on}"
        return f"The point of {finalist.name} of the search, {again}"

    def _metrics_of(self, row: TrialRow, result: TrialResult) -> dict[str, float]:
        metrics = super()._metrics_of(row, result)
        if row.schedule.validates:
            return metrics
        # Nothing validated, so no epoch is the best one.
        kept = ("num_epochs", "num_parameters", "training_seconds", "model_bytes")
        last = {name: result.metrics[name] for name in ("loss", "accuracy")
                if name in result.metrics}  # fmt: skip
        return last | {name: metrics[name] for name in kept}

    def _keep_model(self, row: TrialRow, result: TrialResult, end: TrialEnd) -> None:
        del end, result
        self._models_folder.mkdir(exist_ok=True)
        path = self._paths.trial(row.number) / MODEL_FILE
        if not path.exists():
            return  # A user's model with code of its own is not stored.
        path.replace(self._models_folder / f"{row.number}.keras")


class WinnerRecorder:
    """Records one comparison's winner; every step may be repeated after a kill."""

    def __init__(
        self,
        sweep_paths: SweepPaths,
        file: FinalistsFile,
        objective: Objective,
        data: PreparedData,
        spool: Spool,
        recorder: Recorder,
    ) -> None:
        self._sweep_paths, self._file, self._objective = sweep_paths, file, objective
        self._data, self._spool, self._recorder = data, spool, recorder
        self._paths, self._models = sweep_paths.finalists, models_folder(sweep_paths)
        self.keeps_model = True
        self.ranking: tuple[FinalistResult, ...] = ()

    def record(
        self,
        ranking: list[RankedFinalist],
        rows: dict[int, list[TrialRow]],
        chosen: int,
        left_out: list[str],
    ) -> str:
        """Keeps the winner's model, ends the runs, and remembers the table."""
        ends = {
            record.number: record
            for record in self._spool.replay()
            if isinstance(record, TrialEnd) and record.state == TrialState.COMPLETE
        }
        file, finalist = self._file, self._file.finalists[ranking[0].key]
        self.keeps_model = "model_bytes" in ends[chosen].metrics
        self._spool.put(TagsRecord(chosen, {Tag.WINNER: "true"}))
        self._keep_winner(chosen, finalist, ends[chosen])
        tests = {
            place: [ends[row.number].metrics["test_accuracy"] for row in found]
            for place, found in rows.items()
        }
        compared = Compared(
            file, self._objective, self._data, ranking, tests, left_out, chosen,
            ends[chosen].metrics,
        )  # fmt: skip
        report = render_report(compared)
        columns, metrics = finalists_columns(compared)
        tags = {
            Tag.WINNER_TRIAL: str(finalist.trial),
            Tag.WINNER_PARAMS: params_text(finalist.params),
            Tag.WINNER_SEEDS: ", ".join(str(r.seed) for r in rows[ranking[0].key]),
            Tag.LEFT_OUT: "; ".join(left_out),
            Tag.TEST_SPLIT_READ: "true",
            Tag.RUN_NOTE: finalists_note(compared),
        }
        end = SweepEnd("FINISHED", tags, metrics, {"finalists.txt": report}, columns)
        self._recorder.sweep_ended(end)
        path = self._sweep_paths.finalists_file
        self.ranking = tuple(_result(compared, ranked) for ranked in ranking)
        write_finalists(path, replace(file, finished=True, report=report, ranking=self.ranking))
        remove_leftovers(self._sweep_paths, file)
        return report

    def _keep_winner(self, number: int, finalist: Finalist, end: TrialEnd) -> None:
        key = f"trial-{number}/model"
        if self._spool.has(key) or "model_bytes" not in end.metrics:
            return  # A user's model with code of its own is not stored.
        # Copied: until the record is in the spool a kill must find the model where it was.
        copy = self._models / MODEL_FILE
        shutil.copyfile(self._models / f"{number}.keras", copy)
        tags = {
            Tag.SWEEP: self._sweep_paths.name,
            Tag.TRIAL: str(number),
            Tag.FINALIST_OF: str(finalist.trial),
            **model_tags(self._data, copy, self._recorder.training),
        }
        self._spool.adopt(copy, key)
        self._spool.put(
            ModelRecord(
                number=number,
                path=MODEL_FILE,
                input_shape=self._data.input_shape,
                num_classes=self._data.num_classes,
                metrics={name: end.metrics[name] for name in ("test_accuracy", "test_loss")},
                at_ms=end.at_ms,
                step=int(end.metrics.get("best_epoch", end.metrics["num_epochs"])),
                tags=tags,
            )
        )


def _result(compared: Compared, ranked: RankedFinalist) -> FinalistResult:
    finalist, found = compared.file.finalists[ranked.key], ranked.estimate
    return FinalistResult(
        finalist.trial, finalist.name, finalist.params, found.mean, found.low, found.high,
        found.num, ranked.probability_best, compared.test(ranked.key).mean,
    )  # fmt: skip


def remove_leftovers(sweep_paths: SweepPaths, file: FinalistsFile) -> None:
    """Removes the models of a comparison that has ended; the winner's is in the spool or MLflow."""
    shutil.rmtree(models_folder(sweep_paths), ignore_errors=True)
    folder = sweep_paths.finalists.trial(file.retrained_number)
    shutil.rmtree(folder, ignore_errors=True)
