"""Puts the page together: answer, figures, tables, settings; one file without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

from sweeps.engines.base import TrialState
from sweeps.formatting import count, difference_text, duration, moment, param_text
from sweeps.history.differences import differing_settings
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.history.references import recorded_references
from sweeps.html_report import cost_figures, figures
from sweeps.html_report.answer import Answer, answer, compared, next_steps
from sweeps.html_report.figures import Figure
from sweeps.html_report.findings import (
    MIN_TRIALS,
    Finalist,
    ParameterFinding,
    beside,
    beside_baseline,
    failures,
    finalists_of,
    is_published,
    parameter_findings,
    reached,
)
from sweeps.html_report.mistakes import (
    answers_of,
    comparison_section,
    confusion,
    mistakes_section,
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
    answers = answers_of(sweep, finalists[0].trial if finalists else None)
    winner = finalists[0].trial if finalists else sweep.best.number if sweep.best else None
    drawn = _Drawn()
    parts = [
        _header(sweep),
        _answer(
            answer(sweep, finalists, findings, now),
            next_steps(sweep, has_finalists=bool(finalists)),
        ),
        drawn(figures.best_so_far([sweep], over="minutes")),
        drawn(figures.learning_curves(sweep, winner)),
    ]
    if finalists:
        parts += [
            _finalists(finalists, sweep),
            drawn(figures.finalists(finalists, sweep)),
        ]
    parts += [
        _leaderboard(sweep, has_finalists=bool(finalists)),
        drawn(figures.importance(sweep, findings)),
        _too_few(findings, sweep),
        drawn(figures.slices(sweep, findings, winner)),
        drawn(figures.parallel_coordinates(sweep, findings)),
        drawn(cost_figures.trade_offs(sweep, winner)),
        drawn(cost_figures.timeline(sweep, now, winner)),
        drawn(cost_figures.compute(sweep, now)),
        drawn(figures.best_so_far([sweep], over="epochs")),
        _failed(sweep),
        _nodes(sweep),
    ]
    if answers is not None:
        parts += [
            drawn(confusion(answers)),
            mistakes_section(answers),
            comparison_section(answers),
        ]
    parts += [_settings(sweep), _words(sweep)]
    return [part for part in parts if part]


class _Drawn:
    """Numbers the figures of a page, which are written as they come; none for None."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, figure: Figure | None) -> str:
        if figure is None:
            return ""
        self._number += 1
        return _figure(figure, self._number)


def _too_few(findings: Sequence[ParameterFinding], sweep: RecordedSweep) -> str:
    if findings or not sweep.trained:
        return ""
    return (
        "<p class='note'>How important each parameter is cannot be said yet: that takes at "
        f"least {MIN_TRIALS} trials that were measured after equally many epochs.</p>"
    )


def _compared(sweeps: Sequence[RecordedSweep]) -> list[str]:
    same = len({(s.file.data_fingerprint, s.objective.metric) for s in sweeps}) == 1
    parts = [f"<header><h1>{escape(' and '.join(s.name for s in sweeps))}</h1></header>"]
    if same and any(s.best for s in sweeps):
        parts.append(
            f"<section class='answer'><p class='won'>{escape(compared(sweeps))}</p><p>Each value "
            "is of one training, picked among many, so a small difference may be luck: <code>"
            "keras-sweeps finalize</code> trains the best of each on fresh seeds.</p></section>"
        )
    elif not same:
        parts.append(
            "<p class='note'>These sweeps have other data or another objective: their values do "
            "not compare.</p>"
        )
    rows: dict[str, list[object]] = {
        "state": [s.state for s in sweeps],
        "task": [s.task for s in sweeps],
        "objective": [s.objective.metric for s in sweeps],
        "best": [_value(s.best, s) if s.best else "" for s in sweeps],
        "best configuration": [
            difference_text(s.best.params, recorded_references(s)) if s.best else "" for s in sweeps
        ],
        "configurations tried": [len(s.trained) for s in sweeps],
        "trained in full": [len(s.ranking()) for s in sweeps],
        "wall time": [duration(s.seconds) for s in sweeps],
        "seed": [s.file.settings.seed for s in sweeps],
        **{
            name: ["-" if value is None else value for value in values]
            for name, values in differing_settings(sweeps).items()
        },
    }
    head = "".join(f"<th>{escape(s.name)}</th>" for s in sweeps)
    body = "".join(
        f"<tr><th>{escape(label)}</th>" + "".join(f"<td>{_cell(v)}</td>" for v in values) + "</tr>"
        for label, values in rows.items()
    )
    parts.append(f"<div class='scroll'><table><tr><th></th>{head}</tr>{body}</table></div>")
    if same:
        drawn = _Drawn()
        parts += [drawn(figures.best_so_far(sweeps, over=over)) for over in ("minutes", "epochs")]
    for sweep in sweeps:
        parts += [f"<h2>{escape(sweep.name)}</h2>", _leaderboard(sweep)]
    return parts


