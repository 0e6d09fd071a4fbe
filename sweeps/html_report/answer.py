"""The answer in words: what won, by how much, how sure, against what, at what cost, what next."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.formatting import count, difference_text, duration
from sweeps.history.listing import leader_of
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.history.references import recorded_references
from sweeps.html_report.findings import (
    BaselineComparison,
    Finalist,
    ParameterFinding,
    accuracy_margin,
    beside_baseline,
    compute_of,
    is_published,
    reached,
)

MANY = 3
"""From so many trials on that the measurement cannot tell from the winner, their number is said."""


def answer(
    sweep: RecordedSweep,
    finalists: Sequence[Finalist],
    findings: Sequence[ParameterFinding],
    now_ms: int,
) -> list[str]:
    """Sentences, each with one thing to know, the most important first."""
    best = sweep.best
    if best is None:
        return _without_winner(sweep)
    said = [_won(sweep, best, finalists), *_by_how_much(sweep, best), *_how_sure(sweep, finalists)]
    said.append(_cost(sweep, now_ms))
    for one in findings:
        if one.at_border:
            said.append(_at_border(one, sweep))
    return said


def _without_winner(sweep: RecordedSweep) -> list[str]:
    leader = leader_of(sweep)
    if leader is None:
        return ["Nothing has been measured yet."]
    value = reached(leader, sweep)
    value = leader.last_value(sweep.objective) if value is None else value
    return [
        f"No trial is complete yet. The furthest is {leader.name} with {sweep.objective.metric} "
        f"{value or 0:.4f} after epoch {leader.epochs:.3g} of {leader.num_epochs}."
    ]


def _won(sweep: RecordedSweep, best: RecordedTrial, finalists: Sequence[Finalist]) -> str:
    winner = sweep.trials.get(finalists[0].trial, best) if finalists else best
    point = difference_text(winner.params, recorded_references(sweep))
    kind = "the published model " if is_published(best) else ""
    if finalists:
        first = finalists[0]
        same = "" if first.trial != best.number else ", the best trial of the search, too"
        return (
            f"On fresh seeds {first.name} won{same}: mean {sweep.objective.metric} {first.mean:.4f}"
            f" (95% interval {first.low:.4f} to {first.high:.4f}, {first.num_seeds} seeds), test "
            f"accuracy {first.test_accuracy:.4f}. Its point: {point}."
        )
    value = best.value(sweep.objective)
    return f"{best.name} won with {sweep.objective.metric} {value or 0:.4f}: {kind}{point}."


def _by_how_much(sweep: RecordedSweep, best: RecordedTrial) -> list[str]:
    said = []
    found = beside_baseline(sweep)
    if found is not None and not is_published(best):
        said.append(_beside(found, sweep))
    elif is_published(best):
        said.append("No proposed point was better: the search found nothing new.")
    return said


def _beside(found: BaselineComparison, sweep: RecordedSweep) -> str:
    name = found.baseline.baseline.partition(",")[0]
    difference = found.own - found.other
    is_better = sweep.objective.beats(found.own, found.other)
    word = "better" if is_better else "worse"
    if found.epochs is None:
        return (
            f"That is {abs(difference):.4f} {word} than {name}, the best published model that was "
            f"trained in full ({found.other:.4f})."
        )
    return (
        f"No published model was trained in full. At epoch {found.epochs:.3g} the winner had "
        f"{found.own:.4f}, and {name}, the best of them, {found.other:.4f}."
    )


def _how_sure(sweep: RecordedSweep, finalists: Sequence[Finalist]) -> list[str]:
    if finalists:
        first = finalists[0]
        if len(finalists) == 1:
            return ["It was the only finalist, so nothing was compared on fresh seeds."]
        return [
            f"The probability that it is the best of the {len(finalists)} finalists is "
            f"{first.probability_best:.0%}; the next one is {finalists[1].name} with "
            f"{finalists[1].mean:.4f}."
        ]
    best = sweep.best
    value = best.value(sweep.objective) if best else None
    if value is None:
        return []
    margin = accuracy_margin(sweep, value)
    tried = count(len(sweep.trained), "point")
    said = (
        f"It is one training, picked as the best of {tried}, so its value is optimistic. "
        f"`keras-sweeps finalize {sweep.name}` compares the best on fresh seeds."
    )
    if margin is None:
        return [said]
    close = [
        trial for trial in sweep.ranking()[1:]
        if (other := trial.value(sweep.objective)) is not None and value - other <= margin
    ]  # fmt: skip
    within = ""
    if close:
        names = f"{len(close)} further trials" if len(close) >= MANY else " and ".join(
            trial.name for trial in close
        )  # fmt: skip
        within = f", within which {names} cannot be told from it"
    return [
        f"Its validation images measure it to about ±{margin:.4f} (95%){within}.",
        said,
    ]


def _cost(sweep: RecordedSweep, now_ms: int) -> str:
    found = compute_of(sweep, now_ms)
    total = found.complete + found.pruned + found.published + found.failed + found.running
    pruned = f", {found.pruned / total:.0%} of it in trials that were pruned" if total else ""
    return (
        f"It cost {duration(sweep.seconds)} for {count(len(sweep.trained), 'point')}, "
        f"{len(sweep.ranking())} of them complete: {duration(total)} of training{pruned}."
    )


def _at_border(one: ParameterFinding, sweep: RecordedSweep) -> str:
    said = (
        f"The optimum may lie beyond the range of {one.name}: the best three trials are at its end "
        f"({one.at_border}). "
    )
    if one.widened:
        return f"{said}A new sweep with `{one.widened}` searches there, too."
    space = sweep.file.settings.space
    return f"{said}Space {space} ends there; a wider range needs a space of your own."


def next_steps(sweep: RecordedSweep, *, has_finalists: bool) -> list[tuple[str, str]]:
    """At most three commands that come next, and why."""
    name = sweep.name
    if sweep.state == "running":
        return [
            (f"keras-sweeps watch {name}", "see it live"),
            (f"keras-sweeps stop {name}", "end it, so that it can be resumed"),
        ]
    if sweep.state == "interrupted":
        return [(f"keras-sweeps run --resume --name {name}", "continue it")]
    if sweep.best is None:
        return [(f"keras-sweeps show {name}", "why nothing was trained to its end")]
    steps = []
    if not has_finalists:
        steps.append((f"keras-sweeps finalize {name}", "the best points on fresh seeds"))
    steps.append((f"keras-sweeps promote {name}", "register the model, if it beats the champion"))
    more = f"keras-sweeps run --resume --name {name} --timeout 30m"
    steps.append((more, "search on with more time"))
    return steps
