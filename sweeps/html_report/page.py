"""Puts the page together: answer, figures, tables, settings; one file without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

from sweeps.formatting import count, difference_text, duration, moment, param_text
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.history.references import recorded_references
from sweeps.html_report import figures
from sweeps.html_report.answer import answer, next_steps
from sweeps.html_report.figures import Figure
from sweeps.html_report.findings import (
    Finalist,
    beside_baseline,
    failures,
    finalists_of,
    is_published,
    parameter_findings,
    reached,
)
from tracking.spool.records import now_ms
from tracking.tags import Tag

MAX_ROWS = 200
"""Of the table of trials; `export` has all."""


def report_page(sweeps: Sequence[RecordedSweep]) -> str:
    """The page of a sweep, or of several that are compared, as HTML.

    Args:
        sweeps: at least one. Of several with another objective or other data only tables compare.
    """
    title = " and ".join(sweep.name for sweep in sweeps)
    parts = _compared(sweeps) if len(sweeps) > 1 else _single(sweeps[0])
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_asset('report.css')}</style>"
        f"<script>{_plotly()}</script></head>\n"
        f"<body><main>\n{body}\n</main><script>{_asset('report.js')}</script></body></html>\n"
    )


def _single(sweep: RecordedSweep) -> list[str]:
    now = now_ms()
    finalists, findings = finalists_of(sweep.paths), parameter_findings(sweep)
    sentences = answer(sweep, finalists, findings, now)
    first, *rest = sentences
    steps = next_steps(sweep, has_finalists=bool(finalists))
    drawn = [
        figures.best_so_far([sweep], over="minutes"),
        figures.learning_curves(sweep),
        figures.importance(findings),
        figures.slices(sweep, findings),
        figures.parallel_coordinates(sweep, findings),
        figures.trade_offs(sweep),
        figures.timeline(sweep, now),
        figures.compute(sweep, now),
        figures.best_so_far([sweep], over="epochs"),
    ]
    parts = [
        _header(sweep),
        f"<section class='answer'><p class='won'>{escape(first)}</p>",
        "<ul>" + "".join(f"<li>{_code(text)}</li>" for text in rest) + "</ul>",
        _steps(steps), "</section>",
    ]  # fmt: skip
    shown = [figure for figure in drawn if figure is not None]
    parts += [_figure(figure, place) for place, figure in enumerate(shown[:2])]
    if finalists:
        parts.append(_finalists(finalists, sweep))
    parts.append(_leaderboard(sweep))
    parts += [_figure(figure, place) for place, figure in enumerate(shown[2:], start=2)]
    if not findings and sweep.trained:
        parts.append(
            "<p class='note'>How important each parameter is cannot be said yet: that takes at "
            "least 12 trials that were measured after equally many epochs.</p>"
        )
    parts += [_failed(sweep), _nodes(sweep), _settings(sweep)]
    return [part for part in parts if part]


def _compared(sweeps: Sequence[RecordedSweep]) -> list[str]:
    same = len({(s.file.data_fingerprint, s.objective.metric) for s in sweeps}) == 1
    parts = [f"<header><h1>{escape(' and '.join(s.name for s in sweeps))}</h1></header>"]
    ranked = [s for s in sweeps if s.best]
    if same and ranked:
        first = min(ranked, key=lambda s: s.objective.sort_key(s.best.value(s.objective) or 0.0))  # type: ignore[union-attr]
        value = first.best.value(first.objective) if first.best else None
        parts.append(
            f"<section class='answer'><p class='won'>{escape(first.name)} has the best trial: "
            f"{escape(first.objective.metric)} {value or 0:.4f}.</p><p>Each value is of one "
            "training, picked among many, so a small difference may be luck.</p></section>"
        )
    elif not same:
        parts.append(
            "<p class='note'>These sweeps have other data or another objective: their values do "
            "not compare.</p>"
        )
    rows: dict[str, list[object]] = {
        "state": [s.state for s in sweeps],
        "space": [s.file.settings.space or "published models" for s in sweeps],
        "data": [s.file.data_name for s in sweeps],
        "objective": [s.objective.metric for s in sweeps],
        "best": [_value(s.best, s) if s.best else "" for s in sweeps],
        "best point": [
            difference_text(s.best.params, recorded_references(s)) if s.best else "" for s in sweeps
        ],
        "points tried": [len(s.trained) for s in sweeps],
        "trained in full": [len(s.ranking()) for s in sweeps],
        "wall time": [duration(s.seconds) for s in sweeps],
        "seed": [s.file.settings.seed for s in sweeps],
    }
    head = "".join(f"<th>{escape(s.name)}</th>" for s in sweeps)
    body = "".join(
        f"<tr><th>{escape(label)}</th>" + "".join(f"<td>{_cell(v)}</td>" for v in values) + "</tr>"
        for label, values in rows.items()
    )
    parts.append(f"<div class='scroll'><table><tr><th></th>{head}</tr>{body}</table></div>")
    if same:
        drawn = [figures.best_so_far(sweeps, over=over) for over in ("minutes", "epochs")]
        parts += [_figure(one, place) for place, one in enumerate(drawn) if one]
    for sweep in sweeps:
        parts += [f"<h2>{escape(sweep.name)}</h2>", _leaderboard(sweep)]
    return parts


def _header(sweep: RecordedSweep) -> str:
    task = f"{sweep.file.settings.space or 'published models'} on {sweep.file.data_name}"
    stopped = f": {sweep.stopped_by}" if sweep.stopped_by and sweep.state != "running" else ""
    note = f"<p class='note'>{escape(sweep.note)}</p>" if sweep.note else ""
    return (
        f"<header><h1>{escape(sweep.name)}</h1><p>{escape(task)}, {sweep.state}{escape(stopped)}; "
        f"began {moment(sweep.begun_ms)}</p>{note}</header>"
    )


def _steps(steps: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<li><code>{escape(command)}</code> <span>{escape(why)}</span></li>"
        for command, why in steps
    )
    return f"<h3>Next</h3><ul class='steps'>{rows}</ul>" if rows else ""


def _code(text: str) -> str:
    """A sentence with `commands` as code."""
    pieces = escape(text).split("`")
    return "".join(
        f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces)
    )


def _figure(figure: Figure, place: int) -> str:
    content = json.dumps({"data": figure.data, "layout": figure.layout}, separators=(",", ":"))
    # Names come from users; `</script>` in one would end the script.
    content = content.replace("<", "\\u003c")
    return (
        f"<section><h2>{escape(figure.title)}</h2><p class='caption'>{escape(figure.caption)}</p>"
        f"<div class='plot' id='plot-{place}' style='height:{figure.height}px'></div>"
        f"<script type='application/json' class='figure' data-for='plot-{place}'>{content}"
        "</script></section>"
    )


def _leaderboard(sweep: RecordedSweep) -> str:
    """All trials, sortable; values after unequal training are marked by their epochs."""
    rows = sweep.ordered()
    if not rows:
        return ""
    references, beside = recorded_references(sweep), beside_baseline(sweep)
    other = beside.other if beside and beside.epochs is None else None
    heads = ["rank", "trial", "state", sweep.objective.metric, "epochs", "time", "size"]
    if sweep.nodes:
        heads.append("node")
    if other is not None:
        heads.insert(4, "beside baseline")
    ranks = {trial.number: place for place, trial in enumerate(sweep.ranking(), start=1)}
    body = []
    for trial in rows[:MAX_ROWS]:
        value = trial.value(sweep.objective)
        shown = trial.last_value(sweep.objective) if value is None else value
        cells = [
            _sortable(ranks.get(trial.number, ""), ranks.get(trial.number, 10**6)),
            _sortable(trial.name, trial.number),
            f"<td class='{trial.state.value.lower()}'>{trial.state.value.lower()}</td>",
            _sortable("" if shown is None else f"{shown:.4f}", shown),
            _sortable(f"{trial.epochs:.3g}/{trial.num_epochs}", trial.epochs),
            _sortable(duration(trial.seconds(now_ms())), trial.seconds(now_ms())),
            _sortable(*_size(trial)),
        ]
        if sweep.nodes:
            cells.append(f"<td>{escape(trial.tags.get(Tag.NODE, ''))}</td>")
        if other is not None:
            difference = None if value is None else value - other
            text = "" if difference is None else f"{difference:+.4f}"
            cells.insert(4, _sortable(text, difference))
        point = difference_text(trial.params, references)
        cells.append(f"<td class='params'>{escape(point)}</td>")
        mark = " class='baseline'" if is_published(trial) else ""
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    head = "".join(f"<th data-sort>{escape(name)}</th>" for name in heads)
    more = len(rows) - MAX_ROWS
    rest = f"<p class='note'>{count(more, 'more trial')}: `keras-sweeps export`.</p>"
    return (
        f"<section><h2>Trials</h2><p class='caption'>{len(sweep.ranking())} are complete; "
        "the others are ordered by how far they came. Click a heading to sort.</p>"
        "<div class='scroll tall'><table class='sortable'>"
        f"<thead><tr>{head}<th>parameters</th></tr></thead><tbody>{''.join(body)}</tbody></table>"
        f"</div>{rest if more > 0 else ''}</section>"
    )


def _size(trial: RecordedTrial) -> tuple[str, float | None]:
    size = trial.metrics.get("num_parameters")
    return ("", None) if size is None else (f"{size:,.0f}", size)


def _sortable(text: object, key: float | None) -> str:
    return f"<td data-key='{'' if key is None else key}'>{escape(str(text))}</td>"


def _finalists(finalists: Sequence[Finalist], sweep: RecordedSweep) -> str:
    rows = "".join(
        f"<tr><td>{place}</td><td>{escape(one.name)}</td><td>{one.mean:.4f}</td>"
        f"<td>{one.low:.4f} to {one.high:.4f}</td><td>{one.probability_best:.0%}</td>"
        f"<td>{one.test_accuracy:.4f}</td><td>{one.num_seeds}</td></tr>"
        for place, one in enumerate(finalists, start=1)
    )
    return (
        "<section><h2>Finalists on fresh seeds</h2><p class='caption'>Seeds that took no part in "
        "the search; the interval is that of the mean.</p><div class='scroll'><table><tr><th>#</th>"
        f"<th>configuration</th><th>mean {escape(sweep.objective.metric)}</th><th>95% interval</th>"
        f"<th>P(best)</th><th>test accuracy</th><th>seeds</th></tr>{rows}</table></div></section>"
    )


def _failed(sweep: RecordedSweep) -> str:
    found = failures(sweep)
    if not found:
        return ""
    rows = "".join(
        f"<li>{escape(reason)} <span class='caption'>({count(len(numbers), 'trial')}: "
        f"{', '.join(map(str, numbers[:12]))})</span></li>"
        for reason, numbers in found.items()
    )
    return f"<section><h2>Failures</h2><ul>{rows}</ul></section>"


def _nodes(sweep: RecordedSweep) -> str:
    """The machines of a cluster that trials ran on."""
    if not sweep.nodes:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{sweep.num_on(name)}</td><td>{escape(text)}</td></tr>"
        for name, text in sorted(sweep.nodes.items())
    )
    moved, lost = sweep.moved
    went_on = f"{count(moved, 'trial')} lost a node and went on elsewhere"
    text = f"{went_on}: {duration(lost)} of training lost." if moved else "No trial lost its node."
    return (
        f"<section><h2>Nodes</h2><p class='caption'>{text}</p><div class='scroll'><table>"
        f"<tr><th>node</th><th>trials</th><th></th></tr>{rows}</table></div></section>"
    )


def _settings(sweep: RecordedSweep) -> str:
    known = {name: value for name, value in sweep.params.items() if value not in (None, [], "")}
    versions = {
        name.removeprefix(Tag.VERSION_PREFIX): value
        for name, value in sweep.tags.items()
        if name.startswith(Tag.VERSION_PREFIX)
    }
    profile = sweep.data.get("profile", {})
    images = ", ".join(f"{n:,} {part}" for part, n in profile.get("num_images", {}).items())
    facts = {
        "data": f"{sweep.file.data_name} ({images}), content {sweep.file.data_fingerprint[:12]}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": sweep.tags.get("mlflow.source.git.commit", "")[:12],
        "MLflow run": sweep.run_id,
        "again": f"keras-sweeps run --config sweep.yaml --name {sweep.name}-again, with the file "
        "sweep.yaml of its run in MLflow",
    }
    return (
        "<section><h2>How it was run</h2><div class='scroll'><table class='facts'>"
        + _pairs({name: value for name, value in facts.items() if value})
        + "</table></div><details><summary>All settings</summary><div class='scroll'>"
        + f"<table class='facts'>{_pairs(known)}</table></div></details></section>"
    )


def _pairs(pairs: Mapping[str, Any]) -> str:
    return "".join(
        f"<tr><th>{escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in pairs.items()
    )


def _cell(value: object) -> str:
    return escape(param_text(value))


def _value(trial: RecordedTrial, sweep: RecordedSweep) -> str:
    value = reached(trial, sweep) if trial.value(sweep.objective) is None else None
    value = trial.value(sweep.objective) if value is None else value
    return "" if value is None else f"{value:.4f}"


def _asset(name: str) -> str:
    return (files("sweeps.html_report") / name).read_text(encoding="utf-8")


@lru_cache
def _plotly() -> str:
    import plotly.offline

    return str(plotly.offline.get_plotlyjs())
