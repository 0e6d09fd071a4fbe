"""The final comparison of a sweep: the best configurations on fresh seeds, and the winner's model.

The winner follows from the validation values of the fresh seeds. The test split is read for the
first time here, once per trained model, and decides nothing: what it says of the winner is not the
best of several tries.
"""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.trial import TrialTask
from search_spaces.errors import redacted
from search_spaces.space import Space
from sweeps.cli.exit_codes import DONE, FAILED, INTERRUPTED
from sweeps.driver.loop import Sweep
from sweeps.driver.plan import Plan, trial_seed
from sweeps.driver.sending import send_rest
from sweeps.driver.status import Board, TrialRow
from sweeps.driver.stop_rules import StopReason
from sweeps.engines.base import TrialState
from sweeps.engines.fixed import PlannedEngine
from sweeps.finalists.beginning import begin_finalists
from sweeps.finalists.estimates import compare, median_key
from sweeps.finalists.recording import FinalistRecorder, past_trainings
from sweeps.finalists.report import scale_of
from sweeps.finalists.retraining import RetrainJob, retrain
from sweeps.finalists.selection import FinalistsFile, finalists_paths, models_folder, sweep_run_id
from sweeps.finalists.winner import WinnerRecorder, remove_leftovers
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.reporting.console import speaker
from sweeps.reporting.progress import make_view
from sweeps.resources.gpu_monitor import closed, watch_over
from sweeps.resources.machine import Allotment, allot, detect_machine, with_gpus
from sweeps.resources.packer import read_packing
from sweeps.settings import (
    FinalOptions,
)
from sweeps.setup.data import reopen_data
from sweeps.setup.space import source_tags, space_of
from sweeps.setup.stores import connect_tracker
from sweeps.state.recorded_options import compute_tags
from sweeps.state.stored_sweep import StoredSweep
from sweeps.state.sweep_file import check_same_data
from sweeps.workers.jobs import train_job, warm_up
from sweeps.workers.start import start_workers
from tracking.spool.records import SweepEnd
from tracking.tags import Tag

