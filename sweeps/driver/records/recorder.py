"""Turns what happens in a sweep into records, each put into the spool once."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.objectives import Objective
from pipelines.training.checkpoints import ANSWERS_FILE, FIGURE_FILES, MODEL_FILE, RESULT_FILE
from pipelines.training.options import DEFAULT_TRAINING, TrainingOptions
from pipelines.training.reports import TrialReport
from pipelines.training.trial import TrialResult
from search_spaces.files import UnusableFileError, read_json
from search_spaces.hyperparameters.parameter import recorded_params
from search_spaces.space import Space
from search_spaces.stored_values import as_kind
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.records.trial_note import trial_note, with_link
from sweeps.engines.base import TrialState
from sweeps.executors.base import Slot
from sweeps.state.log import sweep_log
from sweeps.state.paths import SweepPaths
from sweeps.state.recorded_options import option_tags
from tracking.metric_names import MetricNames
from tracking.spool.history import Moves, TrialHistory
from tracking.spool.records import (
    DataRecord,
    EpochRecord,
    FilesRecord,
    MachineRecord,
    ModelDropRecord,
    ModelRecord,
    ProgressRecord,
    RunStatus,
    SweepEnd,
    SweepRecord,
    SweepStateRecord,
    SweepTagsRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
    ViewRecord,
)
from tracking.tags import Tag, class_name_tags

if TYPE_CHECKING:
    from tracking.spool.spool import Spool

TABLE_AS_CSV = "leaderboard.csv"


@dataclass
class BestModels:
    """The best `limit` trials seen so far."""

    objective: Objective
    limit: int
    _kept: dict[int, float] = field(default_factory=dict)

    def offer(self, number: int, value: float) -> tuple[bool, int | None]:
        """Whether to keep this trial's model, and whose model it replaces.

        Of equals the earlier one stays.
        """
        self._kept[number] = value
        if len(self._kept) <= self.limit:
            return True, None
        worst = max(self._kept, key=lambda n: (self.objective.sort_key(self._kept[n]), n))
        del self._kept[worst]
        return worst != number, None if worst == number else worst


class Recorder:
    """Records one sweep. A record that the spool has already is not put again.

    Trials with a fixed plan are recorded by subclasses, which record other facts of a run.

    Args:
        names: what metrics are called in MLflow, where nothing has begun; None for the usual.
        run_page: the address of a trial's run in MLflow; empty while it has none.

    Attributes:
        names: what they are called: as when the sweep began.
    """

    has_view = True
    """Whether MLflow has a saved view of the trials."""

    def __init__(
        self,
        spool: Spool,
        space: Space | None,
        data: PreparedData,
        paths: SweepPaths,
        models: BestModels,
        training: TrainingOptions = DEFAULT_TRAINING,
        names: MetricNames | None = None,
        run_page: Callable[[int], str] = lambda number: "",
    ) -> None:
        self._spool, self.run_page = spool, run_page
        self._history = TrialHistory(spool)
        self._space = space
        self._data = data
        self._paths = paths
        self._models = models
        self.training = training
        new = names or MetricNames(True, models.objective.metric)
        self.names = metric_names(spool) or new
        self._uid, self._progress_step = "", -1

    def sweep_started(
        self, name: str, uid: str, params: Mapping[str, object], tags: Mapping[str, str]
    ) -> None:
        """The parent run; in a resumed sweep, that it runs again."""
        self._uid = uid
        common = {Tag.DATA: self._data.name, Tag.DATA_FINGERPRINT: self._data.fingerprint}
        if self._space is not None:  # None where the trials are points of several spaces.
            common[Tag.SPACE] = self._space.name
            common[Tag.SPACE_FINGERPRINT] = self._space.fingerprint
        common |= {**self.names.tags, **tags}
        record = SweepRecord(name, params, common, data_record(self._data), uid)
        if not self._spool.put(record):
            self._spool.put(SweepStateRecord("RUNNING", {Tag.STOPPED_BY: "not yet"}))

    def trial_started(self, row: TrialRow) -> None:
        """A child run with every parameter of the space."""
        self._spool.put(TrialRecord(row.number, row.name, self._params_of(row), self._tags_of(row)))

    def _params_of(self, row: TrialRow) -> dict[str, object]:
        schedule = row.schedule
        params: dict[str, object] = {
            **recorded_params(row.space.parameters, row.params),
            "max_epochs": schedule.num_epochs,
        }
        if schedule.reports.per_epoch > 1:
            params["steps_per_epoch"] = schedule.reports.per_epoch
        if schedule.last_epoch is not None:
            params["last_epoch"] = schedule.last_epoch
        if not schedule.validates:
            params["train_on"] = schedule.train_on
        return params

    def _tags_of(self, row: TrialRow) -> dict[str, str]:
        tags = {Tag.SEED: str(row.seed), **option_tags(self.training)}
        if row.baseline:
            tags[Tag.BASELINE] = row.baseline
        if row.proposed_by:
            tags[Tag.PROPOSED_BY] = row.proposed_by
        return tags

    def _metrics_of(self, row: TrialRow, result: TrialResult) -> dict[str, float]:
        """The final metrics of a run; `best_*` are those of the epoch whose weights are kept."""
        del row
        return {
            **{
                f"best_{name}": value
                for name, value in result.metrics.items()
                if name in ("loss", "accuracy", self._models.objective.metric)
                or name.startswith("val_")
            },
            "best_epoch": result.best_epoch,
            "num_epochs": result.num_epochs,
            "num_parameters": result.num_parameters,
            "model_bytes": result.model_bytes,
            "training_seconds": round(result.training_seconds, 3),
        }

    @property
    def longest_epoch_seconds(self) -> float:
        """The longest epoch of earlier sessions; 0 without any."""
        return self._history.longest_epoch_seconds

    def moves(self, number: int) -> Moves:
        """How often the trial lost its node in earlier sessions."""
        return self._history.moves(number)

    def trained_seconds(self, number: int) -> float:
        """Time of a trial's epochs in earlier sessions."""
        return self._history.trained_seconds(number)

    def pace(self, number: int) -> tuple[float, float]:
        """Epochs that earlier sessions recorded, and the seconds in them, without compiling."""
        return self._history.pace(number)

    def models_known(self, board: Board) -> None:
        """Takes over which models are kept: those of the best trials of earlier sessions."""
        for row in board.ranking():
            self._models.offer(row.number, row.value or 0.0)

    def trial_runs(self, row: TrialRow, slot: Slot) -> None:
        """The trial runs on a slot, for the first time or again."""
        place = f"gpu {slot.gpu}" if slot.gpu is not None else "cpu"
        # Refined by the worker once it knows; a trial that never gets so far has this.
        tags = {Tag.DEVICE: place}
        if slot.node:
            tags[Tag.NODE] = slot.node
        if slot.num_sharing > 1:
            tags[Tag.GPU_SHARE] = f"1/{slot.num_sharing}"
        self._history.put_state(TrialStateRecord(row.number, TrialState.RUNNING.value, tags))

    def reported(self, report: TrialReport, more: Mapping[str, float] | None = None) -> None:
        """What a trial measured after a step, with what the driver saw of it."""
        self._spool.put(EpochRecord(report.number, report.step, {**report.metrics, **(more or {})}))

    def trial_paused(self, row: TrialRow, result: TrialResult) -> None:
        """The trial waits; what it reached so far is kept for the case that it never goes on."""
        path = self._paths.trial(row.number) / RESULT_FILE
        path.write_text(json.dumps(asdict(result)), encoding="utf-8")
        tags = {Tag.REASON: f"waits at epoch {row.epochs_text} for a promotion"}
        self._history.put_state(TrialStateRecord(row.number, TrialState.PAUSED.value, tags))

    def trial_suspended(self, row: TrialRow) -> None:
        """The trial waits for its sweep to be resumed."""
        tags = {Tag.REASON: row.reason}
        self._history.put_state(TrialStateRecord(row.number, TrialState.PAUSED.value, tags))

    def trial_retried(self, row: TrialRow, reason: str, kind: str) -> None:
        """A failure of some kind (`FailureKind`), after which the trial is tried again."""
        tags = {
            Tag.NUM_RETRIES: str(row.num_tries - 1 - row.num_moved),
            Tag.RETRY_REASON: reason,
            Tag.RETRY_KIND: kind,
        }
        self._spool.put(TagsRecord(row.number, tags))

    def trial_moved(self, row: TrialRow, reason: str) -> None:
        """Its node was lost: it goes on elsewhere, from its last checkpoint."""
        tags = {
            Tag.NUM_MOVES: str(row.num_moved),
            Tag.MOVE_REASON: reason,
            Tag.LOST_SECONDS: f"{row.lost_seconds:.1f}",
        }
        self._spool.put(TagsRecord(row.number, tags))

    def nodes(self, found: Mapping[str, str]) -> None:
        """What nodes of a cluster have, when they joined, and when they left, by their names."""
        tags = {f"{Tag.NODE}.{name}": text for name, text in found.items()}
        self._spool.put(SweepTagsRecord(tags))

    def noted(self, text: str) -> None:
        """What somebody wrote of the sweep, in place of what was written before."""
        self._spool.put(SweepTagsRecord({Tag.NOTE: text}))

    def views(self, tags: Mapping[str, str]) -> None:
        """Saved views of the sweep's trials, in place of earlier ones."""
        if tags:
            self._spool.put(ViewRecord(tags))

    def packed(self, level: int, reason: str) -> None:
        """How many trials share a GPU from now on, and why."""
        sweep_log.info("trials per GPU: %d (%s)", level, reason)
        tags = {Tag.TRIALS_PER_GPU: str(level), Tag.PACKING: reason}
        self._spool.put(SweepStateRecord("RUNNING", tags))

    def paused_trial_ended(self, row: TrialRow, state: TrialState) -> None:
        """A trial that will not go on ends with what it reached when it paused."""
        path = self._paths.trial(row.number) / RESULT_FILE
        try:
            result = as_kind(TrialResult, read_json(path))
        except (FileNotFoundError, UnusableFileError):
            self.trial_lost(row, state)
            return
        if not math.isclose(result.num_epochs, row.epochs):  # Of an earlier pause.
            self.trial_lost(row, state)
            return
        # In a resumed sweep nobody else knows them.
        row.best_epoch, row.num_parameters = result.best_epoch, result.num_parameters
        self.trial_completed(row, result, state)

    def trial_completed(self, row: TrialRow, result: TrialResult, state: TrialState) -> None:
        """Ends a run with what it reached, and keeps its model if it is among the best."""
        metrics = self._metrics_of(row, result)
        if not result.model_bytes:
            metrics.pop("model_bytes", None)
        if result.latency_ms is not None:
            metrics["latency_ms"] = result.latency_ms
        not_kept = {Tag.MODEL_NOT_KEPT: result.not_stored} if result.not_stored else {}
        metrics |= result.test_metrics
        tags = {
            Tag.DEVICE: result.device,
            Tag.STOPPED_BY: result.stopped_by,
            Tag.REASON: row.reason,
            **not_kept,
            **self._note_of(row, state, result),
        }
        if result.test_metrics:
            tags[Tag.TEST_SPLIT_READ] = "true"
        if result.pixels:
            tags[Tag.PIXELS] = result.pixels
        if result.adaptations:
            tags[Tag.ADAPTATIONS] = "; ".join(result.adaptations)
        end = self._history.put_end(TrialEnd(row.number, state.value, metrics, tags))
        if state is TrialState.COMPLETE:
            self._keep_model(row, result, end)

    def trial_lost(self, row: TrialRow, state: TrialState) -> None:
        """Ends a run without a result of its own, with the reason and the traceback."""
        tags = {Tag.REASON: row.reason} if row.reason else {}
        tags |= self._note_of(row, state)
        if row.duplicate_of is not None:
            tags[Tag.DUPLICATE_OF] = str(row.duplicate_of)
        texts = {"traceback.txt": row.details} if row.details else {}
        self._history.put_end(TrialEnd(row.number, state.value, {}, tags, texts))
        log = self._paths.trial_log(row.number)
        if log.exists() and log.stat().st_size:
            self._upload(row.number, "log", [log])

    def _note_of(
        self, row: TrialRow, state: TrialState, result: TrialResult | None = None
    ) -> dict[str, str]:
        metric = self._models.objective.metric
        note = trial_note(row, metric, state, result, self._origin_of(row))
        return {Tag.RUN_NOTE: with_link(note, self._uid) if self.has_view else note}

    def _origin_of(self, row: TrialRow) -> str:
        """Where a trial's point comes from, in words."""
        by = row.proposed_by
        return f"Origin: {by}" if by else ""

    def figures_drawn(self, number: int, epoch: int, failure: str) -> None:
        """Uploads a trial's files as of an epoch; a failure to draw becomes a tag."""
        if failure:
            self._spool.put(TagsRecord(number, {Tag.FIGURES: failure}))
        folder = self._paths.trial(number)
        paths = [folder / name for name in FIGURE_FILES] + [self._paths.trial_log(number)]
        self._upload(number, f"epoch-{epoch}", paths)

    def audited(self, number: int, value: float) -> None:
        """What a pruned trial reached when it was trained to the end nevertheless."""
        self._spool.put(TagsRecord(number, {Tag.AUDIT_VALUE: f"{value:.6g}"}))

    def progress(self, board: Board) -> None:
        """Logs the best so far; the step is the number of trials that ended."""
        best, step = board.best(), board.num_ended()
        if best is not None and best.value is not None and step != self._progress_step:
            self._progress_step = step
            metrics = {f"best_{board.objective.metric}": best.value}
            self._spool.put(ProgressRecord(metrics, step))

    def machine_used(self, metrics: Mapping[str, float], step: int) -> None:
        """How busy the machine was; the step is the sweep's age in seconds."""
        if metrics:
            self._spool.put(MachineRecord(metrics, step))

    def sweep_waits(self, status: RunStatus, reason: str) -> None:
        """The sweep broke off and can be resumed."""
        self._spool.put(SweepStateRecord(status, {Tag.STOPPED_BY: reason}))

    def sweep_ended(self, end: SweepEnd) -> None:
        """Ends the parent run; its table goes there as CSV, too."""
        if end.leaderboard:
            end = replace(end, texts={**end.texts, TABLE_AS_CSV: _csv(end.leaderboard)})
        self._spool.put(end)

    def forget(self, number: int) -> None:
        """Removes the folder of a trial that has ended; what is to be uploaded is in the spool."""
        shutil.rmtree(self._paths.trial(number), ignore_errors=True)

    def _keep_model(self, row: TrialRow, result: TrialResult, end: TrialEnd) -> None:
        if result.not_stored:
            return
        keep, replaced = self._models.offer(row.number, result.value)
        self._keep_answers(row.number, keep=keep, replaced=replaced)
        path = self._paths.trial(row.number) / MODEL_FILE
        key = f"trial-{row.number}/model"
        if not keep or self._spool.has(key):
            path.unlink(missing_ok=True)
        else:
            record = ModelRecord(
                number=row.number,
                path=path.name,
                input_shape=self._data.input_shape,
                num_classes=self._data.num_classes,
                # The very points of the run's end: with another time they would be there twice.
                metrics={
                    name: value
                    for name, value in end.metrics.items()
                    if name.startswith("best_val_")
                },
                at_ms=end.at_ms,
                step=round(result.best_epoch * row.schedule.reports.per_epoch),
                tags={
                    Tag.SWEEP: self._paths.name,
                    Tag.TRIAL: str(row.number),
                    **model_tags(self._data, path, self.training),
                },
            )
            self._spool.adopt(path, key)
            self._spool.put(record)
        if replaced is not None:
            self._spool.put(ModelDropRecord(replaced))

    def _keep_answers(self, number: int, *, keep: bool, replaced: int | None) -> None:
        """Keeps what a kept model says of the validation images, for the sweep's page."""
        path, target = self._paths.trial(number) / ANSWERS_FILE, self._paths.answers(number)
        if keep and path.exists():
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        if replaced is not None:
            self._paths.answers(replaced).unlink(missing_ok=True)

    def _upload(self, number: int, name: str, paths: list[Path]) -> None:
        record = FilesRecord(number, "", name)
        if self._spool.has(record.key):
            return
        for path in paths:
            if path.is_file():
                self._spool.adopt(path, record.key)
        if self._spool.folder_of(record.key).is_dir():
            self._spool.put(record)


def _csv(columns: Mapping[str, list[object]]) -> str:
    text = io.StringIO()
    rows = zip(*columns.values(), strict=True)
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def metric_names(spool: Spool) -> MetricNames | None:
    """How a sweep names its metrics in MLflow; None where it has not begun."""
    first = next(spool.replay(), None)
    return MetricNames.of(first.tags) if isinstance(first, SweepRecord) else None


def model_tags(
    data: PreparedData, path: Path, training: TrainingOptions = DEFAULT_TRAINING
) -> dict[str, str]:
    """What whoever uses a model must know of it: its data, its classes, its file's checksum."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        Tag.DATA: data.name,
        Tag.DATA_FINGERPRINT: data.fingerprint,
        **class_name_tags(data.class_names),
        Tag.BACKGROUND: data.background(),
        Tag.RESIZE: data.resize,
        **option_tags(training),
        Tag.MODEL_SHA256: digest,
    }


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
                 "split": data.split, **({"notes": data.notes} if data.notes else {})},
    )  # fmt: skip
