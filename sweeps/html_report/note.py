"""The sweep's answer as the note of its run in MLflow, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.formatting import as_markdown, difference_text, duration
from sweeps.history.recorded_sweep import RecordedSweep
from sweeps.history.references import recorded_references
from sweeps.html_report.answer import answer, next_steps
from sweeps.html_report.findings import ParameterFinding

NUM_SHOWN = 5
MAX_CHARACTERS = 4_000
"""A tag of a run holds 8,000, and a point may be long."""


def run_note(sweep: RecordedSweep, findings: Sequence[ParameterFinding], now_ms: int) -> str:
    """What won, how sure that is, the best trials, and what comes next."""
    first, *rest = answer(sweep, [], findings, now_ms)
    lines = [f"**{as_markdown(first)}**", "", *(f"- {as_markdown(text)}" for text in rest), ""]
    if sweep.run_id:
        lines += [f"[Report](get-artifact?path=report.html&run_uuid={sweep.run_id})", ""]
    ranking, references = sweep.ranking()[:NUM_SHOWN], recorded_references(sweep)
    if ranking:
        lines += [
            f"| trial | {sweep.objective.metric} | time | point |",
            "| --- | --- | --- | --- |",
        ]
    for trial in ranking:
        point = as_markdown(difference_text(trial.params, references))
        lines.append(
            f"| {as_markdown(trial.name)} | {trial.value(sweep.objective) or 0:.4f} | "
            f"{duration(trial.seconds(now_ms))} | {point} |"
        )
    lines += [
        "",
        *(f"`{command}`: {why}  " for command, why in next_steps(sweep, has_finalists=False)),
    ]
    while len("\n".join(lines)) > MAX_CHARACTERS and len(lines) > 1:
        lines.pop()
    return "\n".join(lines)