if TYPE_CHECKING:
    from sweeps.executors.base import Executor
    from tracking.runs.tracker import MlflowTracker
    from tracking.spool.sender import Sender
    from tracking.spool.spool import Spool


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
    say = speaker(quiet)
    settings, name = sweep.file.settings, sweep.paths.name
    data = reopen_data(
        sweep.file.data_name, sweep.file.data_fingerprint, sweep.paths.data, settings
    )
    space = space_of(settings, data)
    check_same_data(sweep.file, data.fingerprint, space.fingerprint)
    file = begin_finalists(sweep, space, options, data.num_images["train"])
    if file.finished:
        remove_leftovers(sweep.paths, file)  # A kill may have come before it was done.
        say(f"{name}: its finalists were compared after {count(file.num_trials, 'trial')}")
        print(file.report)
        return DONE
    machine = with_gpus(detect_machine(settings.backend), settings.gpus)
    asked = settings.trials_per_gpu
    allotment = allot(machine, settings.num_workers, settings.num_threads, asked)
    places = (finalists_paths(sweep.paths).packing, sweep.paths.packing)
    known = next(filter(None, (read_packing(p, allotment, asked) for p in places)), None)
    # What the sweep found out; without that, a comparison of a few trainings measures nothing.
    allotment = allotment.at(known.level if known is not None else asked or 1)
    say(f"finalists of {name}: {', '.join(finalist.name for finalist in file.finalists)}")
    say(f"trainings {len(file.plan())}: {count(file.num_seeds, 'fresh seed')} of each, "
        f"{count(file.num_epochs, 'epoch')}")  # fmt: skip
    say(f"machine   {allotment.reason}")
    say(f"compute   {settings.compute.text}")
    return Finalization(sweep, space, file, data, allotment).run(interrupts, quiet=quiet)


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
        from tracking.spool.spool import Spool

        settings = sweep.file.settings
        self._sweep, self._file, self._data, self._allotment = sweep, file, data, allotment
        self._space = space
        self._settings = settings
        self._objective = get_objective(settings.objective)
        self._paths = finalists_paths(sweep.paths)
        self._models = models_folder(sweep.paths)
        self._spool: Spool = Spool(self._paths.spool)
        self._tracker: MlflowTracker | None = None
        self._sender: Sender | None = None
        self._keeps_models = True

    def run(self, interrupts: Interrupts, *, quiet: bool) -> int:
        """Trains what is missing, chooses, records; prints the table and returns the status."""
        spare = None if self._settings.deterministic else warm_up
        executor = start_workers(self._paths.server_log, self._settings.backend, warm_up=spare)
        status, report, error = FAILED, "", ""
        try:
            self._start_sending()
            status, report = self._work(executor, interrupts, quiet=quiet)
        except OSError as problem:  # A full disk, a training that fails: it can go on later.
            error = str(problem)
            with contextlib.suppress(OSError):
                self._recorder.sweep_waits("SCHEDULED", f"broke off: {error}")
        finally:
            executor.close()
        problems = send_rest(
            self._sender, self._spool, self._sweep.paths.name, self._sweep.uri, interrupts
        )
        if report:
            print(report)
        for line in problems:
            print(f"WARNING: {line}", file=sys.stderr)
        name, work_dir = self._sweep.paths.name, self._settings.work_dir
        usual = Path(work_dir).absolute() == Path(".sweeps").absolute()
        where = "" if usual else f" --work-dir {work_dir}"
        if status == FAILED:
            error = error or "no finalist completed two trainings, so there is nothing to compare"
            print(f"error: {error}", file=sys.stderr)
        print("\nNext:")
        if self._sender is None:
            uri = redacted(self._sweep.uri)
            print(f"  keras-sweeps sync {name}{where}  # send it all to {uri}")
        if status != DONE:
            print(f"  keras-sweeps finalize {name}{where}  # go on")
        elif not self._keeps_models:
            print("  nothing to promote: its models hold code of their own and were not kept")
        elif self._sender is not None:
            print(f"  keras-sweeps promote {name}{where}  # make the winner the champion")
        rejected = bool(self._spool.rejections())
        return FAILED if rejected and status == DONE else status

    # Recording

    def _start_record(self) -> None:
        from tracking.provenance import git_tags, version_tags

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
            "class_weights": self._settings.class_weights,
            "seed": file.seed,
        }
        tags = {
            **git_tags(),
            **version_tags(),
            **source_tags(self._space, self._data),
            **compute_tags(self._settings.compute),
            Tag.KIND: "finalists",
            Tag.SWEEP: self._sweep.paths.name,
            Tag.NUM_SEEDS: str(file.num_seeds),
            Tag.FINALISTS: ", ".join(str(f.trial) for f in file.finalists),
        }
        self._recorder = FinalistRecorder(
            file, self._models, self._spool, self._space, self._data,
            self._paths, self._settings.compute,
        )  # fmt: skip
        name = f"{self._sweep.paths.name} finalists"
        self._recorder.sweep_started(name, file.uid, params, tags)

    def _start_sending(self) -> None:
        if self._settings.offline:
            self._start_record()
            return
        from tracking.spool.sender import Sender

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

    # Training

    def _work(self, executor: Executor, interrupts: Interrupts, *, quiet: bool) -> tuple[int, str]:
        file = self._file
        board = self._board()
        past = past_trainings(self._spool, file, self._objective, self._models)
        engine = PlannedEngine(file.plan(), past)
        view = make_view(quiet)
        watch, problems = watch_over(self._allotment.layout)
        try:
            stop = Sweep(self._plan(), board, engine, executor, self._recorder, view, watch).run(
                interrupts
            )
        finally:
            view.close()
            for line in [*problems, *closed(watch)]:
                print(f"WARNING: {line}", file=sys.stderr)
        if stop in (StopReason.INTERRUPTED, StopReason.PREEMPTED):
            self._recorder.sweep_waits("SCHEDULED", stop.value)
            return INTERRUPTED, ""
        rows, left_out = self._judged(board)
        if not rows:
            self._recorder.sweep_ended(SweepEnd("FAILED", {Tag.STOPPED_BY: stop.value}))
            return FAILED, ""
        values = {place: [_value(row) for row in found] for place, found in rows.items()}
        standings = compare(
            values,
            maximize=self._objective.direction == "maximize",
            seed=file.seed,
            scale=scale_of(self._objective.metric, self._data.num_images["validation"]),
        )
        winner = rows[standings[0].key]
        chosen = median_key({row.number: _value(row) for row in winner})
        if file.retrain == "all":
            epochs = math.ceil(sum(row.best_epoch or 1 for row in winner) / len(winner))
            retrained = self._retrain(standings[0].key, epochs, interrupts, quiet=quiet)
            if retrained is None:
                self._recorder.sweep_waits("SCHEDULED", StopReason.INTERRUPTED.value)
                return INTERRUPTED, ""
            chosen = retrained
        winner_of = WinnerRecorder(
            self._sweep.paths, file, self._objective, self._data, self._spool, self._recorder
        )
        report = winner_of.record(standings, rows, chosen, left_out)
        self._keeps_models = winner_of.keeps_model
        return DONE, report

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
            class_weights=settings.class_weights,
            compute=settings.compute,
            job=train_job,
            layout=self._allotment.layout,
            level=self._allotment.level,
            trials_per_gpu=settings.trials_per_gpu,
        )

    def _judged(self, board: Board) -> tuple[dict[int, list[TrialRow]], list[str]]:
        """The trainings of each finalist that is compared, and why others are left out.

        A configuration of which some seeds fail is judged only where that is so with all of them:
        those that survived would be its luckiest ones.
        """
        rows: dict[int, list[TrialRow]] = {}
        for row in board.in_state(TrialState.COMPLETE):
            rows.setdefault(row.number % len(self._file.finalists), []).append(row)
        whole = {p: found for p, found in rows.items() if len(found) == self._file.num_seeds}
        judged = whole or {p: found for p, found in rows.items() if len(found) > 1}
        left_out = []
        for place, finalist in enumerate(self._file.finalists):
            num = len(rows.get(place, []))
            if num < self._file.num_seeds:
                line = f"{finalist.name}: {num} of {self._file.num_seeds} trainings completed"
                print(f"WARNING: {line}", file=sys.stderr)
                if place not in judged:
                    left_out.append(line)
        return dict(sorted(judged.items())), left_out

    def _retrain(
        self, place: int, epochs: int, interrupts: Interrupts, *, quiet: bool
    ) -> int | None:
        """Trains the winner on all data; answers the training's number, None after an interrupt."""
        file, number = self._file, self._file.retrained_number
        finalist = file.finalists[place]
        speaker(quiet)(f"{finalist.name}: training on all data for {count(epochs, 'epoch')}")
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
            class_weights=self._settings.class_weights,
            sources=self._space.sources,
            compute=self._settings.compute,
        )
        job = RetrainJob(
            self._space, task, finalist, self._paths, self._allotment.at(1).slots[0], train_job
        )
        done = retrain(
            job, self._spool, self._models, interrupts, num_retries=self._settings.num_retries
        )
        return number if done else None


def _value(row: TrialRow) -> float:
    assert row.value is not None  # Complete trainings have one.
    return row.value
