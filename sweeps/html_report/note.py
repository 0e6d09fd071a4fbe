"""The sweep's answer as the note of its run in MLflow, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.formatting import difference_text, duration
from sweeps.history.recorded_sweep import RecordedSweep
from sweeps.history.references import recorded_references
from sweeps.html_report.answer import answer, next_steps
from sweeps.html_report.findings import Finalist, ParameterFinding, finalists_of
from tracking.markdown_text import literal
from tracking.views.links import SWEEPS_VIEW, artifact_here, charts_here, table_here, trials_view

CURVE_FILE = "best_so_far.svg"
"""The picture in the note, among the run's artifacts."""
NUM_SHOWN = 5
MAX_CHARACTERS = 4_000
"""A tag of a run holds 8,000, and a point may be long."""


def run_note(
    sweep: RecordedSweep,
    findings: Sequence[ParameterFinding],
    now_ms: int,
    *,
    has_curve: bool = False,
) -> str:
    """What won, how sure that is, where to see more, the best trials, and what comes next.

    Args:
        has_curve: whether the run has the picture `CURVE_FILE`.
    """
    finalists = finalists_of(sweep.paths)
    found = answer(sweep, finalists, findings, now_ms)
    facts = {"Its configuration:": f"{found.point}."} if found.point else {}
    facts |= found.facts
    steps = next_steps(sweep, has_finalists=bool(finalists))
    curve = [f"![Best so far]({artifact_here(CURVE_FILE)})", ""] if has_curve else []
    lines = [
        f"**{literal(found.won)}**", "",
        *(f"- **{question}** {literal(text)}" for question, text in facts.items()), "",
        *_pages(sweep), "", *curve, *_finalists(finalists, sweep), *_leaderboard(sweep, now_ms),
    ]  # fmt: skip
    end = ["", *(f"`{command}`: {why}  " for command, why in steps)]
    while len("\n".join([*lines, *end])) > MAX_CHARACTERS and len(lines) > 1:
        lines.pop()
    return "\n".join([*lines, *end])


def _pages(sweep: RecordedSweep) -> list[str]:
    view = trials_view(sweep.file.uid)
    pages = (
        f"[Table of the trials]({table_here(view)})", f"[Charts]({charts_here(view)})",
        f"[All sweeps of the experiment]({charts_here(SWEEPS_VIEW)})",
        f"[Report]({artifact_here(sweep.paths.report.name)})",
    )  # fmt: skip
    return [" · ".join(pages)]


def _finalists(finalists: Sequence[Finalist], sweep: RecordedSweep) -> list[str]:
    if not finalists:
        return []
    rows = [
        f"| {literal(one.name)} | {one.mean:.4f} ({one.low:.4f} to {one.high:.4f}) | "
        f"{one.test_accuracy:.4f} | {one.probability_best:.0%} |"
        for one in finalists[:NUM_SHOWN]
    ]
    metric = literal(sweep.objective.metric)
    head = f"| finalist | mean {metric} (95% interval) | test accuracy | probability best |"
    return [head, "| --- | --- | --- | --- |", *rows, ""]


def _leaderboard(sweep: RecordedSweep, now_ms: int) -> list[str]:
    references, rows = recorded_references(sweep), []
    for trial in sweep.ranking()[:NUM_SHOWN]:
        point = literal(difference_text(trial.params, references))
        rows.append(
            f"| {literal(trial.name)} | {trial.value(sweep.objective) or 0:.4f} | "
            f"{duration(trial.seconds(now_ms))} | {point} |"
        )
    head = f"| trial | {literal(sweep.objective.metric)} | time | point |"
    return [head, "| --- | --- | --- | --- |", *rows] if rows else []
