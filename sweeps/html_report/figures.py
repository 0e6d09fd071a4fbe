"""The page's figures, as plotly's own JSON: traces and a layout, drawn by plotly.js in the page.

Colours of text, grid and background are set by the page, which knows whether it is light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from sweeps.engines.base import TrialState
from sweeps.formatting import count, param_text
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.html_report.findings import (
    Finalist,
    ParameterFinding,
    comparable_trials,
    is_published,
    reached,
)

BLUE, ORANGE, GREEN, RED, GREY = "#3b76d6", "#e07b39", "#2f9e63", "#d04848", "#8a8f98"
WINNER = "#9b59b6"
"""What won has this colour in every figure, and nothing else has it."""
SERIES = (BLUE, GREEN, "#d4a017", "#17a2b8", "#c2185b", "#5d7a3a", "#8c564b")
WORST_TO_BEST = ((0, "#b9a394"), (0.5, "#d4a017"), (1, "#2f9e63"))
"""Seen on white and on black, which none of plotly's own scales is at both of its ends."""
NUM_COLOURED = 8
"""Complete trials with a colour and a place in the legend; the others are pale."""
NUM_SLICES = 6
MAX_BASELINES = 3
NUM_STEPS = 6
BEST_SHARE = 5
"""One trial in so many is among the best, whose values are shaded; three at least."""
MAX_AXES = 8
AXIS_WIDTH = 84
"""Pixels that a name above an axis of parallel coordinates takes."""
LOG_RATIO = 8
"""From so many times the smallest value on, the largest needs an axis of powers."""
MAX_TICKS = 6
"""So few different values of as few characters are each a tick of their axis."""
MIN_GAP = 0.13
"""Between two ticks, as a share of their axis."""
Trace = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure: `caption` says what to see in it, in words.

    Attributes:
        height, min_width: in pixels; on a narrower screen it is scrolled.
    """

    title: str
    caption: str
    data: Sequence[Trace]
    layout: dict[str, Any]
    height: int = 380
    min_width: int = 0


def best_so_far(sweeps: Sequence[RecordedSweep], *, over: str) -> Figure | None:
    """The best value so far of each sweep.

    Args:
        over: `minutes` since the begin, or `epochs` of all trials together.
    """
    traces: list[Trace] = []
    for place, sweep in enumerate(sweeps):
        points = _progress(sweep, over)
        if not points:
            continue
        x, y, names = zip(*points, strict=True)
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "text": names,
                "name": sweep.name if len(sweeps) > 1 else "best so far",
                "line": {"shape": "hv", "color": SERIES[place % len(SERIES)], "width": 2},
                "hovertemplate": "%{text}<br>%{y:.4f} after %{x:.3g} " + over + "<extra></extra>",
            }
        )  # fmt: skip
    if not traces:
        return None
    shapes, notes = _baseline_lines(sweeps[0]) if len(sweeps) == 1 else ([], [])
    metric = sweeps[0].objective.metric
    # The first steps are large, and would hide the last ones; the best published model is seen.
    values = [value for trace in traces for value in trace["y"][-NUM_STEPS:]]
    range_ = _zoomed([*values, *(note["y"] for note in notes[:1])], sweeps[0], share=1)
    below = [
        note["text"] for note in notes if range_ and not range_[0] <= note["y"] <= range_[1]
    ]  # fmt: skip
    dotted = " Dotted: published models." if len(notes) > len(below) else ""
    if below:
        dotted += f" Outside the frame: {', '.join(below)}."
    unit = "minutes since the sweep began" if over == "minutes" else "epochs of all trials together"
    return Figure(
        f"Best so far over {over}",
        "Each step is a measurement better than all before it, on all validation images."
        + dotted,
        traces,
        {
            "xaxis": {"title": {"text": unit}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": metric}, "range": range_},
            "shapes": shapes, "annotations": notes, "showlegend": len(traces) > 1,
        },
    )  # fmt: skip


def _progress(sweep: RecordedSweep, over: str) -> list[tuple[float, float, str]]:
    reports = sorted(
        ((report, trial) for trial in sweep.trained for report in trial.reports),
        key=lambda one: one[0].at_ms,
    )
    metric, points = sweep.objective.metric, []
    total, before, best = 0.0, dict.fromkeys(sweep.trials, 0.0), None
    for report, trial in reports:
        total += report.epochs - before[trial.number]
        before[trial.number] = report.epochs
        value = report.metrics.get(metric, math.nan)
        if report.epochs < 1 or math.isnan(value):
            continue
        if best is None or sweep.objective.beats(value, best):
            best = value
            passed = (report.at_ms - sweep.begun_ms) / 60_000
            x = total if over == "epochs" else passed
            points.append((round(x, 3), round(value, 6), trial.name))
    if points:
        end = total if over == "epochs" else (sweep.latest_ms - sweep.begun_ms) / 60_000
        points.append((round(end, 3), points[-1][1], points[-1][2]))
    return points


def curves_frame(sweep: RecordedSweep) -> list[float] | None:
    """What an axis of learning curves shows of the objective; None for all of it."""
    return _zoomed([value for _, value in _whole_epochs(sweep)], sweep, share=0.8)


def _zoomed(
    values: Sequence[float], sweep: RecordedSweep, *, share: float = 0.5, margin: float = 0.08
) -> list[float] | None:
    """An axis that shows the better part of the values: the worst guess hides all differences.

    Args:
        share: of the values, which are shown.
        margin: beyond them, as a share of what is shown.
    """
    if len(values) < 4:
        return None
    ordered, num = sorted(values), math.ceil(len(values) * share)
    part = ordered[:num] if sweep.objective.direction == "minimize" else ordered[-num:]
    beyond = (part[-1] - part[0]) * margin or 0.01
    return [part[0] - beyond, part[-1] + beyond]


def _baseline_lines(sweep: RecordedSweep) -> tuple[list[Trace], list[Trace]]:
    """Published models as lines: their value in full, else the best that they reached."""
    shapes, notes = [], []
    for trial in (trial for trial in sweep.ordered() if is_published(trial)):
        value, name = trial.value(sweep.objective), trial.baseline.partition(",")[0]
        if value is None:
            value = reached(trial, sweep)
            name += f" (pruned at epoch {trial.epochs:.3g})"
        if value is None:
            continue
        shapes.append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value,
             "line": {"color": ORANGE, "width": 1, "dash": "dot"}}
        )  # fmt: skip
        notes.append(
            {"xref": "paper", "x": 1, "y": value, "text": f"{name} {value:.4f}",
             "showarrow": False, "xanchor": "right", "yanchor": "bottom",
             "font": {"size": 13}}  # The page gives it an orange that can be read.
        )  # fmt: skip
    return shapes[:MAX_BASELINES], notes[:MAX_BASELINES]


def colour_of(trial: RecordedTrial, winner: int | None, other: str) -> str:
    """Orange for a published model, the winner's for what won, else the other colour."""
    if is_published(trial):
        return ORANGE
    return WINNER if trial.number == winner else other


