"""What optuna-dashboard shows of a trial beside its values: a note in Markdown.

The keys are those of its `save_note` (optuna_dashboard/_note.py, version 0.21), which need not be
installed where a sweep runs: the dashboard may be another machine's.
"""

from __future__ import annotations

from sweeps.engines.optuna_study.sole_writer import SoleWriterStorage

MAX_CHARACTERS = 2_000
"""Of the 2,045 that one attribute of a study holds."""


def note_trial(
    storage: SoleWriterStorage, study_id: int, trial_id: int, baseline: str, page: str
) -> None:
    """Notes which baseline a trial is, and where its run is; a note that is there stays.

    Args:
        baseline: empty where it is none.
        page: address of the run in MLflow; empty where nobody knows it.
    """
    lines = [f"Baseline: {baseline}"] if baseline else []
    lines += [f"[Run in MLflow]({page})"] if page else []
    key = f"dashboard:{trial_id}:note_"
    if not lines or storage.has_study_system_attr(study_id, f"{key}ver"):
        return
    text = "\n\n".join(lines)[:MAX_CHARACTERS]
    storage.set_study_system_attr(study_id, f"{key}str:0", text)
    storage.set_study_system_attr(study_id, f"{key}ver", 1)
