"""Training a sweep's winner on all training data, validation included, as a run of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.training.checkpoints import EpochReport
from pipelines.training.trial import Decision, TrialResult, TrialTask
from pipelines.training.trial_files import MODEL_FILE
from search_spaces.hyperparameters.run_params import recorded_params
from search_spaces.space import Space
from sweeps.executors.base import Job, Slot
from sweeps.executors.failures import classify, kernel_memory_kills
from sweeps.finalists.selection import Finalist
from sweeps.interrupts import Interrupts
from sweeps.state.paths import SweepPaths
from sweeps.state.recorded_options import compute_tags
from sweeps.workers.start import JobFailedError, run_job, start_workers
from tracking.spool.records import EpochRecord, TrialEnd, TrialRecord, TrialStateRecord
from tracking.spool.spool import Spool
from tracking.spool.trial_history import TrialLives
from tracking.tags import Tag


@dataclass(frozen=True)
class RetrainJob:
    """What is to be trained, for which finalist, where, and by what."""

    space: Space
    task: TrialTask
    finalist: Finalist
    paths: SweepPaths
    slot: Slot
    job: Job


def retrain(
    job: RetrainJob, spool: Spool, models: Path, interrupts: Interrupts, *, num_retries: int
) -> bool:
    """Trains, or goes on from the checkpoint, and leaves the model in `models`.

    What another try can help is tried again, as in a sweep.

    Returns:
        False after an interrupt.

    Raises:
        OSError: The training failed; the run says why.
    """
    task, number = job.task, job.task.number
    Path(task.folder).mkdir(parents=True, exist_ok=True)
    spool.put(_started(job))
    lives = TrialLives(spool)  # It may have failed before, or wait after a kill.
    lives.put_state(TrialStateRecord(number, "RUNNING"))

    def on_report(report: EpochReport) -> Decision:
        spool.put(EpochRecord(number, report.epoch, report.metrics))
        return Decision.GO_ON

    log_path, kills = str(job.paths.trial_log(number)), kernel_memory_kills()
    executor = start_workers(job.paths.server_log, task.compute.backend)
    try:
        for attempt in range(num_retries + 1):
            try:
                result = run_job(executor, job.job, task, job.slot, log_path, on_report, interrupts)
                break
            except JobFailedError as error:
                failure = classify(error.event, memory_ran_out=kernel_memory_kills() > kills)
                if failure.can_retry and attempt < num_retries:
                    continue
                tags, texts = {Tag.REASON: failure.reason}, {"traceback.txt": error.details}
                lives.put_end(TrialEnd(number, "FAILED", {}, tags, texts))
                raise OSError(
                    f"the winner could not be trained on all data: {failure.reason}"
                ) from error
    finally:
        executor.close()
    if result is None:
        return False
    models.mkdir(exist_ok=True)
    model = Path(task.folder) / MODEL_FILE
    if model.exists():
        model.replace(models / f"{number}.keras")
    lives.put_end(_ended(number, result))
    return True


def _started(job: RetrainJob) -> TrialRecord:
    task = job.task
    params: dict[str, object] = {
        **recorded_params(job.space.parameters, task.params),
        "max_epochs": task.num_epochs,
        "last_epoch": task.end_epoch,
        "train_on": task.train_on,
    }
    tags = {
        Tag.SEED: str(task.seed),
        Tag.KIND: "retrained",
        Tag.FINALIST_OF: str(job.finalist.trial),
        **compute_tags(task.compute),
    }
    return TrialRecord(task.number, f"{job.finalist.name}, all data", params, tags)


def _ended(number: int, result: TrialResult) -> TrialEnd:
    metrics = {
        **{name: result.metrics[name] for name in ("loss", "accuracy") if name in result.metrics},
        "num_epochs": float(result.num_epochs),
        "num_parameters": float(result.num_parameters),
        "training_seconds": result.training_seconds,
        **result.test_metrics,
    }
    tags = {Tag.DEVICE: result.device, Tag.TEST_SPLIT_READ: "true"}
    if result.model_bytes:
        metrics["model_bytes"] = float(result.model_bytes)
    else:
        tags[Tag.MODEL_NOT_KEPT] = result.not_stored
    return TrialEnd(number, "COMPLETE", metrics, tags)
