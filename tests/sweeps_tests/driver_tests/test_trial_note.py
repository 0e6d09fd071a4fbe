"""The note of a trial's run: how it ended and why, in a few lines."""

from __future__ import annotations

from pipelines.training.trial import Schedule, TrialResult
from search_spaces.registry import get_space
from sweeps.driver.board.row import TrialRow
from sweeps.driver.records.trial_note import MAX_CHARACTERS, trial_note, with_link
from sweeps.engines.base import TrialState

SPACE = get_space("mlp")


def row(reason: str = "", details: str = "", num_epochs: int = 8) -> TrialRow:
    params = SPACE.complete({"num_layers": 1})
    return TrialRow(
        3, "trial 3", params, 7, Schedule(num_epochs), SPACE, reason=reason, details=details
    )


def result(**more: object) -> TrialResult:
    return TrialResult(3, 0.91, 2, 3, {}, 10, 40, 61.0, "cpu", "pruner", **more)  # type: ignore[arg-type]


def test_a_pruned_trial_says_what_it_had_reached_and_why_it_was_stopped():
    lines = trial_note(row("stopped at epoch 3: rank_9"), "val_accuracy", TrialState.PRUNED,
                       result(), "Origin: prior").split("  \n")  # fmt: skip
    assert lines == [
        r"**Pruned** after 3 of 8 epochs in 1:01 min: val_accuracy 0.9100 at epoch 2.",
        r"Stopped at epoch 3: rank_9.",
        "Origin: prior.",
        r"Point: defaults with num_layers=1.",
    ]


def test_a_failed_trial_names_its_traceback_and_a_trained_finalist_its_test_accuracy():
    note = trial_note(row("ValueError: <b>", "Traceback"), "val_loss", TrialState.FAILED, None)
    assert note.startswith("**Failed**.  \nValueError: \\<b\\>.  \n")
    assert "`traceback.txt`" in note
    measured = result(test_metrics={"test_accuracy": 0.875, "test_loss": 1.0})
    note = trial_note(row(), "val_loss", TrialState.COMPLETE, measured)
    assert note.startswith(r"**Complete** after 3 of 8 epochs in 1:01 min: val_loss 0.9100")
    assert "test accuracy 0.8750." in note


def test_a_note_fits_into_a_tag_and_links_to_the_others():
    note = trial_note(row("x" * 9_000), "val_loss", TrialState.FAILED, None)
    assert len(note) <= MAX_CHARACTERS
    assert "viewStateShareKey=sweep-0123456789ab" in with_link(note, "0123456789abcdef")
