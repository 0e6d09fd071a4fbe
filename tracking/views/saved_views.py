"""Saved views of MLflow's experiment page: which runs, columns and charts it shows.

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

from tracking.views.links import VIEW_PREFIX

MAX_CHARACTERS = 5_000
"""What a tag of an experiment holds."""
_COLUMN_PIXELS = 150
_NUM_RUNS = 100
"""Runs that a chart shows; MLflow draws no more anyway."""
Chart = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """Charts under one heading, so many in a row."""

    name: str
    charts: Sequence[Chart]
    num_columns: int = 3


@dataclass(frozen=True)
class SavedView:
    """One view.

    Attributes:
        view_id: what links call it (`tracking.views.links`).
        name: in MLflow's menu of views.
        search: which runs, in MLflow's search language.
        columns: of the table, as `metric`, `param` and `tag` write them; the first one sorts it.
        ascending: whether less is better there.
        group_tag: the tag by which runs are put together and averaged; empty for each alone.
    """

    view_id: str
    name: str
    search: str
    columns: Sequence[str]
    sections: Sequence[Section]
    ascending: bool = False
    group_tag: str = ""


def view_tag(view: SavedView, at_ms: int) -> dict[str, str]:
    """The tag of the experiment that holds the view; empty where it is too long for one.

    Args:
        at_ms: when it was made, in ms since 1970.
    """
    state = "deflate;" + base64.b64encode(zlib.compress(json.dumps(_state(view)).encode())).decode()
    envelope = {"name": view.name, "createdAt": at_ms, "updatedAt": at_ms, "state": state}
    text = json.dumps(envelope)
    return {f"{VIEW_PREFIX}{view.view_id}": text} if len(text) <= MAX_CHARACTERS else {}


def _state(view: SavedView) -> dict[str, Any]:
    columns = list(view.columns)
    shown = [section for section in view.sections if section.charts]
    ids = {section.name: _id(view, section.name) for section in shown}
    keys = [{"mode": "tag", "groupByData": view.group_tag}]
    return {
        "searchFilter": view.search,
        "orderByKey": columns[0],
        "orderByAsc": view.ascending,
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
        "groupBy": {"aggregateFunction": "average", "groupByKeys": keys}
        if view.group_tag else None,
        "groupsExpanded": {},
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "compareRunSections": [
            {"uuid": ids[section.name], "name": section.name, "display": True,
             "isReordered": True, "deleted": False, "isGenerated": False,
             "columns": section.num_columns}
            for section in shown
        ],
        "compareRunCharts": [
            {"uuid": _id(view, f"{section.name}/{place}"), "deleted": False, "isGenerated": False,
             "metricSectionId": ids[section.name], **chart}
            for section in shown for place, chart in enumerate(section.charts)
        ],
    }  # fmt: skip


def _id(view: SavedView, part: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{view.view_id}/{part}"))


def line(name: str, over: str = "step", frame: Sequence[float] | None = None) -> Chart:
    """A metric's curve.

    Args:
        over: `step`, `time-relative`, or the name of a metric.
        frame: the lowest and the highest value that are shown; None for all.
    """
    axis = over if over in ("step", "time-relative") else "metric"
    return {
        "type": "LINE", "displayName": name, "metricKey": name, "selectedMetricKeys": [name],
        "xAxisKey": axis, "selectedXAxisMetricKey": over if axis == "metric" else "",
        "scaleType": "linear", "xAxisScaleType": "linear", "lineSmoothness": 0,
        "runsCountToCompare": _NUM_RUNS, "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False, "yAxisKey": "metric", "yAxisExpressions": [],
        "range": {"yMin": frame[0], "yMax": frame[1]} if frame else {},
    }  # fmt: skip


def bar(name: str) -> Chart:
    """A metric's latest value of each run."""
    return {"type": "BAR", "displayName": name, "metricKey": name, "runsCountToCompare": _NUM_RUNS}


def parallel(params: Sequence[str], name: str) -> Chart:
    """Parallel coordinates of parameters and a metric."""
    return {
        "type": "PARALLEL", "displayName": "parameters", "selectedParams": list(params),
        "selectedMetrics": [name], "showAllRuns": True, "runsCountToCompare": _NUM_RUNS,
    }  # fmt: skip


def scatter(x: str, name: str, *, is_param: bool = False, scale: str = "linear") -> Chart:
    """A metric against another one, or against a parameter."""
    return {
        "type": "SCATTER", "displayName": f"{x} and {name}",
        "xaxis": {"key": x, "type": "PARAM" if is_param else "METRIC"},
        "yaxis": {"key": name, "type": "METRIC"}, "xAxisScaleType": scale,
        "runsCountToCompare": _NUM_RUNS,
    }  # fmt: skip


def metric(name: str) -> str:
    """A metric's column."""
    return f"metrics.`{name}`"


def param(name: str) -> str:
    """A parameter's column."""
    return f"params.`{name}`"


def tag(name: str) -> str:
    """A tag's column."""
    return f"tags.`{name}`"
