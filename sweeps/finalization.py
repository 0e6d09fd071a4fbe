"""The final comparison of a sweep: the best configurations on fresh seeds, and the winner's model.

The winner follows from the validation values of the fresh seeds. The test split is read for the
first time here, once per trained model, and decides nothing: what it says of the winner is not the
best of several tries.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.objectives import get_objective
from pipelines.prepared import PreparedData
from pipelines.trial import TrialResult, TrialTask
from pipelines.trial_files import MODEL_FILE
from search_spaces.errors import InputError, scrubbed
from search_spaces.space import Space
from sweeps.board import Board, TrialRow
from sweeps.choice import Standing, compare, median_key
from sweeps.chosen_space import source_tags, space_of
from sweeps.cli import DONE, FAILED, INTERRUPTED
from sweeps.devices import Allotment, allot, detect_machine
from sweeps.engines.base import TrialState
from sweeps.engines.planned import PlannedEngine
from sweeps.finalists import (
    UID_SUFFIX,
    Finalist,
    FinalistsFile,
    finalists_paths,
    fresh_seed,
    past_trainings,
    pick_finalists,
    read_finalists,
    sweep_run_id,
    write_finalists,
)
from sweeps.finalists_report import finalists_columns, render_report
from sweeps.formatting import count, params_text
from sweeps.interrupts import Interrupts
from sweeps.jobs import train_job
from sweeps.keeping import BestModels
from sweeps.opening import connect_tracker, prepare_data
from sweeps.recorder import Recorder, model_tags
from sweeps.retraining import RetrainJob, retrain
from sweeps.settings import (
    DEFAULT_NUM_FINALISTS,
    FinalOptions,
    SweepPaths,
    budget_for,
)
from sweeps.stop_rules import StopReason
from sweeps.stored_sweep import StoredSweep
from sweeps.sweep import Plan, Sweep, trial_seed
from sweeps.sweep_file import check_same_data
from sweeps.views import make_view
from tracking.records import ModelRecord, SweepEnd, TagsRecord, TrialEnd

if TYPE_CHECKING:
    from sweeps.executors.base import Executor
    from tracking.mlflow_tracker import MlflowTracker
    from tracking.sender import Sender
    from tracking.spool import Spool

DRAIN_SECONDS = 60.0


def finalize(
    sweep: StoredSweep, options: FinalOptions, interrupts: Interrupts, *, quiet: bool
) -> int:
    """Runs the comparison of a sweep, or goes on with it, or tells what it found.

    The sweep's lock must be held.

    Returns:
        The exit status.

    Raises:
        InputError: Data or space changed, or a comparison with other options began.
    """
    say: Callable[[str], None] = (lambda text: None) if quiet else _say
    settings, name = sweep.file.settings, sweep.paths.name
    data = prepare_data(sweep.file.data_name, sweep.paths.data)
    space = space_of(settings, data)
    check_same_data(sweep.file, data.fingerprint, space.fingerprint)
    file = begin_finalists(sweep, space, options, data.num_images["train"])
    if file.finished:
        say(f"{name}: its finalists were compared after {count(file.num_trials, 'trial')}")
        print(file.report)
        return DONE
    allotment = allot(detect_machine(), settings.num_workers, settings.num_threads)
    say(f"finalists of {name}: {', '.join(finalist.name for finalist in file.finalists)}")
    say(f"trainings {len(file.plan())}: {count(file.num_seeds, 'fresh seed')} of each, "
        f"{count(file.num_epochs, 'epoch')}")  # fmt: skip
    say(f"machine   {allotment.reason}")
    return Finalization(sweep, space, file, data, allotment).run(interrupts, quiet=quiet)


def begin_finalists(
    sweep: StoredSweep, space: Space, options: FinalOptions, num_train_images: int
) -> FinalistsFile:
    """The comparison of a sweep: the one that began already, or a new one.

    Raises:
        InputError: One began with other options, or the sweep has nothing to compare.
    """
    path = finalists_paths(sweep.paths).sweep / "finalists.json"
    found = read_finalists(path)
    if found is not None:
        _check_same(found, options)
        return found
    from sweeps.engines.optuna_engine import open_storage, read_study

    settings = sweep.file.settings
    try:
        trials = read_study(
            open_storage(settings.storage), sweep.paths.name, space,
            settings.sampler,
        )  # fmt: skip
    except KeyError:
        raise InputError(
            f"A sweep's study must be in its storage. Received: '{sweep.paths.name}', which that "
            "--storage does not hold."
        ) from None
    num_finalists = options.num_finalists or settings.num_finalists or DEFAULT_NUM_FINALISTS
    picked = pick_finalists(trials, get_objective(settings.objective), num_finalists)
    file = FinalistsFile(
        uid=f"{sweep.file.uid}{UID_SUFFIX}",
        seed=fresh_seed(settings.seed),
        num_seeds=options.num_seeds or settings.num_finalist_seeds,
        num_epochs=budget_for(settings, num_train_images).num_epochs,
        num_asked=num_finalists,
        num_trials=len(trials),
        retrain=options.retrain or settings.retrain,
        finalists=picked,
    )
    write_finalists(path, file)
    return file


def _check_same(file: FinalistsFile, options: FinalOptions) -> None:
    for option, asked, began in (
        ("--finalists", options.num_finalists, file.num_asked),
        ("--finalist-seeds", options.num_seeds, file.num_seeds),
        ("--retrain", options.retrain, file.retrain),
    ):
        if asked not in (None, began):
            raise InputError(
                "A sweep's finalists are compared once, because their test results are known "
                f"then. Received: {option} {asked}, and the comparison began with {began}. Leave "
                "the option out."
            )


class FinalistRecorder(Recorder):
    """Records trainings of finalists; keeps every model, in `models`, until the winner is known."""

    def __init__(
        self,
        file: FinalistsFile,
        models: Path,
        spool: Spool,
        space: Space,
        data: PreparedData,
        paths: SweepPaths,
    ) -> None:
        super().__init__(spool, space, data, paths, BestModels(get_objective("val_accuracy"), 0))
        self._file, self._models_folder = file, models

    def models_known(self, board: Board) -> None:
        """Nothing is kept by rank."""

    def progress(self, board: Board) -> None:
        """The best single value is what a comparison does not go by."""

    def _tags_of(self, row: TrialRow) -> dict[str, str]:
        finalist = self._file.finalist_of(row.number)
        return {
            **super()._tags_of(row),
            "sweeps.kind": "finalist",
            "sweeps.finalist_of": str(finalist.trial),
        }

    def _keep_model(self, row: TrialRow, result: TrialResult, end: TrialEnd) -> None:
        del end, result
        self._models_folder.mkdir(exist_ok=True)
        path = self._paths.trial(row.number) / MODEL_FILE
        if path.exists():  # A user's model with code of its own is not stored.
            path.replace(self._models_folder / f"{row.number}.keras")


class Finalization:
    """One session of a comparison. The sweep's lock must be held.

    Args:
        file: what the comparison began with.
    """

    def __init__(
        self,
        sweep: StoredSweep,
        space: Space,
        file: FinalistsFile,
        data: PreparedData,
        allotment: Allotment,
    ) -> None:
        from tracking.spool import Spool

        settings = sweep.file.settings
        self._sweep, self._file, self._data, self._allotment = sweep, file, data, allotment
        self._space = space
        self._settings = settings
        self._objective = get_objective(settings.objective)
        self._paths = finalists_paths(sweep.paths)
        self._models = self._paths.sweep / "models"
        self._spool: Spool = Spool(self._paths.spool)
        self._tracker: MlflowTracker | None = None
        self._sender: Sender | None = None
        self._keeps_models = True

    def run(self, interrupts: Interrupts, *, quiet: bool) -> int:
        """Trains what is missing, chooses, records; prints the table and returns the status."""
        from sweeps.executors.processes import ProcessExecutor

        executor = ProcessExecutor("sweeps.preload", self._paths.server_log)
        try:
            self._start_sending()
            status, report = self._work(executor, interrupts, quiet=quiet)
        finally:
            executor.close()
        problems = self._send_rest(interrupts)
        if report:
            print(report)
        for line in problems:
            print(f"WARNING: {line}", file=sys.stderr)
        name, work_dir = self._sweep.paths.name, self._settings.work_dir
        usual = Path(work_dir).absolute() == Path(".sweeps").absolute()
        where = "" if usual else f" --work-dir {work_dir}"
        if status == INTERRUPTED:
            print(f"\nNext:\n  keras-sweeps finalize {name}{where}  # go on")
        elif status == DONE and self._sender is not None and not self._keeps_models:
            print(
                "\nIts models hold code of their own and were not kept: there is nothing to promote"
            )
        elif status == DONE and self._sender is not None:
            print(f"\nNext:\n  keras-sweeps promote {name}{where}  # make the winner the champion")
        elif status == FAILED:
            print("error: no finalist completed two trainings, so there is nothing to compare",
                  file=sys.stderr)  # fmt: skip
        rejected = bool(self._spool.rejections())
        return FAILED if rejected and status == DONE else status

    # Recording

    def _start_record(self) -> None:
        from tracking.context import git_tags, version_tags

        file = self._file
        params = {
            "num_finalists": len(file.finalists),
            "num_finalist_seeds": file.num_seeds,
            "num_epochs": file.num_epochs,
            "retrain": file.retrain,
            "objective": self._settings.objective,
            "dataset": self._data.name,
            "patience": self._settings.patience,
            "deterministic": self._settings.deterministic,
            "seed": file.seed,
        }
        tags = {
            **git_tags(),
            **version_tags(),
            **source_tags(self._space, self._data),
            "sweeps.kind": "finalists",
            "sweeps.sweep": self._sweep.paths.name,
            "sweeps.num_seeds": str(file.num_seeds),
            "sweeps.finalists": ", ".join(str(f.trial) for f in file.finalists),
        }
        self._recorder = FinalistRecorder(
            file, self._models, self._spool, self._space, self._data,
            self._paths,
        )  # fmt: skip
        name = f"{self._sweep.paths.name} finalists"
        self._recorder.sweep_started(name, file.uid, params, tags)

    def _start_sending(self) -> None:
        if self._settings.offline:
            self._start_record()
            return
        from tracking.sender import Sender

        if not self._spool.has("sweep"):
            self._destination()  # A store that cannot be used is said before anything trains.
        self._start_record()
        self._sender = Sender(self._spool, self._destination)

    def _destination(self) -> MlflowTracker:
        if self._tracker is None:
            self._tracker = connect_tracker(
                self._settings, self._data.name, self._spool, sweep_run_id(self._sweep.paths)
            )
        return self._tracker

    def _send_rest(self, interrupts: Interrupts) -> list[str]:
        problems = []
        if self._sender is not None:
            sent = self._sender.drain(DRAIN_SECONDS, lambda: interrupts.urgent)
            self._sender.close()
            if not sent:
                waiting = count(self._spool.num_waiting, "record")
                why = scrubbed(self._sender.problem, self._sweep.uri) or "too slow"
                problems.append(
                    f"{waiting} not sent to MLflow yet ({why}); nothing is lost, "
                    f"`keras-sweeps sync {self._sweep.paths.name}` sends them."
                )
        return problems + [
            f"not recorded in MLflow: {scrubbed(line, self._sweep.uri)}"
            for line in self._spool.rejections()
        ]

    # Training

    def _work(self, executor: Executor, interrupts: Interrupts, *, quiet: bool) -> tuple[int, str]:
        file = self._file
        board = self._board()
        past = past_trainings(self._spool, file, self._objective, self._models)
        engine = PlannedEngine(file.plan(), past)
        view = make_view(quiet)
        try:
            stop = Sweep(self._plan(), board, engine, executor, self._recorder, view).run(
                interrupts
            )
        finally:
            view.close()
        if stop in (StopReason.INTERRUPTED, StopReason.PREEMPTED):
            self._recorder.sweep_waits("SCHEDULED", stop.value)
            return INTERRUPTED, ""
        rows = self._complete_rows(board)
        if not rows:
            self._recorder.sweep_ended(SweepEnd("FAILED", {"sweeps.stopped_by": stop.value}))
            return FAILED, ""
        values = {place: [row.value or 0.0 for row in found] for place, found in rows.items()}
        standings = compare(
            values, maximize=self._objective.direction == "maximize", seed=file.seed
        )
        winner = rows[standings[0].key]
        chosen = median_key({row.number: row.value or 0.0 for row in winner})
        if file.retrain == "all":
            epochs = math.ceil(sum(row.best_epoch or 1 for row in winner) / len(winner))
            retrained = self._retrain(standings[0].key, epochs, interrupts, quiet=quiet)
            if retrained is None:
                self._recorder.sweep_waits("SCHEDULED", StopReason.INTERRUPTED.value)
                return INTERRUPTED, ""
            chosen = retrained
        return DONE, self._record_winner(standings, rows, chosen)

    def _board(self) -> Board:
        file = self._file
        return Board(
            title=f"{self._sweep.paths.name}: finalists on fresh seeds",
            objective=self._objective,
            num_trials=len(file.plan()),
            num_epochs=file.num_epochs,
            num_slots=len(self._allotment.slots),
            timeout_seconds=None,
            data_name=self._data.name,
        )

    def _plan(self) -> Plan:
        file, settings = self._file, self._settings
        return Plan(
            space=self._space,
            data=self._data,
            num_trials=len(file.plan()),
            num_epochs=file.num_epochs,
            patience=settings.patience,
            seed=file.seed,
            slots=self._allotment.slots,
            paths=self._paths,
            num_retries=settings.num_retries,
            stall_seconds=settings.stall_seconds,
            deterministic=settings.deterministic,
            measure_test=True,
            job=train_job,
        )

    def _complete_rows(self, board: Board) -> dict[int, list[TrialRow]]:
        """The complete trainings of each finalist; one with less than two has no interval."""
        rows: dict[int, list[TrialRow]] = {}
        for row in board.in_state(TrialState.COMPLETE):
            rows.setdefault(row.number % len(self._file.finalists), []).append(row)
        for place, finalist in enumerate(self._file.finalists):
            found = len(rows.get(place, []))
            if found < self._file.num_seeds:
                print(f"WARNING: {finalist.name}: {found} of {self._file.num_seeds} trainings "
                      "completed", file=sys.stderr)  # fmt: skip
        return {place: found for place, found in sorted(rows.items()) if len(found) > 1}

    def _retrain(
        self, place: int, epochs: int, interrupts: Interrupts, *, quiet: bool
    ) -> int | None:
        """Trains the winner on all data; answers the training's number, None after an interrupt."""
        file, number = self._file, self._file.retrained_number
        finalist = file.finalists[place]
        if not quiet:
            _say(f"{finalist.name}: training on all data for {count(epochs, 'epoch')}")
        task = TrialTask(
            number=number,
            space=self._space.key,
            params=finalist.params,
            data=self._data,
            num_epochs=file.num_epochs,
            seed=trial_seed(file.seed, number),
            objective=self._objective,
            folder=str(self._paths.trial(number)),
            train_on="train+validation",
            last_epoch=epochs,
            measure_test=True,
            deterministic=self._settings.deterministic,
            source_digest=self._space.source_digest,
        )
        job = RetrainJob(
            self._space, task, finalist, self._paths, self._allotment.slots[0], train_job
        )
        done = retrain(job, self._spool, self._models, interrupts)
        return number if done else None

    # The winner

    def _record_winner(
        self, standings: list[Standing], rows: dict[int, list[TrialRow]], chosen: int
    ) -> str:
        """Keeps the winner's model, ends the runs, and remembers the table."""
        ends = {
            record.number: record
            for record in self._spool.replay()
            if isinstance(record, TrialEnd) and record.state == TrialState.COMPLETE
        }
        file, finalist = self._file, self._file.finalists[standings[0].key]
        self._keeps_models = "model_bytes" in ends[chosen].metrics
        self._spool.put(TagsRecord(chosen, {"sweeps.winner": "true"}))
        self._keep_winner(chosen, finalist, ends[chosen])
        tests = {
            place: [ends[row.number].metrics["test_accuracy"] for row in found]
            for place, found in rows.items()
        }
        report = render_report(file, self._objective, self._data.name, standings, tests, chosen,
                               ends[chosen].metrics)  # fmt: skip
        columns, metrics = finalists_columns(file, self._objective, standings, tests)
        tags = {
            "sweeps.winner_trial": str(finalist.trial),
            "sweeps.winner_params": params_text(finalist.params),
            "sweeps.test_split_read": "true",
        }
        end = SweepEnd("FINISHED", tags, metrics, {"finalists.txt": report}, columns)
        self._recorder.sweep_ended(end)
        path = self._paths.sweep / "finalists.json"
        write_finalists(path, replace(file, finished=True, report=report))
        shutil.rmtree(self._models, ignore_errors=True)
        shutil.rmtree(self._paths.trial(file.retrained_number), ignore_errors=True)
        return report

    def _keep_winner(self, number: int, finalist: Finalist, end: TrialEnd) -> None:
        key = f"trial-{number}/model"
        if self._spool.has(key) or "model_bytes" not in end.metrics:
            return
        # Copied: until the record is in the spool a kill must find the model where it was.
        copy = self._models / MODEL_FILE
        shutil.copyfile(self._models / f"{number}.keras", copy)
        tags = {
            "sweeps.sweep": self._sweep.paths.name,
            "sweeps.trial": str(number),
            "sweeps.finalist_of": str(finalist.trial),
            **model_tags(self._data, copy),
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


def _say(text: str) -> None:
    print(text, flush=True)
