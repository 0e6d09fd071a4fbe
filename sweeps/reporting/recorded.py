"""A recorded sweep as the views of a running one know it, for `watch`."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pipelines.training.reports import Reports
from pipelines.training.trial import Schedule
from search_spaces.registry import SPACES
from search_spaces.space import Space
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import View
from sweeps.engines.base import TrialState
from sweeps.engines.pruners.registry import HALVING
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial, read_sweep
from sweeps.reporting.console import console
from sweeps.reporting.progress import LiveView, PlainView, can_redraw
from sweeps.state.lock import is_driven
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import RUNNING
from tracking.spool.records import now_ms
from tracking.tags import Tag

POLL_SECONDS = 1.0


def follow(paths: SweepPaths, *, once: bool = False) -> RecordedSweep:
    """Shows a sweep that another process drives until it ends; returns it as it is then.

    Args:
        once: show how it stands now, and no more.

    Raises:
        InputError: Its records are damaged.
    """
    sweep = read_sweep(paths)
    if once:
        if sweep.state == RUNNING:
            from sweeps.reporting.progress import live_screen

            # A frame of its own, not one that is redrawn.
            console().print(live_screen(board_of(sweep)))
        return sweep
    view: View = LiveView() if can_redraw() else PlainView()
    told = {trial.number: _standing(trial) for trial in sweep.trials.values()}
    seen = -1.0
    try:
        while sweep.state == RUNNING:
            board = board_of(sweep)
            told = _tell(view, board, sweep, told)
            view.update(board)
            time.sleep(POLL_SECONDS)
            records = paths.spool / "records.jsonl"
            size = float(records.stat().st_size) if records.exists() else 0.0
            if size != seen:
                seen, sweep = size, read_sweep(paths)
            elif not is_driven(paths):
                sweep = read_sweep(paths)
    finally:
        view.close()
    return sweep


def _standing(trial: RecordedTrial) -> tuple[TrialState, int]:
    return trial.state, len(trial.reports)


def _tell(
    view: View,
    board: Board,
    sweep: RecordedSweep,
    told: Mapping[int, tuple[TrialState, int]],
) -> dict[int, tuple[TrialState, int]]:
    """Tells a view what has changed since the last time."""
    now = {}
    for trial in sweep.trials.values():
        row, before = board.rows[trial.number], told.get(trial.number)
        now[trial.number] = _standing(trial)
        if before == now[trial.number]:
            continue
        if before is None or (
            trial.state is TrialState.RUNNING and before[0] is not TrialState.RUNNING
        ):
            view.started(board, row, again=before is not None)
        if before is not None and len(trial.reports) > before[1]:
            view.reported(board, row)
        if trial.state is not TrialState.RUNNING:
            view.ended(board, row)
    return now


def board_of(sweep: RecordedSweep) -> Board:
    """The board that the sweep's driver has, as far as the records tell it."""
    settings, now = sweep.file.settings, now_ms()
    since = sweep.sessions[-1][1] if sweep.sessions else now
    running = sweep.state == RUNNING
    limit = sweep.params.get("timeout_seconds")
    board = Board(
        title=f"{sweep.name}: {sweep.task}",
        objective=sweep.objective,
        num_trials=sweep.params.get("num_trials"),
        num_slots=max(1, sweep.num_in(TrialState.RUNNING)),
        timeout_seconds=float(limit) if isinstance(limit, int | float) else None,
        data_name=sweep.file.data_name,
        earlier_seconds=sweep.seconds + ((now - since) / 1000 if running else 0.0),
        clock=lambda: now / 1000,
        max_epochs=settings.max_total_epochs,
        rungs=_rungs(sweep),
        reduction_factor=settings.reduction_factor if settings.pruner in HALVING else None,
    )
    space = SPACES.get(settings.space) or _unopened(settings.space)
    ended = [trial for trial in sweep.trials.values() if trial.state.is_end and trial.stretches]
    ended.sort(key=lambda trial: trial.stretches[-1][1] or 0)
    for trial in sweep.trials.values():
        board.rows[trial.number] = _row(sweep, trial, space, now, board.elapsed_seconds())
    for order, trial in enumerate(ended):
        board.rows[trial.number].end_order = order
    return board


def _rungs(sweep: RecordedSweep) -> tuple[int, ...]:
    """The steps of its rungs, from what its run says: `0.33, 1, 3, 8 epochs`."""
    first = next(iter(sweep.trials.values()), None)
    text = str(sweep.params.get("rungs", "")).removesuffix(" epochs")
    if first is None or sweep.file.settings.pruner not in HALVING or not text:
        return ()
    return tuple(round(float(part) * first.steps_per_epoch) for part in text.split(","))


def _row(
    sweep: RecordedSweep, trial: RecordedTrial, space: Space, now: int, elapsed: float
) -> TrialRow:
    reports = Reports(trial.steps_per_epoch)
    metric = sweep.objective.metric
    begun = trial.stretches[-1][0] if trial.stretches else trial.begun_ms
    size = trial.metrics.get("num_parameters")
    return TrialRow(
        trial.number, trial.name, dict(trial.params), 0,
        Schedule(trial.num_epochs, reports=reports), space,
        baseline=trial.baseline or None,
        proposed_by=trial.tags.get(Tag.PROPOSED_BY, ""),
        state=trial.state,
        value=trial.value(sweep.objective),
        best_epoch=trial.metrics.get("best_epoch"),
        curve={
            round(report.epochs * reports.per_epoch): report.metrics[metric]
            for report in trial.reports
            if metric in report.metrics
        },
        num_parameters=None if size is None else int(size),
        started=begun / 1000,
        seconds=trial.seconds(now),
        reason=trial.reason,
        node=trial.tags.get(Tag.NODE, ""),
        duplicate_of=int(trial.tags[Tag.DUPLICATE_OF]) if trial.is_duplicate else None,
        measured_at=elapsed - (now - trial.reports[-1].at_ms) / 1000 if trial.reports else None,
    )  # fmt: skip


def _unopened(name: str) -> Space:
    """A user's space by its name alone: to watch a sweep, its code is not run."""

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError(f"space '{name}' was not opened")

    space = Space(name, "", refuse, refuse, lambda params, shape: ())  # type: ignore[arg-type]
    space.__dict__["known_points"] = {}  # Where a cached property keeps its value.
    return space