def _header(sweep: RecordedSweep) -> str:
    stopped = f": {sweep.stopped_by}" if sweep.stopped_by and sweep.state != "running" else ""
    note = f"<p class='note'>{escape(sweep.note)}</p>" if sweep.note else ""
    return (
        f"<header><h1>{escape(sweep.name)}</h1><p>{escape(sweep.task)}, "
        f"{sweep.state}{escape(stopped)}; began {moment(sweep.begun_ms)}. "
        f"<a href='#words'>Words of this page</a></p>{note}</header>"
    )


def _answer(found: Answer, steps: Sequence[tuple[str, str]]) -> str:
    point = f"<p class='point'>Configuration: {escape(found.point)}.</p>" if found.point else ""
    if found.params:
        point += (
            "<details class='values'><summary>All its values</summary><div class='scroll'>"
            f"<table class='facts'>{_pairs(found.params)}</table></div></details>"
        )
    facts = "".join(
        f"<dt>{escape(question)}</dt><dd>{_code(text)}</dd>"
        for question, text in found.facts.items()
    )
    return (
        f"<section class='answer'><p class='won'>{escape(found.won)}</p>{point}"
        f"<dl>{facts}{_steps(steps)}</dl></section>"
    )


def _steps(steps: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<li><code>{escape(command)}</code> <span>{escape(why)}</span></li>"
        for command, why in steps
    )
    return f"<dt>What next?</dt><dd><ul class='steps'>{rows}</ul></dd>" if rows else ""


def _code(text: str) -> str:
    """A sentence with `commands` as code."""
    pieces = escape(text).split("`")
    return "".join(
        f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces)
    )


def _figure(figure: Figure, place: int) -> str:
    shown = _without_tags({"data": figure.data, "layout": figure.layout})
    content = json.dumps(shown, separators=(",", ":"))
    # Names come from users; `</script>` in one would end the script.
    content = content.replace("<", "\\u003c")
    return (
        f"<section><h2>{escape(figure.title)}</h2><p class='caption'>{escape(figure.caption)}</p>"
        f"<div class='across'><div class='plot' id='plot-{place}' "
        f"style='height:{figure.height}px;min-width:{figure.min_width}px'></div></div>"
        f"<script type='application/json' class='figure' data-for='plot-{place}'>{content}"
        "</script></section>"
    )


