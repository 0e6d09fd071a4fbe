"""The two or three commands that come after a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.errors import redacted
from sweeps.board import Board
from sweeps.settings import SweepSettings
from tracking.stores import DEFAULT_URI, compare_link, resolve_uri, ui_command

if TYPE_CHECKING:
    from tracking.mlflow_tracker import MlflowTracker

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
    model_id = tracker.model_id(best.number)
    if model_id:
        given = "" if uri == DEFAULT_URI else f"MLFLOW_TRACKING_URI={redacted(uri)} "
        model = f"{settings.space}-{board.data_name}"
        code = f"import mlflow; mlflow.register_model('models:/{model_id}', '{model}')"
        print(f'  {given}python -c "{code}"  # register the best model')
