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
from sweeps.formatting import difference_text
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.history.references import recorded_references
from sweeps.html_report.findings import (
    ParameterFinding,
    comparable_trials,
    compute_of,
    is_published,
    lanes,
    reached,
)

BLUE, ORANGE, GREEN, RED, GREY = "#3b76d6", "#e07b39", "#2f9e63", "#d04848", "#8a8f98"
SERIES = (BLUE, GREEN, "#9b59b6", "#d4a017", "#17a2b8", "#c2185b", "#5d7a3a", "#6b5bd6")
NUM_COLOURED = 8
"""Complete trials with a colour and a place in the legend; the others are pale."""
NUM_SLICES = 6
MAX_AXES = 8
Trace = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure: `caption` says what to see in it, in words."""

    title: str
    caption: str
    data: Sequence[Trace]
    layout: dict[str, Any]
    height: int = 380


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
    unit = "minutes since the sweep began" if over == "minutes" else "epochs of all trials together"
    return Figure(
        f"Best so far over {over}",
        "Each step is a trial that measured better than all before it, on all validation images."
        + (" Dotted: published models." if shapes else ""),
        traces,
        {
            "xaxis": {"title": {"text": unit}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": metric}, "range": _zoomed(sweeps)},
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


def _zoomed(sweeps: Sequence[RecordedSweep]) -> list[float] | None:
    """An axis that shows the better half of the values: the worst guess hides all differences."""
    values = sorted(v for s in sweeps for t in s.trained if (v := reached(t, s)) is not None)
    if len(values) < 4:
        return None
    half = values[len(values) // 2 :]
    if sweeps[0].objective.direction == "minimize":
        half = values[: len(values) // 2 + 1]
    margin = (half[-1] - half[0]) * 0.08 or 0.01
    return [half[0] - margin, half[-1] + margin]


def _baseline_lines(sweep: RecordedSweep) -> tuple[list[Trace], list[Trace]]:
    shapes, notes = [], []
    for trial in sweep.ranking():
        value = trial.value(sweep.objective)
        if not is_published(trial) or value is None:
            continue
        shapes.append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value,
             "line": {"color": ORANGE, "width": 1, "dash": "dot"}}
        )  # fmt: skip
        notes.append(
            {"xref": "paper", "x": 0, "y": value, "text": trial.baseline.partition(",")[0],
             "showarrow": False, "xanchor": "left", "yanchor": "bottom",
             "font": {"size": 11, "color": ORANGE}}
        )  # fmt: skip
    return shapes[:3], notes[:3]


def learning_curves(sweep: RecordedSweep) -> Figure | None:
    """The objective of every trial over its epochs; the best complete ones with a colour."""
    metric = sweep.objective.metric
    best = sweep.ranking()[:NUM_COLOURED]
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
             "opacity": 0.4, "hovertemplate": "%{text}<br>%{y:.4f} at %{x}<extra></extra>"}
        )  # fmt: skip
    for place, trial in enumerate(best):
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "name": trial.name,
             "x": [round(report.epochs, 3) for report in trial.reports],
             "y": [_number(report.metrics.get(metric)) for report in trial.reports],
             "line": {"color": ORANGE if is_published(trial) else SERIES[place % len(SERIES)],
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
        "Every trial; those with a colour were trained in full. Dotted lines are the rungs, where "
        "a trial that is not among the best waits.",
        traces,
        {
            "xaxis": {"title": {"text": "epochs trained"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": metric}, "range": _zoomed([sweep])},
            "shapes": [
                {"type": "line", "yref": "paper", "x0": rung, "x1": rung, "y0": 0, "y1": 1,
                 "line": {"color": GREY, "width": 1, "dash": "dot"}}
                for rung in rungs
            ],
            "hovermode": "closest", "showlegend": True,
        },
        height=460,
    )  # fmt: skip


def _rung(text: str) -> float:
    try:
        return float(text.strip().partition(" ")[0])
    except ValueError:
        return 0.0


def importance(findings: Sequence[ParameterFinding]) -> Figure | None:
    """Bars, the longest on top."""
    shown = [one for one in findings if one.importance > 0][:12][::-1]
    if not shown:
        return None
    return Figure(
        "Importance of the parameters",
        "What being among the better half depended on most (PED-ANOVA), with the direction beside "
        "it. It is an association in this sweep's points, not a cause.",
        [
            {"type": "bar", "orientation": "h", "x": [round(one.importance, 4) for one in shown],
             "y": [one.name for one in shown], "marker": {"color": BLUE},
             "text": [one.direction for one in shown], "textposition": "outside",
             "cliponaxis": False, "hovertemplate": "%{y}: %{x:.0%}<br>%{text}<extra></extra>"}
        ],
        {"xaxis": {"title": {"text": "share"}, "tickformat": ".0%",
                   "range": [0, 1.9 * max(one.importance for one in shown)]},
         "yaxis": {"automargin": True, "tickmode": "linear"}},
        height=110 + 26 * len(shown),
    )  # fmt: skip


def slices(sweep: RecordedSweep, findings: Sequence[ParameterFinding]) -> Figure | None:
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
        "showlegend": False, "hovermode": "closest",
    }  # fmt: skip
    for place, name in enumerate(names, start=1):
        points = [(trial, value) for trial, value in rows if name in trial.params]
        axis = "" if place == 1 else str(place)
        values = [trial.params[name] for trial, _ in points]
        kind, ticks = _axis_of(values)
        traces.append(
            {"type": "scatter", "mode": "markers", "xaxis": f"x{axis}", "yaxis": f"y{axis}",
             "x": [str(v).lower() if kind == "category" else v for v in values],
             "y": [round(value, 6) for _, value in points],
             "text": [trial.name for trial, _ in points],
             "marker": {"size": 7, "opacity": 0.75,
                        "color": [ORANGE if is_published(t) else BLUE for t, _ in points]},
             "hovertemplate": "%{text}<br>" + _in_template(name)
             + " %{x}<br>%{y:.4f}<extra></extra>"}
        )  # fmt: skip
        layout[f"xaxis{axis}"] = {"title": {"text": name}, "type": kind, **ticks}
        layout[f"yaxis{axis}"] = {"range": _range([v for _, v in points], sweep), "nticks": 5}
    return Figure(
        "The most important parameters, one by one",
        f"{sweep.objective.metric} {epochs}, for every trial that came so far; published models "
        "are orange. The worst lie below the frames.",
        traces, layout, height=120 + 235 * (-(-len(names) // 2)),
    )  # fmt: skip


def _common_epochs(rows: Sequence[tuple[RecordedTrial, float]], sweep: RecordedSweep) -> str:
    if not rows:
        return ""
    trial, value = rows[0]
    metric = sweep.objective.metric
    epochs = next(r.epochs for r in trial.reports if r.metrics.get(metric) == value)
    return f"after {epochs:.3g} epoch{'' if epochs == 1 else 's'}"


def _range(values: Sequence[float], sweep: RecordedSweep) -> list[float] | None:
    """As `_zoomed`, for these values."""
    ordered = sorted(values)
    if len(ordered) < 4:
        return None
    quarter = len(ordered) // 4
    low, high = ordered[quarter], ordered[-1]
    if sweep.objective.direction == "minimize":
        low, high = ordered[0], ordered[-1 - quarter]
    margin = (high - low) * 0.12 or 0.01
    return [low - margin, high + margin]


def _axis_of(values: Sequence[object]) -> tuple[str, dict[str, Any]]:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) < 3:
        return "category", {"categoryorder": "category ascending"}
    low, high = min(numbers), max(numbers)
    return ("log", {}) if low > 0 and high / low > 50 else ("linear", {})


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
    low, high = _range(values, sweep) or [min(values), max(values)]
    dimensions.append({"label": sweep.objective.metric, "values": values})
    minimize = sweep.objective.direction == "minimize"
    return Figure(
        "Parallel coordinates",
        f"{sweep.objective.metric} {_common_epochs(rows, sweep)}. Drag along an axis to keep a "
        "part of it.",
        [
            {"type": "parcoords", "dimensions": dimensions,
             "line": {"color": values, "colorscale": "Viridis", "reversescale": minimize,
                      "cmin": low, "cmax": high, "showscale": True}}
        ],
        {"margin": {"l": 70, "r": 40, "t": 60, "b": 30}},
        height=430,
    )  # fmt: skip


def _dimension(name: str, values: Sequence[object]) -> dict[str, Any]:
    kind, _ = _axis_of(values)
    if kind == "category":
        texts = sorted({str(value).lower() for value in values})
        places = {text: place for place, text in enumerate(texts)}
        return {
            "label": name, "values": [places[str(value).lower()] for value in values],
            "tickvals": list(range(len(texts))), "ticktext": texts,
        }  # fmt: skip
    numbers = [float(value) for value in values]  # type: ignore[arg-type]
    if kind == "linear":
        return {"label": name, "values": numbers}
    logs = [math.log10(number) for number in numbers]
    ticks = sorted({round(min(logs), 2), *range(math.ceil(min(logs)), math.floor(max(logs)) + 1),
                    round(max(logs), 2)})  # fmt: skip
    texts = [f"{10**tick:.2g}" for tick in ticks]
    return {"label": name, "values": logs, "tickvals": ticks, "ticktext": texts}


def trade_offs(sweep: RecordedSweep) -> Figure | None:
    """The objective against size and training time, with the front of what nothing beats."""
    rows = [(t, v) for t in sweep.trained if (v := t.value(sweep.objective)) is not None]
    if len(rows) < 2:
        return None
    traces: list[Trace] = []
    quantities = (("num_parameters", "parameters of the model"), ("seconds", "seconds on a slot"))
    for place, (quantity, _) in enumerate(quantities, start=1):
        axis = "" if place == 1 else str(place)
        points = [
            (t.seconds(0) if quantity == "seconds" else t.metrics.get(quantity, math.nan), v, t)
            for t, v in rows
        ]
        points = [point for point in points if not math.isnan(point[0])]
        front = _front(points, sweep)
        traces += [
            {"type": "scatter", "mode": "markers", "xaxis": f"x{axis}", "yaxis": f"y{axis}",
             "x": [x for x, *_ in points], "y": [round(v, 6) for _, v, _ in points],
             "text": [t.name for *_, t in points],
             "marker": {"size": 9, "opacity": 0.8,
                        "color": [ORANGE if is_published(t) else BLUE for *_, t in points]},
             "hovertemplate": "%{text}<br>%{x:,.4g}<br>%{y:.4f}<extra></extra>"},
            {"type": "scatter", "mode": "lines", "xaxis": f"x{axis}", "yaxis": f"y{axis}",
             "x": [x for x, *_ in front], "y": [v for _, v, _ in front], "hoverinfo": "skip",
             "line": {"color": GREEN, "width": 1.5, "shape": "hv"}},
        ]  # fmt: skip
    titles = [title for _, title in quantities]
    return Figure(
        "What it costs",
        "Trials trained in full; nothing is both cheaper and better than those on the green line.",
        traces,
        {
            "grid": {"rows": 1, "columns": 2, "pattern": "independent", "xgap": 0.14},
            "xaxis": {"title": {"text": titles[0]}, "rangemode": "tozero"},
            "xaxis2": {"title": {"text": titles[1]}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": sweep.objective.metric}}, "yaxis2": {},
            "showlegend": False, "hovermode": "closest",
        },
    )  # fmt: skip


def _front(
    points: Sequence[tuple[float, float, RecordedTrial]], sweep: RecordedSweep
) -> list[tuple[float, float, RecordedTrial]]:
    found: list[tuple[float, float, RecordedTrial]] = []
    for point in sorted(points, key=lambda p: (p[0], sweep.objective.sort_key(p[1]))):
        if not found or sweep.objective.beats(point[1], found[-1][1]):
            found.append(point)
    return found


def timeline(sweep: RecordedSweep, now_ms: int) -> Figure | None:
    """Which trial had which slot when."""
    found = lanes(sweep, now_ms)
    if not found:
        return None
    colours = {
        TrialState.COMPLETE: GREEN, TrialState.PRUNED: GREY, TrialState.FAILED: RED,
        TrialState.KILLED: RED, TrialState.RUNNING: BLUE, TrialState.PAUSED: "#d4a017",
    }  # fmt: skip
    references = recorded_references(sweep)
    bars: dict[str, list[tuple[RecordedTrial, int, int, int]]] = {}
    for one in found:
        bars.setdefault(one[0].state.value, []).append(one)
    traces = [
        {"type": "bar", "orientation": "h", "name": state.lower(),
         "base": [round((begin - sweep.begun_ms) / 60_000, 4) for _, begin, _, _ in rows],
         "x": [round((end - begin) / 60_000, 4) for _, begin, end, _ in rows],
         "y": [f"slot {lane}" for *_, lane in rows],
         "text": [trial.name for trial, *_ in rows], "textposition": "none",
         "customdata": [difference_text(t.params, references) for t, *_ in rows],
         "marker": {"color": colours[TrialState(state)], "line": {"width": 0.5, "color": "white"}},
         "hovertemplate": "%{text}<br>%{customdata}<br>%{x:.2f} min<extra></extra>"}
        for state, rows in bars.items()
    ]  # fmt: skip
    num_slots = max(lane for *_, lane in found) + 1
    return Figure(
        "Timeline",
        "Each bar is a stretch of training on a slot; a trial that waited at a rung has several.",
        traces,
        {"barmode": "overlay", "xaxis": {"title": {"text": "minutes since the sweep began"}},
         "yaxis": {"autorange": "reversed", "automargin": True}, "showlegend": True},
        height=170 + 46 * num_slots,
    )  # fmt: skip


def compute(sweep: RecordedSweep, now_ms: int) -> Figure | None:
    """Where the time on slots went."""
    found = compute_of(sweep, now_ms)
    parts = [
        ("trained in full", found.complete, GREEN), ("pruned", found.pruned, GREY),
        ("published models", found.published, ORANGE), ("failed", found.failed, RED),
        ("waiting or running", found.running, BLUE), ("no trial there", found.idle, "#c9ced6"),
    ]  # fmt: skip
    total = sum(seconds for _, seconds, _ in parts)
    if not total:
        return None
    return Figure(
        "Where the time went",
        f"Of {found.num_slots} slot{'' if found.num_slots == 1 else 's'} over the sweep's wall "
        "time. Without a trial on it, a slot waited for the start, for a decision, or for the end.",
        [
            {"type": "bar", "orientation": "h", "name": f"{name} {seconds / total:.0%}",
             "x": [round(seconds / 60, 3)], "y": [""], "marker": {"color": colour},
             "hovertemplate": f"{_in_template(name)}: %{{x:.1f}} min<extra></extra>"}
            for name, seconds, colour in parts if seconds
        ],
        {"barmode": "stack", "xaxis": {"title": {"text": "minutes"}}, "showlegend": True},
        height=210,
    )  # fmt: skip


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


def _in_template(name: str) -> str:
    """A name as a part of a template, where tags and `%{...}` are plotly's."""
    return escape(name, quote=False).replace("%", "&#37;")
