"""The two or three commands that come after a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeps.driver.status import Board
from sweeps.settings import SweepSettings
from tracking.addresses import redacted
from tracking.stores import compare_link, resolve_uri, ui_command

if TYPE_CHECKING:
    from tracking.runs.tracker import MlflowTracker

NUM_COMPARED = 5


def print_next_steps(
    settings: SweepSettings, board: Board, tracker: MlflowTracker | None, *, unfinished: bool
) -> None:
    """Prints how to go on, to send, to compare and to register; nothing where nothing can follow.

    Args:
        tracker: the store; None where nothing was sent.
        unfinished: whether the sweep can be resumed.
    """
    if not unfinished and board.best() is None:
        return
    uri = resolve_uri(settings.tracking_uri)
    where = "" if settings.work_dir == ".sweeps" else f" --work-dir {settings.work_dir}"
    print("\nNext:")
    if unfinished:
        print(f"  keras-sweeps run --resume --name {settings.name}{where}  # go on")
    if tracker is None:
        print(f"  keras-sweeps sync {settings.name}{where}  # send it all to {redacted(uri)}")
    best = board.best()
    if tracker is None or best is None:
        return
    command = ui_command(uri)
    found = [tracker.run_id(row.number) for row in board.contenders()[:NUM_COMPARED]]
    link = compare_link(uri, tracker.experiment_id, [run for run in found if run])
    if command:
        print(f"  {command:<24}# then compare the best runs at")
    print(f"  {link}")
    if unfinished or settings.num_finalists:
        return
    print(f"  keras-sweeps finalize {settings.name}{where}  # the best of them on fresh seeds")
    if tracker.model_id(best.number):
        print(f"  keras-sweeps promote {settings.name}{where}  # register the best model")
