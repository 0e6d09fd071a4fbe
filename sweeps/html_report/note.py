"""The sweep's answer as the note of its run in MLflow, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.formatting import difference_text, duration
from sweeps.history.recorded_sweep import RecordedSweep
from sweeps.history.references import recorded_references
from sweeps.html_report.answer import answer, next_steps
from sweeps.html_report.findings import ParameterFinding, finalists_of

NUM_SHOWN = 5
MAX_CHARACTERS = 4_000
"""A tag of a run holds 8,000, and a point may be long."""


def run_note(sweep: RecordedSweep, findings: Sequence[ParameterFinding], now_ms: int) -> str:
    """What won, how sure that is, the best trials, and what comes next."""
    finalists = finalists_of(sweep.paths)
    found = answer(sweep, finalists, findings, now_ms)
    facts = {"Its configuration:": f"{found.point}."} if found.point else {}
    facts |= found.facts
    lines = [
        f"**{_plain(found.won)}**", "",
        *(f"- **{question}** {_plain(text)}" for question, text in facts.items()), "",
    ]  # fmt: skip
    if sweep.run_id:
        lines += [f"[Report](get-artifact?path=report.html&run_uuid={sweep.run_id})", ""]
    ranking, references = sweep.ranking()[:NUM_SHOWN], recorded_references(sweep)
    if ranking:
        lines += [
            f"| trial | {sweep.objective.metric} | time | point |",
            "| --- | --- | --- | --- |",
        ]
    for trial in ranking:
        point = _plain(difference_text(trial.params, references))
        lines.append(
            f"| {_plain(trial.name)} | {trial.value(sweep.objective) or 0:.4f} | "
            f"{duration(trial.seconds(now_ms))} | {point} |"
        )
    lines += [
        "",
        *(
            f"`{command}`: {why}  "
            for command, why in next_steps(sweep, has_finalists=bool(finalists))
        ),
    ]
    while len("\n".join(lines)) > MAX_CHARACTERS and len(lines) > 1:
        lines.pop()
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Without what Markdown would take for its own."""
    for sign in "\\|*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text
