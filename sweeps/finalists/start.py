"""A search with the comparison of its finalists, and such a comparison alone, from their start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces.errors import InputError
from sweeps.driver.board.views import TrialCallback, TrialCallbacks, Views
from sweeps.driver.search import SweepResult, run_search
from sweeps.finalists.session import ComparisonResult, Output, finalize
from sweeps.formatting import in_work_dir
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.settings import FinalOptions, SweepSettings, check_num_seeds
from sweeps.setup.start import Start, StartedSweep, started_sweep
from sweeps.setup.stores import check_locations
from sweeps.state.lock import driving
from sweeps.state.paths import paths_of
from sweeps.state.sweep_file import StoredSweep, check_same_store, read_sweep_file

if TYPE_CHECKING:
    from tracking.runs.tracker import MlflowTracker


@dataclass(frozen=True)
class RunResult:
    """How a sweep ended.

    Attributes:
        search: how its trials did.
        comparison: how its finalists did; None where they were not asked for, or not reached.
        sweep: where it is stored.
        tracker: the tracking store; None where nothing was sent to it.
        signal: the first signal that came meanwhile; None without.
    """

    search: SweepResult
    comparison: ComparisonResult | None
    sweep: StoredSweep
    tracker: MlflowTracker | None
    signal: int | None = None


def run_sweep(
    settings: SweepSettings,
    start: Start,
    output: Output,
    on_search: Callable[[SweepResult, StartedSweep], None] = lambda result, started: None,
    on_trial_end: Sequence[TrialCallback] = (),
) -> RunResult:
    """Runs or continues a sweep, and compares its finalists where it has any to compare.

    Args:
        on_search: called when the search has ended, before finalists are trained.
        on_trial_end: called with each trial of the search that ends.

    Raises:
        InputError: The settings or the places they name cannot be used; nothing was started.
        KeyboardInterrupt: An interrupt came before the first trial.
    """
    with started_sweep(settings, start) as started:
        settings = started.opened.settings
        sweep = StoredSweep(paths_of(settings), started.opened.file)
        view = output.view()
        if on_trial_end:
            view = Views([view, TrialCallbacks(on_trial_end)])
        result = run_search(started.opened, view, started.interrupts)
        on_search(result, started)
        comparison = None
        if result.outcome is Outcome.DONE and result.recorded and settings.num_finalists:
            options = FinalOptions(
                settings.num_finalists, settings.num_finalist_seeds, settings.retrain
            )
            comparison = finalize(sweep, options, started.interrupts, output)
        signal = started.interrupts.first
        return RunResult(result, comparison, sweep, started.tracker, signal)


def finalize_stored(
    sweep: StoredSweep,
    options: FinalOptions,
    output: Output,
    interrupts: Interrupts,
    *,
    unfinished: bool = False,
) -> ComparisonResult:
    """Compares the finalists of a stored sweep; takes its lock.

    Args:
        unfinished: whether the best so far of a sweep that has not ended will do.

    Raises:
        InputError: It has not ended, its places cannot be used, or as `finalize`.
    """
    check_num_seeds(options.num_seeds)
    # Against what the sweep itself says, without the options.
    stored, name = read_sweep_file(sweep.paths.state), sweep.paths.name
    check_same_store(stored, sweep.uri, sent=True)
    if not stored.is_finished and not unfinished:
        raise InputError(
            f"Sweep '{name}' has not ended, so better trials may follow. Finish it with "
            f"`keras-sweeps run --resume --name {name}{in_work_dir(sweep.paths.work_dir)}`, or "
            "compare its best trials so far with --unfinished. Finalists are compared only once."
        )
    check_locations(sweep.file.settings, resume=True)
    with driving(sweep.paths), interrupts:
        return finalize(sweep, options, interrupts, output)
