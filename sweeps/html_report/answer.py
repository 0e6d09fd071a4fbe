"""The answer in words: what won, by how much, whether it is real, at what cost, what next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search_spaces.hyperparameters.parameter import Value
from sweeps.engines.base import TrialState
from sweeps.formatting import count, difference_text, duration
from sweeps.history.listing import leader_of
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.history.references import DEFAULTS, recorded_references
from sweeps.html_report.findings import (
    BaselineComparison,
    Finalist,
    ParameterFinding,
    accuracy_margin,
    beside_baseline,
    compute_of,
    finalists_seconds,
    is_published,
    none_published_in_full,
    reached,
)

MANY = 3
"""From so many trials on that the measurement cannot tell from the winner, their number is said."""
SURE = 0.95
MAX_STEPS = 3


@dataclass(frozen=True)
class Answer:
    """What a reader asks first.

    Attributes:
        won: one sentence: what won, with which value.
        point: what it is, after a colon: its difference from the defaults or the nearest published
            model; empty where nothing has won yet.
        facts: question -> its answer in a sentence or two.
        params: all values of what won.
    """

    won: str
    point: str
    facts: Mapping[str, str]
    params: Mapping[str, Value] = field(default_factory=dict)


def answer(
    sweep: RecordedSweep,
    finalists: Sequence[Finalist],
    findings: Sequence[ParameterFinding],
    now_ms: int,
) -> Answer:
    """What won, by how much, whether that is real, and what it cost."""
    best = sweep.best
    if best is None:
        return Answer(_without_winner(sweep), "", {})
    winner = sweep.trials.get(finalists[0].trial, best) if finalists else best
    margin = accuracy_margin(sweep, best.value(sweep.objective) or 0.0)
    facts = {
        "By how much?": _by_how_much(sweep, winner, margin),
        "Is it real?": _how_sure(sweep, best, finalists, margin),
        "What did it cost?": _cost(sweep, finalists, now_ms),
        "What may be missing?": " ".join(_at_border(f, sweep) for f in findings if f.at_border),
    }
    point = _configuration(winner, sweep)
    won = _won(sweep, best, finalists)
    said = {question: text for question, text in facts.items() if text}
    return Answer(won, point, said, winner.params)


def _without_winner(sweep: RecordedSweep) -> str:
    leader = leader_of(sweep)
    if leader is None:
        return "Nothing has been measured yet."
    value = reached(leader, sweep)
    value = leader.last_value(sweep.objective) if value is None else value
    return (
        f"No trial is complete yet. The furthest is {leader.name} with {sweep.objective.metric} "
        f"{value or 0:.4f} after epoch {leader.epochs:.3g} of {leader.num_epochs}."
    )


def _won(sweep: RecordedSweep, best: RecordedTrial, finalists: Sequence[Finalist]) -> str:
    metric = sweep.objective.metric
    if finalists:
        first = finalists[0]
        return (
            f"{first.name} won on fresh seeds: mean {metric} {first.mean:.4f}, "
            f"test accuracy {first.test_accuracy:.4f}."
        )
    kind = ", a published model," if is_published(best) else ""
    leads = "leads" if sweep.state == "running" else "won"
    return f"{best.name}{kind} {leads} with {metric} {best.value(sweep.objective) or 0:.4f}."


def _configuration(winner: RecordedTrial, sweep: RecordedSweep) -> str:
    point = difference_text(winner.params, recorded_references(sweep))
    if point == DEFAULTS:
        return f"the defaults of space {sweep.file.settings.space}"
    return f"the published model {point}" if is_published(winner) else point


def _by_how_much(sweep: RecordedSweep, winner: RecordedTrial, margin: float | None) -> str:
    if is_published(winner):
        return "Not at all: no proposed configuration was better than it."
    found = beside_baseline(sweep, winner)
    return "" if found is None else _beside(found, sweep, margin)


def _beside(found: BaselineComparison, sweep: RecordedSweep, margin: float | None) -> str:
    name = found.baseline.baseline.partition(",")[0]
    word = "better" if sweep.objective.beats(found.own, found.other) else "worse"
    by = f"{abs(found.own - found.other):.4f} {word} than"
    if found.epochs is None:
        within = margin is not None and abs(found.own - found.other) <= margin
        unsure = f": less than the ±{margin:.4f} of measuring it" if within else ""
        return (
            f"In the search {by} {name} ({found.other:.4f}), the best of the published models"
            f"{unsure}."
        )
    return (
        f"After {found.epochs:.3g} epoch{'s' * (found.epochs != 1)} {by} the published model "
        f"{name} ({found.own:.4f} and {found.other:.4f}); no published model was trained in full."
    )


def _how_sure(
    sweep: RecordedSweep,
    best: RecordedTrial,
    finalists: Sequence[Finalist],
    margin: float | None,
) -> str:
    if finalists:
        return _sure_of(finalists, best, sweep)
    tried = count(len(sweep.trained), "configuration")
    said = f"Not known yet: it is one training, the best of {tried}, so its value is optimistic."
    if margin is None:
        return said
    close = _within(sweep, best, margin)
    names = f"{len(close)} further trials" if len(close) >= MANY else " and ".join(close)
    images = sweep.data["profile"]["num_images"]["validation"]
    tells = f"does not tell it from {names}" if close else "tells it from all others"
    return f"{said} Measured on {images:,} images it is ±{margin:.4f} (95%), which {tells}."


def _sure_of(finalists: Sequence[Finalist], best: RecordedTrial, sweep: RecordedSweep) -> str:
    first, value = finalists[0], best.value(sweep.objective) or 0.0
    interval = f"95% interval {first.low:.4f} to {first.high:.4f}, {first.num_seeds} seeds"
    same = (
        f" It was the best trial of the search, too ({value:.4f} there, in its best epoch)."
        if first.trial == best.number
        else ""
    )
    if len(finalists) == 1:
        return (
            f"Its value is ({interval}); it was the only finalist, so nothing was compared.{same}"
        )
    verdict = "Yes" if first.probability_best >= SURE else "Probably"
    verdict = verdict if first.probability_best > 0.5 else "Open"
    more = (
        ""
        if first.probability_best >= SURE
        else " A comparison is made once, as its test results are known then: for more seeds give "
        f"the next sweep `--finalists --finalist-seeds {2 * first.num_seeds}`."
    )
    return (
        f"{verdict}: it is the best of {len(finalists)} finalists with a probability of "
        f"{first.probability_best:.0%} ({interval}); the next one, {finalists[1].name}, has "
        f"{finalists[1].mean:.4f}.{same}{more}"
    )


def _within(sweep: RecordedSweep, best: RecordedTrial, margin: float) -> list[str]:
    """The names of the complete trials that a margin does not tell from the best one."""
    value = best.value(sweep.objective) or 0.0
    return [
        trial.name
        for trial in sweep.ranking()[1:]
        if (other := trial.value(sweep.objective)) is not None and value - other <= margin
    ]


def _cost(sweep: RecordedSweep, finalists: Sequence[Finalist], now_ms: int) -> str:
    found = compute_of(sweep, now_ms)
    whose = "its slot" if found.num_slots == 1 else f"its {found.num_slots} slots"
    pruned = (
        f"; pruned trials took {found.pruned / found.on_slots:.0%} of the time of {whose}"
        if found.pruned
        else ""
    )
    failed = sweep.num_in(TrialState.FAILED)
    again, seconds = sum(one.num_seeds for one in finalists), finalists_seconds(sweep.paths)
    more = (
        f" Comparing the finalists: {count(again, 'training')} in {duration(seconds)} more, so "
        f"{duration(sweep.seconds + seconds)} in all."
    )
    return (
        f"{duration(sweep.seconds)} with {count(found.num_slots, 'trial')} at a time: "
        f"{count(len(sweep.trained), 'configuration')} tried, {len(sweep.ranking())} trained in "
        f"full{f', {failed} failed' if failed else ''}; {duration(found.training)} of training"
        f"{pruned}."
        f"{more if seconds else ''}"
    )


def _at_border(one: ParameterFinding, sweep: RecordedSweep) -> str:
    said = (
        f"The optimum lies at the border of `{one.name}` ({one.at_border}), so it may lie beyond. "
    )
    if one.widened:
        return f"{said}`{one.widened}` widens the range."
    space = sweep.file.settings.space
    return f"{said}Space {space} ends there: a wider range needs a space of your own."


def compared(sweeps: Sequence[RecordedSweep]) -> str:
    """Which of several sweeps with the same data and objective has the best trial, and by how much.

    Args:
        sweeps: at least one has a complete trial.
    """
    objective = sweeps[0].objective
    values = [(s.name, s.best.value(objective) or 0.0) for s in sweeps if s.best is not None]
    values.sort(key=lambda one: objective.sort_key(one[1]))
    best = values[0][1]
    first = [name for name, value in values if value == best]
    if len(first) > 1:
        return (
            f"{' and '.join(first)} have equally good best trials: {objective.metric} {best:.4f}."
        )
    said = f"{first[0]} has the best trial: {objective.metric} {best:.4f}"
    if len(values) == 1:
        return f"{said}; no other sweep has a complete one."
    name, value = values[1]
    return f"{said}, {abs(best - value):.4f} better than that of {name} ({value:.4f})."


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
        steps.append(
            (f"keras-sweeps finalize {name}", "whether it is real: the best ones on fresh seeds")
        )
    steps.append((f"keras-sweeps promote {name}", "register the model, if it beats the champion"))
    settings, data = sweep.file.settings, sweep.file.data_name
    # Where a user's own images lie is nobody else's matter, and no command without that would run.
    if none_published_in_full(sweep) and settings.dataset == data:
        baselines = f"keras-sweeps run --baselines-only --space {settings.space} --dataset {data}"
        steps.append((baselines, "train the published models in full, and test them"))
    more, what = "--timeout 30m", "30 minutes more"
    if (num_trials := settings.num_trials) is not None:
        more, what = f"--trials {2 * num_trials}", f"{count(num_trials, 'trial')} more"
    steps.append((f"keras-sweeps run --resume --name {name} {more}", f"search for {what}"))
    return steps[:MAX_STEPS]