def _leaderboard(sweep: RecordedSweep, *, has_finalists: bool = False) -> str:
    """All trials, sortable; values after unequal training are marked by their epochs."""
    rows = sweep.ordered()
    if not rows:
        return ""
    references, other = recorded_references(sweep), beside_baseline(sweep)
    heads = ["rank", "trial", "state", sweep.objective.metric, "epochs", "time", "weights"]
    if sweep.nodes:
        heads.append("node")
    if other is not None:
        after = (
            ""
            if other.epochs is None
            else f" after {other.epochs:.3g} epoch{'s' * (other.epochs != 1)}"
        )
        heads.insert(4, f"against {other.baseline.baseline.partition(',')[0]}{after}")
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
            difference = beside(other, trial, sweep)
            text = "" if difference is None else f"{difference:+.4f}"
            cells.insert(4, _sortable(text, difference))
        point = difference_text(trial.params, references)
        cells.append(f"<td class='params'>{escape(point)}</td>")
        mark = " class='baseline'" if is_published(trial) else ""
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    head = "".join(f"<th data-sort>{escape(name)}</th>" for name in heads)
    more = len(rows) - MAX_ROWS
    rest = f"<p class='note'>{count(more, 'more trial')}: `keras-sweeps export`.</p>"
    metric = escape(sweep.objective.metric)
    means = ", not the mean over fresh seeds" if has_finalists else ""
    return (
        f"<section><h2>Trials</h2><p class='caption'><b>{count(len(rows), 'trial')}"
        "<span class='more'>; scroll for more</span></b>. "
        f"{len(sweep.ranking())} are complete; the others are ordered by how far they came. "
        f"{metric} is that of the search{means}: of complete trials in their best epoch, of others "
        "in their last. Select a heading to sort.</p>"
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
    trials = [sweep.trials.get(one.trial) for one in finalists]
    found = ["" if trial is None else _value(trial, sweep) for trial in trials]
    pruned = [t.name for t in trials if t is not None and t.state is TrialState.PRUNED]
    picked = (
        f" They are those that reached the best values in the search: {escape(pruned[0])} is one "
        "although it was pruned, and a complete trial that reached less is not."
        if pruned
        else ""
    )
    rows = "".join(
        f"<tr><td>{place}</td><td>{escape(one.name)}</td><td>{one.mean:.4f}</td>"
        f"<td>{one.low:.4f} to {one.high:.4f}</td><td>{one.probability_best:.0%}</td>"
        f"<td>{one.test_accuracy:.4f}</td><td>{one.num_seeds}</td><td>{value}</td></tr>"
        for place, (one, value) in enumerate(zip(finalists, found, strict=True), start=1)
    )
    return (
        "<section><h2>Finalists on fresh seeds</h2><p class='caption'>The best of the search, "
        "trained again from random starts (seeds) that took no part in it. The interval is that of "
        "the mean; P(best) is the probability that no other one's true mean is better; the test "
        f"split decides nothing.{picked}</p>"
        "<div class='scroll'><table><tr><th>#</th>"
        f"<th>configuration</th><th>mean {escape(sweep.objective.metric)}</th><th>95% interval</th>"
        f"<th>P(best)</th><th>test accuracy</th><th>seeds</th>"
        f"<th>in the search</th></tr>{rows}</table></div></section>"
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
        "device": ", ".join(sorted({t.tags.get(Tag.DEVICE, "") for t in sweep.trained} - {""})),
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


def _words(sweep: RecordedSweep) -> str:
    """What the page's own words mean, each in a sentence."""
    rungs = {
        "rung": "A number of epochs at which trials are compared: the best "
        f"1/{sweep.file.settings.reduction_factor} of those that came so far go on at once, the "
        "others wait.",
        "waiting": "At a rung, or for the sweep to be resumed: such a trial may still go on.",
    }
    words = {
        "slot": "The room for one trial: so many train at the same time as there are slots.",
        **(rungs if sweep.params.get("rungs") else {}),
        "pruned": "Ended for good before its last epoch: others were better, or the time was up. "
        "What it reached until then counts.",
        "complete": "Trained in full, which does not say that it is good: a pruned trial may have "
        "reached more.",
        "weights": "The size of a model: of how many numbers it consists.",
        "published model": "A model that others published, tried as a point like the others.",
        "finalists": "The configurations that reached the best values in the search, after an "
        "epoch or more, pruned or not. They are trained again, in full.",
        "fresh seeds": "Random starts that no trial had: what won by a lucky start does not win "
        "again.",
        "champion": "The registered model that is in use; `promote` registers what won, and puts "
        "it in its place if it passes the checks against it.",
        "PED-ANOVA": "How much a parameter mattered, by how differently its values spread among "
        "the better half of the trials and among all.",
    }
    rows = "".join(f"<dt>{word}</dt><dd>{_code(text)}</dd>" for word, text in words.items())
    return f"<section id='words'><h2>Words</h2><dl>{rows}</dl></section>"


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


def _without_tags(value: Any) -> Any:
    """Texts of a figure as they are: plotly takes tags in them for its own, all but a template's.

    Names in templates are escaped where the template is made.
    """
    if isinstance(value, str):
        return escape(value, quote=False)
    if isinstance(value, dict):
        return {k: v if k == "hovertemplate" else _without_tags(v) for k, v in value.items()}
    return [_without_tags(part) for part in value] if isinstance(value, list | tuple) else value


@lru_cache
def _plotly() -> str:
    import plotly.offline

    return str(plotly.offline.get_plotlyjs())