def opacity_of(trial: RecordedTrial, winner: int | None) -> float:
    """Of a point: where many lie on each other, the winner's colour is still its own."""
    return 1.0 if trial.number == winner else 0.75


def winner_word(sweep: RecordedSweep) -> str:
    """What the best trial is called: nothing has won while more may come."""
    return "leader" if sweep.state == "running" else "winner"


def drawn_last(trial: RecordedTrial, winner: int | None) -> int:
    """A key that puts published models, and then what won, above the other points."""
    return 2 if trial.number == winner else int(is_published(trial))


def learning_curves(sweep: RecordedSweep, winner: int | None = None) -> Figure | None:
    """The objective of every trial over its epochs; the best complete ones with a colour.

    Args:
        winner: the number of what won; it has a colour, too, where finalists have picked a trial
            that was pruned.
    """
    metric = sweep.objective.metric
    first = [trial for trial in sweep.trained if trial.number == winner]
    best = [*first, *(trial for trial in sweep.ranking() if trial.number != winner)][:NUM_COLOURED]
    chosen = {trial.number for trial in best}
    pale_x: list[float | None] = []
    pale_y: list[float | None] = []
    names: list[str] = []
    for trial in sweep.trained:
        if trial.number in chosen:
            continue
        for report in trial.reports:
            pale_x.append(round(report.epochs, 3))
            pale_y.append(_number(report.metrics.get(metric)))
            names.append(f"{trial.name}, {trial.state.value.lower()}")
        pale_x.append(None)
        pale_y.append(None)
        names.append("")
    traces: list[Trace] = []
    if pale_y:
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "x": pale_x, "y": pale_y, "text": names,
             "name": "others", "line": {"color": GREY, "width": 1}, "marker": {"size": 3},
             "opacity": 0.75, "hovertemplate": "%{text}<br>%{y:.4f} at %{x}<extra></extra>"}
        )  # fmt: skip
    for place, trial in enumerate(best):
        traces.append(
            {"type": "scatter", "mode": "lines+markers",
             "name": trial.name
             + (f", the {winner_word(sweep)}" if trial.number == winner else ""),
             "x": [round(report.epochs, 3) for report in trial.reports],
             "y": [_number(report.metrics.get(metric)) for report in trial.reports],
             "line": {"color": colour_of(trial, winner, SERIES[place % len(SERIES)]),
                      "width": 2.4 if place == 0 else 1.4},
             "marker": {"size": 4},
             "hovertemplate": _in_template(trial.name)
             + "<br>%{y:.4f} at epoch %{x}<extra></extra>"}
        )  # fmt: skip
    if not any(trial.reports for trial in sweep.trained):
        return None
    rungs = sorted({_rung(text) for text in str(sweep.params.get("rungs", "")).split(",")} - {0.0})
    return Figure(
        "Learning curves",
        "Every trial; those with a colour were trained in full, grey ones were not"
        f"{_unless_complete(first, sweep)}. Dotted lines are the rungs: numbers of epochs at which "
        "a trial that is not among the best waits. The worst lie outside the frame.",
        traces,
        {
            "xaxis": {"title": {"text": "epochs trained"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": metric}, "range": curves_frame(sweep)},
            "shapes": [
                {"type": "line", "yref": "paper", "x0": rung, "x1": rung, "y0": 0, "y1": 1,
                 "line": {"color": GREY, "width": 1, "dash": "dot"}}
                for rung in rungs
            ],
            "hovermode": "closest", "showlegend": True,
        },
        height=460,
    )  # fmt: skip


def _unless_complete(winner: Sequence[RecordedTrial], sweep: RecordedSweep) -> str:
    pruned = [trial for trial in winner if trial.state is not TrialState.COMPLETE]
    return f", but the {winner_word(sweep)} has its colour" if pruned else ""


def _whole_epochs(sweep: RecordedSweep) -> list[tuple[RecordedTrial, float]]:
    """What was measured on all validation images."""
    metric = sweep.objective.metric
    return [
        (trial, value)
        for trial in sweep.trained
        for report in trial.reports
        if report.epochs >= 1 and (value := _number(report.metrics.get(metric))) is not None
    ]


def _rung(text: str) -> float:
    try:
        return float(text.strip().partition(" ")[0])
    except ValueError:
        return 0.0


def importance(sweep: RecordedSweep, findings: Sequence[ParameterFinding]) -> Figure | None:
    """Bars, the longest on top."""
    shown = [one for one in findings if one.importance > 0][:12][::-1]
    if not shown:
        return None
    rows = comparable_trials(sweep)
    most = max(one.importance for one in shown)
    step = next((step for step in (0.01, 0.02, 0.05, 0.1) if most <= 5 * step), 0.2)
    return Figure(
        "Importance of the parameters",
        f"What being among the better half of {len(rows)} trials depended on most (PED-ANOVA: "
        "how their values spread, against those of all), by "
        f"{sweep.objective.metric} {_common_epochs(rows, sweep)}; beside it the direction, with "
        "the rank correlation, where chance alone would seldom show one, or the value with the "
        "best median. It is an association in this sweep's points, not a cause.",
        [
            {"type": "bar", "orientation": "h", "x": [round(one.importance, 4) for one in shown],
             "y": [one.name for one in shown], "marker": {"color": BLUE},
             "text": [one.direction for one in shown], "textposition": "outside",
             "cliponaxis": False, "hovertemplate": "%{y}: %{x:.0%}<br>%{text}<extra></extra>"}
        ],
        # The page, which knows how wide it is, makes room for the words beside the bars.
        {"xaxis": {"title": {"text": "share"}, "tickformat": ".0%", "tickangle": 0,
                   "tickvals": [round(k * step, 2) for k in range(math.ceil(most / step) + 1)]},
         "yaxis": {"automargin": True, "tickmode": "linear", "showgrid": False}},
        height=110 + 26 * len(shown),
    )  # fmt: skip


def slices(
    sweep: RecordedSweep, findings: Sequence[ParameterFinding], winner: int | None = None
) -> Figure | None:
    """The objective against the most important parameters, one panel each."""
    rows = comparable_trials(sweep)
    names = [one.name for one in findings][:NUM_SLICES]
    if not names:
        return None
    epochs = _common_epochs(rows, sweep)
    traces: list[Trace] = []
    layout: dict[str, Any] = {
        "grid": {"rows": -(-len(names) // 2), "columns": 2, "pattern": "independent",
                 "xgap": 0.16, "ygap": 0.42},
        "showlegend": False, "hovermode": "closest", "shapes": [],
    }  # fmt: skip
    for place, name in enumerate(names, start=1):
        points = [(trial, value) for trial, value in rows if name in trial.params]
        points.sort(key=lambda point: drawn_last(point[0], winner))
        axis = "" if place == 1 else str(place)
        values = [trial.params[name] for trial, _ in points]
        kind, ticks = _axis_of(values)
        traces.append(
            {"type": "scatter", "mode": "markers", "xaxis": f"x{axis}", "yaxis": f"y{axis}",
             "x": [str(v).lower() if kind == "category" else v for v in values],
             "y": [round(value, 6) for _, value in points],
             "text": [trial.name for trial, _ in points],
             "marker": {"size": 7, "opacity": [opacity_of(t, winner) for t, _ in points],
                        "color": [colour_of(t, winner, BLUE) for t, _ in points]},
             "hovertemplate": "%{text}<br>" + _in_template(name)
             + " %{x}<br>%{y:.4f}<extra></extra>"}
        )  # fmt: skip
        region, text = _best_region(points, name, kind, sweep)
        layout["shapes"] += [
            {"type": "rect", "layer": "below", "xref": f"x{axis}", "yref": f"y{axis} domain",
             "x0": x0, "x1": x1, "y0": 0, "y1": 1, "line": {"width": 0}, "fillcolor": GREEN,
             "opacity": 0.15}
            for x0, x1 in region
        ]  # fmt: skip
        layout[f"xaxis{axis}"] = {"title": {"text": f"{name}{text}"}, "type": kind, **ticks}
        shown = _zoomed([v for _, v in points], sweep, share=0.75, margin=0.12)
        layout[f"yaxis{axis}"] = {"range": shown, "nticks": 5}
    return Figure(
        "The most important parameters, one by one",
        f"{sweep.objective.metric} {epochs}, for every trial that came so far; published models "
        f"are orange, the {winner_word(sweep)} is violet. Green is where the best fifth lies. The "
        "worst lie outside the frames.",
        traces, layout, height=120 + 235 * (-(-len(names) // 2)),
    )  # fmt: skip


def _best_region(
    points: Sequence[tuple[RecordedTrial, float]], name: str, kind: str, sweep: RecordedSweep
) -> tuple[list[tuple[float, float]], str]:
    """Where a parameter's best values lie: on its axis, and in words after its name."""
    ordered = sorted(points, key=lambda point: sweep.objective.sort_key(point[1]))
    best = [trial.params[name] for trial, _ in ordered[: max(3, len(ordered) // BEST_SHARE)]]
    if kind == "category":
        texts = [str(value).lower() for value in best]
        most = max(dict.fromkeys(texts), key=texts.count)
        return [], f", best: {most} ({texts.count(most)} of {len(texts)})"
    low, high = min(best), max(best)  # type: ignore[type-var]
    text = param_text(low) if low == high else f"{param_text(low)} to {param_text(high)}"
    places = [float(trial.params[name]) for trial, _ in points]
    x0, x1 = float(low), float(high)
    if kind == "log":  # One value alone is to be seen, too.
        wider = (max(places) / min(places)) ** 0.02
        return [(x0 / wider, x1 * wider)], f", best: {text}"
    margin = 0.02 * (max(places) - min(places))
    return [(x0 - margin, x1 + margin)], f", best: {text}"


def _common_epochs(rows: Sequence[tuple[RecordedTrial, float]], sweep: RecordedSweep) -> str:
    if not rows:
        return ""
    trial, value = rows[0]
    metric = sweep.objective.metric
    epochs = next(r.epochs for r in trial.reports if r.metrics.get(metric) == value)
    return f"after {epochs:.3g} epoch{'' if epochs == 1 else 's'}"


def _axis_of(values: Sequence[object]) -> tuple[str, dict[str, Any]]:
    """`category`, `linear` or `log`, and further settings of such an axis of plotly."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) < 3:
        return "category", {"categoryorder": "category ascending"}
    low, high = min(numbers), max(numbers)
    kind = "log" if low > 0 and high / low > LOG_RATIO else "linear"
    ticks = _ticks(numbers, kind)
    return kind, {"tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]} if ticks else {}


def _ticks(numbers: Sequence[float], kind: str) -> list[float]:
    """Where an axis has a number; empty leaves it to plotly, which writes 2 for 0.002."""
    different = sorted(set(numbers))
    if len(different) <= MAX_TICKS and all(len(f"{number:g}") <= MAX_TICKS for number in different):
        return _apart(different, kind)
    if kind == "linear":
        return []
    powers = range(math.floor(math.log10(different[0])), math.ceil(math.log10(different[-1])) + 1)
    steps = (1, 2, 5) if len(powers) < 4 else (1,)
    ticks = [float(f"{step}e{power}") for power in powers for step in steps]
    return [tick for tick in ticks if different[0] <= tick <= different[-1]]


def _apart(ticks: Sequence[float], kind: str) -> list[float]:
    """Without those that would touch the one before."""
    places = [math.log(tick) if kind == "log" else tick for tick in ticks]
    shown = [0]
    for index, place in enumerate(places):
        if place - places[shown[-1]] >= MIN_GAP * (places[-1] - places[0]):
            shown.append(index)
    return [ticks[index] for index in shown]


def parallel_coordinates(
    sweep: RecordedSweep, findings: Sequence[ParameterFinding]
) -> Figure | None:
    """One line for each trial over the parameters that differ, coloured by the objective."""
    rows = comparable_trials(sweep)
    names = [one.name for one in findings] or sweep.varying
    names = [name for name in names if all(name in trial.params for trial, _ in rows)][:MAX_AXES]
    if len(rows) < 4 or not names:
        return None
    values = [value for _, value in rows]
    dimensions = [_dimension(name, [trial.params[name] for trial, _ in rows]) for name in names]
    low, high = _zoomed(values, sweep, share=0.75) or [min(values), max(values)]
    # From the worst trial on, all others would be bunched at the other end.
    shown = [min(max(value, low), high) for value in values]
    dimensions.append({"label": sweep.objective.metric, "values": shown, "range": [low, high]})
    minimize = sweep.objective.direction == "minimize"
    end = f"{'end' if minimize else 'begin'} at {high if minimize else low:.4g}"
    beyond = (
        f" Its axis and its colours {end}; what was worse lies there." if shown != values else ""
    )
    return Figure(
        "Parallel coordinates",
        f"{sweep.objective.metric} {_common_epochs(rows, sweep)}.{beyond} Select a part of an "
        "axis, along it, to keep the lines through it.",
        [
            {"type": "parcoords", "dimensions": dimensions,
             "line": {"color": shown, "colorscale": WORST_TO_BEST, "reversescale": minimize,
                      "cmin": low, "cmax": high, "showscale": True}}
        ],
        {"margin": {"l": 70, "r": 40, "t": 60, "b": 30}},
        height=430, min_width=150 + AXIS_WIDTH * len(dimensions),
    )  # fmt: skip


def _dimension(name: str, values: Sequence[object]) -> dict[str, Any]:
    kind, ticks = _axis_of(values)
    if kind == "category":
        texts = sorted({str(value).lower() for value in values})
        places = {text: place for place, text in enumerate(texts)}
        return {
            "label": name, "values": [places[str(value).lower()] for value in values],
            "tickvals": list(range(len(texts))), "ticktext": texts,
        }  # fmt: skip
    numbers = [float(value) for value in values]  # type: ignore[arg-type]
    if kind == "log":
        numbers = [math.log10(number) for number in numbers]
        ticks = {**ticks, "tickvals": [math.log10(tick) for tick in ticks["tickvals"]]}
    return {"label": name, "values": numbers, **ticks}


def finalists(ranked: Sequence[Finalist], sweep: RecordedSweep) -> Figure | None:
    """The means of the finalists with their intervals, the best on top."""
    if len(ranked) < 2:
        return None
    shown = list(ranked)[::-1]
    found = [(one, sweep.trials.get(one.trial)) for one in shown]
    colours = [colour_of(trial, ranked[0].trial, BLUE) if trial else BLUE for _, trial in found]
    return Figure(
        "Means of the finalists",
        f"Over {count(ranked[0].num_seeds, 'seed')}, with 95% intervals. Where they overlap, the "
        "order may be luck.",
        [
            {"type": "scatter", "mode": "markers", "x": [one.mean for one in shown],
             "y": [one.name for one in shown],
             "error_x": {"type": "data", "symmetric": False, "thickness": 1.5, "color": GREY,
                         "array": [one.high - one.mean for one in shown],
                         "arrayminus": [one.mean - one.low for one in shown]},
             "marker": {"size": 9, "color": colours},
             "hovertemplate": "%{y}<br>%{x:.4f}<extra></extra>"}
        ],
        {"xaxis": {"title": {"text": f"mean {sweep.objective.metric}"}},
         "yaxis": {"automargin": True, "type": "category"}},
        height=130 + 34 * len(shown),
    )  # fmt: skip


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


def _in_template(name: str) -> str:
    """A name as a part of a template, where tags and `%{...}` are plotly's."""
    return escape(name, quote=False).replace("%", "&#37;")
