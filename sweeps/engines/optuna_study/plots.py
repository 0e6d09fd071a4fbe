"""A study's history, importances, slices and parallel coordinates as one offline HTML page."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from html import escape

import optuna

MAX_PARAMETERS = 10
"""Slices and parallel coordinates show so many: the page stays readable, the rest is in MLflow."""

MIN_TRIALS = 2
MIN_IMPORTANCE_TRIALS = 4


def import_plotly() -> None:
    """Imports what `study_page` needs; takes a second."""
    import plotly.graph_objects
    import plotly.offline  # noqa: F401


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each parameter matters, 0 to 1; empty while there is too little to tell.

    PED-ANOVA: Watanabe, Bansal and Hutter, IJCAI 2023, arXiv 2304.10255.
    """
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < MIN_IMPORTANCE_TRIALS:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        except (ValueError, RuntimeError):  # Every trial has the same value, or the same point.
            return {}


def study_page(study: optuna.Study, note: str) -> str:
    """The page. A plot that the study is too small for is replaced by the reason.

    plotly.js is inlined once (about 4.7 MB), so that the page works without a network.
    """
    import plotly.offline
    from optuna import visualization as vis

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    metric = (study.metric_names or ["objective"])[0]
    names = _shown_parameters(complete)
    slices = [name for name in names if len({t.params.get(name) for t in complete}) > 1]
    plots: list[tuple[str, Callable[[], object]]] = [
        ("History", lambda: vis.plot_optimization_history(study, target_name=metric)),
        (
            "Importance of parameters (PED-ANOVA)",
            lambda: vis.plot_param_importances(
                study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), target_name=metric
            ),
        ),
        ("Slices", lambda: vis.plot_slice(study, params=slices, target_name=metric)),
        (
            "Parallel coordinates",
            lambda: vis.plot_parallel_coordinate(study, params=names, target_name=metric),
        ),
    ]
    title = escape(study.study_name)
    if len(complete) < MIN_TRIALS:
        sections = [f"<p>Not drawn: {MIN_TRIALS} complete trials are needed.</p>"]
    else:
        sections = [_section(heading, plot) for heading, plot in plots]
    return (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{title}</title>"
        f"<script>{plotly.offline.get_plotlyjs()}</script>"
        "<style>body{font-family:sans-serif;margin:1.5rem;max-width:1200px}</style></head>"
        f"<body><h1>{title}</h1><p>{len(complete)} complete of {len(study.trials)} trials, "
        f"{escape(metric)}, space {escape(note)}</p>{''.join(sections)}</body></html>"
    )


def _shown_parameters(trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """The parameters that most complete trials have: active everywhere first."""
    counts: dict[str, int] = {}
    for trial in trials:
        for name in trial.params:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: -counts[name])[:MAX_PARAMETERS]


def _section(heading: str, plot: Callable[[], object]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            body = plot().to_html(full_html=False, include_plotlyjs=False)  # type: ignore[attr-defined]
        except Exception as error:  # A plot must not cost the sweep its end.
            body = f"<p>Not drawn: {escape(str(error))}</p>"
    return f"<h2>{escape(heading)}</h2>{body}"
