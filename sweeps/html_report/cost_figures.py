"""The page's figures of what was paid: size, time and latency, the slots, and the compute."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweeps.engines.base import TrialState
from sweeps.formatting import count, difference_text
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.history.references import recorded_references
from sweeps.html_report.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    WINNER,
    Figure,
    Trace,
    colour_of,
    drawn_last,
    opacity_of,
    winner_word,
)
from sweeps.html_report.findings import compute_of, gaps, lanes

PALE, YELLOW = "#c9ced6", "#d4a017"
COSTS = (
    ("num_parameters", "weights of the model"),
    ("seconds", "seconds on a slot"),
    ("latency_ms", "ms to predict one image"),
)


def trade_offs(sweep: RecordedSweep, winner: int | None = None) -> Figure | None:
    """The objective against size, time and latency, with the front of what nothing beats."""
    rows = [(t, v) for t in sweep.trained if (v := t.value(sweep.objective)) is not None]
    panels = []
    for quantity, title in COSTS:
        points = [(_cost(t, quantity), v, t) for t, v in rows]
        points = [point for point in points if not math.isnan(point[0])]
        points.sort(key=lambda point: drawn_last(point[2], winner))
        if len(points) > 1:
            panels.append((title, points))
    if not panels:
        return None
    traces: list[Trace] = []
    layout: dict[str, object] = {
        "grid": {"rows": 1, "columns": len(panels), "pattern": "independent", "xgap": 0.14},
        "showlegend": False, "hovermode": "closest",
    }  # fmt: skip
    for place, (title, points) in enumerate(panels, start=1):
        axis = "" if place == 1 else str(place)
        front = [(x, value) for x, value, _ in _front(points, sweep)]
        # To the end, so that a front of one trial is a line, too: all to its right are worse.
        front.append((max(x for x, *_ in points), front[-1][1]))
        traces += [
            {"type": "scatter", "mode": "markers", "xaxis": f"x{axis}", "yaxis": f"y{axis}",
             "x": [x for x, *_ in points], "y": [round(v, 6) for _, v, _ in points],
             "text": [t.name for *_, t in points],
             "marker": {"size": 9, "opacity": [opacity_of(t, winner) for *_, t in points],
                        "color": [colour_of(t, winner, BLUE) for *_, t in points]},
             "hovertemplate": "%{text}<br>%{x:,.4g}<br>%{y:.4f}<extra></extra>"},
            {"type": "scatter", "mode": "lines", "xaxis": f"x{axis}", "yaxis": f"y{axis}",
             "x": [x for x, _ in front], "y": [v for _, v in front], "hoverinfo": "skip",
             "line": {"color": GREEN, "width": 1.5, "shape": "hv"}},
        ]  # fmt: skip
        layout[f"xaxis{axis}"] = {
            "title": {"text": title}, "rangemode": "tozero", "nticks": 4,
            **({"tickformat": "~s"} if title == COSTS[0][1] else {}),
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {"title": {"text": sweep.objective.metric}} if place == 1 else {}
    return Figure(
        "What it costs",
        f"Trials trained in full, the {winner_word(sweep)} in violet; nothing is both cheaper and "
        "better than those at the corners of the green line. "
        "Times were measured beside whatever else ran.",
        traces, layout,
    )  # fmt: skip


def _cost(trial: RecordedTrial, quantity: str) -> float:
    if quantity == "seconds":
        return trial.seconds(0)
    first = trial.reports[0].metrics if trial.reports else {}  # Where a limit had it measured.
    return trial.metrics.get(quantity, first.get(quantity, math.nan))


def _front(
    points: Sequence[tuple[float, float, RecordedTrial]], sweep: RecordedSweep
) -> list[tuple[float, float, RecordedTrial]]:
    found: list[tuple[float, float, RecordedTrial]] = []
    for point in sorted(points, key=lambda p: (p[0], sweep.objective.sort_key(p[1]))):
        if not found or sweep.objective.beats(point[1], found[-1][1]):
            found.append(point)
    return found


def timeline(sweep: RecordedSweep, now_ms: int, winner: int | None = None) -> Figure | None:
    """Which trial had which slot when, and when a slot had none."""
    found = lanes(sweep, now_ms)
    if not found:
        return None
    kinds = {
        TrialState.COMPLETE: ("trained in full", GREEN), TrialState.PRUNED: ("pruned", GREY),
        TrialState.FAILED: ("failed: lost", RED), TrialState.KILLED: ("stopped: lost", "#8c2f39"),
        TrialState.RUNNING: ("running", BLUE), TrialState.PAUSED: ("goes on later", YELLOW),
    }  # fmt: skip
    references, minute = recorded_references(sweep), 60_000
    bars: dict[tuple[str, str], list[tuple[RecordedTrial, int, int, int]]] = {}
    for one in found:
        trial = one[0]
        kind = kinds[trial.state]
        if trial.state not in (TrialState.FAILED, TrialState.KILLED):
            colour = colour_of(trial, winner, kind[1])
            kind = (
                {ORANGE: "published model", WINNER: winner_word(sweep)}.get(colour, kind[0]),
                colour,
            )
        bars.setdefault(kind, []).append(one)
    waits = gaps(sweep, found)
    traces: list[Trace] = [
        {"type": "bar", "orientation": "h", "name": name,
         "base": [round((begin - sweep.begun_ms) / minute, 4) for _, begin, _, _ in rows],
         "x": [round((end - begin) / minute, 4) for _, begin, end, _ in rows],
         "y": [f"slot {lane}" for *_, lane in rows],
         "text": [str(trial.number) for trial, *_ in rows], "textposition": "inside",
         "insidetextanchor": "middle", "textangle": 0,
         "hovertext": [f"{trial.name}, {trial.state.value.lower()}" for trial, *_ in rows],
         "customdata": [difference_text(t.params, references) for t, *_ in rows],
         "marker": {"color": colour, "line": {"width": 0.5, "color": "white"}},
         "hovertemplate": "%{hovertext}<br>%{customdata}<br>%{x:.2f} min<extra></extra>"}
        for (name, colour), rows in bars.items()
    ]  # fmt: skip
    if waits:
        traces.append(
            {"type": "bar", "orientation": "h", "name": "slot waits",
             "base": [round((begin - sweep.begun_ms) / minute, 4) for begin, _, _ in waits],
             "x": [round((end - begin) / minute, 4) for begin, end, _ in waits],
             "y": [f"slot {lane}" for *_, lane in waits],
             "marker": {"color": "rgba(0,0,0,0)", "line": {"width": 1, "color": PALE},
                        "pattern": {"shape": "/", "fgcolor": PALE, "size": 5}},
             "hovertemplate": "no trial for %{x:.2f} min<extra></extra>"}
        )  # fmt: skip
    num_slots = max(lane for *_, lane in found) + 1
    broken = len(sweep.sessions) - 1
    pauses = f" It ran in {count(broken + 1, 'session')}." if broken > 0 else ""
    return Figure(
        "Timeline",
        "Each bar is a stretch of training on a slot, the room for one trial at a time, with the "
        "trial's number where it has room; a trial that waited at a rung has several. A "
        f"slot waits for the first start, for a decision, or for the end.{pauses}",
        traces,
        {"barmode": "overlay", "xaxis": {"title": {"text": "minutes since the sweep began"}},
         "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
         "showlegend": True,
         "uniformtext": {"minsize": 10, "mode": "hide"}},  # A number that has no room is left out.
        height=170 + 46 * num_slots,
    )  # fmt: skip


def compute(sweep: RecordedSweep, now_ms: int) -> Figure | None:
    """Where the time on slots went."""
    found = compute_of(sweep, now_ms)
    parts = [
        ("trained in full", found.complete, GREEN), ("pruned", found.pruned, GREY),
        ("published models", found.published, ORANGE), ("failed", found.failed, RED),
        ("waiting or running", found.running, BLUE), ("slot waits", found.idle, PALE),
    ]  # fmt: skip
    total = found.on_slots
    if not total:
        return None
    return Figure(
        "Where the time went",
        f"Of {count(found.num_slots, 'slot')} over the sweep's wall time.",
        [
            {"type": "bar", "orientation": "h", "name": f"{name} {seconds / total:.0%}",
             "x": [round(seconds / 60, 3)], "y": [""], "marker": {"color": colour},
             "hovertemplate": f"{name}: %{{x:.1f}} min<extra></extra>"}
            for name, seconds, colour in parts if seconds
        ],
        {"barmode": "stack", "xaxis": {"title": {"text": "minutes"}}, "showlegend": True,
         "legend": {"traceorder": "normal"}},
        height=210,
    )  # fmt: skip
