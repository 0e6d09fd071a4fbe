"""A saved view of a sweep's trials: a table of what matters, and the charts that compare them.

MLflow keeps a view as a tag of the experiment; its format is that of MLflow's own pages
(`savedViewEnvelope.ts` and `useSharedExperimentViewState.ts` in mlflow/mlflow, version 3.17). An
MLflow that does not know it shows its usual page.
"""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracking.filters import tag_is
from tracking.tags import Tag
from tracking.views.links import VIEW_PREFIX, trials_view

MAX_PARAMS = 12
"""Columns and axes beyond that are not looked at."""
MAX_CHARACTERS = 5_000
"""What a tag of an experiment holds."""
MAX_AXES = 7
"""Of parallel coordinates: more cannot be told apart beside the other charts."""
_COLUMN_PIXELS = 150
_NUM_RUNS = 100
"""Runs that a chart shows; MLflow draws no more anyway."""


@dataclass(frozen=True)
class TrialsView:
    """What the view of a sweep's trials shows.

    Attributes:
        metric: the objective, as it is logged after each epoch.
        params: parameters that differ between trials, the most important first.
        log_params: those of them whose axis is logarithmic.
        minimize: whether less is better.
    """

    name: str
    uid: str
    metric: str
    params: Sequence[str]
    log_params: Sequence[str] = ()
    minimize: bool = False

    @property
    def best(self) -> str:
        """The metric of a trial's best epoch."""
        return f"best_{self.metric}"


def view_tags(view: TrialsView, at_ms: int) -> dict[str, str]:
    """The tags of the experiment that hold the view.

    Args:
        at_ms: when it was made, in ms since 1970.
    """
    state = "deflate;" + base64.b64encode(zlib.compress(json.dumps(_state(view)).encode())).decode()
    envelope = {
        "name": f"Sweep {view.name}", "createdAt": at_ms, "updatedAt": at_ms, "state": state,
    }  # fmt: skip
    text = json.dumps(envelope)
    if len(text) > MAX_CHARACTERS:  # Names of parameters may be long.
        shorter = TrialsView(
            view.name, view.uid, view.metric, view.params[: len(view.params) // 2],
            view.log_params, view.minimize,
        )  # fmt: skip
        return view_tags(shorter, at_ms) if view.params else {}
    return {f"{VIEW_PREFIX}{trials_view(view.uid)}": text}


def _state(view: TrialsView) -> dict[str, Any]:
    params = list(view.params)[:MAX_PARAMS]
    columns = [
        _metric(view.best),
        _metric("num_epochs"),
        _metric("num_parameters"),
        _metric("training_seconds"),
        _tag(Tag.STATE),
        _tag(Tag.BASELINE),
        *map(_param, params),
    ]
    section = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{view.uid}/section"))
    return {
        # Its own trials, without the run of the sweep itself.
        "searchFilter": f"{tag_is(Tag.UID, view.uid)} AND tags.`{Tag.KIND}` = 'trial'",
        "orderByKey": _metric(view.best),
        "orderByAsc": view.minimize,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, _COLUMN_PIXELS),
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "groupBy": None,
        "groupsExpanded": {},
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "compareRunSections": [
            {"uuid": section, "name": view.name, "display": True, "isReordered": True,
             "deleted": False, "isGenerated": False},
        ],
        "compareRunCharts": [
            {"uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{view.uid}/{place}")),
             "deleted": False, "isGenerated": False, "metricSectionId": section, **chart}
            for place, chart in enumerate(_charts(view, params))
        ],
    }  # fmt: skip


def _charts(view: TrialsView, params: list[str]) -> list[dict[str, Any]]:
    """The objective over its epochs, all parameters at once, then one quantity each against it."""
    charts: list[dict[str, Any]] = [
        {
            "type": "LINE", "displayName": view.metric, "metricKey": view.metric,
            "selectedMetricKeys": [view.metric], "xAxisKey": "metric",
            "selectedXAxisMetricKey": "epoch", "scaleType": "linear", "xAxisScaleType": "linear",
            "lineSmoothness": 0, "runsCountToCompare": _NUM_RUNS, "useGlobalXaxisKey": False,
            "useGlobalLineSmoothing": False, "yAxisKey": "metric", "yAxisExpressions": [],
            "range": {},
        }
    ]  # fmt: skip
    if params:
        charts.append(
            {
                "type": "PARALLEL", "displayName": "parameters",
                "selectedParams": params[:MAX_AXES], "selectedMetrics": [view.best],
                "showAllRuns": True,
                "runsCountToCompare": _NUM_RUNS,
            }
        )  # fmt: skip
    for metric in ("num_parameters", "training_seconds"):
        charts.append(_scatter({"key": metric, "type": "METRIC"}, view.best))
    for param in (name for name in params if name in view.log_params):
        charts.append(_scatter({"key": param, "type": "PARAM"}, view.best, scale="log"))
    return charts


def _scatter(axis: dict[str, str], metric: str, scale: str = "linear") -> dict[str, Any]:
    return {
        "type": "SCATTER", "displayName": f"{axis['key']} and {metric}", "xaxis": axis,
        "yaxis": {"key": metric, "type": "METRIC"}, "xAxisScaleType": scale,
        "runsCountToCompare": _NUM_RUNS,
    }  # fmt: skip


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _param(name: str) -> str:
    return f"params.`{name}`"


def _tag(name: str) -> str:
    return f"tags.`{name}`"
