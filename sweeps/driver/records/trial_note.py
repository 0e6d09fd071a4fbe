"""The note of a trial's run in MLflow, in Markdown: how it ended, and what its point is."""

from __future__ import annotations

from pipelines.training.trial import TrialResult
from sweeps.driver.board.row import TrialRow
from sweeps.engines.base import TrialState
from sweeps.formatting import count, difference_text, duration
from tracking.markdown_text import literal
from tracking.views.links import charts_here, trials_view

MAX_CHARACTERS = 2_000
"""A tag of a run holds 8,000, and a point may be long."""


def trial_note(
    row: TrialRow, metric: str, state: TrialState, result: TrialResult | None, origin: str = ""
) -> str:
    """A sentence each.

    Args:
        metric: the plain name of the objective.
        result: what it reached; None where it reached nothing.
        origin: where its point comes from, if that is not obvious; a sentence without its stop.
    """
    lines = [f"**{state.value.capitalize()}**{_reached(row, metric, result)}."]
    if row.reason:
        lines.append(f"{literal(row.reason[0].upper() + row.reason[1:])}.")
    if origin:
        lines.append(f"{literal(origin)}.")
    if row.details:
        lines.append("The traceback is among its artifacts (`traceback.txt`).")
    lines.append(f"Point: {literal(difference_text(row.params, row.space.known_points))}.")
    return "  \n".join(lines)[:MAX_CHARACTERS]


def with_link(note: str, uid: str) -> str:
    """The note with a link to all trials beside each other.

    Args:
        uid: of the sweep, or of the comparison of finalists.
    """
    return f"{note}\n\n[Beside the others]({charts_here(trials_view(uid))})"


def _reached(row: TrialRow, metric: str, result: TrialResult | None) -> str:
    if result is None:
        return ""
    epochs = f"{result.num_epochs:.3g} of {count(row.schedule.end_epoch, 'epoch')}"
    took = f"after {epochs} in {duration(result.training_seconds)}"
    parts = []
    if row.schedule.validates:
        parts.append(f"{literal(metric)} {result.value:.4f} at epoch {result.best_epoch:.3g}")
    if result.test_metrics:
        parts.append(f"test accuracy {result.test_metrics['test_accuracy']:.4f}")
    return f" {took}: {', '.join(parts)}" if parts else f" {took}"
