"""The sweeps of a work folder, newest first, without looking into MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import InputError
from sweeps.engines.base import TrialState
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial, read_sweep
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import sweep_files
from tracking.spool.records import now_ms


@dataclass(frozen=True)
class Listed:
    """A sweep's folder.

    Attributes:
        sweep: what it has recorded; None where that cannot be read.
        problem: why not, in one line.
    """

    name: str
    sweep: RecordedSweep | None
    problem: str = ""

    @property
    def begun_ms(self) -> int:
        """When it began, in ms since 1970; 0 where nothing is recorded."""
        return self.sweep.begun_ms if self.sweep else 0


def list_sweeps(work_dir: Path) -> list[Listed]:
    """All sweeps of a work folder, newest first; what cannot be read comes last."""
    found = []
    for path in sweep_files(work_dir):
        name = path.parent.name
        try:
            sweep = read_sweep(SweepPaths(work_dir.absolute(), name))
        except InputError as error:
            found.append(Listed(name, None, " ".join(str(error).split())))
        else:
            found.append(Listed(name, sweep))
    return sorted(found, key=lambda listed: (-listed.begun_ms, listed.name))


@dataclass(frozen=True)
class Summary:
    """A sweep in one line.

    Attributes:
        state: `running`, `interrupted` or `finished`.
        task: the space and the data set.
        best_trial, best_value: the best complete trial; before there is one, that which has come
            furthest with the best value. None before any report.
        best_is_complete: whether it is complete.
        num_trials: points that were trained, or are to be.
        seconds: wall time of all sessions.
        begun_ms: ms since 1970.
        note: what somebody wrote of it; empty for nothing.
    """

    name: str
    state: str
    task: str
    objective: str
    best_trial: int | None
    best_value: float | None
    best_is_complete: bool
    num_trials: int
    num_complete: int
    num_pruned: int
    num_failed: int
    seconds: float
    begun_ms: int
    run_id: str = ""
    note: str = ""

    @property
    def trials_text(self) -> str:
        """`48: 5 complete, 1 failed`."""
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        return f"{self.num_trials}: {self.num_complete} complete{failed}"


def summarized(sweep: RecordedSweep) -> Summary:
    """A recorded sweep in one line."""
    best = leader_of(sweep)
    value = None
    if best is not None:
        value = best.value(sweep.objective)
        value = best.last_value(sweep.objective) if value is None else value
    return Summary(
        name=sweep.name,
        state=sweep.state,
        task=sweep.task,
        objective=sweep.objective.metric,
        best_trial=best.number if best else None,
        best_value=value,
        best_is_complete=sweep.best is not None,
        num_trials=len(sweep.trained),
        num_complete=len(sweep.ranking()),
        num_pruned=sweep.num_in(TrialState.PRUNED),
        num_failed=sweep.num_in(TrialState.FAILED),
        seconds=round(sweep.seconds_so_far(now_ms()), 1),
        begun_ms=sweep.begun_ms,
        run_id=sweep.run_id,
        note=sweep.note,
    )


def leader_of(sweep: RecordedSweep) -> RecordedTrial | None:
    """The best complete trial; before there is one, the first of those that came furthest."""
    reported = [trial for trial in sweep.ordered() if trial.reports]
    return sweep.best or next(iter(reported), None)
